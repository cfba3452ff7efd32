use super::*;

const SECOND: u64 = 1_000_000_000;

fn waiting() -> Waiting {
    let waiting = Waiting::new();
    waiting.set(Some(3), Duration::from_secs(12), 0);
    waiting
}

#[test]
fn those_that_wait_for_too_long_are_counted_however_long() {
    let waiting = waiting();
    for call in 0..100 {
        waiting.begin(call * SECOND / 10).unwrap();
    }
    assert_eq!(waiting.overdue(12 * SECOND), 0);
    assert_eq!(waiting.overdue(14 * SECOND), 20);
    for call in 140..240 {
        waiting.begin(call * SECOND / 10).unwrap();
    }
    assert_eq!(waiting.overdue(1_000 * SECOND), 200);
    // Later ones take the places of the ring.
    for call in 0..100 {
        let began = waiting.begin((1_000 + call) * SECOND).unwrap();
        waiting.end(began);
        assert_eq!(waiting.overdue((1_000 + call) * SECOND), 200);
    }
}

#[test]
fn those_that_are_heard_of_are_not() {
    let waiting = waiting();
    let mut began = Vec::new();
    for call in 0..500 {
        began.push(waiting.begin(call * SECOND / 3).unwrap());
        if call % 2 == 0 {
            waiting.end(began.remove(call as usize / 4));
        }
    }
    let held = began.len() as u32;
    assert_eq!(waiting.overdue(1_000 * SECOND), held);
    for tick in began {
        waiting.end(tick);
    }
    assert_eq!(waiting.overdue(1_000 * SECOND), 0);
}

#[test]
fn what_began_before_it_was_emptied_is_nobodys() {
    let waiting = waiting();
    let old = [0, 1].map(|call| waiting.begin(call).unwrap());
    waiting.clear(5);
    let new = waiting.begin(5).unwrap();
    for tick in old {
        waiting.end(tick);
    }
    assert_eq!(waiting.overdue(100 * SECOND), 1);
    waiting.end(new);
    assert_eq!(waiting.overdue(100 * SECOND), 0);
    waiting.set(Some(3), Duration::from_secs(1), 100 * SECOND);
    waiting.begin(100 * SECOND).unwrap();
    assert_eq!(waiting.overdue(102 * SECOND), 1);
}

#[test]
fn it_is_looked_at_once_in_a_tick() {
    let waiting = waiting();
    waiting.begin(0).unwrap();
    assert_eq!(waiting.look(20 * SECOND), Some(1));
    assert_eq!(waiting.look(20 * SECOND + SECOND / 2), None);
    assert_eq!(waiting.look(21 * SECOND), Some(1));
}
