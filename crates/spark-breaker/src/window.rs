//! What happened lately. Recording touches one slot, and reading at most sixty, however many
//! calls the window holds.

use std::time::Duration;

use spark_core::Instant;

use crate::Window;

/// How the calls in the window ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    pub(crate) calls: u32,
    pub(crate) failures: u32,
    pub(crate) slow: u32,
}

impl Counts {
    fn add(&mut self, failed: bool, slow: bool) {
        self.calls = self.calls.saturating_add(1);
        self.failures = self.failures.saturating_add(u32::from(failed));
        self.slow = self.slow.saturating_add(u32::from(slow));
    }

    fn plus(self, other: Self) -> Self {
        Self {
            calls: self.calls.saturating_add(other.calls),
            failures: self.failures.saturating_add(other.failures),
            slow: self.slow.saturating_add(other.slow),
        }
    }

    pub(crate) fn failure_rate(self) -> f64 {
        rate(self.failures, self.calls)
    }

    pub(crate) fn slow_rate(self) -> f64 {
        rate(self.slow, self.calls)
    }
}

fn rate(part: u32, whole: u32) -> f64 {
    if whole == 0 {
        0.0
    } else {
        f64::from(part) / f64::from(whole)
    }
}

/// A window that slides.
#[derive(Debug)]
pub(crate) enum Sliding {
    Time(TimeWindow),
    Count(CountWindow),
}

impl Sliding {
    pub(crate) fn new(window: Window) -> Self {
        match window {
            Window::Time { length, buckets } => Self::Time(TimeWindow::new(length, buckets)),
            Window::Count(calls) => Self::Count(CountWindow::new(calls)),
        }
    }

    pub(crate) fn record(&mut self, now: Instant, failed: bool, slow: bool) {
        match self {
            Self::Time(window) => window.record(now, failed, slow),
            Self::Count(window) => window.record(failed, slow),
        }
    }

    pub(crate) fn counts(&self, now: Instant) -> Counts {
        match self {
            Self::Time(window) => window.counts(now),
            Self::Count(window) => window.totals,
        }
    }
}

/// A ring of buckets. Each is tagged with the epoch (time divided by the bucket's length) that it
/// counts for, so that nothing has to be swept: a bucket of an older epoch is simply not read, and
/// is overwritten when its turn comes.
#[derive(Debug)]
pub(crate) struct TimeWindow {
    bucket_nanos: u64,
    newest: u64,
    ring: Box<[Bucket]>,
    #[cfg(test)]
    pub(crate) touched: std::cell::Cell<u64>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    epoch: u64,
    counts: Counts,
}

impl TimeWindow {
    fn new(length: Duration, buckets: u8) -> Self {
        let buckets = buckets.max(1);
        let nanos = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        Self {
            bucket_nanos: (nanos / u64::from(buckets)).max(1),
            newest: 0,
            ring: vec![Bucket::default(); usize::from(buckets)].into_boxed_slice(),
            #[cfg(test)]
            touched: std::cell::Cell::new(0),
        }
    }

    /// The clock is monotonic; should it step back all the same, the newest bucket takes the call. If
    /// that is by more than the window, the time before was the wrong one.
    fn epoch(&self, now: Instant) -> u64 {
        let epoch = now.as_nanos() / self.bucket_nanos;
        match self.newest.saturating_sub(epoch) < self.ring.len() as u64 {
            true => epoch.max(self.newest),
            false => epoch,
        }
    }

    fn record(&mut self, now: Instant, failed: bool, slow: bool) {
        #[cfg(test)]
        self.touched.set(self.touched.get() + 1);
        let epoch = self.epoch(now);
        self.newest = epoch;
        let len = self.ring.len() as u64;
        // The remainder is below the ring's length, so the index exists.
        let bucket = &mut self.ring[(epoch % len) as usize];
        if bucket.epoch != epoch {
            *bucket = Bucket {
                epoch,
                counts: Counts::default(),
            };
        }
        bucket.counts.add(failed, slow);
    }

    fn counts(&self, now: Instant) -> Counts {
        #[cfg(test)]
        self.touched
            .set(self.touched.get() + self.ring.len() as u64);
        let epoch = self.epoch(now);
        let len = self.ring.len() as u64;
        self.ring
            .iter()
            .filter(|bucket| bucket.epoch <= epoch && epoch - bucket.epoch < len)
            .fold(Counts::default(), |sum, bucket| sum.plus(bucket.counts))
    }
}

/// The latest calls, one byte each, with running totals.
#[derive(Debug)]
pub(crate) struct CountWindow {
    ring: Box<[u8]>,
    next: usize,
    totals: Counts,
}

const FAILED: u8 = 1;
const SLOW: u8 = 2;

impl CountWindow {
    fn new(calls: u16) -> Self {
        Self {
            ring: vec![0; usize::from(calls.max(1))].into_boxed_slice(),
            next: 0,
            totals: Counts::default(),
        }
    }

    fn record(&mut self, failed: bool, slow: bool) {
        let len = self.ring.len();
        let slot = &mut self.ring[self.next];
        if self.totals.calls as usize == len {
            self.totals.calls -= 1;
            self.totals.failures -= u32::from(*slot & FAILED != 0);
            self.totals.slow -= u32::from(*slot & SLOW != 0);
        }
        *slot = u8::from(failed) * FAILED + u8::from(slow) * SLOW;
        self.totals.add(failed, slow);
        self.next = (self.next + 1) % len;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn time(length: Duration, buckets: u8) -> TimeWindow {
        TimeWindow::new(length, buckets)
    }

    #[test]
    fn cost_is_flat_in_occupancy() {
        let cost_of_one = |already: u64| {
            let mut window = time(Duration::from_secs(60), 10);
            for call in 0..already {
                window.record(Instant::from_nanos(call * 1_000), call % 2 == 0, false);
            }
            let before = window.touched.get();
            window.record(Instant::from_nanos(already * 1_000), true, false);
            assert_eq!(
                u64::from(window.counts(Instant::from_nanos(already * 1_000)).calls),
                already + 1
            );
            window.touched.get() - before
        };
        assert_eq!(cost_of_one(100), 11);
        assert_eq!(cost_of_one(100_000), 11);
    }

    #[test]
    fn a_jump_of_any_length_empties_it() {
        for jump in [1_000_000_000, u64::MAX] {
            let mut window = time(Duration::from_secs(1), 10);
            window.record(Instant::from_nanos(5), true, true);
            assert_eq!(window.counts(Instant::from_nanos(jump)), Counts::default());
            window.record(Instant::from_nanos(jump), false, false);
            assert_eq!(window.counts(Instant::from_nanos(jump)).calls, 1);
        }
    }

    #[test]
    fn b10_a_clock_that_steps_back_a_little_loses_nothing() {
        let mut window = time(Duration::from_secs(1), 10);
        window.record(Instant::from_nanos(5_000_000_000), true, false);
        window.record(Instant::from_nanos(4_200_000_000), true, false);
        let now = Instant::from_nanos(4_200_000_001);
        assert_eq!(window.counts(now).failures, 2);
    }

    #[test]
    fn b10_after_a_moment_far_ahead_the_window_slides_on() {
        let mut window = time(Duration::from_secs(1), 10);
        let second = |n: u64| Instant::from_nanos(n * 1_000_000_000);
        window.record(second(9_000), true, false);
        for n in 1..20 {
            window.record(second(n), true, false);
            assert_eq!(window.counts(second(n)).failures, 1, "{n}");
        }
        assert_eq!(window.counts(second(21)).failures, 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Ten thousand operations against a queue of everything that happened.
        #[test]
        fn time_window_equals_a_queue(
            buckets in 1u8..=60,
            bucket_ms in 1u64..2_000,
            ops in prop::collection::vec((0u64..3_000, any::<bool>(), any::<bool>()), 1..160),
        ) {
            let mut window = time(Duration::from_millis(bucket_ms * u64::from(buckets)), buckets);
            let mut queue: VecDeque<(u64, bool, bool)> = VecDeque::new();
            let mut now_ms = 0;
            for (advance, failed, slow) in ops {
                now_ms += advance;
                let now = Instant::from_nanos(now_ms * 1_000_000);
                window.record(now, failed, slow);
                queue.push_back((now_ms / bucket_ms, failed, slow));
                let oldest = (now_ms / bucket_ms).saturating_sub(u64::from(buckets) - 1);
                queue.retain(|(epoch, ..)| *epoch >= oldest);
                let expected = Counts {
                    calls: queue.len() as u32,
                    failures: queue.iter().filter(|(_, failed, _)| *failed).count() as u32,
                    slow: queue.iter().filter(|(.., slow)| *slow).count() as u32,
                };
                prop_assert_eq!(window.counts(now), expected);
            }
        }

        #[test]
        fn count_window_equals_a_queue(
            size in 1u16..300,
            ops in prop::collection::vec((any::<bool>(), any::<bool>()), 1..1_000),
        ) {
            let mut window = CountWindow::new(size);
            let mut queue = VecDeque::new();
            for (failed, slow) in ops {
                window.record(failed, slow);
                queue.push_back((failed, slow));
                if queue.len() > usize::from(size) {
                    queue.pop_front();
                }
                prop_assert_eq!(window.totals.calls as usize, queue.len());
                prop_assert_eq!(
                    window.totals.failures as usize,
                    queue.iter().filter(|(failed, _)| *failed).count()
                );
                prop_assert_eq!(
                    window.totals.slow as usize,
                    queue.iter().filter(|(_, slow)| *slow).count()
                );
            }
        }
    }
}
