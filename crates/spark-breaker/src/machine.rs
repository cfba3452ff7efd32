//! The breaker without its handle: what all callers share.
//!
//! One [`word`](crate::word) says where it stands. Calls read it, and a probe changes it by exchange;
//! what else a call writes is its place in a window and a counter. Steps from one state to another
//! are taken under the control lock, and are done when the word has been exchanged.

mod admit;
mod control;
mod end;
mod look;
mod operator;
mod step;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use spark_core::{Clock, Instant};

pub(crate) use control::Control;

use crate::jitter::Jitter;
use crate::live::{Live, UNREAD};
use crate::metrics::Metrics;
use crate::run::Run;
use crate::sync::{self, Line, Mutex};
use crate::tally::Tally;
use crate::waiting::{Tick, Waiting};
use crate::window::Windows;
use crate::word::{AtomicWord, Stand, Word};
use crate::{
    BreakerName, Config, ConfigError, EventKind, Listener, Mode, Outcome, RejectReason, Rejected,
    State, listener,
};

pub(crate) struct Machine {
    pub(crate) name: Arc<str>,
    pub(crate) clock: Clock,
    metrics: Metrics,
    listener: Option<Arc<dyn Listener>>,
    word: AtomicWord,
    /// Until when it is open, in nanoseconds of the clock, if the word says that it is. Written
    /// before the word. Who reads an older word with it is told of the next time that it is open,
    /// which has begun by then but for the exchange of the word.
    open_until: sync::AtomicU64,
    /// Until when the probes may report, likewise. Who reads an older word with it takes part in an
    /// episode that is over but for the exchange of the word, which then undoes what it did.
    probes_until: sync::AtomicU64,
    /// Since when it lets through a growing share, likewise.
    ramp_from: sync::AtomicU64,
    /// Calls that the ramp was asked about.
    ramp_asked: AtomicU64,
    live: Live,
    run: Run,
    /// When a call last failed while it was closed.
    last_failure: AtomicU64,
    windows: Windows,
    waiting: Waiting,
    tally: Line<Tally>,
    control: Mutex<Control>,
}

/// A permit's own record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    /// A call counts only while this one lasts.
    pub(crate) generation: u64,
    /// `UNREAD` when nobody needs to know.
    started: u64,
    first_byte: u64,
    pub(crate) probe: bool,
    /// It was let through by a breaker that is switched off.
    uncounted: bool,
    /// It is among those that wait.
    waits_since: Option<Tick>,
}

/// How a permit ended.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ending {
    Told(Outcome),
    /// Dropped without a word, not in a panic.
    Dropped,
    /// As much as not made, however long it took.
    Cancelled,
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

impl Machine {
    pub(crate) fn new(
        name: &str,
        config: Config,
        clock: Clock,
        listener: Option<Arc<dyn Listener>>,
    ) -> Result<Self, ConfigError> {
        config.validate()?;
        let now = clock.now();
        let waiting = Waiting::new();
        waiting.set(config.in_flight_slow, config.slow_threshold, now.as_nanos());
        let word = Word::new(Mode::Auto, Stand::Closed, 0).watching(waiting.is_watched());
        Ok(Self {
            name: name.into(),
            metrics: Metrics::default(),
            listener,
            word: AtomicWord::new(word),
            open_until: sync::AtomicU64::new(0),
            probes_until: sync::AtomicU64::new(0),
            ramp_from: sync::AtomicU64::new(0),
            // Elsewhere in each replica, or all would let through their first calls of a ramp.
            ramp_asked: AtomicU64::new(Jitter::new(config.seed).word()),
            live: Live::new(&config),
            run: Run::new(0),
            last_failure: AtomicU64::new(UNREAD),
            windows: Windows::new(config.window, 0),
            waiting,
            tally: Line::default(),
            control: Mutex::new(Control::new(config, now)),
            clock,
        })
    }

    /// Where it stands.
    pub(crate) fn word(&self) -> Word {
        self.word.load()
    }

    /// Something has come of the call.
    pub(crate) fn first_byte(&self, call: &mut Call) {
        if call.first_byte == UNREAD {
            call.first_byte = self.now();
        }
        if let Some(tick) = call.waits_since.take() {
            self.waiting.end(tick);
        }
    }

    fn now(&self) -> u64 {
        self.clock.now().as_nanos()
    }

    fn reject(&self, state: State, reason: RejectReason, wait: Duration) -> Rejected {
        self.metrics.rejection(&self.name);
        let retry_after = wait.max(Duration::from_millis(1));
        self.emit(self.word.load().generation(), || EventKind::Rejected {
            state,
            reason,
            retry_after,
        });
        Rejected {
            name: BreakerName::of(&self.name),
            state,
            reason,
            retry_after,
        }
    }

    /// Tells the listener, if there is one. No lock may be held: it may call the breaker.
    fn emit(&self, generation: u64, kind: impl FnOnce() -> EventKind) {
        if let Some(listener) = &self.listener {
            listener::tell(&**listener, &self.name, generation, kind());
        }
    }

    fn emit_throttled(&self, generation: u64, retry_after: Option<Duration>, terminal: bool) {
        self.emit(generation, || EventKind::Throttled {
            retry_after,
            terminal,
        });
    }

    fn forget_failures(&self) {
        self.last_failure.store(UNREAD, Relaxed);
    }

    /// When a call last failed, while it was closed.
    fn last_failure(&self) -> Option<Instant> {
        let then = self.last_failure.load(Relaxed);
        (then != UNREAD).then(|| Instant::from_nanos(then))
    }
}

impl Call {
    #[inline]
    fn new(generation: u64, started: u64, probe: bool) -> Self {
        Self {
            generation,
            started,
            first_byte: UNREAD,
            probe,
            uncounted: false,
            waits_since: None,
        }
    }

    fn uncounted() -> Self {
        Self {
            uncounted: true,
            ..Self::new(0, UNREAD, false)
        }
    }

    /// It waits from now on, if it has not been timed from its start.
    pub(crate) fn waits(&mut self, clock: &Clock) {
        if self.started == UNREAD {
            self.started = clock.now().as_nanos();
        }
    }

    /// Whether it took so long to its first byte, or to now.
    #[inline]
    fn took(&self, now: u64, long: u64) -> bool {
        // An unread start is later than any other moment.
        self.first_byte.min(now).saturating_sub(self.started) >= long
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.word();
        f.debug_struct("Breaker")
            .field("name", &self.name)
            .field("state", &word.state())
            .field("mode", &word.mode())
            .field("generation", &word.generation())
            .finish_non_exhaustive()
    }
}
