//! Floods of keys, and threads that ask for the same at the same time.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{MINUTE, SECOND, limiter, quota};
use proptest::prelude::*;
use spark_core::testing::TestClock;
use spark_ratelimit::{Key, Limiter, Policy, Quota};

fn policy(name: &str, quota: Quota) -> Policy {
    Policy::new(name, quota).unwrap()
}

#[test]
fn r1_a_flood_of_ten_times_the_capacity_takes_no_memory_and_frees_no_abuser() {
    const SLOTS: usize = 4_096;
    let clock = TestClock::new();
    let limiter = Limiter::builder()
        .clock(clock.clock())
        .policy(policy("p", quota(10, Duration::from_secs(600), 10)))
        .capacity(SLOTS)
        .build()
        .unwrap();
    let abusers: Vec<Key> = (0..50).map(|n| Key::of(&("abuser", n))).collect();
    for key in &abusers {
        assert!(limiter.check(key, None, 10).allowed());
    }
    let flood = allocation_counter::measure(|| {
        for fresh in 0..10 * SLOTS {
            assert!(limiter.check(&Key::of(&fresh), None, 1).allowed());
            clock.advance(Duration::from_micros(100));
        }
    });
    assert_eq!(flood.bytes_max, 0, "nothing grows");
    for key in &abusers {
        assert!(!limiter.check(key, None, 1).allowed());
    }
    let stats = &limiter.stats()[0];
    assert_eq!(stats.capacity, SLOTS);
    assert!(stats.occupied > SLOTS * 9 / 10, "{stats:?}");
    assert!(stats.evicted_live > 8 * SLOTS as u64, "{stats:?}");
}

/// The manual says so: a table that is too small fails open, and counts it.
#[test]
fn r1_in_a_full_set_the_least_indebted_are_let_through_and_counted() {
    let clock = TestClock::new();
    let limiter = Limiter::builder()
        .clock(clock.clock())
        .policy(policy("p", quota(10, Duration::from_secs(600), 10)))
        .capacity(8)
        .build()
        .unwrap();
    for exhausted in 0..8 {
        assert!(limiter.check(&Key::of(&exhausted), None, 10).allowed());
    }
    // One newcomer alone is limited: it takes a place and keeps it.
    let alone = (0..20).filter(|_| limiter.check(&Key::of("a"), None, 1).allowed());
    assert_eq!(alone.count(), 10);
    limiter.reset(&Key::of("a"));
    for _ in 0..20 {
        for newcomer in ["a", "b"] {
            assert!(limiter.check(&Key::of(newcomer), None, 1).allowed());
        }
    }
    assert!(limiter.stats()[0].evicted_live >= 39);
    let still = (0..8).filter(|key| !limiter.check(&Key::of(key), None, 1).allowed());
    assert_eq!(still.count(), 7, "all but the one whose place was taken");
}

#[test]
fn a_fast_policys_exhausted_survive_a_slow_policys_fresh_entries() {
    let clock = TestClock::new();
    let day = Duration::from_secs(86_400);
    let limiter = Limiter::builder()
        .clock(clock.clock())
        .policy(policy("second", quota(10, SECOND, 10)))
        .policy(policy("day", quota(1_000, day, 1_000)))
        .capacity(1_024)
        .build()
        .unwrap();
    let abuser = Key::of("abuser");
    assert!(limiter.check(&abuser, None, 10).allowed());
    for fresh in 0..10_000 {
        limiter.check(&Key::of(&fresh), None, 1);
    }
    assert!(!limiter.check(&abuser, None, 1).allowed());
}

#[test]
fn two_threads_hammering_one_key_never_get_more_than_the_burst() {
    const BURST: u64 = 20_000;
    let clock = TestClock::new();
    let limiter = limiter(
        &clock,
        [
            policy("a", quota(1, MINUTE, BURST)),
            policy("b", quota(1, MINUTE, 2 * BURST)),
        ],
    );
    let admitted = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..BURST {
                    if limiter.check(&Key::shared(), None, 1).allowed() {
                        admitted.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(admitted.into_inner(), BURST);
}

#[test]
fn reloading_while_two_threads_hammer_neither_deadlocks_nor_forgives() {
    const BURST: u64 = 20_000;
    let clock = TestClock::new();
    // With every reload the order of the policies changes, that of the locks does not; and a debt
    // of one quota would be a tenth of the debt, if it were taken for one of the other.
    let policies = |slow: bool| {
        let per = if slow { MINUTE * 10 } else { MINUTE };
        let mut policies = vec![
            policy("a", quota(1, per, BURST)),
            policy("b", quota(2, MINUTE, BURST)),
        ];
        if slow {
            policies.reverse();
        }
        policies
    };
    let limiter = limiter(&clock, policies(false));
    let admitted = AtomicU64::new(0);
    let hammering = AtomicU64::new(2);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..BURST {
                    let allowed = limiter.check(&Key::shared(), None, 1).allowed();
                    admitted.fetch_add(u64::from(allowed), Ordering::Relaxed);
                }
                hammering.fetch_sub(1, Ordering::Relaxed);
            });
        }
        let mut slow = true;
        while hammering.load(Ordering::Relaxed) > 0 {
            limiter.reconfigure(policies(slow)).unwrap();
            slow = !slow;
        }
    });
    // Every reload rounds the debt up, by less than a unit each time.
    let admitted = admitted.into_inner();
    assert!(admitted <= BURST, "{admitted}");
    assert!(admitted > BURST / 2, "{admitted}");
}

/// Milliseconds: mostly few, so that many keys owe something at a time.
fn pause() -> impl Strategy<Value = u64> {
    prop_oneof![12 => 0u64..15, 1 => 50u64..400]
}

proptest! {
    /// R6: in two sets of eight slots, with no more keys than slots, every key is decided as if it
    /// were alone, however they are pushed about between the sets.
    #[test]
    fn r6_in_a_crowded_table_every_key_is_as_if_alone(
        asks in prop::collection::vec((0u64..16, pause(), 0u64..6), 1..600),
    ) {
        let clock = TestClock::new();
        let limiter = Limiter::builder()
            .clock(clock.clock())
            .policy(policy("p", quota(10, SECOND, 5)))
            .capacity(16)
            .build()
            .unwrap();
        // Until when each key owes something, in milliseconds.
        let (mut now, mut owes) = (0, [0; 16]);
        for (key, pause, cost) in asks {
            clock.advance(Duration::from_millis(pause));
            now += pause;
            let debt = owes[key as usize].max(now) + cost * 100 - now;
            let allowed = limiter.check(&Key::of(&key), None, cost).allowed();
            prop_assert_eq!(allowed, debt <= 500);
            if allowed {
                owes[key as usize] = now + debt;
            }
        }
        prop_assert_eq!(limiter.stats()[0].evicted_live, 0);
    }
}
