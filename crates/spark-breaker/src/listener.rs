//! What happens to a breaker, for code outside.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::{Outcome, Reason, RejectReason, State};

/// Told of what happens to a breaker: to page somebody, or to keep a record.
///
/// It is called on the thread whose call brought the event about, so it must not block; hand what
/// takes time to a channel. No lock is held: it may ask the breaker and change it, and is then told
/// of that too, before it returns. A panic in it is logged and goes no further. An allowed call that
/// succeeds is no event, and costs nothing more than without a listener.
///
/// Threads tell of their events as soon as each can, so events may overtake each other: of two
/// transitions, the one of the higher [`generation`](Event::generation) is the later, and of two in
/// one generation the one from [`State::Open`].
///
/// A closure that takes an event is a listener.
///
/// # Example
/// ```
/// use spark_breaker::{Breaker, Config, Event, EventKind, Listener, Reason, State};
/// use spark_core::Clock;
/// use std::sync::{Arc, mpsc};
///
/// struct Pager(mpsc::SyncSender<String>);
/// impl Listener for Pager {
///     fn on_event(&self, event: &Event<'_>) {
///         if let EventKind::Transition { to: State::Open, reason, .. } = event.kind {
///             // When nobody reads, rather lose a page than make a caller wait.
///             let _ = self.0.try_send(format!("{}: {reason}", event.name));
///         }
///     }
/// }
/// let (pages, read) = mpsc::sync_channel(100);
/// let pager = Arc::new(Pager(pages));
/// let breaker = Breaker::with_listener("openai", Config::llm(), Clock::system(), pager)?;
/// breaker.try_acquire().unwrap().exhausted(None);
/// assert_eq!(read.recv().unwrap(), "openai: its credit is used up");
/// # Ok::<(), spark_breaker::ConfigError>(())
/// ```
pub trait Listener: Send + Sync {
    /// This has happened.
    fn on_event(&self, event: &Event<'_>);
}

impl<F: Fn(&Event<'_>) + Send + Sync> Listener for F {
    fn on_event(&self, event: &Event<'_>) {
        self(event);
    }
}

/// Something that happened to a breaker.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Event<'a> {
    /// The breaker's name.
    pub name: &'a Arc<str>,
    /// In which generation: of a transition, the one that it begins; of the end of a call, the one
    /// that the call was made in.
    pub generation: u64,
    /// What it was.
    pub kind: EventKind,
}

/// What happened to a breaker.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum EventKind {
    /// It went from one state to another. From half open to half open when its probes were lost
    /// ([`Reason::ProbesLost`]) and others are let through; from open to open when it heard that
    /// waiting does not help ([`Reason::Exhausted`]).
    Transition {
        /// Where it stood.
        from: State,
        /// Where it stands.
        to: State,
        /// Why.
        reason: Reason,
    },
    /// It would have opened, had it not been told only to watch
    /// ([`Mode::MetricsOnly`](crate::Mode::MetricsOnly)).
    WouldOpen {
        /// Why.
        reason: Reason,
    },
    /// It did not let a call through.
    Rejected {
        /// Where it stood.
        state: State,
        /// Why.
        reason: RejectReason,
        /// What the caller was told to wait.
        retry_after: Duration,
    },
    /// It let a call through to see whether the callee has recovered.
    ProbeStarted,
    /// The callee asked for fewer calls, by the answer to a call that counted, or by
    /// [`Breaker::throttle`](crate::Breaker::throttle) or
    /// [`exhaust`](crate::Breaker::exhaust). Told after the transition that it led to.
    Throttled {
        /// For how long, if it said so; before any of it was cut.
        retry_after: Option<Duration>,
        /// Waiting does not help.
        terminal: bool,
    },
    /// A call ended in another state than it began in, and did not count.
    Late {
        /// How it ended.
        outcome: Outcome,
    },
}

/// Calls a listener, and outlives its panic.
#[cold]
pub(crate) fn tell(listener: &dyn Listener, name: &Arc<str>, generation: u64, kind: EventKind) {
    let event = Event {
        name,
        generation,
        kind,
    };
    // Whatever it left half done is its own: nothing of the breaker's is lent to it.
    if catch_unwind(AssertUnwindSafe(|| listener.on_event(&event))).is_err() {
        let breaker = &**name;
        tracing::error!(breaker, ?kind, "a listener of the breaker panicked");
    }
}
