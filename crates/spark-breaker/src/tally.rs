//! What was counted since the breaker was made. Nothing is decided by it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::Totals;
use crate::machine::Counted;

/// Calls that are under way are those that have started and not ended: two counters that only go
/// up, instead of one that goes up and down.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    started: AtomicU64,
    /// Without those that the window by count has numbered, and less its other outcomes; so that a
    /// success in such a window writes one counter and not two.
    successes: AtomicU64,
    failures: AtomicU64,
    throttled: AtomicU64,
    ignored: AtomicU64,
    cancelled: AtomicU64,
    late: AtomicU64,
}

impl Tally {
    #[inline]
    pub(crate) fn start(&self) {
        self.started.fetch_add(1, Relaxed);
    }

    /// One that was counted as started was not made: it will not end.
    pub(crate) fn take_back(&self) {
        self.started.fetch_sub(1, Relaxed);
    }

    #[inline]
    pub(crate) fn count(&self, counted: Counted) {
        match counted {
            Counted::Success => &self.successes,
            Counted::Failure => &self.failures,
            Counted::Throttled => &self.throttled,
            Counted::Ignored => &self.ignored,
            Counted::Cancelled => &self.cancelled,
            Counted::Late => &self.late,
        }
        .fetch_add(1, Relaxed);
    }

    /// Something else than a success was numbered by the window: called before it is counted, so
    /// that a call is never counted twice.
    pub(crate) fn is_no_success(&self) {
        self.successes.fetch_sub(1, Relaxed);
    }

    /// The window has forgotten that it numbered so many.
    pub(crate) fn take_over(&self, numbered: u64) {
        self.successes.fetch_add(numbered, Relaxed);
    }

    /// With what the window has numbered.
    pub(crate) fn totals(&self, numbered: u64) -> Totals {
        Totals {
            successes: self.successes.load(Relaxed).wrapping_add(numbered),
            failures: self.failures.load(Relaxed),
            throttled: self.throttled.load(Relaxed),
            ignored: self.ignored.load(Relaxed),
            cancelled: self.cancelled.load(Relaxed),
            late: self.late.load(Relaxed),
        }
    }

    /// How many have started and are not among those that ended.
    pub(crate) fn in_flight(&self, ended: &Totals) -> u32 {
        let ended = ended
            .successes
            .wrapping_add(ended.failures)
            .wrapping_add(ended.throttled)
            .wrapping_add(ended.ignored)
            .wrapping_add(ended.cancelled)
            .wrapping_add(ended.late);
        // Read after the others: whatever has ended by then has started.
        let started = self.started.load(Relaxed);
        u32::try_from(started.saturating_sub(ended)).unwrap_or(u32::MAX)
    }
}
