//! What can go wrong when a breaker is made, and what a caller is told when it refuses.

use std::fmt;
use std::time::Duration;

use crate::{BreakerName, State};

/// A setting that cannot work. Returned when a breaker is made or reconfigured, never later.
///
/// # Example
/// ```
/// use spark_breaker::{Breaker, Config};
/// use spark_core::Clock;
/// let error = Breaker::new("openai", Config::llm().failure_rate(1.5), Clock::system()).unwrap_err();
/// assert_eq!(error.to_string(), "failure_rate = 1.5: give a share above 0 and up to 1");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The name cannot be shown in a log line or used as a label.
    #[error("name: give 1 to 128 printable ASCII characters without spaces, quotes or backslashes")]
    Name,
    /// A part of a [`ProviderKey`](crate::ProviderKey) cannot be one.
    #[error(
        "key: give names of printable ASCII characters without spaces, quotes or backslashes, the \
         provider's without / and #, and the others at most 128 characters long with it"
    )]
    Key,
    /// A value is outside its range.
    #[error("{field} = {value}: {mend}")]
    OutOfRange {
        /// The setting, as the method of [`Config`](crate::Config) is called.
        field: &'static str,
        /// The value that was given.
        value: String,
        /// What to give instead.
        mend: &'static str,
    },
}

impl ConfigError {
    pub(crate) fn out_of_range(
        field: &'static str,
        value: &impl fmt::Debug,
        mend: &'static str,
    ) -> Self {
        Self::OutOfRange {
            field,
            value: format!("{value:?}"),
            mend,
        }
    }
}

/// The call was not let through: nothing was sent.
///
/// # Example
/// ```
/// use spark_breaker::{Breaker, Config, Mode};
/// use spark_core::Clock;
/// let breaker = Breaker::new("search", Config::standard(), Clock::system())?;
/// breaker.set_mode(Mode::ForcedOpen);
/// let rejected = breaker.try_acquire().unwrap_err();
/// assert_eq!(&*rejected.name, "search");
/// assert!(!rejected.retry_after.is_zero());
/// # Ok::<(), spark_breaker::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} is not being called: {reason}; try again in {}", Seconds(*retry_after))]
#[non_exhaustive]
pub struct Rejected {
    /// The breaker's name, which is usually the provider's.
    pub name: BreakerName,
    /// Where the breaker stood.
    pub state: State,
    /// Why it refused.
    pub reason: RejectReason,
    /// When to ask again. Never zero.
    pub retry_after: Duration,
}

/// Why a call was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RejectReason {
    /// The breaker is open.
    Open,
    /// The breaker is half open and all of its probes are under way.
    ProbesBusy,
    /// Until a probe has succeeded, they are kept for background calls for a moment
    /// ([`Config::background_grace`](crate::Config::background_grace)).
    KeptForBackground,
    /// The breaker has closed, and lets through a share of the calls that grows
    /// ([`Config::ramp`](crate::Config::ramp)): this one is not in it.
    Ramping,
    /// The callee said that waiting does not help, as when the credit is used up. When it did not
    /// say until when, `retry_after` is
    /// [`Config::max_open_for`](crate::Config::max_open_for): when to look again whether an operator
    /// has acted.
    Exhausted,
    /// An operator has opened the breaker.
    ForcedOpen,
}

impl fmt::Display for RejectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "it failed too often",
            Self::ProbesBusy => "its recovery is being probed",
            Self::KeptForBackground => "its recovery is about to be probed",
            Self::Ramping => "it is coming back a share at a time",
            Self::Exhausted => "its credit is used up",
            Self::ForcedOpen => "an operator has taken it out",
        })
    }
}

struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} s", self.0.as_secs_f64())
    }
}

/// What [`Breaker::call`](crate::Breaker::call) returns when there is no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError<E> {
    /// The call was not made.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// The call was made, and failed.
    #[error("{0}")]
    Failed(E),
}
