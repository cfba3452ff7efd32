//! The bounded table under governor's own limiter.
#![cfg(feature = "governor")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, FakeRelativeClock};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::{Quota, RateLimiter};
use proptest::prelude::*;
use spark_ratelimit::{BoundedStateStore, ConfigError};

type Bounded = RateLimiter<u32, BoundedStateStore<u32>, FakeRelativeClock, NoOpMiddleware<Nanos>>;

fn bounded(quota: Quota, slots: usize, clock: &FakeRelativeClock) -> Bounded {
    let store = BoundedStateStore::new(slots).unwrap();
    RateLimiter::new(quota, store, clock.clone())
}

fn quota(replenish: Duration, burst: u32) -> Quota {
    let burst = NonZeroU32::new(burst).unwrap();
    Quota::with_period(replenish).unwrap().allow_burst(burst)
}

/// A wait before it in microseconds, a key, a weight.
type Ask = (u64, u32, u32);

fn asks() -> impl Strategy<Value = Vec<Ask>> {
    let wait = prop_oneof![3 => Just(0), 3 => 0u64..5_000, 1 => 0u64..200_000];
    prop::collection::vec((wait, 0u32..12, 1u32..8), 1..200)
}

proptest! {
    /// While there is room, the same answers as governor's own store gives, to the nanosecond.
    #[test]
    fn it_answers_as_governors_own_store_does(
        micros in 1u64..20_000,
        burst in 1u32..20,
        asks in asks(),
    ) {
        let clock = FakeRelativeClock::default();
        let quota = quota(Duration::from_micros(micros), burst);
        let ours = bounded(quota, 1_024, &clock);
        let theirs = RateLimiter::dashmap_with_clock(quota, clock.clone());
        for (wait, key, weight) in asks {
            clock.advance(Duration::from_micros(wait));
            let now = clock.now();
            let wait = |not_until: governor::NotUntil<_>| not_until.wait_time_from(now);
            if weight == 1 {
                let ours = ours.check_key(&key).map_err(wait);
                prop_assert_eq!(ours, theirs.check_key(&key).map_err(wait));
                continue;
            }
            let weight = NonZeroU32::new(weight).unwrap();
            let ours = ours.check_key_n(&key, weight).map(|it| it.map_err(wait));
            let theirs = theirs.check_key_n(&key, weight).map(|it| it.map_err(wait));
            prop_assert_eq!(ours.map_err(|it| it.0), theirs.map_err(|it| it.0));
        }
    }
}

#[test]
fn a_flood_takes_no_memory_and_frees_nobody_who_is_exhausted() {
    const SLOTS: u32 = 4_096;
    let clock = FakeRelativeClock::default();
    let limiter = bounded(quota(Duration::from_secs(60), 10), SLOTS as usize, &clock);
    let abusers = || (0..50).map(|abuser| u32::MAX - abuser);
    for abuser in abusers() {
        for _ in 0..10 {
            assert!(limiter.check_key(&abuser).is_ok());
        }
    }
    let flood = allocation_counter::measure(|| {
        for fresh in 0..10 * SLOTS {
            clock.advance(Duration::from_micros(100));
            assert!(limiter.check_key(&fresh).is_ok());
        }
    });
    assert_eq!(flood.bytes_max, 0);
    for abuser in abusers() {
        assert!(limiter.check_key(&abuser).is_err());
    }
}

/// governor's own store grows with every key: what the other is for.
#[test]
fn governors_own_store_grows_under_the_same_flood() {
    let clock = FakeRelativeClock::default();
    let limiter = RateLimiter::dashmap_with_clock(quota(Duration::from_secs(60), 10), clock);
    for fresh in 0..40_960 {
        assert!(limiter.check_key(&fresh).is_ok());
    }
    assert_eq!(limiter.len(), 40_960);
}

#[test]
fn threads_get_no_more_than_the_burst() {
    let clock = FakeRelativeClock::default();
    let limiter = bounded(quota(Duration::from_secs(60), 1_000), 64, &clock);
    let admitted = std::sync::atomic::AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let passed = (0..1_000).filter(|_| limiter.check_key(&7).is_ok()).count();
                admitted.fetch_add(passed as u32, std::sync::atomic::Ordering::Relaxed);
            });
        }
    });
    assert_eq!(admitted.into_inner(), 1_000);
}

#[test]
fn slots_that_cannot_be_are_refused() {
    for slots in [0, usize::MAX] {
        let error = BoundedStateStore::<u32>::new(slots).unwrap_err();
        assert!(matches!(error, ConfigError::Capacity { .. }), "{error}");
    }
}
