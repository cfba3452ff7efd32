//! What was counted since the breaker was made. Nothing is decided by it.

use std::sync::atomic::{
    AtomicU64, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed},
};

use crate::machine::Counted;
use crate::sync::Line;
use crate::{Totals, sync};

/// Calls that are under way are those that have started and not ended: two counters that only go
/// up, instead of one that goes up and down.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    striped: [Line<Stripe>; STRIPES],
    /// Of those that it has numbered or is about to, the ones that were not successes: since all
    /// began anew, and before.
    others: Others,
    others_before: AtomicU64,
    failures: AtomicU64,
    throttled: AtomicU64,
    ignored: AtomicU64,
    cancelled: AtomicU64,
    late: AtomicU64,
}

/// What each call writes, once for a few threads, so that fewer of them meet at one word. The sums
/// count.
#[derive(Debug, Default)]
struct Stripe {
    started: AtomicU64,
    /// Without those that the window by count has numbered, so that a success in such a window writes
    /// one counter and not two.
    successes: AtomicU64,
}

const STRIPES: usize = 4;

static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Threads take turns at the stripes.
    static STRIPE: usize = THREADS.fetch_add(1, Relaxed) % STRIPES;
}

impl Tally {
    #[inline]
    pub(crate) fn start(&self) {
        self.stripe().started.fetch_add(1, Relaxed);
    }

    #[inline]
    fn stripe(&self) -> &Stripe {
        // A thread that ends has none any more.
        let stripe = STRIPE.try_with(|stripe| *stripe).unwrap_or(0);
        &self.striped[stripe % STRIPES]
    }

    fn sum(&self, of: impl Fn(&Stripe) -> &AtomicU64) -> u64 {
        let each = self.striped.iter().map(|stripe| of(stripe).load(Relaxed));
        each.fold(0, u64::wrapping_add)
    }

    /// One that was counted as started was not made: it will not end.
    pub(crate) fn take_back(&self) {
        self.stripe().started.fetch_sub(1, Relaxed);
    }

    #[inline]
    pub(crate) fn count(&self, counted: Counted) {
        match counted {
            Counted::Success => &self.stripe().successes,
            Counted::Failure => &self.failures,
            Counted::Throttled => &self.throttled,
            Counted::Ignored => &self.ignored,
            Counted::Cancelled => &self.cancelled,
            Counted::Late => &self.late,
        }
        .fetch_add(1, Relaxed);
    }

    /// Something else than a success is about to be numbered by the window: called before it is, so
    /// that nobody ever sees it as a success. `false` when it belongs to what was there before all
    /// began anew, and will not be numbered.
    pub(crate) fn announce(&self, generation: u64) -> bool {
        self.others.change(generation, 1)
    }

    /// It was announced, and not numbered.
    pub(crate) fn retract(&self, generation: u64) {
        if !self.others.change(generation, -1) {
            self.others_before.fetch_sub(1, Relaxed);
        }
    }

    /// The window has forgotten that it numbered so many.
    pub(crate) fn take_over(&self, numbered: u64) {
        self.stripe().successes.fetch_add(numbered, Relaxed);
    }

    /// Another generation begins.
    pub(crate) fn turn_over(&self, generation: u64) {
        if generation.is_multiple_of(FOLLOWS) {
            self.others.follow(generation);
        }
    }

    /// All begins anew with this generation, of which no call has started yet, and the window has
    /// handed over all that it had numbered. Returns what the totals are to be counted from: there
    /// the others, as they were numbered, stay among the successes.
    pub(crate) fn begin_anew(&self, generation: u64) -> Totals {
        let others = self.others.begin_anew(generation);
        self.others_before.fetch_add(others, Relaxed);
        self.totals_but(0, 0)
    }

    /// With what the window has numbered, which was read before.
    pub(crate) fn totals(&self, numbered: u64) -> Totals {
        self.totals_but(self.others.count(), numbered)
    }

    fn totals_but(&self, others: u64, numbered: u64) -> Totals {
        let successes = self.sum(|stripe| &stripe.successes).wrapping_add(numbered);
        Totals {
            successes: successes.saturating_sub(others),
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
        let ended = ended.wrapping_sub(self.others_before.load(Relaxed));
        // Read last: whatever has ended by then has started.
        let started = self.sum(|stripe| &stripe.started);
        u32::try_from(started.saturating_sub(ended)).unwrap_or(u32::MAX)
    }
}

/// A generation and a count: `generation 16 · count 48`. It counts for that generation and for later
/// ones, so that what begins anew is not changed by what was on its way.
#[derive(Debug, Default)]
struct Others(sync::AtomicU64);

const COUNT_BITS: u32 = 48;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

/// It stays within twice so many generations of the present one: half a turn of them is four times
/// as many, and what is further back looks as if it were to come.
const FOLLOWS: u64 = 1 << 13;

impl Others {
    fn count(&self) -> u64 {
        self.0.load(Acquire) & COUNT_MASK
    }

    /// Whether that generation still counts.
    fn change(&self, generation: u64, by: i64) -> bool {
        let mut found = self.0.load(Acquire);
        loop {
            let since = (generation as u16).wrapping_sub((found >> COUNT_BITS) as u16);
            if since > u16::MAX / 2 {
                return false;
            }
            let count = found.wrapping_add_signed(by) & COUNT_MASK;
            let next = (found & !COUNT_MASK) | count;
            match self.0.compare_exchange_weak(found, next, AcqRel, Acquire) {
                Ok(_) => return true,
                Err(other) => found = other,
            }
        }
    }

    /// What began so long ago is late by now, so that it does not matter that it no longer counts.
    fn follow(&self, generation: u64) {
        let follow = |found: u64| {
            let since = (generation as u16).wrapping_sub((found >> COUNT_BITS) as u16);
            let tag = generation.wrapping_sub(FOLLOWS) << COUNT_BITS;
            (u64::from(since) > FOLLOWS).then_some(tag | (found & COUNT_MASK))
        };
        let mut found = self.0.load(Acquire);
        while let Some(next) = follow(found) {
            match self.0.compare_exchange_weak(found, next, AcqRel, Acquire) {
                Ok(_) => return,
                Err(other) => found = other,
            }
        }
    }

    fn begin_anew(&self, generation: u64) -> u64 {
        self.0.swap(generation << COUNT_BITS, AcqRel) & COUNT_MASK
    }
}
