//! Calls that are under way and have not been heard of: how many of them have waited for too long?
//!
//! A ring of ticks counts the calls that began in each and still wait. When a tick's place is needed
//! for a later one, those that are left in it go to the overdue. So neither a call that ends nor one
//! that begins looks at more than one place, and nothing has to end for the number to be known.

use std::num::NonZeroU64;
use std::sync::OnceLock;
use std::sync::atomic::{
    AtomicU32,
    Ordering::{AcqRel, Acquire, Relaxed},
};
use std::time::Duration;

use crate::live::nanos;
use crate::sync::AtomicU64;

/// More than the ticks after which a call is overdue.
const PLACES: usize = if cfg!(spark_loom) { 4 } else { 16 };
/// Into so many ticks a threshold is cut.
const TICKS: u64 = if cfg!(spark_loom) { 2 } else { 12 };
const SHORTEST_TICK: u64 = 1_000_000;

/// By so many ticks a restart is ahead of all that began before it: more than a thread sleeps between
/// reading the time and being counted. Ticks are compared by half their turn, which is 17 years of
/// the shortest or 500 million restarts; for so long would a place have to be left alone to be taken
/// for a newer one.
const JUMP: u64 = 1 << 10;

/// How often a sum is taken again that changed meanwhile.
const ATTEMPTS: u32 = 3;

/// The most that a limit may be: far below what the words can count.
pub(crate) const MOST_WAITING: u32 = 1_000_000;

#[derive(Debug)]
pub(crate) struct Waiting {
    /// How many are too many; 0: nobody asks.
    limit: AtomicU32,
    threshold: std::sync::atomic::AtomicU64,
    /// How long a tick is, and after how many a call is overdue.
    length: AtomicU64,
    old: AtomicU64,
    /// The first tick that counts, and when it began. The former is another one after each change of
    /// the latter and of the two above.
    first: AtomicU64,
    since: AtomicU64,
    /// The first tick that counts, and how many of older places than the ring has.
    overdue: AtomicU64,
    /// The tick in which somebody has looked last.
    looked: AtomicU64,
    /// Of each tick, how many began in it and still wait.
    ring: OnceLock<Box<[AtomicU64]>>,
}

/// The tick that a call began in.
pub(crate) type Tick = NonZeroU64;

/// A moment, and the rule that it was looked at by.
#[derive(Debug, Clone, Copy)]
struct At {
    tick: u64,
    first: u64,
    old: u64,
}

impl Waiting {
    pub(crate) fn new() -> Self {
        Self {
            limit: AtomicU32::new(0),
            threshold: 0.into(),
            length: AtomicU64::new(SHORTEST_TICK),
            old: AtomicU64::new(1),
            first: AtomicU64::new(JUMP),
            since: AtomicU64::new(0),
            overdue: AtomicU64::new(join(JUMP, ZERO)),
            looked: AtomicU64::new(NEVER),
            ring: OnceLock::new(),
        }
    }

    /// Whether anybody asks.
    #[inline]
    pub(crate) fn is_watched(&self) -> bool {
        self.limit() != 0
    }

    #[inline]
    pub(crate) fn limit(&self) -> u32 {
        self.limit.load(Relaxed)
    }

    /// A call begins.
    pub(crate) fn begin(&self, now: u64) -> Option<Tick> {
        let At { tick, .. } = self.at(now)?;
        let handle = Tick::new(tick)?;
        let place = self.place(tick)?;
        let mut found = place.load(Acquire);
        loop {
            let (there, calls) = split(found);
            let ahead = ahead(tick, there);
            if ahead < 0 && calls != 0 {
                // This thread has slept for a whole turn of the ring.
                self.add_overdue(tick, 1);
                return Some(handle);
            }
            let stay = ahead == 0;
            let next = join(tick, if stay { (calls + 1).min(MOST) } else { 1 });
            match place.compare_exchange_weak(found, next, AcqRel, Acquire) {
                Ok(_) => {
                    if !stay && calls != 0 {
                        self.add_overdue(there, calls.cast_signed());
                    }
                    return Some(handle);
                }
                Err(other) => found = other,
            }
        }
    }

    /// The call that began in that tick has been heard of.
    #[inline(never)]
    pub(crate) fn end(&self, tick: Tick) {
        let tick = tick.get();
        let Some(place) = self.place(tick) else {
            return;
        };
        let mut found = place.load(Acquire);
        loop {
            let (there, calls) = split(found);
            if there != tick || calls == 0 {
                return self.add_overdue(tick, -1);
            }
            match place.compare_exchange_weak(found, join(tick, calls - 1), AcqRel, Acquire) {
                Ok(_) => return,
                Err(other) => found = other,
            }
        }
    }

    /// How many there are now, if nobody has looked in this tick: within one, nobody grows too old.
    pub(crate) fn look(&self, now: u64) -> Option<u32> {
        let At { tick, .. } = self.at(now)?;
        if self.looked.load(Relaxed) == tick {
            return None;
        }
        self.looked.swap(tick, Relaxed);
        Some(self.overdue(now))
    }

    /// How many have waited for longer than the threshold; a tick or two later than that. Never more
    /// than there are: those who are on their way from the ring to the overdue may be missed.
    pub(crate) fn overdue(&self, now: u64) -> u32 {
        let Some((at, ring)) = self.at(now).zip(self.ring.get()) else {
            return 0;
        };
        // Before the ring: whoever is among them already has left it.
        let mut overdue = self.overdue.load(Acquire);
        for _ in 1..ATTEMPTS {
            let in_ring = at.overdue_in(ring);
            let after = self.overdue.load(Acquire);
            if after == overdue {
                return at.sum(in_ring, overdue);
            }
            overdue = after;
        }
        at.sum(at.overdue_in(ring), overdue)
    }

    /// Whoever waits now is not asked about any more. Under the control lock, as below.
    pub(crate) fn clear(&self, now: u64) {
        if self.is_watched() {
            self.restart(now, None);
        }
    }

    /// Another rule. Whoever waits now is not asked about any more, unless all that changes is how
    /// many are too many.
    pub(crate) fn set(&self, limit: Option<u32>, threshold: Duration, now: u64) {
        let threshold = nanos(threshold);
        let limit = limit.unwrap_or(0);
        let goes_on = self.is_watched() && limit != 0;
        if limit != 0 {
            self.ring
                .get_or_init(|| (0..PLACES).map(|_| AtomicU64::new(0)).collect());
        }
        let same = self.threshold.swap(threshold, Relaxed) == threshold;
        if !goes_on || !same {
            self.restart(now, Some(threshold));
        }
        self.limit.store(limit, Relaxed);
        self.looked.swap(NEVER, Relaxed);
    }

    fn restart(&self, now: u64, threshold: Option<u64>) {
        let latest = self.at(now).map_or(0, |at| at.tick);
        self.first.swap(BUSY, AcqRel);
        let first = (latest + JUMP) & TICK_MASK;
        // Before the rule: what ends from now on belongs to nobody, and nobody begins. What is left in
        // the ring is older than what counts.
        self.overdue.swap(join(first, ZERO), AcqRel);
        if let Some(threshold) = threshold {
            let length = (threshold / TICKS).max(SHORTEST_TICK);
            self.length.swap(length, AcqRel);
            self.old.swap(threshold.div_ceil(length) + 1, AcqRel);
        }
        self.since.swap(now, AcqRel);
        self.first.swap(first, AcqRel);
        self.looked.swap(NEVER, Relaxed);
    }

    /// `None` while a rule is changed.
    fn at(&self, now: u64) -> Option<At> {
        let mut first = self.first.load(Acquire);
        loop {
            if first == BUSY {
                return None;
            }
            let since = self.since.load(Acquire);
            let length = self.length.load(Acquire);
            let old = self.old.load(Acquire);
            let after = self.first.load(Acquire);
            if after == first {
                let tick = first.wrapping_add(now.saturating_sub(since) / length) & TICK_MASK;
                return Some(At { tick, first, old });
            }
            first = after;
        }
    }

    fn place(&self, tick: u64) -> Option<&AtomicU64> {
        self.ring.get()?.get(tick as usize % PLACES)
    }

    /// Of calls that began in that tick, if it still counts.
    fn add_overdue(&self, tick: u64, calls: i64) {
        let mut found = self.overdue.load(Acquire);
        loop {
            let (first, sum) = split(found);
            if ahead(tick, first) < 0 {
                return;
            }
            let sum = sum.saturating_add_signed(calls).min(MOST);
            match self
                .overdue
                .compare_exchange_weak(found, join(first, sum), AcqRel, Acquire)
            {
                Ok(_) => return,
                Err(other) => found = other,
            }
        }
    }
}

impl At {
    fn overdue_in(self, ring: &[AtomicU64]) -> u64 {
        let places = ring.iter().map(|place| split(place.load(Acquire)));
        let old = places.filter(|(there, _)| {
            ahead(*there, self.first) >= 0
                && u64::try_from(ahead(self.tick, *there)).is_ok_and(|age| age >= self.old)
        });
        old.map(|(_, calls)| calls).sum()
    }

    fn sum(self, in_ring: u64, overdue: u64) -> u32 {
        let (first, overdue) = split(overdue);
        if first != self.first {
            return 0;
        }
        // An end may come before the calls of its tick have got there.
        u32::try_from((in_ring + overdue).saturating_sub(ZERO)).unwrap_or(u32::MAX)
    }
}

/// A word: `tick 40 · calls 24`.
const CALL_BITS: u32 = 24;
const MOST: u64 = (1 << CALL_BITS) - 1;
const TICK_MASK: u64 = u64::MAX >> CALL_BITS;

/// No tick.
const BUSY: u64 = u64::MAX;
const NEVER: u64 = u64::MAX;

/// The overdue are counted from here, since an end may come before what it is taken off.
const ZERO: u64 = 1 << (CALL_BITS - 1);

fn split(word: u64) -> (u64, u64) {
    (word >> CALL_BITS, word & MOST)
}

fn join(tick: u64, calls: u64) -> u64 {
    (tick << CALL_BITS) | calls
}

/// By how many ticks this one is ahead of that one.
#[expect(clippy::cast_possible_wrap, reason = "that is how they are compared")]
fn ahead(this: u64, that: u64) -> i64 {
    (this.wrapping_sub(that) << CALL_BITS) as i64 >> CALL_BITS
}

#[cfg(all(test, not(spark_loom)))]
mod tests;
