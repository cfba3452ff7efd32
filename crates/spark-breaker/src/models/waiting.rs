//! Calls that wait, in a ring of 4 ticks of a second, of which 3 are overdue.

use super::*;
use crate::waiting::Waiting;

fn waiting() -> Arc<Waiting> {
    let waiting = Waiting::new();
    waiting.set(Some(1), 2 * SECOND, 0);
    Arc::new(waiting)
}

#[test]
fn a_call_ends_while_another_takes_the_place_of_its_tick() {
    orders(50, || {
        let waiting = waiting();
        let old = waiting.begin(nanos(0)).unwrap();
        let hung = waiting.begin(nanos(0));
        let (one, other) = (Arc::clone(&waiting), Arc::clone(&waiting));
        let ((), new) = race(move || other.end(old), move || one.begin(nanos(4)).unwrap());
        assert!(hung.is_some());
        assert_eq!(waiting.overdue(nanos(4)), 1);
        assert_eq!(waiting.overdue(nanos(100)), 2);
        waiting.end(new);
        assert_eq!(waiting.overdue(nanos(100)), 1);
    });
}

#[test]
fn two_calls_take_the_place_of_an_older_tick() {
    orders(20, || {
        let waiting = waiting();
        waiting.begin(nanos(0)).unwrap();
        let (one, other) = (Arc::clone(&waiting), Arc::clone(&waiting));
        race(
            move || other.begin(nanos(4)).unwrap(),
            move || one.begin(nanos(4)).unwrap(),
        );
        assert_eq!(waiting.overdue(nanos(4)), 1);
        assert_eq!(waiting.overdue(nanos(100)), 3);
    });
}

#[test]
fn a_call_that_goes_over_to_the_overdue_is_counted_once_at_most() {
    orders(40, || {
        let waiting = waiting();
        waiting.begin(nanos(0)).unwrap();
        let (one, other) = (Arc::clone(&waiting), Arc::clone(&waiting));
        let (_, seen) = race(move || other.begin(nanos(4)), move || one.overdue(nanos(4)));
        assert!(seen <= 1, "{seen}");
        assert_eq!(waiting.overdue(nanos(4)), 1);
    });
}

#[test]
fn two_that_go_over_are_counted_twice_at_most() {
    bounded(3, 300, || {
        let waiting = waiting();
        waiting.begin(nanos(0)).unwrap();
        waiting.begin(nanos(1)).unwrap();
        let (one, other) = (Arc::clone(&waiting), Arc::clone(&waiting));
        let (_, seen) = race(
            move || {
                other.begin(nanos(4));
                other.begin(nanos(5));
            },
            move || one.overdue(nanos(5)),
        );
        assert!(seen <= 2, "{seen}");
        assert_eq!(waiting.overdue(nanos(5)), 2);
    });
}

/// A thread that has slept for a whole turn of the ring, against one whose tick it is.
#[test]
fn a_call_that_comes_a_turn_late_is_overdue_at_once() {
    orders(20, || {
        let waiting = waiting();
        let (one, other) = (Arc::clone(&waiting), Arc::clone(&waiting));
        let (late, new) = race(
            move || other.begin(nanos(0)).unwrap(),
            move || one.begin(nanos(4)).unwrap(),
        );
        assert_eq!(waiting.overdue(nanos(4)), 1);
        waiting.end(late);
        assert_eq!(waiting.overdue(nanos(100)), 1);
        waiting.end(new);
        assert_eq!(waiting.overdue(nanos(100)), 0);
    });
}

#[test]
fn a_call_ends_while_nobody_is_asked_about_any_more() {
    orders(20, || {
        let waiting = waiting();
        let old = waiting.begin(nanos(0)).unwrap();
        let (one, other) = (Arc::clone(&waiting), Arc::clone(&waiting));
        // The new one takes the old one's place.
        let ((), new) = race(
            move || other.end(old),
            move || {
                one.clear(nanos(0));
                one.begin(nanos(0)).unwrap()
            },
        );
        assert_eq!(waiting.overdue(nanos(100)), 1);
        waiting.end(new);
        assert_eq!(waiting.overdue(nanos(100)), 0);
    });
}

#[test]
fn a_call_begins_while_nobody_is_asked_about_any_more() {
    orders(100, || {
        let waiting = waiting();
        let (one, other) = (Arc::clone(&waiting), Arc::clone(&waiting));
        let (began, ()) = race(move || other.begin(nanos(0)), move || one.clear(nanos(0)));
        let before = waiting.overdue(nanos(100));
        assert!(before <= u32::from(began.is_some()));
        let new = waiting.begin(nanos(0)).unwrap();
        assert_eq!(waiting.overdue(nanos(100)), before + 1);
        for tick in began.into_iter().chain([new]) {
            waiting.end(tick);
        }
        assert_eq!(waiting.overdue(nanos(100)), 0);
    });
}

/// By the new length and the old origin, its tick would be thousands ahead of that of the next call,
/// and in the same place.
#[test]
fn a_call_begins_while_the_threshold_changes() {
    bounded(3, 400, || {
        let waiting = Waiting::new();
        waiting.set(Some(1), 4096 * SECOND, 0);
        let waiting = Arc::new(waiting);
        let now = nanos(4098);
        let (one, other) = (Arc::clone(&waiting), Arc::clone(&waiting));
        let (began, ()) = race(
            move || other.begin(now),
            move || one.set(Some(1), 2 * SECOND, now),
        );
        let new = waiting.begin(now).unwrap();
        assert_eq!(waiting.overdue(now), 0);
        let overdue = waiting.overdue(nanos(4200));
        assert!((1..=1 + u32::from(began.is_some())).contains(&overdue));
        for tick in began.into_iter().chain([new]) {
            waiting.end(tick);
        }
        assert_eq!(waiting.overdue(nanos(4200)), 0);
    });
}
