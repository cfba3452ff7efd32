//! The rules: what a breaker does when a call asks, when a call ends, and when an operator speaks.
//!
//! No clock, no lock and no metrics in here: each method takes the time and returns the transition
//! that it made, if any, so that the rules can be tested one by one.

mod ending;

use std::time::Duration;

use spark_core::Instant;

use crate::jitter::Jitter;
use crate::window::{Counts, Sliding};
use crate::{Config, ConfigError, Mode, Outcome, Reason, RejectReason, State, Totals};

/// What a caller is told to wait while probes are under way.
const PROBES_BUSY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) config: Config,
    pub(crate) mode: Mode,
    phase: Phase,
    /// Goes up at each transition. A permit carries the one that it was given in, and only counts
    /// while that one lasts.
    pub(crate) generation: u64,
    /// How many times in a row it opened without having been calm in between.
    streak: u32,
    closed_since: Instant,
    pub(crate) last_trip: Option<(Reason, Instant)>,
    pub(crate) totals: Totals,
    jitter: Jitter,
}

#[derive(Debug)]
enum Phase {
    Closed {
        window: Sliding,
        consecutive: u32,
        /// The latest moment that a failing callee asked to be left alone until.
        asked_until: Option<Instant>,
    },
    Open {
        until: Instant,
    },
    HalfOpen {
        in_flight: u32,
        successes: u32,
        deadline: Instant,
    },
}

/// One step from one state to another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Transition {
    pub(crate) from: State,
    pub(crate) to: State,
    pub(crate) reason: Reason,
}

/// How a permit ended.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ending {
    Told(Outcome),
    /// Dropped without a word, not in a panic.
    Dropped,
}

/// A permit's own record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) generation: u64,
    pub(crate) started: Instant,
    pub(crate) first_byte: Option<Instant>,
}

/// What an ending was counted as: the label of the metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counted {
    Success,
    Failure,
    Throttled,
    Ignored,
    Cancelled,
    Late,
}

pub(crate) type Refused = (State, RejectReason, Duration);

impl Machine {
    pub(crate) fn new(config: Config, now: Instant) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self {
            phase: closed(&config),
            config,
            mode: Mode::Auto,
            generation: 0,
            streak: 0,
            closed_since: now,
            last_trip: None,
            totals: Totals::default(),
            jitter: Jitter::new(),
        })
    }

    pub(crate) fn state(&self) -> State {
        match self.phase {
            Phase::Closed { .. } => State::Closed,
            Phase::Open { .. } => State::Open,
            Phase::HalfOpen { .. } => State::HalfOpen,
        }
    }

    /// Until when it is open, while it is.
    pub(crate) fn open_until(&self) -> Option<Instant> {
        match self.phase {
            Phase::Open { until } => Some(until),
            Phase::Closed { .. } | Phase::HalfOpen { .. } => None,
        }
    }

    pub(crate) fn counts(&self, now: Instant) -> Counts {
        match &self.phase {
            Phase::Closed { window, .. } => window.counts(now),
            Phase::Open { .. } | Phase::HalfOpen { .. } => Counts::default(),
        }
    }

    /// Lets a call through, or not. `Ok` says whether it is a probe; the permit is of the
    /// generation that is current afterwards.
    pub(crate) fn admit(
        &mut self,
        now: Instant,
        background: bool,
    ) -> (Result<bool, Refused>, Option<Transition>) {
        match self.mode {
            Mode::ForcedOpen => {
                let wait = self.config.open_for;
                return (Err((State::Open, RejectReason::ForcedOpen, wait)), None);
            }
            Mode::ForcedClosed => return (Ok(false), None),
            Mode::Auto => {}
        }
        let mut moved = None;
        match self.phase {
            Phase::Closed { .. } => return (Ok(false), None),
            Phase::Open { until } => {
                if now < until {
                    let wait = until.saturating_duration_since(now);
                    return (Err((State::Open, RejectReason::Open, wait)), None);
                }
                let kept_until = until.saturating_add(self.config.background_grace);
                if !background && now < kept_until {
                    let wait = kept_until.saturating_duration_since(now);
                    let why = RejectReason::KeptForBackground;
                    return (Err((State::Open, why, wait)), None);
                }
                moved = Some(self.half_open(now, Reason::OpenTimeOver));
            }
            Phase::HalfOpen { deadline, .. } => {
                if now >= deadline {
                    moved = Some(self.half_open(now, Reason::ProbesLost));
                }
            }
        }
        let probes = self.config.probes;
        if let Phase::HalfOpen {
            in_flight,
            successes,
            ..
        } = &mut self.phase
            && in_flight.saturating_add(*successes) < probes
        {
            *in_flight += 1;
            return (Ok(true), moved);
        }
        let refused = (State::HalfOpen, RejectReason::ProbesBusy, PROBES_BUSY);
        (Err(refused), moved)
    }

    /// The callee asks to be left alone for so long, other than by the answer to a permit's call.
    pub(crate) fn throttle(&mut self, now: Instant, wait: Duration) -> Option<Transition> {
        let wait = wait.min(self.config.max_retry_after);
        let asked = now.saturating_add(wait);
        match &mut self.phase {
            _ if wait.is_zero() || self.mode != Mode::Auto => None,
            Phase::Open { until } => {
                *until = asked.max(*until);
                None
            }
            Phase::Closed { .. } | Phase::HalfOpen { .. } => Some(self.open_throttled(now, wait)),
        }
    }

    pub(crate) fn set_mode(&mut self, now: Instant, mode: Mode) -> Option<Transition> {
        if mode == self.mode {
            return None;
        }
        self.mode = mode;
        match mode {
            // What was in flight before no longer says anything; the phase stands as the operator
            // left it: open and due for a probe, or closed.
            Mode::Auto => {
                self.generation += 1;
                None
            }
            Mode::ForcedOpen => self.enter(Phase::Open { until: now }, Reason::Operator),
            Mode::ForcedClosed => self.close(now, Reason::Operator),
        }
    }

    pub(crate) fn reset(&mut self, now: Instant) -> Option<Transition> {
        self.mode = Mode::Auto;
        self.last_trip = None;
        self.totals = Totals::default();
        self.close(now, Reason::Operator)
    }

    /// Takes other rules. What was counted stays, unless the window is another one.
    pub(crate) fn reconfigure(&mut self, config: Config) -> Result<(), ConfigError> {
        config.validate()?;
        if config.window != self.config.window
            && let Phase::Closed { window, .. } = &mut self.phase
        {
            *window = Sliding::new(config.window);
        }
        self.config = config;
        Ok(())
    }

    /// Closed, and no trouble remembered: forgetting it changes nothing.
    pub(crate) fn is_idle(&self, now: Instant) -> bool {
        self.mode == Mode::Auto
            && match &self.phase {
                Phase::Closed {
                    window,
                    consecutive,
                    ..
                } => {
                    let calm = now.saturating_duration_since(self.closed_since);
                    *consecutive == 0
                        && window.counts(now).failures == 0
                        && (self.streak == 0 || calm >= self.config.calm_after())
                }
                Phase::Open { .. } | Phase::HalfOpen { .. } => false,
            }
    }

    /// Opens because of failures: for longer each time that it did not hold.
    fn open(&mut self, now: Instant, reason: Reason, asked: Option<Instant>) -> Transition {
        let was_calm = matches!(self.phase, Phase::Closed { .. })
            && now.saturating_duration_since(self.closed_since) >= self.config.calm_after();
        self.streak = if was_calm {
            1
        } else {
            self.streak.saturating_add(1)
        };
        let doublings = (self.streak - 1).min(31);
        let time = self
            .config
            .open_for
            .saturating_mul(1 << doublings)
            .min(self.config.max_open_for);
        let until = now.saturating_add(self.jitter.lengthen(time, self.config.jitter));
        let until = asked.map_or(until, |asked| asked.max(until));
        self.trip_into(now, until, reason)
    }

    /// Opens because the callee said so: for as long as it said.
    fn open_throttled(&mut self, now: Instant, wait: Duration) -> Transition {
        let until = now.saturating_add(self.jitter.lengthen(wait, self.config.jitter));
        self.trip_into(now, until, Reason::Throttled { retry_after: wait })
    }

    fn trip_into(&mut self, now: Instant, until: Instant, reason: Reason) -> Transition {
        self.last_trip = Some((reason, now));
        self.step(Phase::Open { until }, reason)
    }

    fn half_open(&mut self, now: Instant, reason: Reason) -> Transition {
        let deadline = now.saturating_add(self.config.probe_timeout);
        self.step(
            Phase::HalfOpen {
                in_flight: 0,
                successes: 0,
                deadline,
            },
            reason,
        )
    }

    fn close(&mut self, now: Instant, reason: Reason) -> Option<Transition> {
        self.closed_since = now;
        if reason == Reason::Operator {
            self.streak = 0;
        }
        let phase = closed(&self.config);
        self.enter(phase, reason)
    }

    /// Like `step`, but says nothing when the state stays the same.
    fn enter(&mut self, phase: Phase, reason: Reason) -> Option<Transition> {
        let moved = self.step(phase, reason);
        (moved.from != moved.to).then_some(moved)
    }

    fn step(&mut self, phase: Phase, reason: Reason) -> Transition {
        let from = self.state();
        self.phase = phase;
        self.generation += 1;
        Transition {
            from,
            to: self.state(),
            reason,
        }
    }
}

fn closed(config: &Config) -> Phase {
    Phase::Closed {
        window: Sliding::new(config.window),
        consecutive: 0,
        asked_until: None,
    }
}
