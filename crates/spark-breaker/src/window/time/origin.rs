//! The word that says which results a window by time takes, and where.

/// Whose results are taken, and what is added to an epoch: `busy 1 · generation 31 · shift 32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Origin(pub(super) u64);

const GENERATION_MASK: u64 = (1 << 31) - 1;
const BUSY: u64 = 1 << 63;

impl Origin {
    pub(super) fn new(generation: u64, shift: u32) -> Self {
        Self(((generation & GENERATION_MASK) << 32) | u64::from(shift))
    }

    pub(super) fn is_of(self, generation: u64) -> bool {
        self.generation() == generation & GENERATION_MASK
    }

    pub(super) fn generation(self) -> u64 {
        (self.0 >> 32) & GENERATION_MASK
    }

    pub(super) fn shift(self) -> u32 {
        self.0 as u32
    }

    pub(super) fn busy(self) -> Self {
        Self(self.0 | BUSY)
    }

    pub(super) fn is_busy(self) -> bool {
        self.0 & BUSY != 0
    }
}
