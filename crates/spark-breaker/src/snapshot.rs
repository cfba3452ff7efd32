//! How a breaker stands, for an operator's eyes.

use std::sync::Arc;
use std::time::Duration;

use crate::{Mode, Reason, State};

/// How a breaker stood at one moment.
///
/// # Example
/// ```
/// use spark_breaker::{Breaker, Config, FailKind};
/// use spark_core::Clock;
/// let breaker = Breaker::new("openai", Config::llm(), Clock::system())?;
/// breaker.try_acquire().unwrap().failure(FailKind::Status(500));
/// breaker.try_acquire().unwrap().success();
/// let snapshot = breaker.snapshot();
/// assert_eq!((snapshot.calls, snapshot.failures, snapshot.failure_rate), (2, 1, 0.5));
/// assert!(snapshot.last_trip.is_none());
/// # Ok::<(), spark_breaker::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The breaker's name.
    pub name: Arc<str>,
    /// Where it stands. An open one stays open until the next caller comes, even when its time is
    /// over: then `retry_after` is zero.
    pub state: State,
    /// Who decides.
    pub mode: Mode,
    /// Goes up with each step from one state to another.
    pub generation: u64,
    /// Calls in the window, while closed.
    pub calls: u32,
    /// How many of them failed.
    pub failures: u32,
    /// How many of them were slow, where slow calls are looked for.
    pub slow: u32,
    /// `failures / calls`, 0 without calls.
    pub failure_rate: f64,
    /// Calls that have not ended, of any generation. A permit that was leaked stays in here.
    pub in_flight: u32,
    /// How many of them have waited for longer than the slow threshold without a first byte, where
    /// [`in_flight_slow`](crate::Config::in_flight_slow) is set: those of this generation.
    pub in_flight_slow: u32,
    /// How long it stays open, while it is open by itself; `None` also when only an operator ends
    /// that.
    pub retry_after: Option<Duration>,
    /// It is open because the callee said that waiting does not help
    /// ([`Outcome::exhausted`](crate::Outcome::exhausted)): with a `retry_after` until then, without
    /// until an operator acts.
    pub exhausted: bool,
    /// Why it opened the last time.
    pub last_trip: Option<Trip>,
    /// Why it would have opened the last time, in [`Mode::MetricsOnly`].
    pub would_trip: Option<Trip>,
    /// What was counted since it was made or reset.
    pub totals: Totals,
}

/// Why a breaker opened, and how long ago.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Trip {
    /// Why; `to_string()` is a sentence for people.
    pub reason: Reason,
    /// How long ago.
    pub ago: Duration,
}

/// How calls ended since the breaker was made or reset. Counted while others go on: each number is
/// of a moment of its own, none is ever too high, and none goes down but by a reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Totals {
    /// Did what was asked.
    pub successes: u64,
    /// Failed, panicked, or were abandoned after a long wait.
    pub failures: u64,
    /// Were throttled.
    pub throttled: u64,
    /// Said nothing bad about the callee.
    pub ignored: u64,
    /// Went away without a result.
    pub cancelled: u64,
    /// Ended in another state than they began in, and did not count.
    pub late: u64,
}
