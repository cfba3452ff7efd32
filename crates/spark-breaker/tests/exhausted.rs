//! Callees whose credit is used up: waiting does not help.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::Duration;

use spark_breaker::{
    Breaker, Config, FailKind, Mode, OVERFLOW, Outcome, Reason, Registry, RejectReason, State,
};
use spark_core::testing::TestClock;

const DAY: Duration = Duration::from_secs(24 * 3_600);

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Opens by rate alone, and without jitter.
fn config() -> Config {
    Config::standard()
        .jitter(0.0)
        .consecutive(None)
        .max_open_for(secs(50))
        .probes(1)
}

fn breaker(config: Config) -> (Breaker, TestClock) {
    let clock = TestClock::new();
    clock.advance(secs(1_000));
    let breaker = Breaker::new("provider", config, clock.clock()).unwrap();
    (breaker, clock)
}

fn exhausted(config: Config, retry_after: Option<Duration>) -> (Breaker, TestClock) {
    let (breaker, clock) = breaker(config);
    breaker.try_acquire().unwrap().exhausted(retry_after);
    (breaker, clock)
}

fn fail(breaker: &Breaker, times: usize) {
    let permits: Vec<_> = (0..times).map(|_| breaker.try_acquire().unwrap()).collect();
    for permit in permits {
        permit.failure(FailKind::Status(500));
    }
}

fn refused(breaker: &Breaker) -> (RejectReason, Duration) {
    let rejected = breaker.try_acquire().unwrap_err();
    assert_eq!(rejected.state, State::Open);
    assert_eq!(
        breaker.try_acquire_background().unwrap_err().reason,
        rejected.reason,
        "no background call probes either"
    );
    (rejected.reason, rejected.retry_after)
}

/// The state, what is left of it, and whether it is for want of credit.
fn stands(breaker: &Breaker) -> (State, Option<Duration>, bool) {
    let snapshot = breaker.snapshot();
    (snapshot.state, snapshot.retry_after, snapshot.exhausted)
}

#[test]
fn without_a_time_it_does_not_probe_however_long_it_waits() {
    let (breaker, clock) = exhausted(config(), None);
    for _ in 0..20 {
        // When to look again whether an operator has acted.
        assert_eq!(refused(&breaker), (RejectReason::Exhausted, secs(50)));
        assert_eq!(stands(&breaker), (State::Open, None, true));
        clock.advance(100 * DAY);
    }
    let trip = breaker.snapshot().last_trip.unwrap();
    assert_eq!(trip.reason, Reason::Exhausted { retry_after: None });
    assert_eq!(trip.ago, 2_000 * DAY);
    assert_eq!(trip.reason.to_string(), "its credit is used up");
    assert_eq!(
        breaker.try_acquire().unwrap_err().to_string(),
        "provider is not being called: its credit is used up; try again in 50.0 s"
    );
}

#[test]
fn an_operator_ends_it() {
    let (breaker, _clock) = exhausted(config(), None);
    breaker.reset();
    assert_eq!(stands(&breaker), (State::Closed, None, false));
    assert!(!breaker.try_acquire().unwrap().is_probe());

    let (breaker, _clock) = exhausted(config(), Some(7 * DAY));
    breaker.set_mode(Mode::Auto);
    assert!(breaker.snapshot().exhausted, "as it was");
    breaker.set_mode(Mode::ForcedOpen);
    assert_eq!(refused(&breaker).0, RejectReason::ForcedOpen);
    assert!(!breaker.snapshot().exhausted);
    breaker.set_mode(Mode::Auto);
    assert!(breaker.try_acquire().unwrap().is_probe());

    for mode in [Mode::ForcedClosed, Mode::MetricsOnly, Mode::Disabled] {
        let (breaker, _clock) = exhausted(config(), None);
        breaker.set_mode(mode);
        breaker.set_mode(Mode::Auto);
        assert_eq!(stands(&breaker), (State::Closed, None, false), "{mode:?}");
    }
}

#[test]
fn with_a_time_it_probes_at_that_time_and_not_before() {
    // The longest that a plain throttle is believed is five minutes.
    let (breaker, clock) = exhausted(config(), Some(7 * DAY));
    assert_eq!(refused(&breaker), (RejectReason::Exhausted, 7 * DAY));
    assert_eq!(stands(&breaker), (State::Open, Some(7 * DAY), true));
    let reason = breaker.snapshot().last_trip.unwrap().reason;
    assert_eq!(reason.to_string(), "its credit is used up for 604800.0 s");
    clock.advance(7 * DAY - Duration::from_nanos(1));
    assert_eq!(refused(&breaker).0, RejectReason::Exhausted);
    clock.advance(Duration::from_nanos(1));
    let probe = breaker.try_acquire().unwrap();
    assert!(probe.is_probe());
    assert!(!breaker.snapshot().exhausted);
    probe.success();
    assert_eq!(stands(&breaker), (State::Closed, None, false));
}

#[test]
fn a_callee_is_believed_up_to_31_days_and_a_time_of_zero_is_none() {
    let (breaker, _clock) = exhausted(config(), Some(Duration::MAX));
    assert_eq!(breaker.snapshot().retry_after, Some(31 * DAY));
    let (breaker, _clock) = exhausted(config(), Some(Duration::ZERO));
    assert_eq!(stands(&breaker), (State::Open, None, true));
}

#[test]
fn without_a_time_it_is_for_as_long_as_is_set() {
    let rules = config().exhausted_for(secs(3_600));
    let (breaker, clock) = exhausted(rules.clone(), None);
    assert_eq!(stands(&breaker), (State::Open, Some(secs(3_600)), true));
    clock.advance(secs(3_600));
    assert!(breaker.try_acquire().unwrap().is_probe());
    // The callee knows better.
    for asked in [secs(60), 7 * DAY] {
        let (breaker, _clock) = exhausted(rules.clone(), Some(asked));
        assert_eq!(breaker.snapshot().retry_after, Some(asked));
    }
}

#[test]
fn jitter_makes_it_later_by_no_more_than_an_open_time() {
    let mut waits = std::collections::BTreeSet::new();
    for _ in 0..50 {
        let (breaker, _clock) = exhausted(config().jitter(0.5), Some(7 * DAY));
        let wait = breaker.snapshot().retry_after.unwrap();
        assert!((7 * DAY..=7 * DAY + secs(25)).contains(&wait), "{wait:?}");
        waits.insert(wait);
    }
    assert!(waits.len() > 40);
}

#[test]
fn nothing_that_comes_later_shortens_it() {
    let (breaker, clock) = breaker(config());
    let mut late: Vec<_> = (0..6).map(|_| breaker.try_acquire().unwrap()).collect();
    let mut late = || late.pop().unwrap();
    late().exhausted(Some(DAY));
    late().throttled(Some(secs(5)));
    breaker.throttle(secs(5));
    late().exhausted(Some(secs(5)));
    breaker.exhaust(secs(5));
    assert_eq!(stands(&breaker), (State::Open, Some(DAY), true));
    // But later ones lengthen it.
    late().exhausted(Some(2 * DAY));
    assert_eq!(breaker.snapshot().retry_after, Some(2 * DAY));
    late().exhausted(None);
    assert_eq!(stands(&breaker), (State::Open, None, true));
    late().exhausted(Some(DAY));
    breaker.throttle(secs(300));
    clock.advance(100 * DAY);
    assert_eq!(refused(&breaker).0, RejectReason::Exhausted);
    assert_eq!(breaker.snapshot().generation, 1);
}

#[test]
fn it_does_not_shorten_what_was_asked_for_before() {
    let (breaker, _clock) = breaker(config());
    let outcome = Outcome::failure(FailKind::Status(503)).with_retry_after(secs(300));
    breaker.try_acquire().unwrap().record(outcome);
    breaker.try_acquire().unwrap().exhausted(Some(secs(5)));
    assert_eq!(stands(&breaker), (State::Open, Some(secs(300)), true));
}

#[test]
fn a_call_from_before_it_opened_may_say_so_too() {
    let (breaker, clock) = breaker(config());
    let late = breaker.try_acquire().unwrap();
    let later = breaker.try_acquire().unwrap();
    fail(&breaker, 10);
    assert_eq!(refused(&breaker), (RejectReason::Open, secs(10)));
    late.exhausted(Some(DAY));
    assert_eq!(refused(&breaker), (RejectReason::Exhausted, DAY));
    let snapshot = breaker.snapshot();
    assert!(matches!(
        snapshot.last_trip.unwrap().reason,
        Reason::Exhausted { .. }
    ));
    assert_eq!((snapshot.generation, snapshot.totals.late), (1, 1));
    // An episode later, that is no news: its probe finds out.
    clock.advance(DAY);
    let probe = breaker.try_acquire().unwrap();
    later.exhausted(None);
    assert_eq!(stands(&breaker), (State::HalfOpen, None, false));
    probe.success();
    assert_eq!(breaker.snapshot().state, State::Closed);
}

#[test]
fn a_probe_may_say_so() {
    let (breaker, clock) = breaker(config());
    fail(&breaker, 10);
    clock.advance(secs(10));
    breaker.try_acquire().unwrap().exhausted(None);
    assert_eq!(stands(&breaker), (State::Open, None, true));
    // And one of two, after the other has failed.
    let (breaker, clock) = self::breaker(config().probes(2));
    fail(&breaker, 10);
    clock.advance(secs(10));
    let second = breaker.try_acquire().unwrap();
    breaker
        .try_acquire()
        .unwrap()
        .failure(FailKind::Status(500));
    second.exhausted(None);
    assert_eq!(stands(&breaker), (State::Open, None, true));
}

#[test]
fn it_may_be_learned_beside_the_calls() {
    let (breaker, clock) = breaker(config());
    breaker.exhaust(None);
    assert_eq!(stands(&breaker), (State::Open, None, true));

    breaker.reset();
    fail(&breaker, 10);
    breaker.exhaust(DAY);
    assert_eq!(stands(&breaker), (State::Open, Some(DAY), true));
    clock.advance(DAY);
    let probe = breaker.try_acquire().unwrap();
    breaker.exhaust(None);
    assert_eq!(stands(&breaker), (State::Open, None, true));
    probe.success();
    assert_eq!(stands(&breaker), (State::Open, None, true));
}

#[test]
fn who_only_watches_notes_it_and_an_operator_is_not_contradicted() {
    for mode in [Mode::MetricsOnly, Mode::ForcedClosed, Mode::Disabled] {
        let (breaker, _clock) = breaker(config());
        breaker.set_mode(mode);
        breaker.try_acquire().unwrap().exhausted(None);
        let noted = breaker.snapshot().would_trip.map(|trip| trip.reason);
        let expected = Reason::Exhausted { retry_after: None };
        assert_eq!(noted, (mode == Mode::MetricsOnly).then_some(expected));
        breaker.exhaust(None);
        assert_eq!(stands(&breaker), (State::Closed, None, false), "{mode:?}");
        assert!(breaker.try_acquire().is_ok());
    }
    let (breaker, _clock) = breaker(config());
    breaker.set_mode(Mode::ForcedOpen);
    breaker.exhaust(None);
    breaker.set_mode(Mode::Auto);
    assert!(breaker.try_acquire().unwrap().is_probe());
}

#[test]
fn who_only_watches_notes_a_throttle_too() {
    let (breaker, _clock) = breaker(config());
    breaker.set_mode(Mode::MetricsOnly);
    breaker.try_acquire().unwrap().throttled(Some(secs(7)));
    let noted = breaker.snapshot().would_trip.unwrap().reason;
    let retry_after = secs(7);
    assert_eq!(noted, Reason::Throttled { retry_after });
}

#[test]
fn other_rules_leave_it_as_it_is() {
    let (breaker, clock) = exhausted(config(), None);
    breaker
        .reconfigure(config().exhausted_for(secs(1)))
        .unwrap();
    clock.advance(DAY);
    assert_eq!(refused(&breaker).0, RejectReason::Exhausted);
}

#[test]
fn b12_a_registry_does_not_forget_it() {
    let clock = TestClock::new();
    let registry = Registry::new(1, config(), clock.clock()).unwrap();
    let name = |name| registry.get_or_create(name).unwrap().name().to_string();
    registry.get_or_create("broke").unwrap().exhaust(None);
    clock.advance(1_000 * DAY);
    assert_eq!(name("other-one"), OVERFLOW);
    assert!(registry.get("broke").unwrap().snapshot().exhausted);
    // One whose end is known makes room when that is long over.
    registry.get("broke").unwrap().reset();
    registry.get("broke").unwrap().exhaust(DAY);
    clock.advance(DAY);
    assert_eq!(name("other-one"), OVERFLOW);
    clock.advance(secs(30));
    assert_eq!(name("other-one"), "other-one");
}
