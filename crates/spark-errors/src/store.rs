//! What is remembered: a ring of events and a table of groups, bounded by number and by bytes.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use serde::Serialize;
use spark_core::Instant;

use crate::{Event, Fingerprint};

/// How much is remembered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) ring: usize,
    pub(crate) ring_bytes: usize,
    pub(crate) groups: usize,
    pub(crate) group_bytes: usize,
    pub(crate) per_window: u32,
    pub(crate) window: Duration,
}

/// Errors that are alike.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Group {
    /// Its name.
    pub fingerprint: Fingerprint,
    /// How many there were since the group was first seen.
    pub count: u64,
    /// How many of them were only counted.
    pub suppressed: u64,
    /// When the first was, in milliseconds since 1970.
    pub first_ms: u64,
    /// When the last was, in milliseconds since 1970.
    pub last_ms: u64,
    /// The first one.
    pub sample: Arc<Event>,
}

struct Slot {
    group: Group,
    bytes: usize,
    /// When it was last touched, in the order of touching.
    touched: u64,
    window: Instant,
    in_window: u32,
}

pub(crate) struct Store {
    bounds: Bounds,
    ring: VecDeque<Arc<Event>>,
    ring_bytes: usize,
    groups: HashMap<Fingerprint, Slot>,
    order: BTreeMap<u64, Fingerprint>,
    group_bytes: usize,
    touches: u64,
    pub(crate) total: u64,
    pub(crate) suppressed: u64,
    pub(crate) evicted: u64,
}

/// What became of an event.
pub(crate) struct Kept {
    /// The event, unless it was only counted.
    pub(crate) event: Option<Arc<Event>>,
    /// How many groups were forgotten for it.
    pub(crate) evicted: u64,
}

impl Store {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            ring: VecDeque::new(),
            ring_bytes: 0,
            groups: HashMap::new(),
            order: BTreeMap::new(),
            group_bytes: 0,
            touches: 0,
            total: 0,
            suppressed: 0,
            evicted: 0,
        }
    }

    pub(crate) fn add(&mut self, event: Event, now: Instant) -> Kept {
        self.total = self.total.saturating_add(1);
        self.touches += 1;
        if let Some(slot) = self.groups.get_mut(&event.fingerprint) {
            self.order.remove(&slot.touched);
            self.order.insert(self.touches, event.fingerprint);
            slot.touched = self.touches;
            slot.group.count = slot.group.count.saturating_add(1);
            slot.group.last_ms = event.at_ms;
            if now.saturating_duration_since(slot.window) >= self.bounds.window {
                slot.window = now;
                slot.in_window = 0;
            }
            if slot.in_window >= self.bounds.per_window {
                slot.group.suppressed = slot.group.suppressed.saturating_add(1);
                self.suppressed = self.suppressed.saturating_add(1);
                return Kept {
                    event: None,
                    evicted: 0,
                };
            }
            slot.in_window += 1;
            let event = Arc::new(event);
            self.push(event.clone());
            return Kept {
                event: Some(event),
                evicted: 0,
            };
        }
        let event = Arc::new(event);
        self.push(event.clone());
        let evicted = self.begin(&event, now);
        Kept {
            event: Some(event),
            evicted,
        }
    }

    /// Newest first.
    pub(crate) fn recent(&self, most: usize) -> Vec<Arc<Event>> {
        self.ring.iter().rev().take(most).cloned().collect()
    }

    /// Last touched first.
    pub(crate) fn groups(&self) -> Vec<Group> {
        let slots = self
            .order
            .values()
            .rev()
            .filter_map(|name| self.groups.get(name));
        slots.map(|slot| slot.group.clone()).collect()
    }

    pub(crate) fn sizes(&self) -> (usize, usize, usize) {
        (
            self.ring.len(),
            self.groups.len(),
            self.ring_bytes + self.group_bytes,
        )
    }

    fn push(&mut self, event: Arc<Event>) {
        self.ring_bytes += event.bytes();
        self.ring.push_back(event);
        while self.ring.len() > self.bounds.ring || self.ring_bytes > self.bounds.ring_bytes {
            let Some(oldest) = self.ring.pop_front() else {
                break;
            };
            self.ring_bytes -= oldest.bytes();
        }
    }

    fn begin(&mut self, event: &Arc<Event>, now: Instant) -> u64 {
        let bytes = event.bytes() + size_of::<Slot>();
        self.group_bytes += bytes;
        let group = Group {
            fingerprint: event.fingerprint,
            count: 1,
            suppressed: 0,
            first_ms: event.at_ms,
            last_ms: event.at_ms,
            sample: event.clone(),
        };
        let slot = Slot {
            group,
            bytes,
            touched: self.touches,
            window: now,
            in_window: 1,
        };
        self.groups.insert(event.fingerprint, slot);
        self.order.insert(self.touches, event.fingerprint);
        let before = self.groups.len();
        while self.groups.len() > self.bounds.groups || self.group_bytes > self.bounds.group_bytes {
            let Some((_, oldest)) = self.order.pop_first() else {
                break;
            };
            if let Some(slot) = self.groups.remove(&oldest) {
                self.group_bytes -= slot.bytes;
            }
        }
        let evicted = (before - self.groups.len()) as u64;
        self.evicted = self.evicted.saturating_add(evicted);
        evicted
    }
}
