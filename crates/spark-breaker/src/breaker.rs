//! The breaker itself: what callers and operators hold.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use spark_core::{Clock, Instant};

use crate::config::is_name;
use crate::machine::{Call, Ending, Machine, Transition};
use crate::metrics::Metrics;
use crate::{
    CallError, Config, ConfigError, FailKind, Mode, Permit, RejectReason, Rejected, Snapshot, State,
};

/// A circuit breaker: asks whether a callee is fit to be called, from how its latest calls ended.
///
/// Clones share one state. It needs no runtime and never blocks on anything but its own few
/// instructions: admission while closed, and refusal while open, take no lock.
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
pub struct Breaker(Arc<Inner>);

pub(crate) struct Inner {
    name: Arc<str>,
    clock: Clock,
    /// The generation, and in the two lowest bits what to do with a caller. Written under the lock;
    /// read without it.
    word: AtomicU64,
    /// Until when it is open, in nanoseconds of the clock; has a meaning while the word says open.
    open_until: AtomicU64,
    in_flight: AtomicU32,
    machine: Mutex<Machine>,
    pub(crate) metrics: Metrics,
}

const ADMIT: u64 = 0;
const OPEN: u64 = 1;
const ASK: u64 = 2;
const VERDICT_BITS: u32 = 2;
const VERDICT_MASK: u64 = (1 << VERDICT_BITS) - 1;

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
        if !is_name(name) {
            return Err(ConfigError::Name);
        }
        let machine = Machine::new(config, clock.now())?;
        Ok(Self(Arc::new(Inner {
            name: name.into(),
            word: AtomicU64::new(ADMIT),
            open_until: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            machine: Mutex::new(machine),
            metrics: Metrics::default(),
            clock,
        })))
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
        self.acquire(false)
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
        self.acquire(true)
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
        let permit = self.try_acquire()?;
        match call().await {
            Ok(value) => {
                permit.success();
                Ok(value)
            }
            Err(error) => {
                permit.failure(FailKind::Other);
                Err(CallError::Failed(error))
            }
        }
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
        let now = self.0.clock.now();
        let in_flight = self.0.in_flight.load(Ordering::Relaxed);
        let machine = self.0.lock();
        Snapshot::of(Arc::clone(&self.0.name), &machine, in_flight, now)
    }

    /// Hands it to an operator, or back to itself. Results of calls that are under way no longer
    /// count.
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
        self.0
            .change(|machine, now| ((), machine.set_mode(now, mode)));
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
        self.0.change(|machine, now| ((), machine.reset(now)));
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
        self.0
            .change(|machine, now| match machine.reconfigure(now, config) {
                Ok(moved) => (Ok(()), moved),
                Err(error) => (Err(error), None),
            })
    }

    /// The callee asked to be left alone for so long, in some other way than by an answer that a
    /// permit was told of. Opens, or stays open until the later of the two moments. Does nothing
    /// while an operator decides.
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
        self.0
            .change(|machine, now| ((), machine.throttle(now, wait)));
    }

    /// Held by nobody but the caller, and nothing worth remembering.
    pub(crate) fn is_forgettable(&self) -> bool {
        Arc::strong_count(&self.0) == 1 && self.0.lock().is_idle(self.0.clock.now())
    }

    fn acquire(&self, background: bool) -> Result<Permit, Rejected> {
        let inner = &self.0;
        let now = inner.clock.now();
        let word = inner.word.load(Ordering::Acquire);
        match word & VERDICT_MASK {
            ADMIT => return Ok(inner.permit(word >> VERDICT_BITS, now, false)),
            OPEN => {
                let until = Instant::from_nanos(inner.open_until.load(Ordering::Acquire));
                if now < until {
                    let wait = until.saturating_duration_since(now);
                    return Err(inner.reject(State::Open, RejectReason::Open, wait));
                }
            }
            _ => {}
        }
        let admitted = inner.change(|machine, now| {
            let (admitted, moved) = machine.admit(now, background);
            (admitted.map(|probe| (machine.generation, probe)), moved)
        });
        match admitted {
            Ok((generation, probe)) => Ok(inner.permit(generation, now, probe)),
            Err((state, reason, wait)) => Err(inner.reject(state, reason, wait)),
        }
    }
}

impl Inner {
    /// The permit's call is over: gives back its place and counts how it ended.
    pub(crate) fn end(&self, call: Call, ending: Ending) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        let counted = self.change(|machine, now| machine.end(now, call, ending));
        self.metrics.outcome(&self.name, counted);
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    fn permit(self: &Arc<Self>, generation: u64, started: Instant, probe: bool) -> Permit {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.metrics.touch(&self.name);
        Permit::new(Arc::clone(self), generation, started, probe)
    }

    fn reject(&self, state: State, reason: RejectReason, wait: Duration) -> Rejected {
        self.metrics.rejection(&self.name);
        Rejected {
            name: Arc::clone(&self.name),
            state,
            reason,
            retry_after: wait.max(Duration::from_millis(1)),
        }
    }

    /// Runs `step` under the lock, publishes what readers without the lock go by, and tells of the
    /// transition once the lock is free again.
    fn change<T>(&self, step: impl FnOnce(&mut Machine, Instant) -> (T, Option<Transition>)) -> T {
        let mut machine = self.lock();
        // Read under the lock, so that steps are counted in the order of their times.
        let now = self.clock.now();
        let (result, moved) = step(&mut machine, now);
        self.publish(&machine);
        drop(machine);
        if let Some(moved) = moved {
            self.tell(&moved);
        }
        result
    }

    fn publish(&self, machine: &Machine) {
        let verdict = match (machine.mode, machine.state()) {
            (Mode::ForcedClosed, _) | (Mode::Auto, State::Closed) => ADMIT,
            (Mode::Auto, State::Open) => OPEN,
            (Mode::ForcedOpen, _) | (Mode::Auto, State::HalfOpen) => ASK,
        };
        if let Some(until) = machine.open_until() {
            self.open_until.store(until.as_nanos(), Ordering::Release);
        }
        let word = (machine.generation << VERDICT_BITS) | verdict;
        self.word.store(word, Ordering::Release);
    }

    fn tell(&self, moved: &Transition) {
        let Transition { from, to, reason } = moved;
        let breaker = &*self.name;
        match to {
            State::Open => tracing::warn!(breaker, %from, %to, %reason, "breaker opened"),
            State::HalfOpen => tracing::info!(breaker, %from, %to, %reason, "breaker probes"),
            State::Closed => tracing::info!(breaker, %from, %to, %reason, "breaker closed"),
        }
        // Another step may have been told of meanwhile: the gauge follows what is published.
        self.metrics.transition(&self.name, *to, || {
            match self.word.load(Ordering::Acquire) & VERDICT_MASK {
                ADMIT => State::Closed,
                OPEN => State::Open,
                _ => self.lock().state(),
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, Machine> {
        // No foreign code runs under the lock, so it is never poisoned half-way through a step.
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let machine = self.lock();
        f.debug_struct("Breaker")
            .field("name", &self.name)
            .field("state", &machine.state())
            .field("mode", &machine.mode)
            .field("generation", &machine.generation)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_as_small_as_the_manual_says() {
        assert!(size_of::<Inner>() <= 704, "{}", size_of::<Inner>());
        assert!(size_of::<Permit>() <= 64, "{}", size_of::<Permit>());
    }
}
