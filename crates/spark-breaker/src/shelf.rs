//! Breakers of one kind by name, and what happens when there are too many.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use spark_core::{Clock, Instant};

use crate::config::is_name;
use crate::metrics::{self, count};
use crate::{Breaker, Config, ConfigError, Listener};

/// Where no room was found, none is looked for again so soon: it means asking every breaker.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);

pub(crate) struct Shelf {
    capacity: usize,
    clock: Clock,
    listener: Option<Arc<dyn Listener>>,
    /// A name that was asked for so recently is in use.
    in_use: Duration,
    kept: RwLock<Kept>,
    /// Shared by the names for which there is no room.
    overflow: Breaker,
    /// Whether it has been handed out: from then on it is one of those that are shown.
    overflown: AtomicBool,
    /// Until when no room is looked for, in nanoseconds of the clock.
    full_until: AtomicU64,
}

#[derive(Default)]
struct Kept {
    breakers: BTreeMap<Arc<str>, Place>,
    /// The names that have series of their own in the metrics. A recorder never forgets a series, so
    /// a name that was once given some keeps them, and no other takes its place.
    measured: BTreeSet<Arc<str>>,
}

struct Place {
    breaker: Breaker,
    /// When it was last asked for, in nanoseconds of the clock; not to the moment, so that threads
    /// do not write to it at each call.
    asked: AtomicU64,
}

impl Shelf {
    pub(crate) fn new(
        capacity: usize,
        overflow: &str,
        config: Config,
        clock: Clock,
        listener: Option<Arc<dyn Listener>>,
    ) -> Result<Self, ConfigError> {
        let in_use = config.calm_after();
        let (time, told) = (clock.clone(), listener.clone());
        Ok(Self {
            capacity,
            clock,
            listener,
            in_use,
            kept: RwLock::default(),
            overflow: Breaker::registered(overflow, None, config, time, told)?,
            overflown: AtomicBool::new(false),
            full_until: AtomicU64::new(0),
        })
    }

    pub(crate) fn get(&self, name: &str) -> Option<Breaker> {
        if name == &**self.overflow.name() {
            return Some(self.overflow.clone());
        }
        let kept = self.read();
        kept.breakers.get(name).map(|place| place.breaker.clone())
    }

    /// The one of this name, made if there is room, or else the shared one.
    pub(crate) fn get_or_create(
        &self,
        name: &str,
        config: &Config,
    ) -> Result<Breaker, ConfigError> {
        if name == &**self.overflow.name() {
            self.overflown.store(true, Relaxed);
            return Ok(self.overflow.clone());
        }
        let now = self.clock.now();
        let kept = self.read();
        if let Some(place) = kept.breakers.get(name) {
            place.is_asked(now, self.in_use / 8);
            return Ok(place.breaker.clone());
        }
        let is_full = kept.breakers.len() >= self.capacity;
        drop(kept);
        if !is_name(name) {
            return Err(ConfigError::Name);
        }
        config.validate()?;
        if is_full && now.as_nanos() < self.full_until.load(Relaxed) {
            return Ok(self.overflow());
        }
        self.create(name, config)
    }

    fn create(&self, name: &str, config: &Config) -> Result<Breaker, ConfigError> {
        let now = self.clock.now();
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = kept.breakers.get(name) {
            return Ok(place.breaker.clone());
        }
        let mut forgotten = None;
        if kept.breakers.len() >= self.capacity {
            forgotten = kept.forget_one(now, self.in_use);
            if forgotten.is_none() {
                drop(kept);
                let again = now.saturating_add(LOOK_AGAIN_AFTER);
                self.full_until.store(again.as_nanos(), Relaxed);
                return Ok(self.overflow());
            }
        }
        let measured = kept.is_measured(name, self.capacity);
        let label = (!measured).then(|| self.overflow.name());
        let (clock, listener) = (self.clock.clone(), self.listener.clone());
        let breaker = Breaker::registered(name, label, config.clone(), clock, listener)?;
        let name = Arc::clone(breaker.name());
        if measured {
            kept.measured.insert(Arc::clone(&name));
        }
        let place = Place {
            breaker: breaker.clone(),
            asked: AtomicU64::new(now.as_nanos()),
        };
        kept.breakers.insert(name, place);
        drop(kept);
        if let Some(place) = forgotten {
            // The recorder is not ours, and so is told without the lock.
            place.breaker.is_forgotten();
        }
        Ok(breaker)
    }

    /// Whoever holds it goes on with it.
    pub(crate) fn remove(&self, name: &str) -> Option<Breaker> {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        let place = kept.breakers.remove(name)?;
        drop(kept);
        self.full_until.store(0, Relaxed);
        place.breaker.is_forgotten();
        Some(place.breaker)
    }

    /// The one that names share for which there is no room.
    pub(crate) fn overflow(&self) -> Breaker {
        count!(metrics::OVERFLOWS);
        self.overflown.store(true, Relaxed);
        self.overflow.clone()
    }

    /// Looks at each in turn, in no order that means anything.
    pub(crate) fn each(&self, mut look: impl FnMut(&Breaker)) {
        for place in self.read().breakers.values() {
            look(&place.breaker);
        }
        if self.overflown.load(Relaxed) {
            look(&self.overflow);
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Kept> {
        self.kept.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Makes room by forgetting a breaker that nobody holds or asks for, and that remembers no
    /// trouble. One that is in use stays, however well it is: without a place of its own it would
    /// share one with those that are not well.
    fn forget_one(&mut self, now: Instant, in_use: Duration) -> Option<Place> {
        let idle = self.breakers.iter().find(|(_, place)| {
            place.not_asked_for(now) >= in_use && place.breaker.is_forgettable()
        });
        let name = idle.map(|(name, _)| Arc::clone(name))?;
        self.breakers.remove(&name)
    }

    fn is_measured(&self, name: &str, capacity: usize) -> bool {
        self.measured.len() < capacity || self.measured.contains(name)
    }
}

impl Place {
    fn is_asked(&self, now: Instant, precision: Duration) {
        if self.not_asked_for(now) >= precision {
            self.asked.store(now.as_nanos(), Relaxed);
        }
    }

    fn not_asked_for(&self, now: Instant) -> Duration {
        let asked = Instant::from_nanos(self.asked.load(Relaxed));
        now.saturating_duration_since(asked)
    }
}
