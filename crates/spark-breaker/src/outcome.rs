//! How a call ended, and why a breaker opened.

use std::fmt;
use std::time::Duration;

use crate::Phase;

/// How a call ended, in the words that the breaker counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It did what was asked.
    Success,
    /// It failed, and the callee is to blame. Made by [`Outcome::failure`].
    #[non_exhaustive]
    Failure {
        /// In which way.
        kind: FailKind,
        /// What of the callee it says something about.
        scope: Scope,
        /// How long the callee asks to be left alone, when it said so. It lengthens the open time
        /// if the breaker opens; it never shortens it.
        retry_after: Option<Duration>,
    },
    /// The callee is well and asks for fewer calls. With a time, the breaker opens for it; without,
    /// the call counts for the failure rate but not for the run of consecutive failures. Made by
    /// [`Outcome::throttled`].
    #[non_exhaustive]
    Throttled {
        /// What of the callee it says something about.
        scope: Scope,
        /// How long the callee asks to be left alone.
        retry_after: Option<Duration>,
        /// Waiting does not help, as when the credit is used up. Made by [`Outcome::exhausted`].
        terminal: bool,
    },
    /// It says nothing bad about the callee.
    Ignored(IgnoreKind),
}

/// What of a callee an outcome says something about, from the narrowest. A breaker alone counts all
/// of them; where there is a breaker for each
/// ([`Registry::breakers`](crate::Registry::breakers)), only the one that is meant is blamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The key that the call was made with.
    Credential,
    /// The model that was asked for.
    Model,
    /// All of it.
    Provider,
}

/// Why a call says nothing bad about the callee.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IgnoreKind {
    /// The callee answered that the caller's request was wrong: it works. So it is a good probe, and
    /// ends a run of consecutive failures; it is in no rate, since it says nothing of what the callee
    /// makes of a good request.
    Client,
    /// Refused by a layer of our own: the callee was not asked. A probe is given back as if it had
    /// not been made, and a run goes on.
    Local,
}

impl Outcome {
    /// A failure without a `Retry-After`, blamed on what this kind usually tells of
    /// ([`FailKind::scope`]).
    ///
    /// # Example
    /// ```
    /// use spark_breaker::{FailKind, Outcome};
    /// let outcome = Outcome::failure(FailKind::Transport);
    /// assert!(matches!(outcome, Outcome::Failure { retry_after: None, .. }));
    /// ```
    pub const fn failure(kind: FailKind) -> Self {
        Self::Failure {
            kind,
            scope: kind.scope(),
            retry_after: None,
        }
    }

    /// Throttled, without a `Retry-After`: a matter of the credential.
    ///
    /// # Example
    /// ```
    /// use spark_breaker::Outcome;
    /// use std::time::Duration;
    /// let outcome = Outcome::throttled().with_retry_after(Duration::from_secs(7));
    /// assert_ne!(outcome, Outcome::throttled());
    /// ```
    pub const fn throttled() -> Self {
        Self::Throttled {
            scope: Scope::Credential,
            retry_after: None,
            terminal: false,
        }
    }

    /// Throttled, and asking again does not help, as when the credit is used up: the breaker opens
    /// and does not probe before the time that the callee gave, which is believed up to 31 days.
    /// Without one, not before
    /// [`Config::exhausted_for`](crate::Config::exhausted_for) is over, or an operator acts.
    ///
    /// # Example
    /// ```
    /// use spark_breaker::Outcome;
    /// assert!(matches!(Outcome::exhausted(), Outcome::Throttled { terminal: true, .. }));
    /// ```
    pub const fn exhausted() -> Self {
        Self::Throttled {
            scope: Scope::Credential,
            retry_after: None,
            terminal: true,
        }
    }

    /// With what the callee says about when to come back. A success or an ignored call stays as it
    /// is.
    ///
    /// # Example
    /// ```
    /// use spark_breaker::{FailKind, Outcome};
    /// use std::time::Duration;
    /// let outcome = Outcome::failure(FailKind::Status(503)).with_retry_after(Duration::from_secs(7));
    /// assert!(matches!(outcome, Outcome::Failure { retry_after: Some(_), .. }));
    /// ```
    #[must_use]
    pub fn with_retry_after(mut self, after: impl Into<Option<Duration>>) -> Self {
        if let Self::Failure { retry_after, .. } | Self::Throttled { retry_after, .. } = &mut self {
            *retry_after = after.into();
        }
        self
    }

    /// Blamed on something else. A success or an ignored call stays as it is.
    ///
    /// # Example
    /// ```
    /// use spark_breaker::{FailKind, Outcome, Scope};
    /// let outcome = Outcome::failure(FailKind::Status(503)).with_scope(Scope::Provider);
    /// assert!(matches!(outcome, Outcome::Failure { scope: Scope::Provider, .. }));
    /// ```
    #[must_use]
    pub const fn with_scope(mut self, of: Scope) -> Self {
        if let Self::Failure { scope, .. } | Self::Throttled { scope, .. } = &mut self {
            *scope = of;
        }
        self
    }
}

/// In which way a call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailKind {
    /// A status that the classifier counts as a failure.
    Status(u16),
    /// The callee refuses our own credential.
    Auth,
    /// No connection, or a broken one: the client returned an error.
    Transport,
    /// This phase of it took too long.
    Timeout(Phase),
    /// The answer failed after its head had come.
    Body,
    /// The answer ended before it was whole.
    Truncated,
    /// The call panicked.
    Panic,
    /// The caller gave up on it after having waited for long.
    Abandoned,
    /// It succeeded, but slower than a probe may.
    Slow,
    /// Anything else.
    Other,
}

impl FailKind {
    /// What of the callee a failure of this kind usually says something about: a refused credential
    /// about the credential; a status, a broken, truncated or slow answer about the model; all else,
    /// as no connection or no answer in time, about the provider.
    ///
    /// # Example
    /// ```
    /// use spark_breaker::{FailKind, Scope};
    /// assert_eq!(FailKind::Auth.scope(), Scope::Credential);
    /// assert_eq!(FailKind::Status(500).scope(), Scope::Model);
    /// assert_eq!(FailKind::Transport.scope(), Scope::Provider);
    /// ```
    pub const fn scope(self) -> Scope {
        match self {
            Self::Auth => Scope::Credential,
            Self::Status(_) | Self::Body | Self::Truncated | Self::Abandoned | Self::Slow => {
                Scope::Model
            }
            Self::Timeout(_) | Self::Transport | Self::Panic | Self::Other => Scope::Provider,
        }
    }
}

impl fmt::Display for FailKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "status {status}"),
            Self::Auth => f.write_str("our credential was refused"),
            Self::Transport => f.write_str("transport error"),
            Self::Timeout(phase) => write!(f, "timeout ({phase})"),
            Self::Body => f.write_str("broken response body"),
            Self::Truncated => f.write_str("the response ended too early"),
            Self::Panic => f.write_str("panic"),
            Self::Abandoned => f.write_str("given up after a long wait"),
            Self::Slow => f.write_str("too slow"),
            Self::Other => f.write_str("error"),
        }
    }
}

/// Where a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Calls pass.
    Closed,
    /// A few calls pass, to see whether the callee has recovered.
    HalfOpen,
    /// Calls are refused.
    Open,
}

impl State {
    /// `closed`, `half_open` or `open`.
    ///
    /// # Example
    /// ```
    /// assert_eq!(spark_breaker::State::HalfOpen.as_str(), "half_open");
    /// ```
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who decides where the breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Mode {
    /// The breaker itself.
    #[default]
    Auto,
    /// An operator: refuse everything. Back in [`Mode::Auto`], the next call is a probe.
    ForcedOpen,
    /// An operator: let everything pass, whatever the results. They are counted all the same.
    ForcedClosed,
    /// The breaker itself, but it only says when it would open
    /// ([`Snapshot::would_trip`](crate::Snapshot::would_trip), a warning and a metric, once for each
    /// [`open_for`](crate::Config::open_for)) and lets everything pass: to try rules on live calls.
    MetricsOnly,
    /// Switched off: lets everything pass and counts nothing.
    Disabled,
}

impl Mode {
    /// `auto`, `forced_open`, `forced_closed`, `metrics_only` or `disabled`.
    ///
    /// # Example
    /// ```
    /// assert_eq!(spark_breaker::Mode::default().as_str(), "auto");
    /// ```
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::ForcedOpen => "forced_open",
            Self::ForcedClosed => "forced_closed",
            Self::MetricsOnly => "metrics_only",
            Self::Disabled => "disabled",
        }
    }
}

/// What moved a breaker from one state to another.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Reason {
    /// Too large a share of the calls in the window failed.
    FailureRate {
        /// The share, 0 to 1.
        rate: f64,
        /// Of how many calls.
        calls: u32,
    },
    /// Too many failures in a row; the last one's kind.
    Consecutive {
        /// How many.
        failures: u32,
        /// How the last one failed.
        last: FailKind,
    },
    /// Too large a share of the calls in the window was slow.
    SlowRate {
        /// The share, 0 to 1.
        rate: f64,
        /// Of how many calls.
        calls: u32,
    },
    /// Too many calls that have not ended had waited for longer than the slow threshold.
    InFlightSlow {
        /// How many.
        calls: u32,
    },
    /// The callee asked to be left alone for so long.
    Throttled {
        /// As it said, cut to the longest that is believed.
        retry_after: Duration,
    },
    /// The callee said that waiting does not help, as when the credit is used up.
    Exhausted {
        /// Until when, if it said so, cut to the longest that is believed.
        retry_after: Option<Duration>,
    },
    /// A probe failed.
    ProbeFailed(FailKind),
    /// A probe was throttled and the callee did not say for how long.
    ProbeThrottled,
    /// The open time is over.
    OpenTimeOver,
    /// The probes did not report in time: they hang, or were forgotten.
    ProbesLost,
    /// The probes succeeded.
    Recovered,
    /// An operator said so.
    Operator,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FailureRate { rate, calls } => {
                write!(f, "{:.0} % of {calls} calls failed", rate * 100.0)
            }
            Self::Consecutive { failures, last } => {
                write!(f, "{failures} failures in a row, the last: {last}")
            }
            Self::SlowRate { rate, calls } => {
                write!(f, "{:.0} % of {calls} calls were slow", rate * 100.0)
            }
            Self::InFlightSlow { calls } => {
                write!(f, "{calls} calls wait for longer than is slow")
            }
            Self::Throttled { retry_after } => {
                write!(f, "throttled for {:.1} s", retry_after.as_secs_f64())
            }
            Self::Exhausted { retry_after: None } => f.write_str("its credit is used up"),
            Self::Exhausted {
                retry_after: Some(wait),
            } => write!(f, "its credit is used up for {:.1} s", wait.as_secs_f64()),
            Self::ProbeFailed(kind) => write!(f, "a probe failed: {kind}"),
            Self::ProbeThrottled => f.write_str("a probe was throttled"),
            Self::OpenTimeOver => f.write_str("the open time is over"),
            Self::ProbesLost => f.write_str("the probes did not report in time"),
            Self::Recovered => f.write_str("the probes succeeded"),
            Self::Operator => f.write_str("an operator said so"),
        }
    }
}
