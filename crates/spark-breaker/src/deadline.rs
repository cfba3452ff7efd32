//! Until when an answer is of use.

use std::time::Duration;

use http::Extensions;
use tokio::time::{Instant, Sleep, sleep};

/// Request extension: after this moment, nobody waits for the answer any more, so no further
/// attempt begins ([`RetryLayer`](crate::RetryLayer)) and no further provider is asked
/// ([`Failover`](crate::Failover), which also sets it for its hops). Of several, the earliest counts.
///
/// It ends no attempt of a [`RetryLayer`](crate::RetryLayer) that is under way, and no answer that has
/// begun: those have the limits of [`TimeoutLayer`](crate::TimeoutLayer), which know nothing of it,
/// since a provider is not to blame for the time that was left to it.
///
/// # Example
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use spark_breaker::Deadline;
/// use std::time::Duration;
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(Deadline::after(Duration::from_secs(30)));
/// assert!(Deadline::of(request.extensions()).is_some());
/// # });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(pub(crate) Instant);

impl Deadline {
    /// So long from now, by tokio's clock.
    ///
    /// # Panics
    /// Outside of a tokio runtime with timers.
    ///
    /// # Example
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// use spark_breaker::Deadline;
    /// use std::time::Duration;
    /// assert!(Deadline::after(Duration::from_secs(1)) < Deadline::after(Duration::from_secs(9)));
    /// # });
    /// ```
    pub fn after(time: Duration) -> Self {
        Self(sleep(time).deadline())
    }

    /// That of a request.
    ///
    /// # Example
    /// ```
    /// let request = http::Request::new(());
    /// assert!(spark_breaker::Deadline::of(request.extensions()).is_none());
    /// ```
    pub fn of(extensions: &Extensions) -> Option<Self> {
        extensions.get().copied()
    }

    /// Whether something that begins when this timer ends begins too late.
    pub(crate) fn is_before(self, timer: &Sleep) -> bool {
        self.0 <= timer.deadline()
    }
}
