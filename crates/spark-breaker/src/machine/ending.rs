//! The rules for the end of a call.

use spark_core::Instant;

use super::{Call, Counted, Ending, Machine, Phase, Transition};
use crate::window::Counts;
use crate::{FailKind, Mode, Outcome, Reason};

impl Machine {
    /// Counts how a call ended.
    pub(crate) fn end(
        &mut self,
        now: Instant,
        call: Call,
        ending: Ending,
    ) -> (Counted, Option<Transition>) {
        let outcome = match ending {
            Ending::Told(outcome) => outcome,
            Ending::Dropped if self.was_abandoned(now, call) => {
                Outcome::failure(FailKind::Abandoned)
            }
            Ending::Dropped => {
                // The slot of a probe goes back, but only to the episode that lent it.
                if call.generation == self.generation
                    && let Phase::HalfOpen { in_flight, .. } = &mut self.phase
                {
                    *in_flight = in_flight.saturating_sub(1);
                }
                self.totals.cancelled += 1;
                return (Counted::Cancelled, None);
            }
        };
        if !self.is_current(now, call.generation) {
            self.totals.late += 1;
            self.heed_late_retry_after(now, call.generation, outcome);
            return (Counted::Late, None);
        }
        let first = call.first_byte.unwrap_or(now);
        let slow = first.saturating_duration_since(call.started) >= self.config.slow_threshold;
        match outcome {
            Outcome::Success => self.totals.successes += 1,
            Outcome::Failure { .. } => self.totals.failures += 1,
            Outcome::Throttled { .. } => self.totals.throttled += 1,
            Outcome::Ignored => self.totals.ignored += 1,
        }
        let counted = match outcome {
            Outcome::Success => Counted::Success,
            Outcome::Failure { .. } => Counted::Failure,
            Outcome::Throttled { .. } => Counted::Throttled,
            Outcome::Ignored => Counted::Ignored,
        };
        let moved = match self.phase {
            Phase::Closed { .. } => self.end_in_closed(now, outcome, slow),
            Phase::HalfOpen { .. } => self.end_in_half_open(now, outcome, slow),
            Phase::Open { .. } => None,
        };
        (counted, moved)
    }

    fn end_in_closed(&mut self, now: Instant, outcome: Outcome, slow: bool) -> Option<Transition> {
        let Phase::Closed {
            window,
            consecutive,
            asked_until,
        } = &mut self.phase
        else {
            return None;
        };
        let mut failed = None;
        if matches!(outcome, Outcome::Failure { .. } | Outcome::Throttled { .. }) {
            self.last_failure = Some(now);
        }
        match outcome {
            Outcome::Ignored => return None,
            Outcome::Success => {
                *consecutive = 0;
                window.record(now, false, slow);
            }
            Outcome::Failure { kind, retry_after } => {
                failed = Some(kind);
                *consecutive = consecutive.saturating_add(1);
                window.record(now, true, slow);
                if let Some(wait) = retry_after {
                    let asked = now.saturating_add(wait.min(self.config.max_retry_after));
                    *asked_until = Some(asked_until.map_or(asked, |until| until.max(asked)));
                }
            }
            Outcome::Throttled { retry_after } => {
                window.record(now, true, slow);
                let wait = retry_after.unwrap_or_default();
                let wait = wait.min(self.config.max_retry_after);
                if !wait.is_zero() && self.mode == Mode::Auto {
                    return Some(self.open_throttled(now, wait));
                }
            }
        }
        let may_trip = !matches!(outcome, Outcome::Success) || slow;
        if !may_trip || self.mode != Mode::Auto {
            return None;
        }
        let (asked_until, consecutive) = (*asked_until, *consecutive);
        let counts = window.counts(now);
        let reason = self.trip(counts, consecutive, failed)?;
        Some(self.open(now, reason, asked_until))
    }

    /// The rule that is broken, if one is.
    fn trip(&self, counts: Counts, consecutive: u32, failed: Option<FailKind>) -> Option<Reason> {
        if let (Some(last), Some(limit)) = (failed, self.config.consecutive)
            && consecutive >= limit
        {
            return Some(Reason::Consecutive {
                failures: consecutive,
                last,
            });
        }
        if counts.calls < self.config.min_calls {
            return None;
        }
        let calls = counts.calls;
        let rate = counts.failure_rate();
        if rate >= self.config.failure_rate {
            return Some(Reason::FailureRate { rate, calls });
        }
        let rate = counts.slow_rate();
        match self.config.slow_rate {
            Some(limit) if rate >= limit => Some(Reason::SlowRate { rate, calls }),
            _ => None,
        }
    }

    fn end_in_half_open(
        &mut self,
        now: Instant,
        outcome: Outcome,
        slow: bool,
    ) -> Option<Transition> {
        let Phase::HalfOpen {
            in_flight,
            successes,
            ..
        } = &mut self.phase
        else {
            return None;
        };
        *in_flight = in_flight.saturating_sub(1);
        match outcome {
            Outcome::Ignored => None,
            Outcome::Success if slow && self.config.slow_rate.is_some() => {
                Some(self.open(now, Reason::ProbeFailed(FailKind::Slow), None))
            }
            Outcome::Success => {
                *successes += 1;
                if *successes < self.config.probes {
                    return None;
                }
                self.close(now, Reason::Recovered)
            }
            Outcome::Failure { kind, retry_after } => {
                let asked = retry_after
                    .map(|wait| now.saturating_add(wait.min(self.config.max_retry_after)));
                Some(self.open(now, Reason::ProbeFailed(kind), asked))
            }
            Outcome::Throttled { retry_after } => {
                let wait = retry_after.unwrap_or_default();
                let wait = wait.min(self.config.max_retry_after);
                if wait.is_zero() {
                    Some(self.open(now, Reason::ProbeThrottled, None))
                } else {
                    Some(self.open_throttled(now, wait))
                }
            }
        }
    }

    fn was_abandoned(&self, now: Instant, call: Call) -> bool {
        call.first_byte.is_none()
            && now.saturating_duration_since(call.started) >= self.config.abandoned_at()
    }

    fn is_current(&self, now: Instant, generation: u64) -> bool {
        generation == self.generation
            && !matches!(self.phase, Phase::HalfOpen { deadline, .. } if now >= deadline)
    }

    /// Calls that were under way when the breaker opened may bring a longer `Retry-After` than the
    /// one that opened it. It can only lengthen, by no more than the longest that is believed.
    fn heed_late_retry_after(&mut self, now: Instant, generation: u64, outcome: Outcome) {
        let (Outcome::Failure { retry_after, .. } | Outcome::Throttled { retry_after }) = outcome
        else {
            return;
        };
        if let Some(wait) = retry_after
            && generation.saturating_add(1) == self.generation
            && self.mode == Mode::Auto
        {
            self.lengthen_open(now, wait.min(self.config.max_retry_after));
        }
    }
}
