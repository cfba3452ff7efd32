//! Where a breaker stands, in one word: whoever sees it sees all of it, and it is changed by
//! exchanging it, never by writing over it.
//!
//! ```text
//! generation 34 · good 12 · out 12 · stand 3 · mode 3
//! ```

use std::sync::atomic::Ordering::{AcqRel, Acquire};

use crate::sync::AtomicU64;
use crate::{Mode, State};

const MODE_BITS: u32 = 3;
const STAND_BITS: u32 = 3;
const PROBE_BITS: u32 = 12;

const STAND_AT: u32 = MODE_BITS;
const OUT_AT: u32 = STAND_AT + STAND_BITS;
const GOOD_AT: u32 = OUT_AT + PROBE_BITS;
const GENERATION_AT: u32 = GOOD_AT + PROBE_BITS;

const MODE_MASK: u64 = (1 << MODE_BITS) - 1;
const AUTO_WATCHING: u64 = 5;
const PROBE_MASK: u64 = (1 << PROBE_BITS) - 1;
const ONE_OUT: u64 = 1 << OUT_AT;
const ONE_GOOD: u64 = 1 << GOOD_AT;

/// The most probes that a word can tell of.
pub(crate) const MOST_PROBES: u32 = PROBE_MASK as u32;

/// Generations begin again after so many, which is a thousand a second for half a year.
const GENERATION_MASK: u64 = u64::MAX >> GENERATION_AT;

/// A state, where a closed breaker that lets through a share of the calls is one of its own, and an
/// open one whose callee cannot be helped by waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stand {
    Closed,
    Open,
    HalfOpen,
    Ramping,
    Exhausted,
}

/// One value of the word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word(u64);

impl Word {
    pub(crate) fn new(mode: Mode, stand: Stand, generation: u64) -> Self {
        let mode = match mode {
            Mode::Auto => 0,
            Mode::ForcedOpen => 1,
            Mode::ForcedClosed => 2,
            Mode::MetricsOnly => 3,
            Mode::Disabled => 4,
        };
        let stand = match stand {
            Stand::Closed => 0,
            Stand::Open => 1,
            Stand::HalfOpen => 2,
            Stand::Ramping => 3,
            Stand::Exhausted => 4,
        };
        Self(((generation & GENERATION_MASK) << GENERATION_AT) | (stand << STAND_AT) | mode)
    }

    /// The same, where calls that wait are counted or not: told here, so that a call looks at one word
    /// to know that it has nothing else to look at.
    pub(crate) fn watching(self, watching: bool) -> Self {
        if self.mode() != Mode::Auto {
            return self;
        }
        let mode = if watching { AUTO_WATCHING } else { 0 };
        Self((self.0 & !MODE_MASK) | mode)
    }

    /// Closed, all calls pass, the breaker decides by itself, and nobody counts calls that wait.
    pub(crate) fn is_plain(self) -> bool {
        self.0 & (ONE_OUT - 1) == 0
    }

    pub(crate) fn mode(self) -> Mode {
        match self.0 & MODE_MASK {
            0 | AUTO_WATCHING => Mode::Auto,
            1 => Mode::ForcedOpen,
            2 => Mode::ForcedClosed,
            3 => Mode::MetricsOnly,
            _ => Mode::Disabled,
        }
    }

    pub(crate) fn stand(self) -> Stand {
        match (self.0 >> STAND_AT) & ((1 << STAND_BITS) - 1) {
            0 => Stand::Closed,
            1 => Stand::Open,
            2 => Stand::HalfOpen,
            3 => Stand::Ramping,
            _ => Stand::Exhausted,
        }
    }

    pub(crate) fn state(self) -> State {
        match self.stand() {
            Stand::Closed | Stand::Ramping => State::Closed,
            Stand::Open | Stand::Exhausted => State::Open,
            Stand::HalfOpen => State::HalfOpen,
        }
    }

    pub(crate) fn is_closed(self) -> bool {
        self.state() == State::Closed
    }

    pub(crate) fn generation(self) -> u64 {
        self.0 >> GENERATION_AT
    }

    /// The one after this word's.
    pub(crate) fn next_generation(self) -> u64 {
        (self.generation() + 1) & GENERATION_MASK
    }

    /// Whether this word is of the generation that follows that one.
    pub(crate) fn follows(self, generation: u64) -> bool {
        (generation + 1) & GENERATION_MASK == self.generation()
    }

    /// Probes that are under way.
    pub(crate) fn out(self) -> u32 {
        ((self.0 >> OUT_AT) & PROBE_MASK) as u32
    }

    /// Probes that succeeded.
    pub(crate) fn good(self) -> u32 {
        ((self.0 >> GOOD_AT) & PROBE_MASK) as u32
    }

    /// One probe more is under way.
    pub(crate) fn lend(self) -> Self {
        match self.out() {
            MOST_PROBES => self,
            _ => Self(self.0 + ONE_OUT),
        }
    }

    /// One probe fewer is under way.
    pub(crate) fn give_back(self) -> Self {
        match self.out() {
            0 => self,
            _ => Self(self.0 - ONE_OUT),
        }
    }

    /// One of the probes that are under way has succeeded.
    pub(crate) fn succeed(self) -> Self {
        let word = self.give_back();
        match word.good() {
            MOST_PROBES => word,
            _ => Self(word.0 + ONE_GOOD),
        }
    }

    /// The ramp is over.
    pub(crate) fn level(self) -> Self {
        match self.stand() {
            Stand::Ramping => Self(self.0 & !(((1 << STAND_BITS) - 1) << STAND_AT)),
            Stand::Closed | Stand::Open | Stand::HalfOpen | Stand::Exhausted => self,
        }
    }

    /// Open as before, and waiting does not help.
    pub(crate) fn exhaust(self) -> Self {
        match self.stand() {
            Stand::Open => Self::new(self.mode(), Stand::Exhausted, self.generation()),
            Stand::Closed | Stand::HalfOpen | Stand::Ramping | Stand::Exhausted => self,
        }
    }
}

/// The word that threads share.
#[derive(Debug)]
pub(crate) struct AtomicWord(AtomicU64);

impl AtomicWord {
    pub(crate) fn new(word: Word) -> Self {
        Self(AtomicU64::new(word.0))
    }

    pub(crate) fn load(&self) -> Word {
        Word(self.0.load(Acquire))
    }

    /// The latest word, with all that was written before whoever wrote it: for those that have
    /// written something else first, and must not both miss what the other has done.
    pub(crate) fn latest(&self) -> Word {
        Word(self.0.fetch_add(0, AcqRel))
    }

    pub(crate) fn swap(&self, word: Word) -> Word {
        Word(self.0.swap(word.0, AcqRel))
    }

    /// Exchanges the word for what `step` makes of it: `Ok` with the new one; `Err` with the one
    /// that `step` wants left alone.
    pub(crate) fn update(&self, step: impl Fn(Word) -> Option<Word>) -> Result<Word, Word> {
        let mut word = self.load();
        loop {
            let Some(next) = step(word) else {
                return Err(word);
            };
            match self
                .0
                .compare_exchange_weak(word.0, next.0, AcqRel, Acquire)
            {
                Ok(_) => return Ok(next),
                Err(found) => word = Word(found),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_touch_each_other() {
        for mode in [
            Mode::Auto,
            Mode::ForcedOpen,
            Mode::ForcedClosed,
            Mode::MetricsOnly,
            Mode::Disabled,
        ] {
            for stand in [
                Stand::Closed,
                Stand::Open,
                Stand::HalfOpen,
                Stand::Ramping,
                Stand::Exhausted,
            ] {
                for generation in [0, 1, 12_345_678_901, GENERATION_MASK] {
                    let mut word = Word::new(mode, stand, generation);
                    assert_eq!(
                        word.is_plain(),
                        mode == Mode::Auto && stand == Stand::Closed
                    );
                    for _ in 0..MOST_PROBES + 3 {
                        word = word.lend();
                    }
                    assert_eq!((word.out(), word.good()), (MOST_PROBES, 0));
                    for _ in 0..MOST_PROBES + 3 {
                        word = word.succeed();
                    }
                    assert_eq!((word.out(), word.good()), (0, MOST_PROBES));
                    assert_eq!((word.mode(), word.stand()), (mode, stand));
                    assert_eq!(word.generation(), generation);
                }
            }
        }
    }

    #[test]
    fn it_is_not_plain_while_calls_that_wait_are_counted() {
        let modes = [Mode::Auto, Mode::MetricsOnly, Mode::Disabled];
        for mode in modes {
            let word = Word::new(mode, Stand::Closed, 7).lend();
            let watching = word.watching(true);
            assert_eq!((watching.mode(), watching.is_plain()), (mode, false));
            assert_eq!(watching.watching(true), watching);
            assert_eq!(watching.watching(false), word);
            assert_eq!(watching != word, mode == Mode::Auto);
        }
        assert!(Word::new(Mode::Auto, Stand::Closed, 7).is_plain());
    }

    #[test]
    fn generations_begin_again() {
        let last = Word::new(Mode::Auto, Stand::Open, GENERATION_MASK);
        assert_eq!(last.next_generation(), 0);
        let first = Word::new(Mode::Auto, Stand::Open, last.next_generation());
        assert!(first.follows(GENERATION_MASK) && !first.follows(0));
    }
}
