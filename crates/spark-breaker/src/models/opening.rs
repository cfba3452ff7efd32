//! What opens a closed breaker, against another result and against an operator.

use super::*;
use crate::run::Run;
use crate::{Reason, State};

/// Two buckets of a second, in a ring of two.
fn by_time() -> Config {
    config().window(Window::Time {
        length: 2 * SECOND,
        buckets: 2,
    })
}

fn opened_once(breaker: &Breaker) {
    let snapshot = breaker.snapshot();
    assert_eq!((snapshot.state, snapshot.generation), (State::Open, 1));
}

#[test]
fn b2_the_failure_that_breaks_the_rule_is_not_missed() {
    alike(2, 500, || {
        let (breaker, _clock) = breaker(config());
        let first = breaker.try_acquire().unwrap();
        let second = breaker.try_acquire().unwrap();
        race(move || fail(first), move || fail(second));
        opened_once(&breaker);
    });
}

#[test]
fn b2_nor_is_it_in_a_window_by_time() {
    alike(2, 300, || {
        let (breaker, _clock) = breaker(by_time());
        let first = breaker.try_acquire().unwrap();
        let second = breaker.try_acquire().unwrap();
        race(move || fail(first), move || fail(second));
        opened_once(&breaker);
    });
}

/// Nobody has written what the other reads last.
#[test]
fn b2_nor_when_the_two_are_in_different_buckets() {
    bounded(2, 400, || {
        let (breaker, clock) = breaker(by_time());
        let first = breaker.try_acquire().unwrap();
        let second = breaker.try_acquire().unwrap();
        race(
            move || fail(first),
            move || {
                clock.advance(SECOND);
                fail(second);
            },
        );
        opened_once(&breaker);
    });
}

#[test]
fn nor_is_that_of_a_run() {
    alike(2, 300, || {
        let rules = config().window(Window::Count(10)).min_calls(10);
        let (breaker, _clock) = breaker(rules.consecutive(2));
        let first = breaker.try_acquire().unwrap();
        let second = breaker.try_acquire().unwrap();
        race(move || fail(first), move || fail(second));
        opened_once(&breaker);
    });
}

/// It opened before, or what failed is late; and nothing of it is there afterwards.
fn against_a_reset(rules: fn() -> Config) {
    bounded(2, 100, move || {
        let (breaker, _clock) = breaker(rules().min_calls(1));
        let old = breaker.try_acquire().unwrap();
        let other = breaker.clone();
        race(move || other.reset(), move || fail(old));
        let snapshot = breaker.snapshot();
        assert_eq!((snapshot.state, snapshot.calls), (State::Closed, 0));
        assert!(matches!(snapshot.generation, 1 | 2));
        fail(breaker.try_acquire().unwrap());
        assert_eq!(breaker.snapshot().state, State::Open);
    });
}

#[test]
fn a_result_against_an_operator_finds_all_of_one_generation_or_nothing() {
    against_a_reset(config);
}

#[test]
fn and_so_it_does_in_a_window_by_time() {
    against_a_reset(by_time);
}

/// A call that begins and fails while it opens: its result is of the state in which it began.
#[test]
fn b2_by_time_a_call_begins_and_fails_while_it_opens() {
    bounded(2, 1_000, || {
        let (breaker, clock) = breaker(by_time().min_calls(1).probes(1));
        let bad = breaker.try_acquire().unwrap();
        let other = breaker.clone();
        let (began, ()) = race(
            move || other.try_acquire().map(fail).is_ok(),
            move || fail(bad),
        );
        opened_once(&breaker);
        let totals = breaker.snapshot().totals;
        assert_eq!(totals.failures + totals.late, 1 + u64::from(began));
        assert!(totals.failures >= 1);
        clock.advance(10 * SECOND);
        breaker.try_acquire().unwrap().success();
        let snapshot = breaker.snapshot();
        assert_eq!((snapshot.state, snapshot.calls), (State::Closed, 0));
    });
}

/// A call that begins as soon as it has closed is not late.
fn just_closed(rules: fn() -> Config) {
    bounded(2, 100, move || {
        let (breaker, _clock) = due(rules().probes(1));
        let probe = breaker.try_acquire().unwrap();
        let other = breaker.clone();
        let ((), began) = race(
            move || probe.success(),
            move || other.try_acquire().map(Permit::success).is_ok(),
        );
        let snapshot = breaker.snapshot();
        assert_eq!(snapshot.state, State::Closed);
        assert_eq!(snapshot.calls, u32::from(began));
        assert_eq!(snapshot.totals.late, 0);
    });
}

#[test]
fn a_call_that_begins_once_it_has_closed_counts() {
    just_closed(config);
}

#[test]
fn and_so_it_does_by_time() {
    just_closed(by_time);
}

#[test]
fn a_run_is_of_one_generation() {
    orders(20, || {
        let run = Arc::new(Run::new(0));
        run.add(0);
        let (one, other) = (Arc::clone(&run), Arc::clone(&run));
        let (added, ()) = race(move || other.add(0), move || one.turn_over(1, true));
        assert!(matches!(added, 0 | 2));
        assert_eq!(run.failures(), 0);
        run.end(0);
        assert_eq!((run.add(0), run.add(1)), (0, 1));
    });
}

#[test]
fn a_failure_is_never_seen_as_a_success() {
    bounded(3, 60, || {
        let (breaker, _clock) = breaker(config().window(Window::Count(9)).min_calls(9));
        let permit = breaker.try_acquire().unwrap();
        let other = breaker.clone();
        let ((), seen) = race(move || fail(permit), move || other.snapshot().totals);
        assert_eq!(seen.successes, 0);
        let totals = breaker.snapshot().totals;
        assert_eq!((totals.successes, totals.failures), (0, 1));
    });
}

#[test]
fn nor_is_it_taken_off_those_after_a_reset() {
    bounded(2, 400, || {
        let (breaker, _clock) = breaker(config().window(Window::Count(9)).min_calls(9));
        let (one, other) = (breaker.clone(), breaker.clone());
        race(
            move || other.try_acquire().map(fail).is_ok(),
            move || one.reset(),
        );
        assert_eq!(breaker.snapshot().totals.successes, 0);
        breaker.try_acquire().unwrap().success();
        let _held = breaker.try_acquire().unwrap();
        let snapshot = breaker.snapshot();
        assert_eq!((snapshot.totals.successes, snapshot.in_flight), (1, 1));
    });
}

/// Ticks of a second, and a call that has hung for longer than is slow.
fn hung() -> (Breaker, TestClock, Permit) {
    let (breaker, clock) = breaker(rules_of_waiting());
    let hung = breaker.try_acquire().unwrap();
    clock.advance(5 * SECOND);
    (breaker, clock, hung)
}

fn rules_of_waiting() -> Config {
    config().slow_threshold(2 * SECOND).in_flight_slow(1)
}

#[test]
fn one_of_those_who_ask_opens_it_when_too_many_wait() {
    alike(1, 200, || {
        let (breaker, _clock, hung) = hung();
        let (one, other) = (breaker.clone(), breaker.clone());
        let (first, second) = race(
            move || one.try_acquire().ok(),
            move || other.try_acquire().ok(),
        );
        opened_once(&breaker);
        assert!(first.is_none() || second.is_none(), "who looks is refused");
        drop((first, second, hung));
        let snapshot = breaker.snapshot();
        assert_eq!((snapshot.in_flight, snapshot.in_flight_slow), (0, 0));
    });
}

#[test]
fn the_last_that_waits_ends_while_another_asks() {
    bounded(2, 100, || {
        let (breaker, clock, hung) = hung();
        let other = breaker.clone();
        let (asked, ()) = race(move || other.try_acquire().ok(), move || drop(hung));
        let snapshot = breaker.snapshot();
        assert_eq!(snapshot.state == State::Closed, asked.is_some());
        drop(asked);
        clock.advance(5 * SECOND);
        let snapshot = breaker.snapshot();
        assert_eq!((snapshot.in_flight, snapshot.in_flight_slow), (0, 0));
    });
}

#[test]
fn a_rule_that_is_switched_off_meanwhile_opens_nothing() {
    bounded(2, 300, || {
        let (breaker, _clock, hung) = hung();
        let (one, other) = (breaker.clone(), breaker.clone());
        race(
            move || drop(other.try_acquire().ok()),
            move || {
                let off = rules_of_waiting().in_flight_slow(None);
                one.reconfigure(off).unwrap();
            },
        );
        if let Some(trip) = breaker.snapshot().last_trip {
            assert_eq!(trip.reason, Reason::InFlightSlow { calls: 1 });
        }
        drop(hung);
    });
}

/// A call that waits since before the breaker opened is nobody's after it has closed.
#[test]
fn a_call_that_waits_ends_while_it_opens() {
    bounded(2, 20, || {
        let (breaker, clock) = breaker(rules_of_waiting().min_calls(1));
        let old = breaker.try_acquire().unwrap();
        let bad = breaker.try_acquire().unwrap();
        race(move || drop(old), move || fail(bad));
        breaker.reset();
        let new = breaker.try_acquire().unwrap();
        clock.advance(5 * SECOND);
        assert_eq!(breaker.snapshot().in_flight_slow, 1);
        drop(new);
        assert_eq!(breaker.snapshot().in_flight_slow, 0);
    });
}
