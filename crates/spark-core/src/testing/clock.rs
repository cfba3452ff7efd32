//! A clock that moves when it is told to.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::clock::Manual;
use crate::{Clock, Instant};

/// A handle on a [`Clock`] that stands still until it is moved.
///
/// # Example
/// ```
/// use spark_core::testing::TestClock;
/// use std::time::Duration;
/// let hand = TestClock::new();
/// let clock = hand.clock();
/// let before = clock.now();
/// hand.advance(Duration::from_secs(60));
/// assert_eq!(clock.now().saturating_duration_since(before), Duration::from_secs(60));
/// ```
#[derive(Clone, Debug)]
pub struct TestClock(Arc<Manual>);

/// 2026-01-01, so that dates look like dates.
const START_UNIX: Duration = Duration::from_secs(1_767_225_600);

impl TestClock {
    /// A clock at its origin, its wall clock at 2026-01-01 UTC.
    ///
    /// # Example
    /// ```
    /// # use spark_core::testing::TestClock;
    /// assert_eq!(TestClock::new().clock().now().as_nanos(), 0);
    /// ```
    pub fn new() -> Self {
        let hand = Self(Arc::new(Manual::default()));
        hand.set_unix_time(START_UNIX);
        hand
    }

    /// The clock to hand out.
    ///
    /// # Example
    /// ```
    /// # use spark_core::testing::TestClock;
    /// let clock = TestClock::new().clock();
    /// assert_eq!(clock.now(), clock.now());
    /// ```
    pub fn clock(&self) -> Clock {
        Clock::manual(Arc::clone(&self.0))
    }

    /// Moves both clocks forward.
    ///
    /// # Example
    /// ```
    /// # use spark_core::testing::TestClock;
    /// # use std::time::Duration;
    /// let hand = TestClock::new();
    /// hand.advance(Duration::from_nanos(7));
    /// assert_eq!(hand.clock().now().as_nanos(), 7);
    /// ```
    pub fn advance(&self, by: Duration) {
        let now = self.clock().now().saturating_add(by);
        self.set(now);
        self.set_unix_time(self.clock().unix_time().saturating_add(by));
    }

    /// Puts the monotonic clock anywhere, backwards too: what a broken machine does.
    ///
    /// # Example
    /// ```
    /// # use spark_core::{Instant, testing::TestClock};
    /// let hand = TestClock::new();
    /// hand.set(Instant::from_nanos(9));
    /// assert_eq!(hand.clock().now().as_nanos(), 9);
    /// ```
    pub fn set(&self, now: Instant) {
        self.0
            .monotonic_nanos
            .store(now.as_nanos(), Ordering::Release);
    }

    /// Puts the wall clock anywhere.
    ///
    /// # Example
    /// ```
    /// # use spark_core::testing::TestClock;
    /// # use std::time::Duration;
    /// let hand = TestClock::new();
    /// hand.set_unix_time(Duration::from_secs(1));
    /// assert_eq!(hand.clock().unix_time().as_secs(), 1);
    /// ```
    pub fn set_unix_time(&self, since_1970: Duration) {
        let nanos = u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX);
        self.0.unix_nanos.store(nanos, Ordering::Release);
    }
}

impl Default for TestClock {
    fn default() -> Self {
        Self::new()
    }
}
