//! Failures in a row.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use crate::sync::AtomicU64;

/// The generation in the upper half, the failures in a row in the lower: a result of an earlier
/// generation neither adds to the run nor ends it.
#[derive(Debug)]
pub(crate) struct Run(AtomicU64);

fn word(generation: u64, failures: u32) -> u64 {
    (generation << 32) | u64::from(failures)
}

impl Run {
    pub(crate) fn new(generation: u64) -> Self {
        Self(AtomicU64::new(word(generation, 0)))
    }

    /// A success: as a rule there is no run, and nothing is written.
    #[inline]
    pub(crate) fn end(&self, generation: u64) {
        let found = self.0.load(Relaxed);
        if found as u32 != 0 {
            self.end_of(found, generation);
        }
    }

    #[cold]
    fn end_of(&self, mut found: u64, generation: u64) {
        while found >> 32 == generation & 0xFFFF_FFFF && found as u32 != 0 {
            match self
                .0
                .compare_exchange_weak(found, word(generation, 0), AcqRel, Acquire)
            {
                Ok(_) => return,
                Err(other) => found = other,
            }
        }
    }

    /// A failure: how many there are in a row now.
    pub(crate) fn add(&self, generation: u64) -> u32 {
        let mut found = self.0.load(Acquire);
        loop {
            if found >> 32 != generation & 0xFFFF_FFFF {
                return 0;
            }
            let failures = (found as u32).saturating_add(1);
            match self
                .0
                .compare_exchange_weak(found, word(generation, failures), AcqRel, Acquire)
            {
                Ok(_) => return failures,
                Err(other) => found = other,
            }
        }
    }

    pub(crate) fn failures(&self) -> u32 {
        self.0.load(Acquire) as u32
    }

    /// Another generation begins, with an empty run or with the one that is there.
    pub(crate) fn turn_over(&self, generation: u64, clear: bool) {
        let mut found = self.0.load(Acquire);
        loop {
            let failures = if clear { 0 } else { found as u32 };
            match self
                .0
                .compare_exchange_weak(found, word(generation, failures), AcqRel, Acquire)
            {
                Ok(_) => return,
                Err(other) => found = other,
            }
        }
    }
}
