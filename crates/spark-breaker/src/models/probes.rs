//! Who is let through while it is half open, and what comes of it.

use super::*;
use crate::{Mode, State};

/// By the generation that let them through: no more at once than there are probes, and no call that
/// is not one.
fn at_most(probes: usize, held: &[Option<Permit>]) {
    let held = held.iter().flatten();
    let generations: Vec<u64> = held.clone().map(Permit::generation).collect();
    for generation in &generations {
        let same = generations.iter().filter(|it| *it == generation).count();
        assert!(same <= probes, "{generations:?}");
    }
    assert!(held.into_iter().all(Permit::is_probe));
}

#[test]
fn b1_three_who_ask_at_once_get_no_more_probes_than_there_are() {
    alike(2, 1_000, || {
        let (breaker, _clock) = due(config().probes(2));
        let ask = || {
            let breaker = breaker.clone();
            Box::new(move || breaker.try_acquire().ok()) as Box<dyn FnOnce() -> _>
        };
        let all = race3([ask(), ask(), ask()]);
        at_most(2, &all);
        assert_eq!(all.iter().flatten().count(), 2);
        drop(all);
        assert!(breaker.try_acquire().is_ok(), "their places are back");
    });
}

#[test]
fn b1_probes_are_asked_for_given_back_and_taken_away_at_once() {
    bounded3(1, 500, || {
        let (breaker, clock) = due(config().probes(1).probe_timeout(SECOND));
        let hung = breaker.try_acquire().ok();
        let (asks, drops, ends) = (breaker.clone(), breaker.clone(), breaker.clone());
        let mut all = race3([
            Box::new(move || asks.try_acquire().ok()),
            Box::new(move || {
                drop(drops.try_acquire());
                drops.try_acquire().ok()
            }),
            // The episode is over: whoever asks next begins another one.
            Box::new(move || {
                clock.advance(SECOND);
                ends.try_acquire().ok()
            }),
        ]);
        all.push(hung);
        at_most(1, &all);
        let held = all.iter().flatten().count();
        assert_eq!(breaker.snapshot().in_flight as usize, held);
        drop(all);
        let last = breaker.try_acquire().unwrap();
        assert!(last.is_probe() && breaker.try_acquire().is_err());
    });
}

#[test]
fn b1_probes_are_asked_for_while_it_opens_again() {
    alike(1, 500, || {
        let (breaker, _clock) = due(config().probes(2));
        let bad = breaker.try_acquire().unwrap();
        let (asks, drops) = (breaker.clone(), breaker.clone());
        let all = race3([
            Box::new(move || {
                drop(drops.try_acquire());
                None
            }),
            Box::new(move || asks.try_acquire().ok()),
            Box::new(move || {
                fail(bad);
                None
            }),
        ]);
        at_most(1, &all);
        let snapshot = breaker.snapshot();
        assert_eq!((snapshot.state, snapshot.generation), (State::Open, 3));
        drop(all);
        assert_eq!(breaker.snapshot().in_flight, 0);
        assert!(breaker.try_acquire().is_err());
    });
}

#[test]
fn b1_a_probe_that_is_given_back_is_lent_once() {
    orders(100, || {
        let (breaker, _clock) = due(config().probes(1));
        let probe = breaker.try_acquire().unwrap();
        let (one, other) = (breaker.clone(), breaker.clone());
        let (again, mine) = race(
            move || other.try_acquire().ok(),
            move || {
                drop(probe);
                one.try_acquire().ok()
            },
        );
        assert!(again.is_some() != mine.is_some());
        assert_eq!(breaker.snapshot().in_flight, 1);
    });
}

#[test]
fn two_probes_that_succeed_at_once_close_it() {
    orders(30, || {
        let (breaker, _clock) = due(config().probes(2));
        let first = breaker.try_acquire().unwrap();
        let second = breaker.try_acquire().unwrap();
        race(move || first.success(), move || second.success());
        let snapshot = breaker.snapshot();
        assert_eq!((snapshot.state, snapshot.generation), (State::Closed, 3));
        assert_eq!(snapshot.totals.successes, 2);
    });
}

#[test]
fn a_probe_that_succeeds_against_one_that_fails() {
    orders(100, || {
        let (breaker, _clock) = due(config().probes(2).success_needed(1));
        let good = breaker.try_acquire().unwrap();
        let bad = breaker.try_acquire().unwrap();
        race(move || good.success(), move || fail(bad));
        let snapshot = breaker.snapshot();
        assert_ne!(snapshot.state, State::HalfOpen);
        assert_eq!((snapshot.generation, snapshot.calls), (3, 0));
    });
}

#[test]
fn a_result_against_the_end_of_its_episode() {
    orders(500, || {
        let (breaker, clock) = due(config().probes(1).probe_timeout(SECOND));
        let hung = breaker.try_acquire().unwrap();
        let other = breaker.clone();
        let ((), fresh) = race(
            move || hung.success(),
            move || {
                clock.advance(SECOND);
                other.try_acquire().ok()
            },
        );
        let snapshot = breaker.snapshot();
        match snapshot.state {
            // It came in time; whoever asked may have come too early, and was refused.
            State::Closed => {
                assert_eq!(snapshot.generation, 3);
                assert!(fresh.is_none_or(|permit| !permit.is_probe()));
            }
            // It came too late, and took nothing from the next episode.
            State::HalfOpen => {
                let fresh = fresh.expect("the first of an episode");
                assert!(fresh.is_probe());
                assert_eq!(snapshot.generation, 3);
                assert!(breaker.try_acquire().is_err());
                drop(fresh);
                breaker.try_acquire().unwrap().success();
                assert_eq!(breaker.snapshot().state, State::Closed);
            }
            State::Open => panic!("nothing has failed"),
        }
    });
}

#[test]
fn fewer_probes_are_wanted_while_one_succeeds() {
    orders(100, || {
        let (breaker, _clock) = due(config().probes(2));
        let probe = breaker.try_acquire().unwrap();
        let other = breaker.clone();
        race(
            move || other.reconfigure(config().probes(1)).unwrap(),
            move || probe.success(),
        );
        assert_eq!(breaker.snapshot().state, State::Closed);
    });
}

#[test]
fn a_forced_mode_against_a_probe() {
    orders(30, || {
        let (breaker, _clock) = due(config().probes(1));
        let (one, other) = (breaker.clone(), breaker.clone());
        let ((), probe) = race(
            move || other.set_mode(Mode::ForcedOpen),
            move || one.try_acquire().ok(),
        );
        if let Some(probe) = probe {
            probe.success();
        }
        let snapshot = breaker.snapshot();
        assert_eq!(snapshot.mode, Mode::ForcedOpen);
        assert_eq!(snapshot.state, State::Open);
    });
}

/// The ramp's end is said by exchange, against a step to another state.
#[test]
fn the_end_of_a_ramp_against_a_failure_that_opens() {
    bounded(3, 100, || {
        let rules = config().min_calls(1).probes(1).ramp(SECOND);
        let (breaker, clock) = due(rules.seed(0));
        breaker.try_acquire().unwrap().success();
        // The ramp lets through a tenth.
        let bad = (0..40).find_map(|_| breaker.try_acquire().ok()).unwrap();
        let ramping = bad.generation();
        clock.advance(SECOND);
        let other = breaker.clone();
        let (admitted, ()) = race(move || other.try_acquire().ok(), move || fail(bad));
        assert_eq!(breaker.snapshot().state, State::Open);
        assert!(admitted.is_none_or(|permit| permit.generation() == ramping));
    });
}
