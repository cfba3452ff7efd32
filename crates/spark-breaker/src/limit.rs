//! How many calls may be inside at a time, and how that moves.

use std::sync::atomic::{AtomicU64, Ordering};

use spark_core::{Clock, Instant};

use crate::aimd::Rules;

#[derive(Debug)]
pub(crate) enum Limit {
    Fixed(usize),
    Adaptive(Adaptive),
}

impl Limit {
    pub(crate) fn now(&self) -> usize {
        match self {
            Self::Fixed(limit) => *limit,
            Self::Adaptive(adaptive) => adaptive.limit(),
        }
    }

    pub(crate) fn max(&self) -> usize {
        match self {
            Self::Fixed(limit) => *limit,
            Self::Adaptive(adaptive) => adaptive.rules.max as usize,
        }
    }
}

/// A limit that follows [`Rules`]. All that moves is in one word, so that no lock is needed and
/// nothing is seen half changed.
#[derive(Debug)]
pub(crate) struct Adaptive {
    rules: Rules,
    clock: Clock,
    word: AtomicU64,
}

/// What a [`Place`](crate::Place) of an adaptive bulkhead remembers of its call.
#[derive(Debug)]
pub(crate) struct Call {
    epoch: u64,
    /// Read only where latency is looked at.
    began: Option<Instant>,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// For the first byte.
    Waiting,
    /// The first byte came in time.
    Begun,
    /// All that it can say is said.
    Over,
}

/// Why a limit was lowered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    Throttled,
    Late,
}

/// What a call did to the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moved {
    Up,
    Down(Cause),
}

impl Adaptive {
    pub(crate) fn new(rules: Rules, clock: Clock) -> Self {
        let word = Word {
            limit: rules.start,
            ..Word::default()
        };
        Self {
            rules,
            clock,
            word: AtomicU64::new(word.pack()),
        }
    }

    fn limit(&self) -> usize {
        Word::unpack(self.word.load(Ordering::Acquire)).limit as usize
    }

    /// A call entered, and so many are inside with it.
    pub(crate) fn enter(&self, inside: usize) -> Call {
        let reach = |word: Word| {
            let reached = inside as u64 >= word.limit && !word.reached;
            reached.then_some(Word {
                reached: true,
                ..word
            })
        };
        let word = match self.update(reach) {
            Ok(word) | Err(word) => word,
        };
        Call {
            epoch: word.epoch,
            began: self.rules.latency.map(|_| self.clock.now()),
            stage: Stage::Waiting,
        }
    }

    pub(crate) fn first_byte(&self, call: &mut Call) -> Option<Moved> {
        if call.stage != Stage::Waiting {
            return None;
        }
        if self.is_late(call) {
            return self.down(call, Cause::Late);
        }
        call.stage = Stage::Begun;
        None
    }

    pub(crate) fn succeeded(&self, call: &mut Call) -> Option<Moved> {
        if let Some(moved) = self.first_byte(call) {
            return Some(moved);
        }
        if std::mem::replace(&mut call.stage, Stage::Over) != Stage::Begun {
            return None;
        }
        let count = |word: Word| {
            let good = word.good + 1;
            if word.epoch != call.epoch {
                return None;
            }
            if good < self.rules.round(word.limit) {
                return Some(Word { good, ..word });
            }
            let grows = word.reached && word.limit < self.rules.max;
            Some(Word {
                limit: word.limit + u64::from(grows),
                good: 0,
                reached: false,
                epoch: word.epoch,
            })
        };
        let before = self.update(count).ok()?;
        let after = count(before)?;
        (after.limit > before.limit).then_some(Moved::Up)
    }

    pub(crate) fn throttled(&self, call: &mut Call) -> Option<Moved> {
        if call.stage == Stage::Over {
            return None;
        }
        self.down(call, Cause::Throttled)
    }

    /// Says nothing, unless it took so long that the first byte is late anyway.
    pub(crate) fn failed(&self, call: &mut Call) -> Option<Moved> {
        let stage = std::mem::replace(&mut call.stage, Stage::Over);
        if stage == Stage::Waiting && self.is_late(call) {
            return self.down(call, Cause::Late);
        }
        None
    }

    fn is_late(&self, call: &Call) -> bool {
        let (Some(latency), Some(began)) = (self.rules.latency, call.began) else {
            return false;
        };
        self.clock.now().saturating_duration_since(began) > latency
    }

    fn down(&self, call: &mut Call, cause: Cause) -> Option<Moved> {
        call.stage = Stage::Over;
        let lower = |word: Word| {
            (word.epoch == call.epoch).then(|| Word {
                limit: self.rules.lowered(word.limit),
                good: 0,
                reached: false,
                epoch: (word.epoch + 1) & EPOCHS,
            })
        };
        self.update(lower).ok().map(|_| Moved::Down(cause))
    }

    /// The word as it was: changed, or as it stands because nothing is to be changed.
    fn update(&self, change: impl Fn(Word) -> Option<Word>) -> Result<Word, Word> {
        let change = |word: u64| change(Word::unpack(word)).map(Word::pack);
        let updated = self
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, change);
        updated.map(Word::unpack).map_err(Word::unpack)
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Word {
    limit: u64,
    /// Good calls in this round.
    good: u64,
    /// All places were taken at some time in this round.
    reached: bool,
    /// How often the limit was lowered. It comes round after eight million times, in the course of
    /// which no call is still under way.
    epoch: u64,
}

/// The highest epoch; the limit and the good calls, at most as many, have 20 bits each.
const EPOCHS: u64 = (1 << 23) - 1;
const COUNT: u64 = (1 << 20) - 1;

impl Word {
    fn pack(self) -> u64 {
        self.limit | self.good << 20 | u64::from(self.reached) << 40 | self.epoch << 41
    }

    fn unpack(word: u64) -> Self {
        Self {
            limit: word & COUNT,
            good: word >> 20 & COUNT,
            reached: word >> 40 & 1 == 1,
            epoch: word >> 41 & EPOCHS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Aimd;

    #[test]
    fn the_parts_of_the_word_do_not_touch_each_other() {
        for limit in [1, 1_000_000] {
            for good in [0, 999_999] {
                for reached in [false, true] {
                    for epoch in [0, 1, EPOCHS] {
                        let word = Word {
                            limit,
                            good,
                            reached,
                            epoch,
                        };
                        assert_eq!(Word::unpack(word.pack()), word);
                    }
                }
            }
        }
    }

    #[test]
    fn epochs_come_round() {
        let adaptive = Adaptive::new(Aimd::new(1, 9).checked().unwrap(), Clock::system());
        let last = Word {
            limit: 9,
            epoch: EPOCHS,
            ..Word::default()
        };
        adaptive.word.store(last.pack(), Ordering::Relaxed);
        let (mut first, mut second) = (adaptive.enter(1), adaptive.enter(2));
        assert_eq!(
            adaptive.throttled(&mut first),
            Some(Moved::Down(Cause::Throttled))
        );
        assert_eq!(adaptive.throttled(&mut second), None);
        let mut third = adaptive.enter(2);
        assert_eq!(
            adaptive.throttled(&mut third),
            Some(Moved::Down(Cause::Throttled))
        );
        assert_eq!(adaptive.limit(), 4);
    }
}
