//! The windows: results against results, and against an empty window or one of another shape.

use super::*;
use crate::window::{CountWindow, Counts, FINE, Mark, Recorded, TimeWindow};

const FAILED: Mark = Mark {
    failed: true,
    slow: false,
};

#[test]
fn totals_are_of_what_is_in_the_ring() {
    alike(1, 1_000, || {
        let window = Arc::new(CountWindow::new(0));
        window.resize(1);
        let record = |mark: Mark| {
            let window = Arc::clone(&window);
            Box::new(move || window.record(0, mark)) as Thread
        };
        let both = Mark {
            failed: true,
            slow: true,
        };
        let recorded = race3([record(FAILED), record(FINE), record(both)]);
        assert_eq!(recorded, [Recorded::Numbered; 3]);
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
    orders(100, || {
        let window = Arc::new(CountWindow::new(0));
        window.resize(2);
        let (one, other) = (Arc::clone(&window), Arc::clone(&window));
        let (recorded, handed_over) = race(
            move || other.record(0, FAILED),
            move || one.turn_over(1, true),
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
    orders(100, || {
        let window = Arc::new(CountWindow::new(0));
        window.resize(1);
        let (one, other) = (Arc::clone(&window), Arc::clone(&window));
        race(
            move || other.record(0, FINE),
            move || {
                one.turn_over(1, true);
                one.record(1, FAILED);
            },
        );
        assert_eq!(window.counts().failures, 1);
        window.record(1, FINE);
        assert_eq!(window.counts().failures, 0);
    });
}

#[test]
fn a_result_while_the_window_by_count_is_resized() {
    orders(200, || {
        let window = Arc::new(CountWindow::new(0));
        // Both rings are there: how a ring comes to be is `OnceLock`'s, which is not modelled.
        window.resize(2);
        window.resize(100);
        for _ in 0..3 {
            window.record(0, FAILED);
        }
        let (one, other) = (Arc::clone(&window), Arc::clone(&window));
        let (recorded, handed_over) = race(move || other.record(0, FAILED), move || one.resize(2));
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

/// A result of generation 0, by a thread that has read the time so.
fn records(window: &Arc<TimeWindow>, clock: &TestClock, second: u64, mark: Mark) -> Thread {
    let (window, clock) = (Arc::clone(window), clock.clock());
    Box::new(move || window.record(0, &clock, nanos(second), mark))
}

type Thread = Box<dyn FnOnce() -> Recorded>;

#[test]
fn b2_whoever_comes_late_does_not_wipe_a_newer_bucket() {
    orders(100, || {
        let (window, clock) = timed();
        clock.advance(2 * SECOND);
        // The time was read as 0 by one of them, who then slept for two seconds.
        race(
            records(&window, &clock, 0, FAILED),
            records(&window, &clock, 2, FAILED),
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
fn b2_two_who_begin_a_bucket_anew_are_both_counted() {
    orders(20, || {
        let (window, clock) = timed();
        window.record(0, &clock.clock(), nanos(0), FAILED);
        clock.advance(2 * SECOND);
        race(
            records(&window, &clock, 2, FAILED),
            records(&window, &clock, 2, FINE),
        );
        let counts = window.counts(nanos(2));
        assert_eq!((counts.calls, counts.failures), (2, 1));
    });
}

#[test]
fn b2_three_who_turn_the_ring_lose_nothing_that_is_in_the_window() {
    bounded3(2, 100, || {
        let (window, clock) = timed();
        window.record(0, &clock.clock(), nanos(0), FAILED);
        window.record(0, &clock.clock(), nanos(1), FAILED);
        clock.advance(3 * SECOND);
        race3([
            records(&window, &clock, 2, FAILED),
            records(&window, &clock, 3, FAILED),
            records(&window, &clock, 2, FINE),
        ]);
        let counts = window.counts(nanos(3));
        assert_eq!((counts.calls, counts.failures), (3, 2));
    });
}

/// Of two who fail in different buckets and look at the window next, one sees both.
#[test]
fn b2_two_failures_in_different_buckets_do_not_miss_each_other() {
    orders(100, || {
        let (window, clock) = timed();
        let judge = |at: u64| {
            let (window, clock) = (Arc::clone(&window), clock.clock());
            move || {
                window.record(0, &clock, nanos(at), FAILED);
                window.counts(nanos(1))
            }
        };
        let (first, second) = race(judge(0), judge(1));
        assert_eq!(first.failures.max(second.failures), 2);
    });
}

#[test]
fn b2_never_more_failures_than_calls_are_seen() {
    orders(100, || {
        let (window, clock) = timed();
        let (one, other) = (Arc::clone(&window), Arc::clone(&window));
        let ((), counts) = race(
            move || {
                other.record(0, &clock.clock(), nanos(0), FAILED);
                other.record(0, &clock.clock(), nanos(1), FAILED);
            },
            move || one.counts(nanos(1)),
        );
        assert!(counts.failures <= counts.calls, "{counts:?}");
    });
}

#[test]
fn b2_a_result_while_the_window_by_time_is_emptied() {
    orders(15, || {
        let (window, clock) = timed();
        let (one, other) = (Arc::clone(&window), Arc::clone(&window));
        let later = clock.clone();
        race(
            move || other.record(0, &later.clock(), nanos(0), FAILED),
            move || one.turn_over(1, true),
        );
        assert_eq!(window.counts(nanos(0)), Counts::default());
        assert_eq!(window.record(0, &clock.clock(), 0, FINE), Recorded::Late);
        assert_eq!(window.record(1, &clock.clock(), 0, FINE), Recorded::Yes);
        assert_eq!(window.counts(nanos(0)).calls, 1);
    });
}

#[test]
fn b2_a_result_while_the_window_by_time_is_reshaped() {
    orders(300, || {
        let (window, clock) = timed();
        window.resize(4 * SECOND, 2, 0);
        let now = nanos(514);
        window.record(0, &clock.clock(), now, FAILED);
        let (one, other) = (Arc::clone(&window), Arc::clone(&window));
        let later = clock.clone();
        // Half as long: where a moment has its bucket changes. By the new length and the old origin,
        // this one's would be the next after its own.
        race(
            move || other.record(0, &later.clock(), now, FAILED),
            move || one.resize(2 * SECOND, 2, now),
        );
        let counts = window.counts(now);
        assert!(
            counts.calls <= 1 && counts.failures == counts.calls,
            "{counts:?}"
        );
        window.record(0, &clock.clock(), now, FINE);
        assert_eq!(window.counts(now).calls, counts.calls + 1);
        assert_eq!(window.counts(nanos(516)), Counts::default());
    });
}
