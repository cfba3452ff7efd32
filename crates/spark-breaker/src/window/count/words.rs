//! The words of a window by count, and what is in them.

/// The smallest ring has two to this many places.
const LEAST_BITS: u32 = 6;

/// Which ring a window of this size has.
pub(super) fn ring_of(size: u32) -> usize {
    let bits = u32::BITS - size.saturating_sub(1).leading_zeros();
    bits.saturating_sub(LEAST_BITS) as usize
}

pub(super) fn places(size: u32) -> usize {
    size.next_power_of_two().max(1 << LEAST_BITS) as usize
}

// A place: the epoch that its mark is of, and the mark. All zero: nobody has been there.
pub(super) const FAILED: u8 = 1;
pub(super) const SLOW: u8 = 2;
pub(super) const MARKS: u8 = FAILED | SLOW;
pub(super) const EPOCH_AT: u32 = 2;

// The epoch goes up each time that the window is emptied, from 1 to 63 and round again.
pub(super) const FIRST_EPOCH: u8 = 1;
pub(super) const EPOCHS: u8 = 63;
/// In so many steps all places are swept; a divisor of the epochs.
pub(super) const PARTS: u8 = 9;

pub(super) fn is_newer(this: u8, than: u8) -> bool {
    let ahead = (u16::from(this) + u16::from(EPOCHS) - u16::from(than)) % u16::from(EPOCHS);
    this != 0 && ahead != 0 && ahead <= u16::from(EPOCHS) / 2
}

/// How many calls the window holds, and which ring has room for them: `epoch 6 · ring 6 · calls 20`.
/// It goes with the turns of that epoch alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size(pub(super) u32);

pub(super) const RING_AT: u32 = 20;
pub(super) const SIZE_EPOCH_AT: u32 = 26;

impl Size {
    pub(super) fn new(epoch: u8, calls: u32) -> Self {
        let ring = ring_of(calls) as u32;
        Self((u32::from(epoch) << SIZE_EPOCH_AT) | (ring << RING_AT) | calls)
    }

    pub(super) fn epoch(self) -> u8 {
        (self.0 >> SIZE_EPOCH_AT) as u8
    }

    pub(super) fn ring(self) -> usize {
        ((self.0 >> RING_AT) & 0x3F) as usize
    }

    pub(super) fn calls(self) -> u32 {
        self.0 & ((1 << RING_AT) - 1)
    }
}

/// Which place is the next: `generation 24 · epoch 6 · turn 14 · place 20`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turns(pub(super) u64);

pub(super) const PLACE_BITS: u32 = 20;
pub(super) const TURN_BITS: u32 = 14;
pub(super) const TURNS_EPOCH_AT: u32 = PLACE_BITS + TURN_BITS;
pub(super) const GENERATION_AT: u32 = TURNS_EPOCH_AT + 6;
pub(super) const PLACE_MASK: u64 = (1 << PLACE_BITS) - 1;
pub(super) const ONE_TURN: u64 = 1 << PLACE_BITS;
pub(super) const LAST_TURN: u64 = (1 << TURN_BITS) - 1;

impl Turns {
    pub(super) fn new(generation: u64, epoch: u8) -> Self {
        Self((generation << GENERATION_AT) | (u64::from(epoch) << TURNS_EPOCH_AT))
    }

    pub(super) fn is_of(self, generation: u64) -> bool {
        (self.0 ^ (generation << GENERATION_AT)) >> GENERATION_AT == 0
    }

    pub(super) fn of(self, generation: u64) -> Self {
        let rest = self.0 & ((1 << GENERATION_AT) - 1);
        Self((generation << GENERATION_AT) | rest)
    }

    /// As far as it is told here.
    pub(super) fn generation(self) -> u64 {
        self.0 >> GENERATION_AT
    }

    pub(super) fn epoch(self) -> u8 {
        (self.0 >> TURNS_EPOCH_AT) as u8 & EPOCHS
    }

    pub(super) fn turn(self) -> u64 {
        (self.0 >> PLACE_BITS) & LAST_TURN
    }

    pub(super) fn place(self) -> usize {
        (self.0 & PLACE_MASK) as usize
    }

    /// `None` when this was the last place of the last turn.
    #[inline]
    pub(super) fn next(self, size: u32) -> Option<Self> {
        if (self.0 & PLACE_MASK) + 1 < u64::from(size) {
            return Some(Self(self.0 + 1));
        }
        (self.turn() < LAST_TURN).then(|| Self((self.0 & !PLACE_MASK) + ONE_TURN))
    }

    /// The same place in the second turn: in the first, the ring is not full.
    pub(super) fn renewed(self) -> Self {
        Self(self.0 - (self.turn() - 1) * ONE_TURN)
    }

    pub(super) fn calls(self, size: u32) -> u32 {
        if self.turn() > 0 {
            size
        } else {
            (self.place() as u32).min(size)
        }
    }

    pub(super) fn numbered(self, size: u32) -> u64 {
        self.turn() * u64::from(size) + self.place() as u64
    }
}

/// What the marks in the ring add up to: `epoch 6 · failures 29 · slow 29`. Between a mark and its
/// addition there is a moment in which another one may be taken off first, so they count from
/// further up than zero.
#[derive(Debug, Clone, Copy)]
pub(super) struct Totals(pub(super) u64);

pub(super) const TOTAL_BITS: u32 = 29;
pub(super) const TOTAL_MASK: u64 = (1 << TOTAL_BITS) - 1;
pub(super) const ZERO: u64 = 1 << (TOTAL_BITS - 1);

impl Totals {
    pub(super) fn new(epoch: u8) -> Self {
        Self((u64::from(epoch) << (2 * TOTAL_BITS)) | (ZERO << TOTAL_BITS) | ZERO)
    }

    pub(super) fn epoch(self) -> u8 {
        (self.0 >> (2 * TOTAL_BITS)) as u8
    }

    pub(super) fn plus(self, failures: i64, slow: i64) -> Self {
        let change = (failures << TOTAL_BITS) + slow;
        Self(self.0.wrapping_add_signed(change))
    }

    pub(super) fn failures(self) -> u32 {
        ((self.0 >> TOTAL_BITS) & TOTAL_MASK).saturating_sub(ZERO) as u32
    }

    pub(super) fn slow(self) -> u32 {
        (self.0 & TOTAL_MASK).saturating_sub(ZERO) as u32
    }
}
