//! What an operator says, what a callee says beside its answers, and how it stands for their eyes.

use std::sync::Arc;
use std::time::Duration;

use super::control::NEVER;
use super::{Machine, step::Step};
use crate::sync::hold;
use crate::word::Stand;
use crate::{Config, ConfigError, Mode, Reason, Snapshot, State, Totals, Trip};

impl Machine {
    /// The callee asks to be left alone for so long, other than by the answer to a permit's call.
    pub(crate) fn throttle(&self, wait: Duration) {
        self.step(|step| {
            let wait = step.control.believed(Some(wait));
            if !wait.is_zero() {
                step.heed_throttle(wait);
            }
        });
        self.emit_throttled(self.word.load().generation(), Some(wait), false);
    }

    /// The callee says that waiting does not help, likewise.
    pub(crate) fn exhaust(&self, retry_after: Option<Duration>) {
        self.step(|step| step.exhaust_or_note(retry_after));
        self.emit_throttled(self.word.load().generation(), retry_after, true);
    }

    pub(crate) fn set_mode(&self, mode: Mode) {
        self.step(|step| {
            if mode == step.word().mode() {
                return;
            }
            // Who is told to watch again has not said anything yet.
            step.control.would_be_open_until = step.now;
            match mode {
                // It stands as the operator left it: open and due for a probe, or closed.
                Mode::Auto => step.turn_over(Mode::Auto),
                // What the callee asked for outlasts the operator.
                Mode::ForcedOpen => {
                    // Not that its credit is used up: the operator acts, and then it is tried.
                    let until = match step.word().stand() {
                        Stand::Exhausted => None,
                        _ => step.open_until().or(step.asked_until()),
                    };
                    step.force_open(until.unwrap_or(step.now));
                }
                Mode::ForcedClosed | Mode::MetricsOnly | Mode::Disabled => {
                    step.close(mode, Reason::Operator);
                }
            }
        });
    }

    pub(crate) fn reset(&self) {
        self.step(|step| {
            step.control.last_trip = None;
            step.control.would_trip = None;
            step.machine.forget_failures();
            step.forgets = true;
            step.close(Mode::Auto, Reason::Operator);
        });
    }

    /// Takes other rules. What was counted stays, unless the window is another one.
    pub(crate) fn reconfigure(&self, config: Config) -> Result<(), ConfigError> {
        config.validate()?;
        self.windows.prepare(config.window);
        self.step(|step| {
            let machine = step.machine;
            if config.window != step.control.config.window {
                let generation = step.word().generation();
                let now = step.now.as_nanos();
                let handed_over = machine.windows.resize(config.window, now, generation);
                machine.tally.take_over(handed_over);
            }
            let now = step.now.as_nanos();
            machine
                .waiting
                .set(config.in_flight_slow, config.slow_threshold, now);
            let watching = machine.waiting.is_watched();
            let _ = machine.word.update(|word| Some(word.watching(watching)));
            machine.live.set(&config);
            step.control.config = config;
            // Fewer probes may be wanted now than have succeeded.
            step.close_if_recovered(None);
        });
        Ok(())
    }

    /// No trouble is remembered that is not long over: forgetting it changes next to nothing. What is
    /// never called again must not be kept for ever because its last call failed.
    pub(crate) fn is_idle(&self) -> bool {
        self.step(|step| {
            let calm = step.control.config.calm_after();
            let calm_since = |then| step.now.saturating_duration_since(then) >= calm;
            let word = step.word();
            word.mode() == Mode::Auto
                && match word.stand() {
                    Stand::Closed | Stand::Ramping => {
                        let untroubled =
                            step.control.streak == 0 || step.control.has_been_calm(step.now);
                        let failed = step.machine.last_failure();
                        untroubled && failed.is_none_or(calm_since)
                    }
                    Stand::Open | Stand::Exhausted => step.open_until().is_none_or(calm_since),
                    Stand::HalfOpen => calm_since(step.probes_until()),
                }
        })
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let control = hold(&self.control);
        self.step_with(control, |step| {
            let machine = step.machine;
            let word = step.word();
            let counts = if word.state() == State::Closed {
                machine.windows.counts(step.now.as_nanos())
            } else {
                Default::default()
            };
            let ever = step.counted();
            // One that failed is taken off before it is numbered: for a moment there is one too few.
            let successes = &mut step.control.successes_shown;
            *successes = ever.successes.max(*successes);
            let shown = Totals {
                successes: *successes,
                ..ever
            };
            let trip = |(reason, at)| Trip {
                reason,
                ago: step.now.saturating_duration_since(at),
            };
            Snapshot {
                name: Arc::clone(&machine.name),
                state: word.state(),
                mode: word.mode(),
                generation: word.generation(),
                calls: counts.calls,
                failures: counts.failures,
                slow: counts.slow,
                failure_rate: counts.failure_rate(),
                in_flight: machine.tally.in_flight(&ever),
                in_flight_slow: machine.waiting.overdue(step.now.as_nanos()),
                retry_after: step
                    .open_until()
                    .filter(|until| word.mode() == Mode::Auto && until.as_nanos() != NEVER)
                    .map(|until| until.saturating_duration_since(step.now)),
                exhausted: word.stand() == Stand::Exhausted,
                last_trip: step.control.last_trip.map(trip),
                would_trip: step.control.would_trip.map(trip),
                totals: shown.since(&step.control.counted_before),
            }
        })
    }
}

impl Step<'_> {
    /// What was counted since it was made.
    fn counted(&self) -> Totals {
        let numbered = self.machine.windows.numbered();
        self.machine.tally.totals(numbered)
    }
}

impl Totals {
    fn since(&self, before: &Self) -> Self {
        Self {
            successes: self.successes.saturating_sub(before.successes),
            failures: self.failures.saturating_sub(before.failures),
            throttled: self.throttled.saturating_sub(before.throttled),
            ignored: self.ignored.saturating_sub(before.ignored),
            cancelled: self.cancelled.saturating_sub(before.cancelled),
            late: self.late.saturating_sub(before.late),
        }
    }
}
