//! What is done when no hop answers well.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::metrics::{self, count};

/// What a [`Failover`](crate::Failover) does when no hop has answered well.
///
/// Asking a provider although its breaker is open is not among them: it would hurt the provider that
/// is already down, and an operator who knows better has
/// [`Mode::ForcedClosed`](crate::Mode::ForcedClosed). An older answer from a cache belongs to the
/// cache outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum LastResort {
    /// Gives back the best of their answers, with the least `Retry-After` of all.
    #[default]
    Answer,
    /// Waits for the hop that may be asked first, and asks it once, if it may be asked soon and
    /// before the deadline. A random part of a fifth is added to the wait, so that those who wait do
    /// not return as one. Background calls do not wait.
    #[non_exhaustive]
    WaitForEarliest {
        /// The longest `Retry-After` that is waited for.
        at_most: Duration,
        /// How many calls may wait at a time; the rest get the answer at once.
        waiting: usize,
    },
}

impl LastResort {
    /// [`WaitForEarliest`](Self::WaitForEarliest), up to that time, for so many calls at once.
    ///
    /// # Example
    /// ```
    /// use spark_breaker::LastResort;
    /// use std::time::Duration;
    /// let wait = LastResort::wait_for_earliest(Duration::from_secs(3), 64);
    /// assert_ne!(wait, LastResort::default());
    /// ```
    pub const fn wait_for_earliest(at_most: Duration, waiting: usize) -> Self {
        Self::WaitForEarliest { at_most, waiting }
    }
}

/// How many wait now.
#[derive(Debug, Clone, Default)]
pub(crate) struct WaitingRoom(Arc<AtomicUsize>);

impl WaitingRoom {
    pub(crate) fn enter(&self, most: usize) -> Option<Seat> {
        let add = |inside: usize| (inside < most).then_some(inside + 1);
        let entered = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, add);
        let result = if entered.is_ok() { "waited" } else { "full" };
        count!(metrics::WAITS, "result" => result);
        entered.ok().map(|_| Seat(Arc::clone(&self.0)))
    }
}

/// A seat in the waiting room, free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Seat(Arc<AtomicUsize>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
