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
    /// When a call last failed while it was closed.
    last_failure: Option<Instant>,
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
            last_failure: None,
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
        if wait.is_zero() || self.mode != Mode::Auto {
            return None;
        }
        match self.phase {
            Phase::Open { .. } => {
                self.lengthen_open(now, wait);
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
            // What the callee asked for outlasts the operator.
            Mode::ForcedOpen => {
                let until = self.open_until().or(self.asked_until()).unwrap_or(now);
                self.enter(Phase::Open { until }, Reason::Operator)
            }
            Mode::ForcedClosed => self.close(now, Reason::Operator),
        }
    }

    pub(crate) fn reset(&mut self, now: Instant) -> Option<Transition> {
        self.mode = Mode::Auto;
        self.last_trip = None;
        self.last_failure = None;
        self.totals = Totals::default();
        self.close(now, Reason::Operator)
    }

    /// Takes other rules. What was counted stays, unless the window is another one.
    pub(crate) fn reconfigure(
        &mut self,
        now: Instant,
        config: Config,
    ) -> Result<Option<Transition>, ConfigError> {
        config.validate()?;
        if config.window != self.config.window
            && let Phase::Closed { window, .. } = &mut self.phase
        {
            *window = Sliding::new(config.window);
        }
        self.config = config;
        // Fewer probes may be wanted now than have succeeded.
        let recovered = matches!(self.phase, Phase::HalfOpen { successes, .. }
            if successes >= self.config.probes);
        Ok(recovered
            .then(|| self.close(now, Reason::Recovered))
            .flatten())
    }

    /// No trouble is remembered that is not long over: forgetting it changes next to nothing. What is
    /// never called again must not be kept for ever because its last call failed.
    pub(crate) fn is_idle(&self, now: Instant) -> bool {
        let calm = self.config.calm_after();
        let calm_since = |then: Instant| now.saturating_duration_since(then) >= calm;
        self.mode == Mode::Auto
            && match &self.phase {
                Phase::Closed { .. } => {
                    let untroubled = self.streak == 0 || calm_since(self.closed_since);
                    let failed_lately = self.last_failure.is_some_and(|then| !calm_since(then));
                    untroubled && !failed_lately
                }
                Phase::Open { until } => calm_since(*until),
                Phase::HalfOpen { deadline, .. } => calm_since(*deadline),
            }
    }

    /// Opens because of failures: for longer each time that it did not hold.
    fn open(&mut self, now: Instant, reason: Reason, asked: Option<Instant>) -> Transition {
        self.forget_after_calm(now);
        self.streak = self.streak.saturating_add(1);
        let doublings = (self.streak - 1).min(31);
        let Config {
            open_for,
            max_open_for,
            jitter,
            ..
        } = self.config;
        // At the longest too, replicas must not probe at one moment: it is the latest of them.
        let most = max_open_for.div_f64(1.0 + jitter).max(open_for);
        let time = open_for.saturating_mul(1 << doublings).min(most);
        let time = self.jitter.lengthen(time, jitter).min(max_open_for);
        let until = now.saturating_add(time);
        let asked = asked.map(|asked| self.spread(now, asked));
        self.trip_into(now, until.max(asked.unwrap_or(until)), reason)
    }

    /// Opens because the callee said so: for as long as it said, now or before.
    fn open_throttled(&mut self, now: Instant, wait: Duration) -> Transition {
        self.forget_after_calm(now);
        let asked = now.saturating_add(wait);
        let asked = self.asked_until().unwrap_or(asked).max(asked);
        let until = self.spread(now, asked);
        self.trip_into(now, until, Reason::Throttled { retry_after: wait })
    }

    /// Stays open for at least so long.
    fn lengthen_open(&mut self, now: Instant, wait: Duration) {
        let asked = now.saturating_add(wait);
        if let Phase::Open { until } = self.phase
            && asked > until
        {
            let until = self.spread(now, asked);
            self.phase = Phase::Open { until };
        }
    }

    /// A moment somewhat later: a callee tells all replicas the same one.
    fn spread(&mut self, now: Instant, asked: Instant) -> Instant {
        let wait = asked.saturating_duration_since(now);
        now.saturating_add(self.jitter.lengthen(wait, self.config.jitter))
    }

    /// The latest moment that the callee asked to be left alone until, while closed.
    fn asked_until(&self) -> Option<Instant> {
        match self.phase {
            Phase::Closed { asked_until, .. } => asked_until,
            Phase::Open { .. } | Phase::HalfOpen { .. } => None,
        }
    }

    /// After a calm, it opens for the first time again.
    fn forget_after_calm(&mut self, now: Instant) {
        let calm = now.saturating_duration_since(self.closed_since);
        if matches!(self.phase, Phase::Closed { .. }) && calm >= self.config.calm_after() {
            self.streak = 0;
        }
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
