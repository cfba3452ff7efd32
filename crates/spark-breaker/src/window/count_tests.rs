use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

fn window(size: u32) -> CountWindow {
    let window = CountWindow::new(7);
    window.resize(size);
    window
}

fn record(window: &CountWindow, failed: bool, slow: bool) {
    let mark = Mark { failed, slow };
    if window.record(7, mark) == Recorded::Full {
        window.renew();
        assert_eq!(window.record(7, mark), Recorded::Numbered);
    }
}

#[test]
fn every_size_has_a_ring_that_holds_it() {
    for size in (0..20).flat_map(|n| [(1 << n) - 1, 1 << n, (1 << n) + 1]) {
        let size = u32::clamp(size, 1, MOST_CALLS);
        assert!(ring_of(size) < RINGS && places(size) >= size as usize);
        assert_eq!(ring_of(size), ring_of(places(size) as u32), "{size}");
    }
    assert!(ring_of(MOST_CALLS) < RINGS);
}

#[test]
fn it_is_emptied_any_number_of_times() {
    let window = window(3);
    for round in 0..1_000 {
        for call in 0..round % 8 {
            record(&window, call % 2 == 0, false);
        }
        window.turn_over(7, true);
        assert_eq!(window.counts(), Counts::default(), "{round}");
        record(&window, true, true);
        let counts = window.counts();
        assert_eq!((counts.calls, counts.failures, counts.slow), (1, 1, 1));
    }
}

/// Whoever empties it holds a lock that others wait for.
#[test]
fn emptying_it_sweeps_a_ninth_of_its_places() {
    let window = window(1_000);
    let written = |window: &CountWindow| {
        let ring = window.rings[ring_of(1_000)].get().unwrap();
        let places = ring.iter().map(|it| it.load(Relaxed));
        places.filter(|place| *place != 0).count()
    };
    for _ in 0..1_000 {
        record(&window, false, false);
    }
    for swept in 1..=200 {
        let before = written(&window);
        window.turn_over(7, true);
        let part = before - written(&window);
        assert!(part <= 1_024 / 9 + 1, "{swept}: {part}");
        assert!(swept < 9 || written(&window) == 0);
    }
}

#[test]
fn it_numbers_on_when_the_turns_are_used_up() {
    let window = window(2);
    let mut handed_over = 0;
    let calls = 100_001;
    for call in 0..calls {
        let mark = Mark {
            failed: call % 3 == 0,
            slow: false,
        };
        if window.record(7, mark) == Recorded::Full {
            handed_over += window.renew();
            assert_eq!(window.record(7, mark), Recorded::Numbered);
        }
    }
    assert!(handed_over > 0);
    assert_eq!(handed_over + window.numbered(), calls);
    assert_eq!(window.counts().calls, 2);
}

#[test]
fn another_generation_is_late() {
    let window = window(2);
    window.turn_over(8, false);
    assert_eq!(window.record(7, super::super::FINE), Recorded::Late);
    assert_eq!(window.record(8, super::super::FINE), Recorded::Numbered);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn equals_a_queue(
        size in 1u32..300,
        ops in prop::collection::vec((any::<bool>(), any::<bool>()), 1..1_000),
    ) {
        let window = window(size);
        let mut queue = VecDeque::new();
        for (failed, slow) in ops {
            record(&window, failed, slow);
            queue.push_back((failed, slow));
            if queue.len() > size as usize {
                queue.pop_front();
            }
            let expected = Counts {
                calls: queue.len() as u32,
                failures: queue.iter().filter(|(failed, _)| *failed).count() as u32,
                slow: queue.iter().filter(|(_, slow)| *slow).count() as u32,
            };
            prop_assert_eq!(window.counts(), expected);
        }
    }
}
