//! Admitting, refusing and counting allocate nothing.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use spark_breaker::{Aimd, Breaker, Bulkhead, Config, FailKind, IgnoreKind, Mode, Window};
use spark_core::Name;
use spark_core::testing::TestClock;
use std::time::Duration;

fn allocations(code: impl FnOnce()) -> u64 {
    allocation_counter::measure(code).count_total
}

#[test]
fn calls_allocate_nothing_however_many_there_were() {
    let clock = TestClock::new();
    for window in [Window::from(Duration::from_secs(60)), Window::Count(1_000)] {
        let config = Config::standard().window(window).consecutive(None);
        let breaker = Breaker::new("x", config, clock.clock()).unwrap();
        // Closed whatever the results; and handles of metrics, if there are any, are found once.
        breaker.set_mode(Mode::ForcedClosed);
        breaker.try_acquire().unwrap().success();
        let counted = allocations(|| {
            for call in 0..10_000 {
                let permit = breaker.try_acquire().unwrap();
                match call % 4 {
                    0 => permit.failure(FailKind::Transport),
                    1 => drop(permit),
                    2 => permit.ignore(IgnoreKind::Client),
                    _ => permit.success(),
                }
            }
        });
        assert_eq!(counted, 0, "{window:?}");
        assert_eq!(breaker.snapshot().totals.failures, 2_500);
    }
}

#[test]
fn a_refusal_allocates_nothing() {
    let clock = TestClock::new();
    let breaker = Breaker::new("x", Config::standard(), clock.clock()).unwrap();
    breaker.throttle(Duration::from_secs(60));
    assert!(breaker.try_acquire().is_err());
    let counted = allocations(|| {
        for _ in 0..10_000 {
            assert!(breaker.try_acquire().is_err());
        }
    });
    assert_eq!(counted, 0);
}

#[test]
fn opening_and_closing_allocates_nothing() {
    let clock = TestClock::new();
    let config = Config::standard().jitter(0.0).in_flight_slow(10);
    let breaker = Breaker::new("x", config, clock.clock()).unwrap();
    breaker.try_acquire().unwrap().success();
    let counted = allocations(|| {
        for _ in 0..100 {
            for _ in 0..5 {
                breaker.try_acquire().unwrap().failure(FailKind::Transport);
            }
            clock.advance(Duration::from_secs(120));
            for _ in 0..2 {
                breaker.try_acquire().unwrap().success();
            }
        }
    });
    assert_eq!(counted, 0);
    assert_eq!(breaker.snapshot().generation, 300);
}

#[test]
fn entering_and_leaving_a_bulkhead_allocates_nothing() {
    let rules = Aimd::new(2, 8).latency(Duration::from_secs(1));
    let bulkhead = Bulkhead::adaptive("x", rules, TestClock::new().clock()).unwrap();
    let bulkhead = bulkhead.tenant_share(0.5).unwrap();
    let tenants = ["a", "b", "c", "d"].map(|name| Name::new(name).unwrap());
    let mut refused = 0;
    let mut calls = |times: usize| {
        for _ in 0..times {
            let places = [
                &tenants[0],
                &tenants[0],
                &tenants[1],
                &tenants[2],
                &tenants[3],
            ];
            let mut places = places.map(|tenant| bulkhead.try_enter_for(tenant).ok());
            for (n, place) in places.iter_mut().enumerate() {
                match place {
                    None => refused += 1,
                    Some(place) if n == 4 => place.throttled(),
                    Some(place) => place.succeeded(),
                }
            }
        }
    };
    // Room for the tenants, and the handles of metrics, are made once.
    calls(10);
    assert_eq!(allocations(|| calls(2_000)), 0);
    assert!(refused > 0);
}
