use std::collections::VecDeque;

use proptest::prelude::*;
use spark_core::testing::TestClock;

use super::*;

const SECOND: u64 = 1_000_000_000;

struct Timed {
    window: TimeWindow,
    clock: TestClock,
    now: u64,
}

fn window(length: Duration, buckets: u8) -> Timed {
    let window = TimeWindow::new(3);
    window.resize(length, buckets, 0);
    Timed {
        window,
        clock: TestClock::new(),
        now: 0,
    }
}

impl Timed {
    fn record(&mut self, now: u64, failed: bool, slow: bool) {
        // The clock is asked again where the window is ahead of it.
        let clock = if now < self.now {
            self.clock = TestClock::new();
            self.clock.advance(Duration::from_nanos(now));
            self.clock.clock()
        } else {
            self.clock.advance(Duration::from_nanos(now - self.now));
            self.clock.clock()
        };
        self.now = now;
        let mark = Mark { failed, slow };
        assert_eq!(self.window.record(3, &clock, now, mark), Recorded::Yes);
    }
}

#[test]
fn a_jump_of_any_length_empties_it() {
    for jump in [SECOND, SECOND << 16, u64::MAX / 2, u64::MAX] {
        let mut timed = window(Duration::from_secs(1), 10);
        timed.record(5, true, true);
        assert_eq!(timed.window.counts(jump), Counts::default());
        timed.record(jump, false, false);
        assert_eq!(timed.window.counts(jump).calls, 1);
    }
}

/// Whether what is counted first after the step is a success or a failure.
#[test]
fn b10_nor_does_a_clock_that_steps_far_back_lose_what_comes_after() {
    for first in [true, false] {
        let mut timed = window(Duration::from_secs(1), 10);
        // Both in the place that is looked at below.
        timed.record(1_000 * SECOND + 200_000_000, true, true);
        timed.record(5 * SECOND, first, first);
        timed.record(5 * SECOND, true, true);
        let counts = timed.window.counts(5 * SECOND);
        let marked = 1 + u32::from(first);
        assert_eq!(
            (counts.calls, counts.failures, counts.slow),
            (2, marked, marked)
        );
    }
}

#[test]
fn b10_a_clock_that_steps_back_a_little_loses_nothing() {
    let mut timed = window(Duration::from_secs(1), 10);
    timed.record(5 * SECOND, true, false);
    timed.record(5 * SECOND - 800_000_000, true, false);
    assert_eq!(timed.window.counts(4_200_000_001).failures, 2);
}

#[test]
fn b10_after_a_moment_far_ahead_the_window_slides_on() {
    let mut timed = window(Duration::from_secs(1), 10);
    timed.record(9_000 * SECOND, true, false);
    for n in 1..20 {
        timed.record(n * SECOND, true, false);
        assert_eq!(timed.window.counts(n * SECOND).failures, 1, "{n}");
    }
    assert_eq!(timed.window.counts(21 * SECOND).failures, 0);
}

#[test]
fn whoever_slept_for_a_whole_turn_counts_where_the_time_is_now() {
    let mut timed = window(Duration::from_secs(1), 10);
    let asleep_since = 100_000_000;
    timed.record(asleep_since + 16 * SECOND / 10, true, false);
    let (clock, now) = (timed.clock.clock(), timed.now);
    let mark = Mark {
        failed: true,
        slow: false,
    };
    let recorded = timed.window.record(3, &clock, asleep_since, mark);
    assert_eq!(recorded, Recorded::Yes);
    assert_eq!(timed.window.counts(now).failures, 2, "nothing is wiped");
}

/// Epochs are compared by half their turn, which is ten hours for the shortest buckets.
#[test]
fn failures_count_after_half_a_turn_of_health() {
    let bucket = 1_000_000 / 60;
    let mut timed = window(Duration::from_millis(1), 60);
    for n in 0..64 {
        timed.record(n * bucket, true, true);
    }
    let mut then = 0;
    for eighth in 1..=5 {
        // Every bucket, at its time: the places are the lower bits of the epoch.
        for n in 0..64 {
            then = ((eighth << 29) + n) * bucket;
            timed.record(then, false, false);
        }
    }
    for n in 1..=60 {
        timed.record(then + n * bucket, true, true);
    }
    let counts = timed.window.counts(then + 60 * bucket);
    assert_eq!((counts.calls, counts.failures, counts.slow), (60, 60, 60));
}

#[test]
fn it_is_emptied_and_reshaped_any_number_of_times() {
    let mut timed = window(Duration::from_secs(1), 10);
    for n in 0..1_000_u64 {
        timed.record(n * 37_000_000, true, true);
        if n % 3 == 0 {
            let length = Duration::from_millis(1 + n * 7);
            timed.window.resize(length, (n % 60 + 1) as u8, timed.now);
        } else {
            timed.window.turn_over(3, true);
        }
        assert_eq!(timed.window.counts(timed.now), Counts::default(), "{n}");
        timed.record(timed.now, true, false);
        assert_eq!(timed.window.counts(timed.now).calls, 1, "{n}");
    }
}

#[test]
fn another_generation_is_late() {
    let timed = window(Duration::from_secs(1), 10);
    timed.window.turn_over(4, false);
    let clock = timed.clock.clock();
    let record = |generation| {
        timed
            .window
            .record(generation, &clock, 0, super::super::FINE)
    };
    assert_eq!((record(3), record(4)), (Recorded::Late, Recorded::Yes));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn division(now: u64, bucket in 1..=LONGEST_BUCKET, shift in 0u32..58) {
        let bucket = (bucket >> shift).max(1);
        for now in [now, now >> shift, now / bucket * bucket, u64::MAX] {
            prop_assert_eq!(divide(now, bucket, u64::MAX / bucket), now / bucket);
        }
    }

    /// Ten thousand operations against a queue of everything that happened.
    #[test]
    fn equals_a_queue(
        buckets in 1u8..=60,
        bucket_ms in 1u64..2_000,
        ops in prop::collection::vec((0u64..3_000, any::<bool>(), any::<bool>()), 1..160),
    ) {
        let mut timed = window(Duration::from_millis(bucket_ms * u64::from(buckets)), buckets);
        let mut queue: VecDeque<(u64, bool, bool)> = VecDeque::new();
        let mut now_ms = 0;
        for (advance, failed, slow) in ops {
            now_ms += advance;
            let now = now_ms * 1_000_000;
            timed.record(now, failed, slow);
            queue.push_back((now_ms / bucket_ms, failed, slow));
            let oldest = (now_ms / bucket_ms).saturating_sub(u64::from(buckets) - 1);
            queue.retain(|(epoch, ..)| *epoch >= oldest);
            let expected = Counts {
                calls: queue.len() as u32,
                failures: queue.iter().filter(|(_, failed, _)| *failed).count() as u32,
                slow: queue.iter().filter(|(.., slow)| *slow).count() as u32,
            };
            prop_assert_eq!(timed.window.counts(now), expected);
        }
    }
}
