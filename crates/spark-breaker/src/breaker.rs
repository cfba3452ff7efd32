//! The breaker itself: what callers and operators hold.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use spark_core::Clock;

use crate::config::is_name;
use crate::machine::Machine;
use crate::permit::{IfDropped, Lease};
use crate::{CallError, Config, ConfigError, Listener, Mode, Permit, Rejected, Snapshot, State};

/// A circuit breaker: asks whether a callee is fit to be called, from how its latest calls ended.
///
/// Clones share one state. It needs no runtime, and calls take no lock: neither to be let through or
/// refused, nor to be counted. Only what moves it from one state to another is done one at a time.
///
/// # Example
/// ```
/// use spark_breaker::{Breaker, Config, FailKind};
/// use spark_core::Clock;
///
/// let breaker = Breaker::new("orders-db", Config::standard().consecutive(2), Clock::system())?;
/// for _ in 0..2 {
///     let permit = breaker.try_acquire().unwrap();
///     permit.failure(FailKind::Transport); // the database did not answer
/// }
/// let rejected = breaker.try_acquire().unwrap_err();
/// assert!(rejected.to_string().starts_with("orders-db is not being called: it failed too often"));
/// # Ok::<(), spark_breaker::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Breaker(Arc<Machine>);

impl Breaker {
    /// A closed breaker. The name is shown to callers and is a label of the metrics: the provider's
    /// name, not anything that a request carries.
    ///
    /// # Errors
    /// [`ConfigError`] names the setting that cannot work and what to give instead.
    ///
    /// # Example
    /// ```
    /// use spark_breaker::{Breaker, Config};
    /// use spark_core::Clock;
    /// assert!(Breaker::new("openai", Config::llm(), Clock::system()).is_ok());
    /// assert!(Breaker::new("two words", Config::llm(), Clock::system()).is_err());
    /// ```
    pub fn new(name: &str, config: Config, clock: Clock) -> Result<Self, ConfigError> {
        Self::machine(name, config, clock, None).map(Self::of)
    }

    /// A closed breaker that tells of what happens to it.
    ///
    /// # Errors
    /// [`ConfigError`] names the setting that cannot work and what to give instead.
    ///
    /// # Example
    /// ```
    /// use spark_breaker::{Breaker, Config, Event, EventKind, State};
    /// use spark_core::Clock;
    /// use std::sync::Arc;
    /// let page = Arc::new(|event: &Event<'_>| {
    ///     if let EventKind::Transition { to: State::Open, reason, .. } = event.kind {
    ///         eprintln!("{} is out: {reason}", event.name);
    ///     }
    /// });
    /// let breaker = Breaker::with_listener("openai", Config::llm(), Clock::system(), page)?;
    /// breaker.exhaust(None); // openai is out: its credit is used up
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn with_listener(
        name: &str,
        config: Config,
        clock: Clock,
        listener: Arc<dyn Listener>,
    ) -> Result<Self, ConfigError> {
        Self::machine(name, config, clock, Some(listener)).map(Self::of)
    }

    /// One of a registry, which may count in the metrics of the one with that other label.
    pub(crate) fn registered(
        name: &str,
        label: Option<&Arc<str>>,
        config: Config,
        clock: Clock,
        listener: Option<Arc<dyn Listener>>,
    ) -> Result<Self, ConfigError> {
        let machine = Self::machine(name, config, clock, listener)?;
        Ok(Self::of(match label {
            Some(label) => machine.measured_as(label),
            None => machine,
        }))
    }

    fn of(machine: Machine) -> Self {
        Self(Arc::new(machine))
    }

    fn machine(
        name: &str,
        config: Config,
        clock: Clock,
        listener: Option<Arc<dyn Listener>>,
    ) -> Result<Machine, ConfigError> {
        if !is_name(name) {
            return Err(ConfigError::Name);
        }
        Machine::new(name, config, clock, listener)
    }

    /// The name that it was made with.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Breaker, Config};
    /// # let breaker = Breaker::new("openai", Config::llm(), spark_core::Clock::system())?;
    /// assert_eq!(&**breaker.name(), "openai");
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn name(&self) -> &Arc<str> {
        &self.0.name
    }

    /// Asks to make one call. The permit is told how the call ended.
    ///
    /// # Errors
    /// [`Rejected`] says why not and when to ask again.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Breaker, Config, FailKind};
    /// # let breaker = Breaker::new("openai", Config::llm(), spark_core::Clock::system())?;
    /// # fn call() -> Result<(), ()> { Ok(()) }
    /// match breaker.try_acquire() {
    ///     Ok(permit) => match call() {
    ///         Ok(()) => permit.success(),
    ///         Err(()) => permit.failure(FailKind::Transport),
    ///     },
    ///     Err(rejected) => println!("not now: {rejected}"),
    /// }
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn try_acquire(&self) -> Result<Permit, Rejected> {
        self.acquire(false, IfDropped::held_by_others())
    }

    /// Like [`try_acquire`](Self::try_acquire), for a call that no user waits for. Such calls are
    /// preferred as probes when [`Config::background_grace`] is set.
    ///
    /// # Errors
    /// [`Rejected`] says why not and when to ask again.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Breaker, Config};
    /// # let breaker = Breaker::new("openai", Config::llm(), spark_core::Clock::system())?;
    /// breaker.try_acquire_background().unwrap().success();
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn try_acquire_background(&self) -> Result<Permit, Rejected> {
        self.acquire(true, IfDropped::held_by_others())
    }

    /// Makes one call under a permit: `Ok` is a success, `Err` a failure, a panic a failure.
    ///
    /// # Errors
    /// [`CallError::Rejected`] when the call was not made, else what it returned.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Breaker, Config};
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # let breaker = Breaker::new("db", Config::standard(), spark_core::Clock::system()).unwrap();
    /// let rows = breaker.call(|| async { Ok::<_, std::io::Error>(3) }).await;
    /// assert_eq!(rows.unwrap(), 3);
    /// # });
    /// ```
    pub async fn call<F, Fut, T, E>(&self, call: F) -> Result<T, CallError<E>>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        let mut lease = Lease::of(&*self.0, false, false, IfDropped::PANICKED)?;
        let mut future = pin!(call());
        let result = poll_fn(|cx| {
            lease.runs();
            let polled = future.as_mut().poll(cx);
            if polled.is_pending() {
                lease.waits();
            }
            polled
        });
        let result = result.await;
        lease.end_as(result)
    }

    /// Like [`call`](Self::call), for a call that blocks.
    ///
    /// # Errors
    /// [`CallError::Rejected`] when the call was not made, else what it returned.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Breaker, Config};
    /// # let breaker = Breaker::new("db", Config::standard(), spark_core::Clock::system())?;
    /// let port = breaker.run(|| "80".parse::<u16>());
    /// assert_eq!(port.unwrap(), 80);
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    #[inline]
    pub fn run<T, E>(&self, call: impl FnOnce() -> Result<T, E>) -> Result<T, CallError<E>> {
        let lease = Lease::of(&*self.0, false, false, IfDropped::PANICKED)?;
        let result = call();
        lease.end_as(result)
    }

    /// How it stands, without waiting.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Breaker, Config, State};
    /// # let breaker = Breaker::new("openai", Config::llm(), spark_core::Clock::system())?;
    /// let _permit = breaker.try_acquire().unwrap();
    /// let snapshot = breaker.snapshot();
    /// assert_eq!((snapshot.state, snapshot.in_flight), (State::Closed, 1));
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn snapshot(&self) -> Snapshot {
        self.0.snapshot()
    }

    /// Hands it to an operator, or back to itself. Results of calls that are under way no longer
    /// count. One that was open because its callee's credit was used up no longer is: after
    /// [`Mode::ForcedOpen`] and back the next call is a probe, after another mode it is closed.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Breaker, Config, Mode, State};
    /// # let breaker = Breaker::new("openai", Config::llm(), spark_core::Clock::system())?;
    /// breaker.set_mode(Mode::ForcedOpen);
    /// assert!(breaker.try_acquire().is_err());
    /// breaker.set_mode(Mode::Auto);
    /// assert!(breaker.try_acquire().unwrap().is_probe());
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn set_mode(&self, mode: Mode) {
        self.0.set_mode(mode);
    }

    /// Closed, in automatic mode, and nothing remembered.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Breaker, Config, Mode, State};
    /// # let breaker = Breaker::new("openai", Config::llm(), spark_core::Clock::system())?;
    /// breaker.set_mode(Mode::ForcedOpen);
    /// breaker.reset();
    /// assert_eq!(breaker.snapshot().state, State::Closed);
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn reset(&self) {
        self.0.reset();
    }

    /// Takes other rules while running. State and counts stay; a changed window starts empty.
    ///
    /// # Errors
    /// [`ConfigError`] names what cannot work; the old rules then stay.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Breaker, Config};
    /// # let breaker = Breaker::new("openai", Config::llm(), spark_core::Clock::system())?;
    /// breaker.reconfigure(Config::llm().probes(5))?;
    /// assert!(breaker.reconfigure(Config::llm().probes(0)).is_err());
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn reconfigure(&self, config: Config) -> Result<(), ConfigError> {
        self.0.reconfigure(config)
    }

    /// The callee asked to be left alone for so long, in some other way than by an answer that a
    /// permit was told of. Opens, or stays open until the later of the two moments. Does nothing
    /// while an operator decides, and with a time of zero.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Breaker, Config, State};
    /// # use std::time::Duration;
    /// # let breaker = Breaker::new("openai", Config::llm(), spark_core::Clock::system())?;
    /// breaker.throttle(Duration::from_secs(7)); // x-ratelimit-reset-requests: 7s
    /// assert_eq!(breaker.snapshot().state, State::Open);
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn throttle(&self, wait: Duration) {
        self.0.throttle(wait);
    }

    /// Waiting does not help, as when the credit is used up ([`Outcome::exhausted`]), and this was
    /// learned in some other way than by an answer that a permit was told of. Opens, or stays open,
    /// and does not probe before the time that is given; without one, not before
    /// [`Config::exhausted_for`] is over or an operator acts. Does nothing while an operator decides.
    ///
    /// [`Outcome::exhausted`]: crate::Outcome::exhausted
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Breaker, Config, RejectReason};
    /// # let breaker = Breaker::new("openai", Config::llm(), spark_core::Clock::system())?;
    /// breaker.exhaust(None); // the billing page says so
    /// let rejected = breaker.try_acquire().unwrap_err();
    /// assert_eq!(rejected.reason, RejectReason::Exhausted);
    /// breaker.reset(); // topped up
    /// assert!(breaker.try_acquire().is_ok());
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn exhaust(&self, retry_after: impl Into<Option<Duration>>) {
        self.0.exhaust(retry_after.into());
    }

    /// Held by nobody but the caller, and nothing worth remembering.
    pub(crate) fn is_forgettable(&self) -> bool {
        Arc::strong_count(&self.0) == 1 && self.0.is_idle()
    }

    pub(crate) fn acquire(
        &self,
        background: bool,
        if_dropped: IfDropped,
    ) -> Result<Permit, Rejected> {
        Lease::of(Arc::clone(&self.0), background, true, if_dropped).map(Permit::new)
    }

    /// Nobody has it any more.
    pub(crate) fn is_forgotten(&self) {
        self.0.is_forgotten();
    }

    /// Where it stands and who decides.
    pub(crate) fn stands(&self) -> (State, Mode) {
        self.0.stands()
    }

    /// Whether a call would be refused now. Says nothing about the next moment.
    pub(crate) fn refuses(&self) -> bool {
        self.0.refuses()
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_as_small_as_the_manual_says() {
        assert!(size_of::<Machine>() <= 1_792, "{}", size_of::<Machine>());
        assert!(size_of::<Permit>() <= 64, "{}", size_of::<Permit>());
    }
}
