//! Looking without asking, taking back what was asked, and being one of many.

use std::sync::Arc;
use std::sync::atomic::Ordering::Acquire;

use super::{Call, Machine};
use crate::metrics::Metrics;
use crate::word::{Stand, Word};
use crate::{Mode, State};

impl Machine {
    /// Counts in the series of another one.
    pub(crate) fn measured_as(mut self, label: &Arc<str>) -> Self {
        self.metrics = Metrics::shared(label);
        self
    }

    /// Nobody has it any more.
    pub(crate) fn is_forgotten(&self) {
        self.metrics.is_forgotten();
    }

    /// Where it stands and who decides, without a lock.
    pub(crate) fn stands(&self) -> (State, Mode) {
        let word = self.word.load();
        (word.state(), word.mode())
    }

    /// Whether a call would be refused now, but for the share of a ramp and for what is kept for
    /// background calls. Changes nothing.
    #[inline]
    pub(crate) fn refuses(&self) -> bool {
        let word = self.word.load();
        !word.is_plain() && self.refuses_at(word)
    }

    #[cold]
    fn refuses_at(&self, word: Word) -> bool {
        match (word.mode(), word.stand()) {
            (Mode::ForcedOpen, _) => true,
            (Mode::Auto, Stand::Open | Stand::Exhausted) => {
                self.now() < self.open_until.load(Acquire)
            }
            (Mode::Auto, Stand::HalfOpen) => {
                !self.live.probes().has_room(word) && self.now() < self.probes_until.load(Acquire)
            }
            _ => false,
        }
    }

    /// The call that was let through is not made: its place is free again, and it counts nowhere.
    pub(crate) fn take_back(&self, call: &Call) {
        if call.uncounted {
            return;
        }
        if let Some(tick) = call.waits_since {
            self.waiting.end(tick);
        }
        self.give_back(call, Word::give_back);
        self.tally.take_back();
    }
}
