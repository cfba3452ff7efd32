//! The latest so many calls: a byte for each, and running totals.
//!
//! A result takes a place by exchanging the word of turns, and leaves its mark there. A mark like
//! the one that is there already is not written, and the totals change only where a mark does: a
//! success over a success costs one exchange and one reading.

use std::sync::OnceLock;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use super::{Counts, Mark, Recorded};
use crate::sync::{AtomicU8, AtomicU32, AtomicU64};

/// The most calls that a window by count may hold.
pub(crate) const MOST_CALLS: u32 = 1_000_000;

/// Rings of 64, 128, 256 … places, each made when a window of its size is first asked for, so that
/// a change of size never takes a ring away from somebody who writes in it.
const RINGS: usize = 15;
const LEAST_BITS: u32 = 6;

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
            let size = size.calls();
            let Some(next) = turns.next(size) else {
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

    /// An empty window of another size.
    pub(crate) fn resize(&self, size: u32) -> u64 {
        let size = size.clamp(1, MOST_CALLS);
        if let Some(ring) = self.rings.get(ring_of(size)) {
            ring.get_or_init(|| (0..places(size)).map(|_| AtomicU8::new(0)).collect());
        }
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
        if epoch.is_multiple_of(SWEEP_EVERY) {
            self.sweep();
        }
        // First the totals: from here on, what belongs to the old epoch changes nothing.
        self.totals.swap(Totals::new(epoch).0, AcqRel);
        let old_size = Size(self.size.swap(Size::new(epoch, size).0, AcqRel));
        let old = self.turns.swap(Turns::new(generation, epoch).0, AcqRel);
        Turns(old).numbered(old_size.calls())
    }

    /// Marks may not grow so old that their epoch looks like a newer one.
    fn sweep(&self) {
        for place in self.rings.iter().filter_map(OnceLock::get).flatten() {
            place.swap(0, Relaxed);
        }
    }

    fn size(&self) -> u32 {
        Size(self.size.load(Acquire)).calls()
    }

    #[inline]
    fn ring(&self, size: u32) -> Option<&[AtomicU8]> {
        self.rings.get(ring_of(size))?.get().map(|ring| &**ring)
    }
}

/// Which ring a window of this size has.
#[inline]
fn ring_of(size: u32) -> usize {
    let bits = u32::BITS - size.saturating_sub(1).leading_zeros();
    bits.saturating_sub(LEAST_BITS) as usize
}

fn places(size: u32) -> usize {
    size.next_power_of_two().max(1 << LEAST_BITS) as usize
}

// A place: the epoch that its mark is of, and the mark. All zero: nobody has been there.
const FAILED: u8 = 1;
const SLOW: u8 = 2;
const MARKS: u8 = FAILED | SLOW;
const EPOCH_AT: u32 = 2;

// The epoch goes up each time that the window is emptied, from 1 to 63 and round again.
const FIRST_EPOCH: u8 = 1;
const EPOCHS: u8 = 63;
const SWEEP_EVERY: u8 = 16;

fn is_newer(this: u8, than: u8) -> bool {
    let ahead = (u16::from(this) + u16::from(EPOCHS) - u16::from(than)) % u16::from(EPOCHS);
    this != 0 && ahead != 0 && ahead <= u16::from(EPOCHS) / 2
}

/// How many calls the window holds: `epoch 6 · calls 26`. It goes with the turns of that epoch alone.
#[derive(Debug, Clone, Copy)]
struct Size(u32);

const SIZE_BITS: u32 = 26;

impl Size {
    fn new(epoch: u8, calls: u32) -> Self {
        Self((u32::from(epoch) << SIZE_BITS) | calls)
    }

    fn epoch(self) -> u8 {
        (self.0 >> SIZE_BITS) as u8
    }

    fn calls(self) -> u32 {
        self.0 & ((1 << SIZE_BITS) - 1)
    }
}

/// Which place is the next: `generation 24 · epoch 6 · turn 14 · place 20`.
#[derive(Debug, Clone, Copy)]
struct Turns(u64);

const PLACE_BITS: u32 = 20;
const TURN_BITS: u32 = 14;
const TURNS_EPOCH_AT: u32 = PLACE_BITS + TURN_BITS;
const GENERATION_AT: u32 = TURNS_EPOCH_AT + 6;
const PLACE_MASK: u64 = (1 << PLACE_BITS) - 1;
const ONE_TURN: u64 = 1 << PLACE_BITS;
const LAST_TURN: u64 = (1 << TURN_BITS) - 1;

impl Turns {
    fn new(generation: u64, epoch: u8) -> Self {
        Self((generation << GENERATION_AT) | (u64::from(epoch) << TURNS_EPOCH_AT))
    }

    fn is_of(self, generation: u64) -> bool {
        (self.0 ^ (generation << GENERATION_AT)) >> GENERATION_AT == 0
    }

    fn of(self, generation: u64) -> Self {
        let rest = self.0 & ((1 << GENERATION_AT) - 1);
        Self((generation << GENERATION_AT) | rest)
    }

    /// As far as it is told here.
    fn generation(self) -> u64 {
        self.0 >> GENERATION_AT
    }

    fn epoch(self) -> u8 {
        (self.0 >> TURNS_EPOCH_AT) as u8 & EPOCHS
    }

    fn turn(self) -> u64 {
        (self.0 >> PLACE_BITS) & LAST_TURN
    }

    fn place(self) -> usize {
        (self.0 & PLACE_MASK) as usize
    }

    /// `None` when this was the last place of the last turn.
    #[inline]
    fn next(self, size: u32) -> Option<Self> {
        if (self.0 & PLACE_MASK) + 1 < u64::from(size) {
            return Some(Self(self.0 + 1));
        }
        (self.turn() < LAST_TURN).then(|| Self((self.0 & !PLACE_MASK) + ONE_TURN))
    }

    /// The same place in the second turn: in the first, the ring is not full.
    fn renewed(self) -> Self {
        Self(self.0 - (self.turn() - 1) * ONE_TURN)
    }

    fn calls(self, size: u32) -> u32 {
        if self.turn() > 0 {
            size
        } else {
            (self.place() as u32).min(size)
        }
    }

    fn numbered(self, size: u32) -> u64 {
        self.turn() * u64::from(size) + self.place() as u64
    }
}

/// What the marks in the ring add up to: `epoch 6 · failures 29 · slow 29`. Between a mark and its
/// addition there is a moment in which another one may be taken off first, so they count from
/// further up than zero.
#[derive(Debug, Clone, Copy)]
struct Totals(u64);

const TOTAL_BITS: u32 = 29;
const TOTAL_MASK: u64 = (1 << TOTAL_BITS) - 1;
const ZERO: u64 = 1 << (TOTAL_BITS - 1);

impl Totals {
    fn new(epoch: u8) -> Self {
        Self((u64::from(epoch) << (2 * TOTAL_BITS)) | (ZERO << TOTAL_BITS) | ZERO)
    }

    fn epoch(self) -> u8 {
        (self.0 >> (2 * TOTAL_BITS)) as u8
    }

    fn plus(self, failures: i64, slow: i64) -> Self {
        let change = (failures << TOTAL_BITS) + slow;
        Self(self.0.wrapping_add_signed(change))
    }

    fn failures(self) -> u32 {
        ((self.0 >> TOTAL_BITS) & TOTAL_MASK).saturating_sub(ZERO) as u32
    }

    fn slow(self) -> u32 {
        (self.0 & TOTAL_MASK).saturating_sub(ZERO) as u32
    }
}

#[cfg(all(test, not(spark_loom)))]
#[path = "count_tests.rs"]
mod tests;
