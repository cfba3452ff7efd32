//! The end of a call.

use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::Duration;

use super::step::Step;
use super::{Call, Counted, Ending, Machine};
use crate::live::UNREAD;
use crate::window::{FINE, Mark, Recorded};
use crate::word::{Stand, Word};
use crate::{EventKind, FailKind, IgnoreKind, Mode, Outcome, Reason, State};

impl Machine {
    /// The permit's call is over: gives back its place and counts how it ended.
    #[inline]
    pub(crate) fn end(&self, call: &Call, ending: Ending) {
        if let Some(tick) = call.waits_since {
            self.waiting.end(tick);
        }
        if matches!(ending, Ending::Told(Outcome::Success)) && !call.probe && !call.uncounted {
            self.succeed(call);
        } else if !call.uncounted {
            self.end_otherwise(call, ending);
        }
    }

    #[inline]
    fn succeed(&self, call: &Call) {
        let by_count = self.windows.is_by_count();
        let slow_after = self.live.slow_after();
        let now = if by_count && slow_after.is_none() {
            UNREAD
        } else {
            self.now()
        };
        if slow_after.is_some_and(|long| call.took(now, long)) {
            return self.end_told(call, now, Outcome::Success);
        }
        match self.record(by_count, call, now, FINE) {
            Recorded::Yes => self.tally.count(Counted::Success),
            Recorded::Numbered => {}
            Recorded::Late | Recorded::Full => return self.count_late(call, Outcome::Success),
        }
        self.run.end(call.generation);
        self.metrics.outcome(&self.name, Counted::Success);
    }

    #[cold]
    fn end_otherwise(&self, call: &Call, ending: Ending) {
        let now = self.now();
        match ending {
            Ending::Told(outcome) => self.end_told(call, now, outcome),
            Ending::Dropped if self.was_abandoned(call, now) => {
                self.end_told(call, now, Outcome::failure(FailKind::Abandoned));
            }
            Ending::Dropped | Ending::Cancelled => {
                self.give_back(call, Word::give_back);
                self.count(Counted::Cancelled);
            }
        }
    }

    #[inline(never)]
    fn end_told(&self, call: &Call, now: u64, outcome: Outcome) {
        let counted = if call.probe {
            self.end_probe(call, now, outcome)
        } else {
            self.end_closed(call, now, outcome)
        };
        if counted == Counted::Late {
            self.count_late(call, outcome);
            return self.heed_late_retry_after(call, outcome);
        }
        self.count(counted);
        if let Outcome::Throttled {
            retry_after,
            terminal,
            ..
        } = outcome
        {
            self.emit_throttled(call.generation, retry_after, terminal);
        }
    }

    #[cold]
    fn count_late(&self, call: &Call, outcome: Outcome) {
        self.count(Counted::Late);
        self.emit(call.generation, || EventKind::Late { outcome });
    }

    fn count(&self, counted: Counted) {
        self.tally.count(counted);
        self.metrics.outcome(&self.name, counted);
    }

    #[inline]
    fn record(&self, by_count: bool, call: &Call, now: u64, mark: Mark) -> Recorded {
        loop {
            match self
                .windows
                .record(by_count, call.generation, &self.clock, now, mark)
            {
                Recorded::Full => self.make_room(),
                recorded => return recorded,
            }
        }
    }

    #[cold]
    fn make_room(&self) {
        self.step(|step| {
            let handed_over = step.machine.windows.renew();
            step.machine.tally.take_over(handed_over);
        });
    }

    /// A call that was let through by a closed breaker.
    fn end_closed(&self, call: &Call, now: u64, outcome: Outcome) -> Counted {
        let slow = self
            .live
            .slow_after()
            .is_some_and(|long| call.took(now, long));
        let (counted, failed, retry_after) = match outcome {
            Outcome::Ignored(why) => {
                if self.word.load().generation() != call.generation {
                    return Counted::Late;
                }
                if why == IgnoreKind::Client {
                    self.run.end(call.generation);
                }
                return Counted::Ignored;
            }
            Outcome::Success => (Counted::Success, None, None),
            Outcome::Failure {
                kind, retry_after, ..
            } => (Counted::Failure, Some(kind), retry_after),
            Outcome::Throttled { retry_after, .. } => (Counted::Throttled, None, retry_after),
        };
        let mark = Mark {
            failed: counted != Counted::Success,
            slow,
        };
        let by_count = self.windows.is_by_count();
        let announced = by_count && self.tally.announce(call.generation);
        let recorded = self.record(by_count, call, now, mark);
        if announced && recorded != Recorded::Numbered {
            self.tally.retract(call.generation);
        }
        if matches!(recorded, Recorded::Late | Recorded::Full) {
            return Counted::Late;
        }
        if mark.failed {
            self.last_failure.store(now, Relaxed);
        }
        let in_a_row = match counted {
            Counted::Success => {
                self.run.end(call.generation);
                0
            }
            Counted::Failure => self.run.add(call.generation),
            _ => 0,
        };
        let asked = retry_after.is_some_and(|it| !it.is_zero()) || is_terminal(outcome);
        if asked || self.looks_broken(now, in_a_row, failed) {
            self.step(|step| step.after(call, outcome));
        }
        counted
    }

    /// Whether it is worth while to look again under the lock.
    fn looks_broken(&self, now: u64, in_a_row: u32, failed: Option<FailKind>) -> bool {
        matches!(self.word.load().mode(), Mode::Auto | Mode::MetricsOnly)
            && self
                .live
                .rules()
                .broken(self.windows.counts(now), in_a_row, failed)
                .is_some()
    }

    fn end_probe(&self, call: &Call, now: u64, outcome: Outcome) -> Counted {
        if self.word.load().generation() != call.generation
            || now >= self.probes_until.load(Acquire)
        {
            return Counted::Late;
        }
        let slow = || {
            self.live
                .slow_after()
                .is_some_and(|long| call.took(now, long))
        };
        let answered = match outcome {
            Outcome::Ignored(IgnoreKind::Client) => Counted::Ignored,
            _ => Counted::Success,
        };
        let (counted, reason, retry_after) = match outcome {
            Outcome::Ignored(IgnoreKind::Local) => {
                return match self.give_back(call, Word::give_back) {
                    Some(_) => Counted::Ignored,
                    None => Counted::Late,
                };
            }
            // What the callee answers, it has recovered for: else a client whose requests are all
            // wrong would keep it half open.
            Outcome::Success | Outcome::Ignored(IgnoreKind::Client) if !slow() => {
                return match self.give_back(call, Word::succeed) {
                    Some(word) => {
                        if self.live.probes().are_enough(word) {
                            self.step(|step| step.close_if_recovered(Some(call.generation)));
                        }
                        answered
                    }
                    None => Counted::Late,
                };
            }
            Outcome::Success | Outcome::Ignored(IgnoreKind::Client) => {
                let reason = Reason::ProbeFailed(FailKind::Slow);
                (answered, reason, None)
            }
            Outcome::Failure {
                kind, retry_after, ..
            } => (Counted::Failure, Reason::ProbeFailed(kind), retry_after),
            Outcome::Throttled { retry_after, .. } => {
                (Counted::Throttled, Reason::ProbeThrottled, retry_after)
            }
        };
        self.step(|step| {
            if step.word().generation() != call.generation {
                return Counted::Late;
            }
            let wait = step.control.believed(retry_after);
            match reason {
                _ if is_terminal(outcome) => step.exhaust_or_note(retry_after),
                Reason::ProbeThrottled if !wait.is_zero() => step.heed_throttle(wait),
                _ => {
                    let asked = retry_after.map(|_| step.now.saturating_add(wait));
                    step.open(reason, asked);
                }
            }
            counted
        })
    }

    /// Exchanges the word for what `step` makes of it, while the probe's episode lasts.
    pub(super) fn give_back(&self, call: &Call, step: impl Fn(Word) -> Word) -> Option<Word> {
        if !call.probe {
            return None;
        }
        let same = |word: Word| word.generation() == call.generation;
        let step = |word| same(word).then(|| step(word));
        self.word.update(step).ok()
    }

    fn was_abandoned(&self, call: &Call, now: u64) -> bool {
        call.first_byte == UNREAD
            && call.started != UNREAD
            && call.took(now, self.live.abandoned_after())
    }

    /// Calls that were under way when the breaker opened may bring a longer `Retry-After` than the
    /// one that opened it.
    fn heed_late_retry_after(&self, call: &Call, outcome: Outcome) {
        let asks = retry_after(outcome).is_some() || is_terminal(outcome);
        if asks && self.word.load().follows(call.generation) {
            self.step(|step| step.lengthen_for(call, outcome));
        }
    }
}

fn is_terminal(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Throttled { terminal: true, .. })
}

fn retry_after(outcome: Outcome) -> Option<Duration> {
    match outcome {
        Outcome::Failure { retry_after, .. } | Outcome::Throttled { retry_after, .. } => {
            retry_after
        }
        Outcome::Success | Outcome::Ignored(_) => None,
    }
}

impl Step<'_> {
    /// What the end of a call in the closed state leads to.
    fn after(&mut self, call: &Call, outcome: Outcome) {
        let word = self.word();
        if word.generation() != call.generation || !word.is_closed() {
            // It opened in between: then only a later moment to come back is news.
            return self.lengthen_for(call, outcome);
        }
        let wait = self.control.believed(retry_after(outcome));
        let asked = self.now.saturating_add(wait);
        match outcome {
            _ if is_terminal(outcome) => return self.exhaust_or_note(retry_after(outcome)),
            Outcome::Throttled { .. } if !wait.is_zero() => return self.heed_throttle(wait),
            Outcome::Failure { .. } if !wait.is_zero() => {
                let before = self.control.asked_until.unwrap_or(asked);
                self.control.asked_until = Some(before.max(asked));
            }
            _ => {}
        }
        let failed = match outcome {
            Outcome::Failure { kind, .. } => Some(kind),
            _ => None,
        };
        self.open_if_broken(failed);
    }

    /// Closes when as many probes have succeeded as must.
    pub(super) fn close_if_recovered(&mut self, generation: Option<u64>) {
        // Not a plain reading: a probe that succeeds now sees the new number, or its success is
        // seen here.
        let word = self.machine.word.latest();
        if word.stand() == Stand::HalfOpen
            && generation.is_none_or(|it| it == word.generation())
            && self.machine.live.probes().are_enough(word)
        {
            self.close(word.mode(), Reason::Recovered);
        }
    }

    /// A call brings a longer `Retry-After` than the one that opened the breaker. It can only
    /// lengthen, by no more than the longest that is believed.
    fn lengthen_for(&mut self, call: &Call, outcome: Outcome) {
        let word = self.word();
        let opened = word.follows(call.generation) && word.state() == State::Open;
        if !opened || word.mode() != Mode::Auto {
            return;
        }
        if is_terminal(outcome) {
            self.exhaust_or_note(retry_after(outcome));
        } else {
            let wait = self.control.believed(retry_after(outcome));
            self.lengthen_open(wait);
        }
    }
}
