//! Callees that ask to be left alone for a while.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "common/timed.rs"]
mod timed;

use std::time::Duration;

use spark_breaker::{Breaker, Config, FailKind, Mode, Outcome, Reason, RejectReason, State};
use spark_core::testing::TestClock;
use timed::{breaker, config, fail, secs, state};

/// Open, and its time is over.
fn due_for_probes(config: Config) -> (Breaker, TestClock) {
    let (breaker, clock) = breaker(config);
    fail(&breaker, 10);
    assert_eq!(state(&breaker), State::Open);
    clock.advance(secs(10));
    (breaker, clock)
}

#[test]
fn b11_throttled_opens_until_the_later_moment() {
    let (breaker, clock) = breaker(config().max_retry_after(secs(100)));
    let permits: Vec<_> = (0..4).map(|_| breaker.try_acquire().unwrap()).collect();
    let mut waits = [secs(20), secs(60), secs(5), secs(1_000_000)].into_iter();
    let mut expected = [secs(20), secs(60), secs(60), secs(100)].into_iter();
    for permit in permits {
        permit.throttled(waits.next());
        let snapshot = breaker.snapshot();
        assert_eq!(snapshot.state, State::Open);
        assert_eq!(snapshot.retry_after, expected.next());
    }
    let reason = breaker.snapshot().last_trip.unwrap().reason;
    let retry_after = secs(20);
    assert_eq!(reason, Reason::Throttled { retry_after });
    clock.advance(secs(99));
    assert_eq!(breaker.try_acquire().unwrap_err().retry_after, secs(1));
    clock.advance(secs(1));
    assert!(breaker.try_acquire().unwrap().is_probe());
}

#[test]
fn b11_a_time_of_zero_is_none() {
    let (breaker, _clock) = breaker(config());
    for _ in 0..9 {
        breaker
            .try_acquire()
            .unwrap()
            .throttled(Some(Duration::ZERO));
    }
    breaker.throttle(Duration::ZERO);
    assert_eq!(state(&breaker), State::Closed, "only the rate opens it");
    breaker.throttle(Duration::from_nanos(1));
    assert_eq!(state(&breaker), State::Open);
}

#[test]
fn b11_a_probe_that_is_throttled_opens_until_the_later_moment() {
    for (asked, expected) in [(None, 20), (Some(0), 20), (Some(3), 3), (Some(9_999), 300)] {
        let (breaker, _clock) = due_for_probes(config().probes(1));
        let probe = breaker.try_acquire().unwrap();
        probe.throttled(asked.map(secs));
        assert_eq!(
            breaker.snapshot().retry_after,
            Some(secs(expected)),
            "{asked:?}"
        );
    }
}

#[test]
fn b11_throttled_without_a_time_counts_for_the_rate_and_not_for_the_run() {
    let (breaker, _clock) = breaker(config().consecutive(3));
    for _ in 0..9 {
        breaker.try_acquire().unwrap().throttled(None);
    }
    assert_eq!(state(&breaker), State::Closed);
    breaker
        .try_acquire()
        .unwrap()
        .throttled(Some(Duration::ZERO));
    assert_eq!(state(&breaker), State::Open);
}

#[test]
fn b11_a_failure_with_retry_after_lengthens_and_never_shortens() {
    for (asked, expected) in [(3, 10), (40, 40), (100_000, 300)] {
        let (breaker, _clock) = breaker(config());
        let outcome = Outcome::failure(FailKind::Status(503)).with_retry_after(secs(asked));
        breaker.try_acquire().unwrap().record(outcome);
        fail(&breaker, 9);
        assert_eq!(breaker.snapshot().retry_after, Some(secs(expected)));
    }
}

#[test]
fn b11_throttled_does_not_shorten_what_a_failure_asked_for() {
    let (breaker, _clock) = breaker(config());
    let outcome = Outcome::failure(FailKind::Status(503)).with_retry_after(secs(300));
    breaker.try_acquire().unwrap().record(outcome);
    breaker.try_acquire().unwrap().throttled(Some(secs(5)));
    assert_eq!(breaker.snapshot().retry_after, Some(secs(300)));
}

#[test]
fn b11_throttling_from_outside_heeds_what_a_failure_asked_for() {
    let (breaker, _clock) = breaker(config());
    let outcome = Outcome::failure(FailKind::Status(503)).with_retry_after(secs(300));
    breaker.try_acquire().unwrap().record(outcome);
    breaker.throttle(secs(5));
    assert_eq!(breaker.snapshot().retry_after, Some(secs(300)));
    breaker.throttle(secs(1));
    assert_eq!(breaker.snapshot().retry_after, Some(secs(300)));
}

#[test]
fn b11_an_operator_does_not_make_the_callee_asked_too_early() {
    let (breaker, clock) = breaker(config());
    breaker.try_acquire().unwrap().throttled(Some(secs(200)));
    breaker.set_mode(Mode::ForcedOpen);
    clock.advance(secs(10));
    breaker.set_mode(Mode::Auto);
    let rejected = breaker.try_acquire().unwrap_err();
    assert_eq!(
        (rejected.reason, rejected.retry_after),
        (RejectReason::Open, secs(190))
    );
}
