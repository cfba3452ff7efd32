//! One rule in both languages.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::{DefaultKeyedRateLimiter, RateLimiter};
use spark_ratelimit::{Limiter, Policy, Quota};

#[derive(Clone, Copy)]
pub(crate) struct Rule {
    /// Each unit is paid back in this.
    pub(crate) unit: Duration,
    pub(crate) burst: u32,
}

/// One key never runs out of it, and is always in debt.
pub(crate) const PLENTY_FOR_ONE: Rule = Rule {
    unit: Duration::from_secs(1),
    burst: 1_000_000_000,
};

/// A thousand keys and more never run out of it, and a debt of one unit outlives the race.
pub(crate) const PLENTY: Rule = Rule {
    unit: Duration::from_secs(100),
    burst: 10_000_000,
};

/// The second call is refused.
pub(crate) const ONCE: Rule = Rule {
    unit: Duration::from_secs(3_600),
    burst: 1,
};

impl Rule {
    pub(crate) fn spark(self, slots: usize) -> Limiter {
        let quota = Quota::new(1, self.unit).unwrap();
        let quota = quota.burst(self.burst.into()).unwrap();
        let policy = Policy::new("requests", quota).unwrap();
        let builder = Limiter::builder().policy(policy).capacity(slots);
        builder.build().unwrap()
    }

    /// In its default store, which grows.
    pub(crate) fn governor<K: std::hash::Hash + Eq + Clone>(self) -> DefaultKeyedRateLimiter<K> {
        RateLimiter::keyed(self.governor_quota())
    }

    pub(crate) fn governor_quota(self) -> governor::Quota {
        let quota = governor::Quota::with_period(self.unit).unwrap();
        quota.allow_burst(NonZeroU32::new(self.burst).unwrap())
    }
}
