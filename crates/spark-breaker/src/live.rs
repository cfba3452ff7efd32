//! The rules as calls read them: each value by itself and without a lock. They are written under the
//! control lock, and what opens a breaker is judged once more under it.

use std::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed},
};
use std::time::Duration;

use crate::window::Counts;
use crate::word::Word;
use crate::{Config, FailKind, Reason, sync};

#[derive(Debug)]
pub(crate) struct Live {
    slow_after: AtomicU64,
    abandoned_after: AtomicU64,
    open_for: AtomicU64,
    max_open_for: AtomicU64,
    grace: AtomicU64,
    ramp: AtomicU64,
    consecutive: AtomicU32,
    min_calls: AtomicU32,
    failure_rate: AtomicU64,
    slow_rate: AtomicU64,
    /// How many probes at once, and how many have to succeed.
    probes: sync::AtomicU32,
}

/// What breaks a breaker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    consecutive: u32,
    min_calls: u32,
    failure_rate: f64,
    slow_rate: f64,
}

/// How many probes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Probes {
    at_once: u32,
    needed: u32,
}

/// No moment: nobody has asked for the time.
pub(crate) const UNREAD: u64 = u64::MAX;

impl Live {
    pub(crate) fn new(config: &Config) -> Self {
        let live = Self {
            slow_after: AtomicU64::new(0),
            abandoned_after: AtomicU64::new(0),
            open_for: AtomicU64::new(0),
            max_open_for: AtomicU64::new(0),
            grace: AtomicU64::new(0),
            ramp: AtomicU64::new(0),
            consecutive: AtomicU32::new(0),
            min_calls: AtomicU32::new(0),
            failure_rate: AtomicU64::new(0),
            slow_rate: AtomicU64::new(0),
            probes: sync::AtomicU32::new(0),
        };
        live.set(config);
        live
    }

    pub(crate) fn set(&self, config: &Config) {
        let slow_after = if config.slow_rate.is_some() {
            nanos(config.slow_threshold)
        } else {
            UNREAD
        };
        self.slow_after.store(slow_after, Relaxed);
        self.abandoned_after
            .store(nanos(config.abandoned_at()), Relaxed);
        self.open_for.store(nanos(config.open_for), Relaxed);
        self.max_open_for.store(nanos(config.max_open_for), Relaxed);
        self.grace.store(nanos(config.background_grace), Relaxed);
        self.ramp.store(nanos(config.ramp), Relaxed);
        self.consecutive
            .store(config.consecutive.unwrap_or(0), Relaxed);
        self.min_calls.store(config.min_calls, Relaxed);
        self.failure_rate
            .store(config.failure_rate.to_bits(), Relaxed);
        let slow_rate = config.slow_rate.unwrap_or(0.0);
        self.slow_rate.store(slow_rate.to_bits(), Relaxed);
        let probes = (config.needed() << 16) | config.probes;
        self.probes.swap(probes, AcqRel);
    }

    /// When a call is slow; `None` when nobody asks.
    #[inline]
    pub(crate) fn slow_after(&self) -> Option<u64> {
        Some(self.slow_after.load(Relaxed)).filter(|it| *it != UNREAD)
    }

    pub(crate) fn abandoned_after(&self) -> u64 {
        self.abandoned_after.load(Relaxed)
    }

    pub(crate) fn open_for(&self) -> Duration {
        Duration::from_nanos(self.open_for.load(Relaxed))
    }

    pub(crate) fn max_open_for(&self) -> Duration {
        Duration::from_nanos(self.max_open_for.load(Relaxed))
    }

    pub(crate) fn grace(&self) -> Duration {
        Duration::from_nanos(self.grace.load(Relaxed))
    }

    pub(crate) fn ramp(&self) -> u64 {
        self.ramp.load(Relaxed)
    }

    pub(crate) fn probes(&self) -> Probes {
        let probes = self.probes.load(Acquire);
        Probes {
            at_once: probes & 0xFFFF,
            needed: probes >> 16,
        }
    }

    pub(crate) fn rules(&self) -> Rules {
        Rules {
            consecutive: self.consecutive.load(Relaxed),
            min_calls: self.min_calls.load(Relaxed),
            failure_rate: f64::from_bits(self.failure_rate.load(Relaxed)),
            slow_rate: f64::from_bits(self.slow_rate.load(Relaxed)),
        }
    }
}

impl Rules {
    /// The rule that is broken, if one is.
    pub(crate) fn broken(
        self,
        counts: Counts,
        in_a_row: u32,
        failed: Option<FailKind>,
    ) -> Option<Reason> {
        if let Some(last) = failed
            && self.consecutive != 0
            && in_a_row >= self.consecutive
        {
            let failures = in_a_row;
            return Some(Reason::Consecutive { failures, last });
        }
        let calls = counts.calls;
        if calls < self.min_calls {
            return None;
        }
        let rate = counts.failure_rate();
        if rate >= self.failure_rate {
            return Some(Reason::FailureRate { rate, calls });
        }
        let rate = counts.slow_rate();
        (self.slow_rate > 0.0 && rate >= self.slow_rate).then_some(Reason::SlowRate { rate, calls })
    }
}

impl Probes {
    /// Whether one more may be let through.
    pub(crate) fn has_room(self, word: Word) -> bool {
        word.out() < self.at_once && word.out() + word.good() < self.at_once.max(self.needed)
    }

    /// Whether as many have succeeded as must.
    pub(crate) fn are_enough(self, word: Word) -> bool {
        word.good() >= self.needed
    }
}

pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(UNREAD - 1)
}
