//! The time that every SPARK crate reads, so that a test can move it.
#![allow(
    clippy::disallowed_methods,
    reason = "the one place that asks the operating system for the time"
)]

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A source of monotonic and of wall-clock time. Cloning is cheap; clones tell the same time.
///
/// The system clock is made once per process, because calibrating one costs about 15 µs in a
/// virtual machine, while a reading costs about 10 ns.
///
/// # Example
/// ```
/// use spark_core::Clock;
/// let clock = Clock::system();
/// let start = clock.now();
/// assert!(clock.now() >= start);
/// ```
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    System(System),
    Manual(Arc<Manual>),
}

#[derive(Clone)]
struct System {
    clock: quanta::Clock,
    origin: u64,
}

/// Time that moves only when it is told to. `testing::TestClock` is its handle.
#[derive(Debug, Default)]
pub(crate) struct Manual {
    pub(crate) monotonic_nanos: AtomicU64,
    pub(crate) unix_nanos: AtomicU64,
}

impl Clock {
    /// The operating system's clock.
    ///
    /// # Example
    /// ```
    /// let clock = spark_core::Clock::system();
    /// assert!(clock.unix_time().as_secs() > 1_700_000_000);
    /// ```
    pub fn system() -> Self {
        static SYSTEM: OnceLock<System> = OnceLock::new();
        let system = SYSTEM.get_or_init(|| {
            let clock = quanta::Clock::new();
            let origin = clock.raw();
            System { clock, origin }
        });
        Self(Source::System(system.clone()))
    }

    #[cfg_attr(not(feature = "testing"), allow(dead_code))]
    pub(crate) fn manual(manual: Arc<Manual>) -> Self {
        Self(Source::Manual(manual))
    }

    /// The monotonic time: for durations. It does not follow changes of the system's date.
    ///
    /// # Example
    /// ```
    /// let clock = spark_core::Clock::system();
    /// let (first, second) = (clock.now(), clock.now());
    /// assert!(first <= second);
    /// ```
    #[inline]
    pub fn now(&self) -> Instant {
        Instant(match &self.0 {
            Source::System(system) => system
                .clock
                .delta_as_nanos(system.origin, system.clock.raw()),
            Source::Manual(manual) => manual.monotonic_nanos.load(Ordering::Acquire),
        })
    }

    /// The wall clock, as time since 1970-01-01 UTC: for dates of expiry and timestamps only, since
    /// it may jump. A system date before 1970 reads as zero.
    ///
    /// # Example
    /// ```
    /// let since_1970 = spark_core::Clock::system().unix_time();
    /// assert!(since_1970.as_secs() > 0);
    /// ```
    pub fn unix_time(&self) -> Duration {
        match &self.0 {
            Source::System(_) => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or(Duration::ZERO),
            Source::Manual(manual) => {
                Duration::from_nanos(manual.unix_nanos.load(Ordering::Acquire))
            }
        }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.0 {
            Source::System(_) => "system",
            Source::Manual(_) => "manual",
        };
        f.debug_tuple("Clock").field(&kind).finish()
    }
}

/// A reading of a [`Clock`]: nanoseconds since that clock's own origin.
///
/// Arithmetic saturates: 2⁶⁴ ns are 584 years.
///
/// # Example
/// ```
/// use spark_core::Instant;
/// use std::time::Duration;
/// let start = Instant::from_nanos(1_000);
/// let end = start.saturating_add(Duration::from_nanos(500));
/// assert_eq!(end.saturating_duration_since(start), Duration::from_nanos(500));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The reading that is `nanos` nanoseconds after the clock's origin.
    ///
    /// # Example
    /// ```
    /// assert_eq!(spark_core::Instant::from_nanos(7).as_nanos(), 7);
    /// ```
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock's origin.
    ///
    /// # Example
    /// ```
    /// assert_eq!(spark_core::Instant::from_nanos(7).as_nanos(), 7);
    /// ```
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time since `earlier`, or zero when `earlier` is later.
    ///
    /// # Example
    /// ```
    /// use spark_core::Instant;
    /// let (a, b) = (Instant::from_nanos(1), Instant::from_nanos(3));
    /// assert_eq!(b.saturating_duration_since(a).as_nanos(), 2);
    /// assert!(a.saturating_duration_since(b).is_zero());
    /// ```
    pub const fn saturating_duration_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The reading `duration` later, or the last one that can be written.
    ///
    /// # Example
    /// ```
    /// use spark_core::Instant;
    /// use std::time::Duration;
    /// let last = Instant::from_nanos(u64::MAX);
    /// assert_eq!(last.saturating_add(Duration::MAX), last);
    /// ```
    pub const fn saturating_add(self, duration: Duration) -> Self {
        let nanos = duration.as_nanos();
        let nanos = if nanos > u64::MAX as u128 {
            u64::MAX
        } else {
            nanos as u64
        };
        Self(self.0.saturating_add(nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_moves_forward_at_the_pace_of_the_system() {
        let clock = Clock::system();
        let (ours, theirs) = (clock.now(), std::time::Instant::now());
        while theirs.elapsed() < Duration::from_millis(20) {}
        let (ours, theirs) = (
            clock.now().saturating_duration_since(ours),
            theirs.elapsed(),
        );
        assert!(
            ours >= Duration::from_millis(15),
            "{ours:?} against {theirs:?}"
        );
        assert!(
            ours <= theirs + Duration::from_millis(500),
            "{ours:?} against {theirs:?}"
        );
    }

    #[test]
    fn two_system_clocks_share_one_origin() {
        let first = Clock::system().now();
        let second = Clock::system().now();
        assert!(second >= first);
        assert!(second.saturating_duration_since(first) < Duration::from_secs(1));
    }
}
