//! The latest so many calls: a byte for each, and running totals.
//!
//! A result takes a place by exchanging the word of turns, and leaves its mark there. A mark like
//! the one that is there already is not written, and the totals change only where a mark does: a
//! success over a success costs one exchange and one reading.

mod words;

use std::sync::OnceLock;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use super::{Counts, Mark, Recorded};
use crate::sync::{AtomicU8, AtomicU32, AtomicU64};
use words::*;

/// The most calls that a window by count may hold.
pub(crate) const MOST_CALLS: u32 = 1_000_000;

/// Rings of 64, 128, 256 … places, each made when a window of its size is first asked for and kept, so
/// that a change of size never takes a ring away from somebody who writes in it: 2 MiB at the very
/// most.
const RINGS: usize = 15;

#[derive(Debug)]
pub(crate) struct CountWindow {
    turns: AtomicU64,
    totals: AtomicU64,
    size: AtomicU32,
    rings: [OnceLock<Box<[AtomicU8]>>; RINGS],
}

impl CountWindow {
    pub(crate) fn new(generation: u64) -> Self {
        Self {
            turns: AtomicU64::new(Turns::new(generation, FIRST_EPOCH).0),
            totals: AtomicU64::new(Totals::new(FIRST_EPOCH).0),
            size: AtomicU32::new(Size::new(FIRST_EPOCH, 1).0),
            rings: Default::default(),
        }
    }

    #[inline]
    pub(crate) fn record(&self, generation: u64, mark: Mark) -> Recorded {
        let mut found = self.turns.load(Acquire);
        let (turns, size) = loop {
            let turns = Turns(found);
            if !turns.is_of(generation) {
                return Recorded::Late;
            }
            // Not older than the word above, since it is written first.
            let size = Size(self.size.load(Acquire));
            if size.epoch() != turns.epoch() {
                let now = self.turns.load(Acquire);
                if now == found {
                    // It is being emptied: as if it had been recorded just before.
                    return Recorded::Yes;
                }
                found = now;
                continue;
            }
            let Some(next) = turns.next(size.calls()) else {
                return Recorded::Full;
            };
            match self
                .turns
                .compare_exchange_weak(found, next.0, AcqRel, Acquire)
            {
                Ok(_) => break (turns, size),
                Err(other) => found = other,
            }
        };
        if let Some(place) = self.ring(size).and_then(|ring| ring.get(turns.place())) {
            self.leave(place, turns.epoch(), mark);
        }
        Recorded::Numbered
    }

    /// Somebody may still be about to write in this place who took it a whole turn ago: then the
    /// later one to write stays. Either way the totals are of what is in the ring.
    #[inline]
    fn leave(&self, place: &AtomicU8, epoch: u8, mark: Mark) {
        let mark = u8::from(mark.failed) * FAILED + u8::from(mark.slow) * SLOW;
        let wanted = (epoch << EPOCH_AT) | mark;
        let mut found = place.load(Acquire);
        while found != wanted {
            let there = found >> EPOCH_AT;
            if is_newer(there, epoch) {
                return;
            }
            match place.compare_exchange_weak(found, wanted, AcqRel, Acquire) {
                Ok(_) => {
                    let before = if there == epoch { found & MARKS } else { 0 };
                    return self.add(epoch, before, mark);
                }
                Err(other) => found = other,
            }
        }
    }

    fn add(&self, epoch: u8, before: u8, after: u8) {
        let change = |bit| i64::from(after & bit != 0) - i64::from(before & bit != 0);
        let (failures, slow) = (change(FAILED), change(SLOW));
        if (failures, slow) == (0, 0) {
            return;
        }
        let mut found = self.totals.load(Acquire);
        while Totals(found).epoch() == epoch {
            let next = Totals(found).plus(failures, slow);
            match self
                .totals
                .compare_exchange_weak(found, next.0, AcqRel, Acquire)
            {
                Ok(_) => return,
                Err(other) => found = other,
            }
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        let totals = Totals(self.totals.load(Acquire));
        let turns = Turns(self.turns.load(Acquire));
        let calls = turns.calls(self.size());
        Counts {
            calls,
            failures: totals.failures().min(calls),
            slow: totals.slow().min(calls),
        }
    }

    pub(crate) fn numbered(&self) -> u64 {
        Turns(self.turns.load(Acquire)).numbered(self.size())
    }

    /// Takes results of this generation from now on.
    pub(crate) fn turn_over(&self, generation: u64, clear: bool) -> u64 {
        if clear {
            return self.clear(generation, self.size());
        }
        let mut found = self.turns.load(Acquire);
        loop {
            let next = Turns(found).of(generation);
            match self
                .turns
                .compare_exchange_weak(found, next.0, AcqRel, Acquire)
            {
                Ok(_) => return 0,
                Err(other) => found = other,
            }
        }
    }

    /// Sets the turns back to the second, when there is no room for more.
    pub(crate) fn renew(&self) -> u64 {
        let size = self.size();
        let mut found = self.turns.load(Acquire);
        loop {
            let turns = Turns(found);
            if turns.next(size).is_some() {
                return 0;
            }
            let next = turns.renewed();
            match self
                .turns
                .compare_exchange_weak(found, next.0, AcqRel, Acquire)
            {
                Ok(_) => return turns.numbered(size) - next.numbered(size),
                Err(other) => found = other,
            }
        }
    }

    /// Makes the ring that a window of this size needs. Not under the control lock.
    pub(crate) fn prepare(&self, size: u32) {
        let size = size.clamp(1, MOST_CALLS);
        if let Some(ring) = self.rings.get(ring_of(size)) {
            ring.get_or_init(|| (0..places(size)).map(|_| AtomicU8::new(0)).collect());
        }
    }

    /// An empty window of another size.
    pub(crate) fn resize(&self, size: u32) -> u64 {
        let size = size.clamp(1, MOST_CALLS);
        self.prepare(size);
        let generation = Turns(self.turns.load(Acquire)).generation();
        self.clear(generation, size)
    }

    fn clear(&self, generation: u64, size: u32) -> u64 {
        let before = Turns(self.turns.load(Acquire)).epoch();
        let epoch = if before == EPOCHS {
            FIRST_EPOCH
        } else {
            before + 1
        };
        // First the totals: from here on, what belongs to the old epoch changes nothing.
        self.totals.swap(Totals::new(epoch).0, AcqRel);
        self.sweep(epoch);
        let old_size = Size(self.size.swap(Size::new(epoch, size).0, AcqRel));
        let old = self.turns.swap(Turns::new(generation, epoch).0, AcqRel);
        Turns(old).numbered(old_size.calls())
    }

    /// Marks may not grow so old that their epoch looks like a newer one. Each time a part of the
    /// places, so that nobody waits for a million of them.
    fn sweep(&self, epoch: u8) {
        let part = usize::from(epoch % PARTS);
        for ring in self.rings.iter().filter_map(OnceLock::get) {
            let places = ring.len().div_ceil(usize::from(PARTS));
            for place in ring.chunks(places).nth(part).into_iter().flatten() {
                place.store(0, Relaxed);
            }
        }
    }

    fn size(&self) -> u32 {
        Size(self.size.load(Acquire)).calls()
    }

    #[inline]
    fn ring(&self, size: Size) -> Option<&[AtomicU8]> {
        self.rings.get(size.ring())?.get().map(|ring| &**ring)
    }
}

#[cfg(all(test, not(spark_loom)))]
#[path = "count_tests.rs"]
mod tests;
