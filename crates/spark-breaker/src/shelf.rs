//! Breakers of one kind by name, and what happens when there are too many.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use spark_core::Clock;

use crate::config::is_name;
use crate::metrics::{self, count};
use crate::{Breaker, Config, ConfigError};

/// Where no room was found, none is looked for again so soon: it means asking every breaker.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);

pub(crate) struct Shelf {
    capacity: usize,
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
    breakers: BTreeMap<Arc<str>, Breaker>,
    /// The names that have series of their own in the metrics. A recorder never forgets a series, so
    /// a name that was once given some keeps them, and no other takes its place.
    measured: BTreeSet<Arc<str>>,
}

impl Shelf {
    pub(crate) fn new(
        capacity: usize,
        overflow: &str,
        config: Config,
        clock: Clock,
    ) -> Result<Self, ConfigError> {
        Ok(Self {
            capacity,
            kept: RwLock::default(),
            overflow: Breaker::new(overflow, config, clock)?,
            overflown: AtomicBool::new(false),
            full_until: AtomicU64::new(0),
        })
    }

    pub(crate) fn get(&self, name: &str) -> Option<Breaker> {
        if name == &**self.overflow.name() {
            return Some(self.overflow.clone());
        }
        self.read().breakers.get(name).cloned()
    }

    /// The one of this name, made if there is room, or else the shared one.
    pub(crate) fn get_or_create(
        &self,
        name: &str,
        config: &Config,
        clock: &Clock,
    ) -> Result<Breaker, ConfigError> {
        if let Some(breaker) = self.get(name) {
            return Ok(breaker);
        }
        if !is_name(name) {
            return Err(ConfigError::Name);
        }
        config.validate()?;
        if self.is_full(clock) {
            return Ok(self.overflow());
        }
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(breaker) = kept.breakers.get(name) {
            return Ok(breaker.clone());
        }
        if kept.breakers.len() >= self.capacity && !kept.forget_one() {
            drop(kept);
            let again = clock.now().saturating_add(LOOK_AGAIN_AFTER);
            self.full_until.store(again.as_nanos(), Relaxed);
            return Ok(self.overflow());
        }
        let measured = kept.is_measured(name, self.capacity);
        let (config, clock) = (config.clone(), clock.clone());
        let breaker = match measured {
            true => Breaker::new(name, config, clock),
            false => Breaker::measured_as(self.overflow.name(), name, config, clock),
        }?;
        let name = Arc::clone(breaker.name());
        if measured {
            kept.measured.insert(Arc::clone(&name));
        }
        kept.breakers.insert(name, breaker.clone());
        Ok(breaker)
    }

    /// The one that names share for which there is no room.
    pub(crate) fn overflow(&self) -> Breaker {
        count!(metrics::OVERFLOWS);
        self.overflown.store(true, Relaxed);
        self.overflow.clone()
    }

    /// Looks at each in turn, in no order that means anything.
    pub(crate) fn each(&self, mut look: impl FnMut(&Breaker)) {
        self.read().breakers.values().for_each(&mut look);
        if self.overflown.load(Relaxed) {
            look(&self.overflow);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.read().breakers.len()
    }

    fn is_full(&self, clock: &Clock) -> bool {
        self.len() >= self.capacity && clock.now().as_nanos() < self.full_until.load(Relaxed)
    }

    fn read(&self) -> RwLockReadGuard<'_, Kept> {
        self.kept.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Makes room by forgetting a breaker that nobody holds and that remembers no trouble.
    fn forget_one(&mut self) -> bool {
        let mut breakers = self.breakers.iter();
        let idle = breakers
            .find(|(_, breaker)| breaker.is_forgettable())
            .map(|(name, _)| Arc::clone(name));
        match idle.and_then(|name| self.breakers.remove(&name)) {
            Some(breaker) => {
                breaker.is_forgotten();
                true
            }
            None => false,
        }
    }

    fn is_measured(&self, name: &str, capacity: usize) -> bool {
        self.measured.len() < capacity || self.measured.contains(name)
    }
}
