//! How much may be asked for: so many units per period, with a burst.

use std::time::Duration;

use crate::ConfigError;
use crate::text::MAX_INTEGER;

/// 2⁶⁰ ns are 36 years: sums of a clock reading and two such spans stay far from 2⁶⁴.
const MAX_SPAN: u64 = 1 << 60;

/// So many units per period, refilled evenly, with a burst for those who saved them up.
///
/// The burst is the size of the bucket: what a caller who was idle may use at once. It equals the
/// quota unless [`burst`](Self::burst) says otherwise. Over any window of length `t`, at most
/// `burst + t × quota / per` units are admitted; so with the burst equal to the quota, the worst
/// single period holds **twice** the quota. A smaller burst smooths that.
///
/// Inside, time is counted in whole nanoseconds, and the time per unit is rounded **up**: never
/// more than the quota, and at most one percent less (a quota for which it would be more is
/// refused).
///
/// # Example
/// ```
/// use spark_ratelimit::Quota;
/// use std::time::Duration;
///
/// // 60 a minute, of which 20 at once.
/// let quota = Quota::new(60, Duration::from_secs(60))?.burst(20)?;
/// assert_eq!((quota.limit(), quota.burst_size()), (60, 20));
/// # Ok::<(), spark_ratelimit::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    limit: u64,
    per: u64,
    interval: u64,
    burst: u64,
}

impl Quota {
    /// `n` units per period `per`, and as many at once.
    ///
    /// # Errors
    /// When `n` or `per` is zero or too large, or when units would follow each other faster than
    /// whole nanoseconds can express within one percent.
    ///
    /// # Example
    /// ```
    /// use spark_ratelimit::Quota;
    /// use std::time::Duration;
    /// let daily = Quota::new(1_000, Duration::from_secs(24 * 60 * 60))?;
    /// assert_eq!(daily.interval(), Duration::from_millis(86_400));
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    pub fn new(n: u64, per: Duration) -> Result<Self, ConfigError> {
        if n == 0 {
            return Err(ConfigError::ZeroQuota);
        }
        if per.is_zero() {
            return Err(ConfigError::ZeroPeriod);
        }
        if n > MAX_INTEGER {
            return Err(ConfigError::TooMany {
                got: n,
                max: MAX_INTEGER,
            });
        }
        let per = u64::try_from(per.as_nanos())
            .ok()
            .filter(|per| *per <= MAX_SPAN)
            .ok_or(ConfigError::TooLong)?;
        let interval = per.div_ceil(n);
        // What rounding up adds to one period; it fits, since it is less than `n`.
        let lost = u128::from(interval) * u128::from(n) - u128::from(per);
        if lost > u128::from(per / 100) {
            return Err(ConfigError::TooFast {
                quota: n,
                per_nanos: per,
            });
        }
        Ok(Self {
            limit: n,
            per,
            interval,
            burst: n,
        })
    }

    /// How much an idle caller may use at once; the quota itself unless said.
    ///
    /// # Errors
    /// When `n` is zero or too large, or when so many units would take 36 years to refill.
    ///
    /// # Example
    /// ```
    /// use spark_ratelimit::{ConfigError, Quota};
    /// use std::time::Duration;
    /// let quota = Quota::new(60, Duration::from_secs(60))?;
    /// assert_eq!(quota.burst_size(), 60);
    /// assert_eq!(quota.burst(0), Err(ConfigError::ZeroBurst));
    /// # Ok::<(), ConfigError>(())
    /// ```
    pub fn burst(mut self, n: u64) -> Result<Self, ConfigError> {
        if n == 0 {
            return Err(ConfigError::ZeroBurst);
        }
        if n > MAX_INTEGER {
            return Err(ConfigError::TooMany {
                got: n,
                max: MAX_INTEGER,
            });
        }
        match self.interval.checked_mul(n) {
            Some(span) if span <= MAX_SPAN => {
                self.burst = n;
                Ok(self)
            }
            _ => Err(ConfigError::TooLong),
        }
    }

    /// Units per [`period`](Self::period).
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::Quota;
    /// # use std::time::Duration;
    /// assert_eq!(Quota::new(5, Duration::from_secs(1))?.limit(), 5);
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// The period that the units are for.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::Quota;
    /// # use std::time::Duration;
    /// assert_eq!(Quota::new(5, Duration::from_secs(1))?.period(), Duration::from_secs(1));
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    pub fn period(&self) -> Duration {
        Duration::from_nanos(self.per)
    }

    /// How much an idle caller may use at once.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::Quota;
    /// # use std::time::Duration;
    /// assert_eq!(Quota::new(5, Duration::from_secs(1))?.burst_size(), 5);
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    pub fn burst_size(&self) -> u64 {
        self.burst
    }

    /// The time in which one unit comes back, rounded up to a nanosecond.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::Quota;
    /// # use std::time::Duration;
    /// assert_eq!(Quota::new(5, Duration::from_secs(1))?.interval(), Duration::from_millis(200));
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    pub fn interval(&self) -> Duration {
        Duration::from_nanos(self.interval)
    }

    pub(crate) fn interval_nanos(&self) -> u64 {
        self.interval
    }
}

/// A governor quota says how often a unit comes back and how many fit into the bucket; here it
/// becomes "the whole bucket, in the time that it takes to refill". A bucket that would take more
/// than 36 years to refill is made smaller.
///
/// # Example
/// ```
/// use spark_ratelimit::Quota;
/// use std::num::NonZeroU32;
/// use std::time::Duration;
/// let theirs = governor::Quota::per_second(NonZeroU32::new(10).unwrap());
/// assert_eq!(Quota::from(theirs), Quota::new(10, Duration::from_secs(1))?);
/// # Ok::<(), spark_ratelimit::ConfigError>(())
/// ```
#[cfg(feature = "governor")]
impl From<governor::Quota> for Quota {
    fn from(theirs: governor::Quota) -> Self {
        let interval = u64::try_from(theirs.replenish_interval().as_nanos())
            .unwrap_or(MAX_SPAN)
            .clamp(1, MAX_SPAN);
        let burst = u64::from(theirs.burst_size().get()).min(MAX_SPAN / interval);
        Self {
            limit: burst,
            per: interval * burst,
            interval,
            burst,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn nothing_that_could_overflow_is_accepted() {
        assert_eq!(Quota::new(0, SECOND), Err(ConfigError::ZeroQuota));
        assert_eq!(Quota::new(1, Duration::ZERO), Err(ConfigError::ZeroPeriod));
        assert_eq!(Quota::new(1, Duration::MAX), Err(ConfigError::TooLong));
        assert!(matches!(
            Quota::new(u64::MAX, SECOND),
            Err(ConfigError::TooMany { .. })
        ));
        let slow = Quota::new(1, Duration::from_secs(86_400 * 365)).unwrap();
        assert_eq!(slow.burst(1_000_000), Err(ConfigError::TooLong));
        assert!(matches!(
            slow.burst(u64::MAX),
            Err(ConfigError::TooMany { .. })
        ));
    }

    #[test]
    fn a_rate_that_rounding_would_distort_is_refused() {
        assert!(matches!(
            Quota::new(700_000_000, SECOND),
            Err(ConfigError::TooFast { .. })
        ));
        assert!(matches!(
            Quota::new(2_000_000_000, SECOND),
            Err(ConfigError::TooFast { .. })
        ));
        let exact = Quota::new(1_000_000_000, SECOND).unwrap();
        assert_eq!(exact.interval_nanos(), 1);
        assert!(Quota::new(9_999_999, SECOND).is_ok());
    }

    #[test]
    fn the_interval_is_rounded_up() {
        assert_eq!(Quota::new(3, SECOND).unwrap().interval_nanos(), 333_333_334);
    }

    #[cfg(feature = "governor")]
    #[test]
    fn any_governor_quota_can_be_taken_over() {
        use std::num::NonZeroU32;
        let most = NonZeroU32::MAX;
        let odd = governor::Quota::with_period(Duration::MAX)
            .unwrap()
            .allow_burst(most);
        assert_eq!(Quota::from(odd).burst_size(), 1);
        let fast = Quota::from(governor::Quota::per_second(most));
        assert_eq!(fast.interval_nanos(), 1);
        assert_eq!(fast.burst_size(), u64::from(u32::MAX));
    }
}
