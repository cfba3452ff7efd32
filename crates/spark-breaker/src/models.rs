//! What threads can do to each other, in every order of their steps.
//!
//! `RUSTFLAGS="--cfg spark_loom" cargo test -p spark-breaker --lib --release models`. (The cfg is our
//! own, since `--cfg loom` switches other crates too.) Counters that nothing is decided by are not
//! modelled, nor are the rules that calls read one by one.

use std::sync::Arc;
use std::time::Duration;

use loom::thread;
use spark_core::testing::TestClock;

use crate::run::Run;
use crate::waiting::Waiting;
use crate::window::{CountWindow, Counts, FINE, Mark, Recorded, TimeWindow};
use crate::{Breaker, Config, FailKind, Mode, Permit, State, Window};

const SECOND: Duration = Duration::from_secs(1);
const FAILED: Mark = Mark {
    failed: true,
    slow: false,
};

/// A window by count writes the least.
fn config() -> Config {
    Config::standard()
        .window(Window::Count(2))
        .min_calls(2)
        .jitter(0.0)
        .consecutive(None)
}

fn breaker(config: Config) -> (Breaker, TestClock) {
    let clock = TestClock::new();
    (Breaker::new("a", config, clock.clock()).unwrap(), clock)
}

/// Open, and its time is over.
fn due(config: Config) -> (Breaker, TestClock) {
    let (breaker, clock) = breaker(config);
    breaker.throttle(SECOND);
    clock.advance(SECOND);
    (breaker, clock)
}

/// Both at once; what they return.
fn race<A, B>(a: impl FnOnce() -> A + 'static, b: impl FnOnce() -> B) -> (A, B)
where
    A: 'static,
{
    let a = thread::spawn(a);
    let b = b();
    (a.join().unwrap(), b)
}

/// The steps of three threads are too many to try in every order: with at most so many changes of
/// thread where none was needed.
fn bounded(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

fn fail(permit: Permit) {
    permit.failure(FailKind::Other);
}

#[test]
fn no_more_probes_than_there_are() {
    bounded(3, || {
        let (breaker, _clock) = due(config().probes(2));
        let ask = |breaker: Breaker| move || breaker.try_acquire().ok();
        let (first, second) = (ask(breaker.clone()), ask(breaker.clone()));
        let first = thread::spawn(first);
        let second = thread::spawn(second);
        let third = breaker.try_acquire().ok();
        let all = [first.join().unwrap(), second.join().unwrap(), third];
        assert_eq!(all.iter().flatten().count(), 2);
        let generations = all.iter().flatten().map(Permit::is_probe);
        assert!(generations.into_iter().all(|probe| probe));
        drop(all);
        assert!(breaker.try_acquire().is_ok(), "their places are back");
    });
}

#[test]
fn a_probe_that_is_given_back_is_lent_once() {
    loom::model(|| {
        let (breaker, _clock) = due(config().probes(1));
        let probe = breaker.try_acquire().unwrap();
        let other = breaker.clone();
        let (again, mine) = race(
            move || other.try_acquire().ok(),
            || {
                drop(probe);
                breaker.try_acquire().ok()
            },
        );
        assert!(again.is_some() != mine.is_some());
        assert_eq!(breaker.snapshot().in_flight, 1);
    });
}

#[test]
fn two_probes_that_succeed_at_once_close_it() {
    loom::model(|| {
        let (breaker, _clock) = due(config().probes(2));
        let first = breaker.try_acquire().unwrap();
        let second = breaker.try_acquire().unwrap();
        race(move || first.success(), || second.success());
        let snapshot = breaker.snapshot();
        assert_eq!((snapshot.state, snapshot.generation), (State::Closed, 3));
    });
}

#[test]
fn a_probe_that_succeeds_against_one_that_fails() {
    loom::model(|| {
        let (breaker, _clock) = due(config().probes(2).success_needed(1));
        let good = breaker.try_acquire().unwrap();
        let bad = breaker.try_acquire().unwrap();
        race(move || good.success(), || fail(bad));
        let snapshot = breaker.snapshot();
        assert_ne!(snapshot.state, State::HalfOpen);
        assert_eq!((snapshot.generation, snapshot.calls), (3, 0));
    });
}

#[test]
fn a_result_against_the_end_of_its_episode() {
    loom::model(|| {
        let (breaker, clock) = due(config().probes(1).probe_timeout(SECOND));
        let hung = breaker.try_acquire().unwrap();
        let other = breaker.clone();
        let ((), fresh) = race(
            move || hung.success(),
            || {
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
    loom::model(|| {
        let (breaker, _clock) = due(config().probes(2));
        let probe = breaker.try_acquire().unwrap();
        let other = breaker.clone();
        race(
            move || other.reconfigure(config().probes(1)).unwrap(),
            || probe.success(),
        );
        assert_eq!(breaker.snapshot().state, State::Closed);
    });
}

#[test]
fn the_failure_that_breaks_the_rule_is_not_missed() {
    bounded(3, || {
        let (breaker, _clock) = breaker(config());
        let first = breaker.try_acquire().unwrap();
        let second = breaker.try_acquire().unwrap();
        race(move || fail(first), || fail(second));
        let snapshot = breaker.snapshot();
        assert_eq!((snapshot.state, snapshot.generation), (State::Open, 1));
    });
}

#[test]
fn nor_is_that_of_a_run() {
    loom::model(|| {
        let rules = config().window(Window::Count(10)).min_calls(10);
        let (breaker, _clock) = breaker(rules.consecutive(2));
        let first = breaker.try_acquire().unwrap();
        let second = breaker.try_acquire().unwrap();
        race(move || fail(first), || fail(second));
        let snapshot = breaker.snapshot();
        assert_eq!((snapshot.state, snapshot.generation), (State::Open, 1));
    });
}

#[test]
fn a_result_against_an_operator_finds_all_of_one_generation_or_nothing() {
    loom::model(|| {
        let (breaker, _clock) = breaker(config().min_calls(1));
        let old = breaker.try_acquire().unwrap();
        let other = breaker.clone();
        race(move || other.reset(), || fail(old));
        let snapshot = breaker.snapshot();
        // It opened before, or it was late.
        assert_eq!((snapshot.state, snapshot.calls), (State::Closed, 0));
        assert!(matches!(snapshot.generation, 1 | 2));
        fail(breaker.try_acquire().unwrap());
        assert_eq!(breaker.snapshot().state, State::Open);
    });
}

#[test]
fn a_forced_mode_against_a_probe() {
    loom::model(|| {
        let (breaker, _clock) = due(config().probes(1));
        let other = breaker.clone();
        let ((), probe) = race(
            move || other.set_mode(Mode::ForcedOpen),
            || breaker.try_acquire().ok(),
        );
        if let Some(probe) = probe {
            probe.success();
        }
        let snapshot = breaker.snapshot();
        assert_eq!(snapshot.mode, Mode::ForcedOpen);
        assert_eq!(snapshot.state, State::Open);
    });
}

#[test]
fn totals_are_of_what_is_in_the_ring() {
    bounded(2, || {
        let window = Arc::new(CountWindow::new(0));
        window.resize(1);
        let record = |mark: Mark| {
            let window = Arc::clone(&window);
            move || assert_eq!(window.record(0, mark), Recorded::Numbered)
        };
        let first = thread::spawn(record(FAILED));
        let second = thread::spawn(record(FINE));
        record(Mark {
            failed: true,
            slow: true,
        })();
        first.join().unwrap();
        second.join().unwrap();
        // A failure and a success more: whatever was left in the only place goes, to the bit.
        record(FAILED)();
        let left = window.counts();
        assert_eq!((left.calls, left.failures, left.slow), (1, 1, 0));
        record(FINE)();
        let left = window.counts();
        assert_eq!((left.calls, left.failures, left.slow), (1, 0, 0));
        assert_eq!(window.numbered(), 5);
    });
}

#[test]
fn a_result_while_the_window_by_count_is_emptied() {
    loom::model(|| {
        let window = Arc::new(CountWindow::new(0));
        window.resize(2);
        let other = Arc::clone(&window);
        let (recorded, handed_over) = race(
            move || other.record(0, FAILED),
            || window.turn_over(1, true),
        );
        assert_eq!(window.counts(), Counts::default());
        let numbered = u64::from(recorded == Recorded::Numbered);
        assert_eq!(handed_over, numbered);
        // Nor is it there when the places have been taken anew.
        for _ in 0..2 {
            assert_eq!(window.record(1, FINE), Recorded::Numbered);
        }
        let counts = window.counts();
        assert_eq!((counts.calls, counts.failures), (2, 0));
    });
}

#[test]
fn a_mark_of_before_does_not_hide_one_of_after() {
    loom::model(|| {
        let window = Arc::new(CountWindow::new(0));
        window.resize(1);
        let other = Arc::clone(&window);
        race(
            move || other.record(0, FINE),
            || {
                window.turn_over(1, true);
                window.record(1, FAILED);
            },
        );
        assert_eq!(window.counts().failures, 1);
        window.record(1, FINE);
        assert_eq!(window.counts().failures, 0);
    });
}

#[test]
fn a_result_while_the_window_by_count_is_resized() {
    loom::model(|| {
        let window = Arc::new(CountWindow::new(0));
        // Both rings are there: how a ring comes to be is `OnceLock`'s, which is not modelled.
        window.resize(2);
        window.resize(100);
        for _ in 0..3 {
            window.record(0, FAILED);
        }
        let other = Arc::clone(&window);
        let (recorded, handed_over) = race(move || other.record(0, FAILED), || window.resize(2));
        let counts = window.counts();
        let numbered = 3 + u64::from(recorded == Recorded::Numbered);
        assert_eq!(u64::from(counts.calls) + handed_over, numbered);
        assert_eq!(counts.failures, counts.calls);
        for _ in 0..2 {
            window.record(0, FINE);
        }
        assert_eq!(window.counts().failures, 0);
    });
}

/// A window of two buckets of a second, in a ring of two.
fn timed() -> (Arc<TimeWindow>, TestClock) {
    let window = TimeWindow::new(0);
    window.resize(2 * SECOND, 2, 0);
    (Arc::new(window), TestClock::new())
}

fn nanos(seconds: u64) -> u64 {
    seconds * 1_000_000_000
}

#[test]
fn whoever_comes_late_does_not_wipe_a_newer_bucket() {
    loom::model(|| {
        let (window, clock) = timed();
        clock.advance(2 * SECOND);
        let (other, later) = (Arc::clone(&window), clock.clone());
        // The time was read as 0 by one of them, who then slept for two seconds.
        race(
            move || other.record(0, &later.clock(), nanos(0), FAILED),
            || window.record(0, &clock.clock(), nanos(2), FAILED),
        );
        let counts = window.counts(nanos(2));
        assert!(
            counts.calls >= 1 && counts.calls == counts.failures,
            "{counts:?}"
        );
        // What was written first in the older epoch is gone; the newer is never lost.
        window.record(0, &clock.clock(), nanos(2), FINE);
        let after = window.counts(nanos(2));
        assert_eq!(
            (after.calls, after.failures),
            (counts.calls + 1, counts.failures)
        );
    });
}

#[test]
fn two_who_begin_a_bucket_are_both_counted() {
    loom::model(|| {
        let (window, clock) = timed();
        window.record(0, &clock.clock(), nanos(0), FAILED);
        clock.advance(2 * SECOND);
        let (other, later) = (Arc::clone(&window), clock.clone());
        race(
            move || other.record(0, &later.clock(), nanos(2), FAILED),
            || window.record(0, &clock.clock(), nanos(2), FINE),
        );
        let counts = window.counts(nanos(2));
        assert_eq!((counts.calls, counts.failures), (2, 1));
    });
}

#[test]
fn never_more_failures_than_calls_are_seen() {
    loom::model(|| {
        let (window, clock) = timed();
        let other = Arc::clone(&window);
        let ((), counts) = race(
            move || {
                other.record(0, &clock.clock(), nanos(0), FAILED);
                other.record(0, &clock.clock(), nanos(1), FAILED);
            },
            || window.counts(nanos(1)),
        );
        assert!(counts.failures <= counts.calls, "{counts:?}");
    });
}

#[test]
fn a_result_while_the_window_by_time_is_emptied() {
    loom::model(|| {
        let (window, clock) = timed();
        let other = Arc::clone(&window);
        let later = clock.clone();
        race(
            move || other.record(0, &later.clock(), nanos(0), FAILED),
            || window.turn_over(1, true),
        );
        assert_eq!(window.counts(nanos(0)), Counts::default());
        assert_eq!(window.record(0, &clock.clock(), 0, FINE), Recorded::Late);
        assert_eq!(window.record(1, &clock.clock(), 0, FINE), Recorded::Yes);
        assert_eq!(window.counts(nanos(0)).calls, 1);
    });
}

#[test]
fn a_result_while_the_window_by_time_is_reshaped() {
    loom::model(|| {
        let (window, clock) = timed();
        let now = nanos(512);
        window.record(0, &clock.clock(), now, FAILED);
        let (other, later) = (Arc::clone(&window), clock.clone());
        // Twice as long: where a moment has its bucket changes.
        race(
            move || other.record(0, &later.clock(), now, FAILED),
            || window.resize(4 * SECOND, 2, now),
        );
        let counts = window.counts(now);
        assert!(
            counts.calls <= 1 && counts.failures == counts.calls,
            "{counts:?}"
        );
        window.record(0, &clock.clock(), now, FINE);
        assert_eq!(window.counts(now).calls, counts.calls + 1);
    });
}

#[test]
fn a_run_is_of_one_generation() {
    loom::model(|| {
        let run = Arc::new(Run::new(0));
        run.add(0);
        let other = Arc::clone(&run);
        let (added, ()) = race(move || other.add(0), || run.turn_over(1, true));
        assert!(matches!(added, 0 | 2));
        assert_eq!(run.failures(), 0);
        run.end(0);
        assert_eq!((run.add(0), run.add(1)), (0, 1));
    });
}

/// Ticks of a second.
fn waiting() -> Arc<Waiting> {
    let waiting = Waiting::new();
    waiting.set(Some(1), 12 * SECOND, 0);
    Arc::new(waiting)
}

#[test]
fn a_call_ends_while_another_takes_the_place_of_its_tick() {
    loom::model(|| {
        let waiting = waiting();
        let old = waiting.begin(nanos(0)).unwrap();
        let hung = waiting.begin(nanos(0));
        let other = Arc::clone(&waiting);
        let ((), new) = race(move || other.end(old), || waiting.begin(nanos(16)).unwrap());
        assert!(hung.is_some());
        assert_eq!(waiting.overdue(nanos(16)), 1);
        assert_eq!(waiting.overdue(nanos(100)), 2);
        waiting.end(new);
        assert_eq!(waiting.overdue(nanos(100)), 1);
    });
}

#[test]
fn two_calls_take_the_place_of_an_older_tick() {
    loom::model(|| {
        let waiting = waiting();
        waiting.begin(nanos(0)).unwrap();
        let other = Arc::clone(&waiting);
        race(
            move || other.begin(nanos(16)).unwrap(),
            || waiting.begin(nanos(16)).unwrap(),
        );
        assert_eq!(waiting.overdue(nanos(16)), 1);
        assert_eq!(waiting.overdue(nanos(100)), 3);
    });
}

#[test]
fn a_call_ends_while_nobody_is_asked_about_any_more() {
    loom::model(|| {
        let waiting = waiting();
        let old = waiting.begin(nanos(0)).unwrap();
        let other = Arc::clone(&waiting);
        // The new one takes the old one's place.
        let ((), new) = race(
            move || other.end(old),
            || {
                waiting.clear(nanos(0));
                waiting.begin(nanos(1)).unwrap()
            },
        );
        assert_eq!(waiting.overdue(nanos(100)), 1);
        waiting.end(new);
        assert_eq!(waiting.overdue(nanos(100)), 0);
    });
}

#[test]
fn a_call_begins_while_the_threshold_changes() {
    loom::model(|| {
        let waiting = waiting();
        let other = Arc::clone(&waiting);
        let (began, ()) = race(
            move || other.begin(nanos(3)),
            || waiting.set(Some(1), 24 * SECOND, nanos(3)),
        );
        let before = waiting.overdue(nanos(100));
        assert!(before <= 1);
        let new = waiting.begin(nanos(3)).unwrap();
        assert_eq!(waiting.overdue(nanos(100)), before + 1);
        for tick in began.into_iter().chain([new]) {
            waiting.end(tick);
        }
        assert_eq!(waiting.overdue(nanos(100)), 0);
    });
}

/// The ramp's end is said by exchange, against a step to another state.
#[test]
fn the_end_of_a_ramp_against_a_failure_that_opens() {
    bounded(3, || {
        let rules = config().min_calls(1).probes(1).ramp(SECOND);
        let (breaker, clock) = due(rules.seed(0));
        breaker.try_acquire().unwrap().success();
        // The ramp lets through a tenth.
        let bad = (0..40).find_map(|_| breaker.try_acquire().ok()).unwrap();
        clock.advance(SECOND);
        let other = breaker.clone();
        let (admitted, ()) = race(move || other.try_acquire().ok(), || fail(bad));
        assert_eq!(breaker.snapshot().state, State::Open);
        assert!(admitted.is_none_or(|permit| !permit.is_probe()));
    });
}
