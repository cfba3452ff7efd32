//! How something is, and how much that matters.

use serde::Serialize;

/// How something is; the greater, the worse.
///
/// # Example
/// ```
/// use spark_health::Status;
/// assert!(Status::Fail > Status::Warn);
/// assert_eq!(serde_json::to_string(&Status::Pass)?, r#""pass""#);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Well.
    Pass,
    /// Working, with something that somebody should look at.
    Warn,
    /// Not working.
    Fail,
}

/// What a check that fails does to the whole.
///
/// # Example
/// ```
/// use spark_health::{Gate, Status};
/// assert_eq!(Gate::Ready.weigh(Status::Fail), Status::Fail);
/// assert_eq!(Gate::Warn.weigh(Status::Fail), Status::Warn);
/// assert_eq!(Gate::Info.weigh(Status::Fail), Status::Pass);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Gate {
    /// The service is not ready: it gets no traffic. Only for what no request can do without, and what
    /// another instance may have when this one has not.
    Ready,
    /// The whole is `warn` at worst, and gets its traffic.
    Warn,
    /// Nothing: it stands in the report for whoever reads it.
    Info,
}

impl Gate {
    /// What a check of that status makes of the whole.
    ///
    /// # Example
    /// ```
    /// # use spark_health::{Gate, Status};
    /// assert_eq!(Gate::Warn.weigh(Status::Pass), Status::Pass);
    /// ```
    pub fn weigh(self, status: Status) -> Status {
        match self {
            Self::Ready => status,
            Self::Warn => status.min(Status::Warn),
            Self::Info => Status::Pass,
        }
    }
}
