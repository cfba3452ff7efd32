//! Who is let through.

use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::Duration;

use spark_core::Instant;

use super::control::NEVER;
use super::{Call, Machine};
use crate::live::UNREAD;
use crate::word::{Stand, Word};
use crate::{EventKind, Mode, Reason, RejectReason, Rejected, State};

/// What a caller is told to wait while probes are under way.
const PROBES_BUSY: Duration = Duration::from_secs(1);

/// What a caller is told to wait, at most, while a share of the calls is let through.
const RAMPING: Duration = Duration::from_secs(1);

/// The share that is let through when a ramp begins.
const RAMP_FROM: f64 = 0.1;

impl Machine {
    /// Lets a call through, or not. A call whose end may be its being dropped is timed from its
    /// start; others are when slow calls are looked for.
    #[inline]
    pub(crate) fn admit(&self, background: bool, timed: bool) -> Result<Call, Rejected> {
        let word = self.word.load();
        if !word.is_plain() {
            return self.admit_with_care(background);
        }
        let timed = timed || self.live.slow_after().is_some();
        let now = if timed { self.now() } else { UNREAD };
        Ok(self.start(word, now, false))
    }

    #[inline]
    fn start(&self, word: Word, now: u64, probe: bool) -> Call {
        self.metrics.touch(&self.name);
        self.tally.start();
        Call::new(word.generation(), now, probe)
    }

    #[inline(never)]
    fn admit_with_care(&self, background: bool) -> Result<Call, Rejected> {
        loop {
            let word = self.word.load();
            match word.mode() {
                Mode::Auto => {}
                Mode::ForcedOpen => {
                    let wait = self.live.open_for();
                    return Err(self.reject(State::Open, RejectReason::ForcedOpen, wait));
                }
                Mode::Disabled => return Ok(Call::uncounted()),
                Mode::ForcedClosed | Mode::MetricsOnly => {
                    let now = self.now();
                    self.look_at_those_that_wait(word, now);
                    return Ok(self.start_waiting(word, now));
                }
            }
            let now = self.clock.now();
            if word.is_closed() && self.look_at_those_that_wait(word, now.as_nanos()) {
                continue;
            }
            let decided = match word.stand() {
                Stand::Closed => Some(Ok(self.start_waiting(word, now.as_nanos()))),
                Stand::Ramping => self.admit_ramping(word, now),
                Stand::Open => self.admit_open(RejectReason::Open, background, now),
                Stand::Exhausted => self.admit_open(RejectReason::Exhausted, background, now),
                Stand::HalfOpen => self.admit_probe(word, background, now),
            };
            // Else it stands elsewhere by now.
            if let Some(decided) = decided {
                return decided;
            }
        }
    }

    /// A call that counts for those in flight.
    fn start_waiting(&self, word: Word, now: u64) -> Call {
        let mut call = self.start(word, now, false);
        if self.waiting.is_watched() {
            call.waits_since = self.waiting.begin(now);
        }
        call
    }

    /// Whether too many calls wait for too long; then it stands elsewhere by now.
    fn look_at_those_that_wait(&self, word: Word, now: u64) -> bool {
        let limit = self.waiting.limit();
        let too_many = |calls| limit != 0 && calls >= limit;
        if limit == 0 || !self.waiting.look(now).is_some_and(too_many) {
            return false;
        }
        self.step(|step| step.open_if_too_many_wait(word));
        self.word.load() != word
    }

    fn admit_ramping(&self, word: Word, now: Instant) -> Option<Result<Call, Rejected>> {
        let ramp = self.live.ramp();
        let from = self.ramp_from.load(Acquire);
        let into = now.as_nanos().saturating_sub(from);
        if into >= ramp {
            // Whoever fails to say so has been told of something else, and looks again.
            let level = |found: Word| (found == word).then(|| found.level());
            return match self.word.update(level) {
                Ok(word) => Some(Ok(self.start_waiting(word, now.as_nanos()))),
                Err(_) => None,
            };
        }
        let share = RAMP_FROM + (1.0 - RAMP_FROM) * into as f64 / ramp as f64;
        // Even over any stretch of calls, however the share grows.
        let asked = self.ramp_asked.fetch_add(1, Relaxed);
        let point = asked.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 11;
        if (point as f64 / (1_u64 << 53) as f64) < share {
            return Some(Ok(self.start_waiting(word, now.as_nanos())));
        }
        let wait = Duration::from_nanos(ramp - into).min(RAMPING);
        Some(Err(self.reject(State::Closed, RejectReason::Ramping, wait)))
    }

    fn admit_open(
        &self,
        why: RejectReason,
        background: bool,
        now: Instant,
    ) -> Option<Result<Call, Rejected>> {
        let until = self.open_until.load(Acquire);
        if until == NEVER {
            let wait = self.live.max_open_for();
            return Some(Err(self.reject(State::Open, why, wait)));
        }
        let until = Instant::from_nanos(until);
        if now < until {
            let wait = until.saturating_duration_since(now);
            return Some(Err(self.reject(State::Open, why, wait)));
        }
        if let Some(kept) = self.kept_for_background(background, State::Open, now) {
            return Some(Err(kept));
        }
        self.begin_probing()
    }

    fn admit_probe(
        &self,
        word: Word,
        background: bool,
        now: Instant,
    ) -> Option<Result<Call, Rejected>> {
        // Once a probe has succeeded, users may be the next ones.
        if word.good() == 0
            && let Some(kept) = self.kept_for_background(background, State::HalfOpen, now)
        {
            return Some(Err(kept));
        }
        if now.as_nanos() >= self.probes_until.load(Acquire) {
            return self.begin_probing();
        }
        let probes = self.live.probes();
        let same = |found: Word| found.generation() == word.generation();
        match self
            .word
            .update(|found| (same(found) && probes.has_room(found)).then(|| found.lend()))
        {
            Ok(word) => Some(Ok(self.start_probe(word, now.as_nanos()))),
            Err(found) if same(found) => Some(Err(self.busy(State::HalfOpen))),
            Err(_) => None,
        }
    }

    /// Refuses a user, for a moment after the open time.
    fn kept_for_background(
        &self,
        background: bool,
        state: State,
        now: Instant,
    ) -> Option<Rejected> {
        let grace = self.live.grace();
        if background || grace.is_zero() {
            return None;
        }
        let open_until = Instant::from_nanos(self.open_until.load(Acquire));
        let wait = open_until
            .saturating_add(grace)
            .saturating_duration_since(now)
            // It may stand open again by now.
            .min(grace);
        let kept = RejectReason::KeptForBackground;
        (!wait.is_zero()).then(|| self.reject(state, kept, wait))
    }

    /// The open time, or the time of an episode of probes, is over: the caller is the first probe
    /// of the next one. `None` when it turns out to stand elsewhere.
    fn begin_probing(&self) -> Option<Result<Call, Rejected>> {
        let begun = self.step(|step| {
            let word = step.word();
            let now = step.now.as_nanos();
            let over = |until: u64| now >= until && until != NEVER;
            let reason = match (word.mode(), word.stand()) {
                (Mode::Auto, Stand::Open | Stand::Exhausted)
                    if over(self.open_until.load(Acquire)) =>
                {
                    Reason::OpenTimeOver
                }
                (Mode::Auto, Stand::HalfOpen) if over(self.probes_until.load(Acquire)) => {
                    // Nothing is lost where nothing is out: few calls come, and those were good.
                    if word.out() == 0 && now != u64::MAX {
                        step.give_probes_more_time();
                        return None;
                    }
                    Reason::ProbesLost
                }
                _ => return None,
            };
            Some((step.half_open(reason), now))
        });
        begun.map(|(word, now)| Ok(self.start_probe(word, now)))
    }

    fn start_probe(&self, word: Word, now: u64) -> Call {
        self.emit(word.generation(), || EventKind::ProbeStarted);
        self.start(word, now, true)
    }

    fn busy(&self, state: State) -> Rejected {
        self.reject(state, RejectReason::ProbesBusy, PROBES_BUSY)
    }
}
