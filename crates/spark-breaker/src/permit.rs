//! The right to make one call, and the duty to say how it ended.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use spark_core::Clock;

use crate::machine::{Call, Ending, Machine};
use crate::{CallError, FailKind, IgnoreKind, Outcome, Rejected};

/// The right to make one call.
///
/// Say how the call ended by one of the methods that take `self`. A permit that is dropped instead
/// gives back its place and counts
/// - as a failure while panicking;
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

    /// The call says nothing about the callee: the caller asked for something impossible.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Breaker, Config};
    /// # let breaker = Breaker::new("db", Config::standard(), spark_core::Clock::system())?;
    /// breaker.try_acquire().unwrap().ignore();
    /// assert_eq!(breaker.snapshot().calls, 0);
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn ignore(self) {
        self.record(Outcome::Ignored(IgnoreKind::Client));
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
}

impl<M: Deref<Target = Machine>> Lease<M> {
    /// Asks. `timed` from the start on, whatever the rules.
    #[inline]
    pub(crate) fn of(machine: M, background: bool, timed: bool) -> Result<Self, Rejected> {
        let call = machine.admit(background, timed)?;
        Ok(Self {
            machine,
            call,
            ended: false,
        })
    }

    /// The call does not return at once.
    pub(crate) fn waits(&mut self) {
        self.call.waits(&self.machine.clock);
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
            let ending = if std::thread::panicking() {
                Ending::Told(Outcome::failure(FailKind::Panic))
            } else {
                Ending::Dropped
            };
            self.machine.end(&self.call, ending);
        }
    }
}
