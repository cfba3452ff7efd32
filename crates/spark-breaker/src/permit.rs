//! The right to make one call, and the duty to say how it ended.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::thread::panicking;
use std::time::Duration;

use spark_core::Clock;

use crate::machine::{Call, Ending, Machine};
use crate::{CallError, FailKind, IgnoreKind, Outcome, Rejected};

/// The right to make one call.
///
/// Say how the call ended by one of the methods that take `self`. A permit that is dropped instead
/// gives back its place and counts
/// - as a failure while the thread panics, unless it did so already when the permit was given: the
///   call is supposed to have panicked. [`Breaker::run`](crate::Breaker::run),
///   [`Breaker::call`](crate::Breaker::call) and the layer need not suppose: there, only a panic of
///   the call itself counts;
/// - as a failure when it is older than [`Config::abandon_after`](crate::Config::abandon_after) and
///   [`first_byte`](Self::first_byte) was not called: a timeout further out gave up;
/// - else as nothing: the caller went away.
///
/// A permit counts only in the state in which it was given: a call that began before an outage
/// cannot close the breaker, however well it ends.
///
/// # Example
/// ```
/// use spark_breaker::{Breaker, Config};
/// use spark_core::Clock;
/// let breaker = Breaker::new("search", Config::standard(), Clock::system())?;
/// let permit = breaker.try_acquire().unwrap();
/// drop(permit); // cancelled: neither success nor failure
/// assert_eq!(breaker.snapshot().totals.cancelled, 1);
/// # Ok::<(), spark_breaker::ConfigError>(())
/// ```
#[must_use = "dropping a permit gives it back without a result"]
pub struct Permit(Lease<Arc<Machine>>);

impl Permit {
    pub(crate) fn new(lease: Lease<Arc<Machine>>) -> Self {
        Self(lease)
    }

    /// The call did what was asked.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Breaker, Config};
    /// # let breaker = Breaker::new("db", Config::standard(), spark_core::Clock::system())?;
    /// breaker.try_acquire().unwrap().success();
    /// assert_eq!(breaker.snapshot().totals.successes, 1);
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn success(self) {
        self.record(Outcome::Success);
    }

    /// The call failed, and the callee is to blame.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Breaker, Config, FailKind, Phase};
    /// # let breaker = Breaker::new("db", Config::standard(), spark_core::Clock::system())?;
    /// breaker.try_acquire().unwrap().failure(FailKind::Timeout(Phase::Total));
    /// assert_eq!(breaker.snapshot().failures, 1);
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn failure(self, kind: FailKind) {
        self.record(Outcome::failure(kind));
    }

    /// The call says nothing bad about the callee: it answered that the request was wrong
    /// ([`IgnoreKind::Client`]), or was not asked at all ([`IgnoreKind::Local`]). Neither is in the
    /// window. The first is a good probe and ends a run of failures, since the callee answered; the
    /// second gives the place back as if there had been no call.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Breaker, Config, IgnoreKind};
    /// # let breaker = Breaker::new("db", Config::standard(), spark_core::Clock::system())?;
    /// breaker.try_acquire().unwrap().ignore(IgnoreKind::Client);
    /// assert_eq!(breaker.snapshot().calls, 0);
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn ignore(self, why: IgnoreKind) {
        self.record(Outcome::Ignored(why));
    }

    /// The callee asks for fewer calls. With a time, the breaker opens for it.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Breaker, Config, State};
    /// # use std::time::Duration;
    /// # let breaker = Breaker::new("db", Config::standard(), spark_core::Clock::system())?;
    /// breaker.try_acquire().unwrap().throttled(Some(Duration::from_secs(3)));
    /// assert_eq!(breaker.snapshot().state, State::Open);
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn throttled(self, retry_after: Option<Duration>) {
        self.record(Outcome::throttled().with_retry_after(retry_after));
    }

    /// The callee says that waiting does not help, as when the credit is used up: the breaker opens
    /// and does not probe before the time that is given, or before an operator acts
    /// ([`Outcome::exhausted`]).
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Breaker, Config, State};
    /// # let breaker = Breaker::new("openai", Config::llm(), spark_core::Clock::system())?;
    /// breaker.try_acquire().unwrap().exhausted(None);
    /// let snapshot = breaker.snapshot();
    /// assert_eq!((snapshot.state, snapshot.retry_after), (State::Open, None));
    /// assert!(snapshot.exhausted);
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn exhausted(self, retry_after: Option<Duration>) {
        self.record(Outcome::exhausted().with_retry_after(retry_after));
    }

    /// The call ended so.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Breaker, Config, Outcome};
    /// # let breaker = Breaker::new("db", Config::standard(), spark_core::Clock::system())?;
    /// breaker.try_acquire().unwrap().record(Outcome::Success);
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn record(self, outcome: Outcome) {
        self.0.end(outcome);
    }

    /// The first byte of the answer is here: what follows is not the callee's slowness. Later calls
    /// change nothing.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Breaker, Config};
    /// # let breaker = Breaker::new("db", Config::standard(), spark_core::Clock::system())?;
    /// let mut permit = breaker.try_acquire().unwrap();
    /// permit.first_byte();
    /// permit.success();
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn first_byte(&mut self) {
        let Lease { machine, call, .. } = &mut self.0;
        machine.first_byte(call);
    }

    /// Whether the breaker was half open and this call decides whether it closes.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Breaker, Config};
    /// # let breaker = Breaker::new("db", Config::standard(), spark_core::Clock::system())?;
    /// assert!(!breaker.try_acquire().unwrap().is_probe());
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn is_probe(&self) -> bool {
        self.0.call.probe
    }

    /// The call is not made, and it is as if nobody had asked.
    pub(crate) fn take_back(self) {
        self.0.take_back();
    }

    /// Somebody is about to say how the call went, or has done so: if it is dropped in between, they
    /// panicked, and nobody knows.
    pub(crate) fn judging(&mut self, judging: bool) {
        self.0.if_dropped.judging = judging;
    }

    #[cfg(all(test, spark_loom))]
    pub(crate) fn generation(&self) -> u64 {
        self.0.call.generation
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.0.machine.clock
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("generation", &self.0.call.generation)
            .field("probe", &self.0.call.probe)
            .finish_non_exhaustive()
    }
}

/// A permit, of a breaker that is owned or borrowed.
pub(crate) struct Lease<M: Deref<Target = Machine>> {
    machine: M,
    call: Call,
    /// How it ended has been said.
    ended: bool,
    if_dropped: IfDropped,
}

/// What it means that a call's end is not said.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IfDropped {
    panic: Panic,
    /// If it was no panic, the age decides whether the caller gave up on the callee or just left.
    by_age: bool,
    /// Only who judges the call can have dropped it.
    judging: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Panic {
    /// Only a panic of the callee can have come between.
    Certain,
    /// If the thread panics, it is taken for the callee's doing.
    Supposed,
    /// Likewise, and another permit of the same call is told of it.
    ToldElsewhere,
    /// Whoever panics, it is not the callee.
    None,
}

impl IfDropped {
    /// The callee's code runs, and nothing else.
    pub(crate) const PANICKED: Self = Self {
        panic: Panic::Certain,
        by_age: false,
        judging: false,
    };

    /// The caller went away.
    pub(crate) const LEFT: Self = Self {
        panic: Panic::None,
        by_age: true,
        judging: false,
    };

    /// For a permit whose holder runs the callee where nobody sees it. What is made while the thread
    /// unwinds is dropped while it unwinds, and the callee has no part in that.
    pub(crate) fn held_by_others() -> Self {
        let panic = match panicking() {
            true => Panic::None,
            false => Panic::Supposed,
        };
        Self {
            panic,
            ..Self::LEFT
        }
    }

    /// Without a panic it means nothing.
    pub(crate) fn or_nothing(self) -> Self {
        Self {
            by_age: false,
            ..self
        }
    }

    /// A panic means nothing: another permit of the same call is told of it.
    pub(crate) fn without_panic(self) -> Self {
        let panic = match self.panic {
            Panic::None => Panic::None,
            _ => Panic::ToldElsewhere,
        };
        Self { panic, ..self }
    }

    fn ending(self) -> Ending {
        match self.panic {
            _ if self.judging => Ending::Cancelled,
            Panic::Certain => Ending::Told(PANICKED),
            Panic::Supposed if panicking() => Ending::Told(PANICKED),
            Panic::ToldElsewhere if panicking() => Ending::Cancelled,
            _ if self.by_age => Ending::Dropped,
            _ => Ending::Cancelled,
        }
    }
}

const PANICKED: Outcome = Outcome::failure(FailKind::Panic);

impl<M: Deref<Target = Machine>> Lease<M> {
    /// Asks. `timed` from the start on, whatever the rules.
    #[inline]
    pub(crate) fn of(
        machine: M,
        background: bool,
        timed: bool,
        if_dropped: IfDropped,
    ) -> Result<Self, Rejected> {
        let call = machine.admit(background, timed)?;
        Ok(Self {
            machine,
            call,
            ended: false,
            if_dropped,
        })
    }

    /// The callee's code runs from here on.
    pub(crate) fn runs(&mut self) {
        self.if_dropped = IfDropped::PANICKED;
    }

    /// The call does not return at once: from here on it may be dropped, and then its age decides.
    pub(crate) fn waits(&mut self) {
        self.if_dropped = IfDropped::LEFT;
        self.call.waits(&self.machine.clock);
    }

    /// The call is not made, and it is as if nobody had asked.
    pub(crate) fn take_back(mut self) {
        self.ended = true;
        self.machine.take_back(&self.call);
    }

    #[inline]
    pub(crate) fn end(mut self, outcome: Outcome) {
        self.ended = true;
        self.machine.end(&self.call, Ending::Told(outcome));
    }

    /// `Ok` is a success, `Err` a failure.
    #[inline]
    pub(crate) fn end_as<T, E>(self, result: Result<T, E>) -> Result<T, CallError<E>> {
        match result {
            Ok(value) => {
                self.end(Outcome::Success);
                Ok(value)
            }
            Err(error) => {
                self.end(Outcome::failure(FailKind::Other));
                Err(CallError::Failed(error))
            }
        }
    }
}

impl<M: Deref<Target = Machine>> Drop for Lease<M> {
    #[inline]
    fn drop(&mut self) {
        if !self.ended {
            self.machine.end(&self.call, self.if_dropped.ending());
        }
    }
}
