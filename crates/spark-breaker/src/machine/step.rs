//! Steps from one state to another, one at a time.

use std::sync::atomic::Ordering::{AcqRel, Acquire};
use std::time::Duration;

use spark_core::Instant;

use super::control::{MOST_EXHAUSTED, known};
use super::{Control, Machine};
use crate::sync::{MutexGuard, hold};
use crate::word::{Stand, Word};
use crate::{EventKind, FailKind, Mode, Reason, State};

/// One step from one state to another.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Transition {
    from: State,
    to: State,
    reason: Reason,
    generation: u64,
}

/// The control lock, the time, and what came of it.
pub(super) struct Step<'a> {
    pub(super) machine: &'a Machine,
    pub(super) control: &'a mut Control,
    /// Read under the lock, so that steps follow each other as their times do.
    pub(super) now: Instant,
    /// What was counted is forgotten with the generation that ends.
    pub(super) forgets: bool,
    told: Told,
}

/// What is told of once the lock is free again.
#[derive(Clone, Copy)]
enum Told {
    Nothing,
    Moved(Transition),
    WouldOpen(Reason),
}

impl Machine {
    pub(super) fn step<T>(&self, take: impl FnOnce(&mut Step<'_>) -> T) -> T {
        self.step_with(hold(&self.control), take)
    }

    pub(super) fn step_with<T>(
        &self,
        mut control: MutexGuard<'_, Control>,
        take: impl FnOnce(&mut Step<'_>) -> T,
    ) -> T {
        let mut step = Step {
            machine: self,
            control: &mut control,
            now: self.clock.now(),
            forgets: false,
            told: Told::Nothing,
        };
        let result = take(&mut step);
        let told = step.told;
        drop(control);
        match told {
            Told::Nothing => {}
            Told::Moved(moved) => self.tell(moved),
            Told::WouldOpen(reason) => {
                let breaker = &*self.name;
                tracing::warn!(breaker, %reason, "breaker would open");
                self.metrics.would_open(&self.name);
                self.emit(self.word.load().generation(), || EventKind::WouldOpen {
                    reason,
                });
            }
        }
        result
    }

    fn tell(&self, moved: Transition) {
        let Transition {
            from,
            to,
            reason,
            generation,
        } = moved;
        let breaker = &*self.name;
        match to {
            State::Open => tracing::warn!(breaker, %from, %to, %reason, "breaker opened"),
            State::HalfOpen => tracing::info!(breaker, %from, %to, %reason, "breaker probes"),
            State::Closed => tracing::info!(breaker, %from, %to, %reason, "breaker closed"),
        }
        // Another step may have been told of meanwhile: the gauge follows the word.
        self.metrics
            .transition(&self.name, to, || self.word.load().state());
        self.emit(generation, || EventKind::Transition { from, to, reason });
    }
}

impl Step<'_> {
    pub(super) fn word(&self) -> Word {
        self.machine.word.load()
    }

    /// Opens if a rule is broken, as it is now that nobody else can change them.
    pub(super) fn open_if_broken(&mut self, failed: Option<FailKind>) {
        let counts = self.machine.windows.counts(self.now.as_nanos());
        let in_a_row = self.machine.run.failures();
        let rules = self.machine.live.rules();
        if let Some(reason) = rules.broken(counts, in_a_row, failed) {
            self.open_or_note(reason);
        }
    }

    /// Opens if too many calls of that word's generation wait for too long.
    pub(super) fn open_if_too_many_wait(&mut self, seen: Word) {
        let calls = self.machine.waiting.overdue(self.now.as_nanos());
        // The rule may have been switched off since the caller looked.
        let limit = self.machine.waiting.limit();
        if self.word() == seen && limit != 0 && calls >= limit {
            self.open_or_note(Reason::InFlightSlow { calls });
        }
    }

    fn open_or_note(&mut self, reason: Reason) {
        match self.word().mode() {
            Mode::Auto => {
                let asked = self.control.asked_until;
                self.open(reason, asked);
            }
            Mode::MetricsOnly => {
                let until = self.now.saturating_add(self.control.config.open_for);
                self.note(reason, until);
            }
            Mode::ForcedOpen | Mode::ForcedClosed | Mode::Disabled => {}
        }
    }

    /// Says that it would have opened, once for the time that it would have been open.
    fn note(&mut self, reason: Reason, until: Instant) {
        let open_until = self.control.would_be_open_until;
        if self.control.would_trip.is_none() || self.now >= open_until {
            self.control.would_be_open_until = until;
            self.control.would_trip = Some((reason, self.now));
            self.told = Told::WouldOpen(reason);
        } else if matches!(reason, Reason::Throttled { .. } | Reason::Exhausted { .. }) {
            self.control.would_be_open_until = open_until.max(until);
        }
    }

    /// Opens because of failures.
    pub(super) fn open(&mut self, reason: Reason, asked: Option<Instant>) {
        self.forget_after_calm();
        let until = self.control.backed_off(self.now);
        let asked = asked.map(|asked| self.control.spread(self.now, asked));
        let until = known(until.max(asked.unwrap_or(until)));
        self.trip_into(Stand::Open, until, reason);
    }

    /// Opens for so long or stays open for at least so long, as the callee says, if it is for the
    /// breaker to decide.
    pub(super) fn heed_throttle(&mut self, wait: Duration) {
        match (self.word().mode(), self.word().state()) {
            (Mode::Auto, State::Open) => self.lengthen_open(wait),
            (Mode::Auto, State::Closed | State::HalfOpen) => self.open_throttled(wait),
            (Mode::MetricsOnly, _) => {
                let until = self.now.saturating_add(wait);
                self.note(Reason::Throttled { retry_after: wait }, until);
            }
            (Mode::ForcedOpen | Mode::ForcedClosed | Mode::Disabled, _) => {}
        }
    }

    /// Opens or stays open, because the callee says that waiting does not help, if it is for the
    /// breaker to decide.
    pub(super) fn exhaust_or_note(&mut self, retry_after: Option<Duration>) {
        let retry_after = retry_after
            .filter(|wait| !wait.is_zero())
            .map(|wait| wait.min(MOST_EXHAUSTED));
        match self.word().mode() {
            Mode::Auto => self.exhaust(retry_after),
            Mode::MetricsOnly => {
                let until = self.control.exhausted_until(self.now, retry_after);
                let until = Instant::from_nanos(until);
                self.note(Reason::Exhausted { retry_after }, until);
            }
            Mode::ForcedOpen | Mode::ForcedClosed | Mode::Disabled => {}
        }
    }

    fn exhaust(&mut self, retry_after: Option<Duration>) {
        let reason = Reason::Exhausted { retry_after };
        let until = self.control.exhausted_until(self.now, retry_after);
        let asked = self.open_until().or(self.asked_until());
        let until = asked.map_or(until, |asked| until.max(asked.as_nanos()));
        if self.word().state() != State::Open {
            self.forget_after_calm();
            return self.trip_into(Stand::Exhausted, until, reason);
        }
        // In the same generation: what else was under way when it opened may say more.
        self.machine.open_until.swap(until, AcqRel);
        if self.word().stand() == Stand::Open {
            self.control.last_trip = Some((reason, self.now));
            let exhausted = self.machine.word.update(|word| Some(word.exhaust()));
            let generation = exhausted.unwrap_or_else(|word| word).generation();
            let (from, to) = (State::Open, State::Open);
            self.told = Told::Moved(Transition {
                from,
                to,
                reason,
                generation,
            });
        }
    }

    /// Opens because the callee said so: for as long as it said, now or before.
    pub(super) fn open_throttled(&mut self, wait: Duration) {
        self.forget_after_calm();
        let asked = self.now.saturating_add(wait);
        let asked = self.asked_until().unwrap_or(asked).max(asked);
        let until = self.control.spread(self.now, asked);
        let reason = Reason::Throttled { retry_after: wait };
        self.trip_into(Stand::Open, known(until), reason);
    }

    /// Stays open for at least so long.
    pub(super) fn lengthen_open(&mut self, wait: Duration) {
        let asked = self.now.saturating_add(wait);
        if let Some(until) = self.open_until()
            && asked > until
        {
            let until = self.control.spread(self.now, asked);
            self.machine.open_until.swap(known(until), AcqRel);
        }
    }

    /// The caller is the first probe.
    pub(super) fn half_open(&mut self, reason: Reason) -> Word {
        self.give_probes_more_time();
        let mode = self.word().mode();
        self.enter(mode, Stand::HalfOpen, false, reason, true)
    }

    /// Those of this episode, or of the next one.
    pub(super) fn give_probes_more_time(&mut self) {
        let deadline = self.now.saturating_add(self.control.config.probe_timeout);
        self.machine.probes_until.swap(known(deadline), AcqRel);
    }

    pub(super) fn close(&mut self, mode: Mode, reason: Reason) {
        self.control.closed_since = self.now;
        self.control.asked_until = None;
        if reason == Reason::Operator {
            self.control.streak = 0;
        }
        let ramps = reason == Reason::Recovered && !self.control.config.ramp.is_zero();
        let stand = if ramps { Stand::Ramping } else { Stand::Closed };
        self.machine.ramp_from.swap(self.now.as_nanos(), AcqRel);
        self.enter(mode, stand, true, reason, false);
    }

    /// Open by an operator, and until this moment once the operator lets go.
    pub(super) fn force_open(&mut self, until: Instant) {
        if self.word().state() != State::Open {
            self.control.last_trip = Some((Reason::Operator, self.now));
        }
        self.machine.open_until.swap(known(until), AcqRel);
        self.enter(
            Mode::ForcedOpen,
            Stand::Open,
            false,
            Reason::Operator,
            false,
        );
    }

    /// Another generation in the same state: what was in flight before no longer says anything.
    pub(super) fn turn_over(&mut self, mode: Mode) {
        let stand = self.word().stand();
        self.enter(mode, stand, false, Reason::Operator, false);
    }

    /// Until when it is open, while it is.
    pub(super) fn open_until(&self) -> Option<Instant> {
        (self.word().state() == State::Open)
            .then(|| Instant::from_nanos(self.machine.open_until.load(Acquire)))
    }

    /// Until when the probes may report.
    pub(super) fn probes_until(&self) -> Instant {
        Instant::from_nanos(self.machine.probes_until.load(Acquire))
    }

    /// The latest moment that the callee asked to be left alone until, while closed.
    pub(super) fn asked_until(&self) -> Option<Instant> {
        self.control.asked_until.filter(|_| self.word().is_closed())
    }

    /// After a calm, it opens for the first time again.
    fn forget_after_calm(&mut self) {
        if self.word().is_closed() && self.control.has_been_calm(self.now) {
            self.control.streak = 0;
        }
    }

    fn trip_into(&mut self, stand: Stand, until: u64, reason: Reason) {
        self.control.last_trip = Some((reason, self.now));
        self.machine.open_until.swap(until, AcqRel);
        let mode = self.word().mode();
        self.enter(mode, stand, false, reason, true);
    }

    /// Where it stands from now on. In this order: results of the generation that ends find no
    /// window, and whoever sees the new word sees all that goes with it.
    fn enter(
        &mut self,
        mode: Mode,
        stand: Stand,
        clear: bool,
        reason: Reason,
        aloud: bool,
    ) -> Word {
        let machine = self.machine;
        let old = machine.word.load();
        let generation = old.next_generation();
        let handed_over = machine.windows.turn_over(generation, clear);
        machine.tally.take_over(handed_over);
        machine.tally.turn_over(generation);
        if self.forgets {
            self.control.counted_before = machine.tally.begin_anew(generation);
        }
        machine.run.turn_over(generation, clear);
        machine.waiting.clear(self.now.as_nanos());
        let new = Word::new(mode, stand, generation).watching(machine.waiting.is_watched());
        // The only way into this state from here on is by a probe: its own caller.
        let new = if stand == Stand::HalfOpen && reason != Reason::Operator {
            new.lend()
        } else {
            new
        };
        machine.word.swap(new);
        let (from, to) = (old.state(), new.state());
        if aloud || from != to {
            self.told = Told::Moved(Transition {
                from,
                to,
                reason,
                generation,
            });
        }
        new
    }
}
