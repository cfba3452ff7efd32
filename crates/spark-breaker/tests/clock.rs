//! Clocks that stand still, jump or end: under one that the tests move.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "common/timed.rs"]
mod timed;

use std::time::Duration;

use spark_breaker::{Breaker, Config, Permit, State, Window};
use spark_core::Instant;
use spark_core::testing::TestClock;
use timed::{breaker, config, fail, secs, state, succeed};

/// Windows of every kind, and the longest times that may be set.
fn rules_to_the_limit() -> [Config; 4] {
    const YEAR: Duration = secs(365 * 24 * 3_600);
    let longest = config()
        .open_for(YEAR)
        .max_open_for(YEAR)
        .max_retry_after(YEAR)
        .slow_threshold(YEAR)
        .slow_rate(0.5)
        .probe_timeout(YEAR)
        .abandon_after(YEAR)
        .background_grace(YEAR)
        .ramp(YEAR)
        .jitter(1.0);
    [
        config(),
        config().window(Window::Count(10)),
        longest.clone().window(YEAR),
        longest.window(Window::Count(10)),
    ]
}

/// Opens and closes, however the clock goes on: each open time and each ramp is waited for.
fn opens_and_closes(breaker: &Breaker, clock: &TestClock) {
    breaker.reset();
    fail(breaker, 10);
    assert_eq!(state(breaker), State::Open);
    assert!(breaker.try_acquire().is_err());
    let left = breaker.snapshot().retry_after.unwrap();
    clock.advance(left);
    for _ in 0..2 {
        breaker.try_acquire_background().unwrap().success();
    }
    assert_eq!(state(breaker), State::Closed);
    breaker.throttle(Duration::MAX);
    assert!(breaker.try_acquire().is_err());
    breaker.exhaust(Duration::MAX);
    assert!(breaker.try_acquire().is_err());
    breaker.reset();
    succeed(breaker, 10);
}

#[test]
fn b10_a_clock_that_does_not_move_is_survived() {
    for rules in rules_to_the_limit() {
        let (breaker, _clock) = breaker(rules);
        for _ in 0..100 {
            succeed(&breaker, 5);
            fail(&breaker, 4);
            assert_eq!(state(&breaker), State::Closed);
            fail(&breaker, 1);
            assert_eq!(state(&breaker), State::Open);
            for _ in 0..10 {
                assert!(breaker.try_acquire().is_err());
            }
            breaker.reset();
        }
    }
}

#[test]
fn b10_a_clock_that_jumps_by_years_or_back_is_survived() {
    const YEAR: u64 = 365 * 24 * 3_600;
    for rules in rules_to_the_limit() {
        let (breaker, clock) = breaker(rules);
        for years in [1, 7, 100, 250] {
            let held = breaker.try_acquire().unwrap();
            clock.advance(secs(years * YEAR));
            held.success();
            opens_and_closes(&breaker, &clock);
        }
        // Back to its beginning: what has begun counts from where it stands.
        let held = breaker.try_acquire().unwrap();
        clock.set(Instant::from_nanos(0));
        held.success();
        opens_and_closes(&breaker, &clock);
        assert_eq!(breaker.snapshot().in_flight, 0);
    }
}

#[test]
fn b10_the_end_of_time_wedges_nothing_that_an_operator_cannot_mend() {
    for rules in rules_to_the_limit() {
        let (breaker, clock) = breaker(rules);
        for left in [1 << 40, 1_000_000, 2, 1, 0] {
            clock.set(Instant::from_nanos(u64::MAX - left));
            breaker.reset();
            fail(&breaker, 10);
            assert_eq!(state(&breaker), State::Open);
            // Each returns, whatever it says.
            for _ in 0..5 {
                let _ = breaker.try_acquire().map(Permit::success);
                let _ = breaker.try_acquire_background().map(drop);
                breaker.throttle(Duration::MAX);
                breaker.snapshot();
            }
            breaker.reset();
            breaker.exhaust(None);
            assert!(breaker.try_acquire_background().is_err());
            breaker.reset();
            succeed(&breaker, 10);
        }
    }
}

#[test]
fn b10_settings_without_an_end_are_refused_and_say_so() {
    let endless = [
        config().window(Duration::MAX),
        config().slow_threshold(Duration::MAX),
        config().max_open_for(Duration::MAX),
        config().max_retry_after(Duration::MAX),
        config().exhausted_for(Duration::MAX),
        config().probe_timeout(Duration::MAX),
        config().abandon_after(Duration::MAX),
        config().background_grace(Duration::MAX),
        config().ramp(Duration::MAX),
    ];
    for rules in endless {
        let error = Breaker::new("provider", rules, TestClock::new().clock()).unwrap_err();
        assert!(error.to_string().contains("at most a year"), "{error}");
    }
}

#[test]
fn b10_huge_jumps_of_the_clock_are_survived() {
    let (breaker, clock) = breaker(config());
    fail(&breaker, 9);
    let held = breaker.try_acquire().unwrap();
    clock.advance(Duration::from_nanos(u64::MAX / 2));
    assert_eq!(breaker.snapshot().calls, 0);
    held.success();
    fail(&breaker, 9);
    assert_eq!(state(&breaker), State::Open);
    clock.advance(Duration::from_nanos(u64::MAX / 4));
    succeed(&breaker, 2);
    assert_eq!(state(&breaker), State::Closed);
}
