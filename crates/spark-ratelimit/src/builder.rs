//! How a limiter is put together: checked here, never at a request.

use spark_core::Clock;

use crate::store::MAX_SLOTS;
use crate::{ConfigError, Limiter, Policy};

const DEFAULT_SLOTS: usize = 1 << 16;

/// A limiter in the making.
///
/// # Example
/// ```
/// use spark_ratelimit::{Limiter, Policy, Quota};
/// use std::time::Duration;
/// let limiter = Limiter::builder()
///     .policy(Policy::new("requests", Quota::new(60, Duration::from_secs(60))?)?)
///     .capacity(100_000)
///     .build()?;
/// # Ok::<(), spark_ratelimit::ConfigError>(())
/// ```
#[derive(Debug)]
pub struct LimiterBuilder {
    clock: Option<Clock>,
    policies: Vec<Policy>,
    capacity: usize,
}

impl LimiterBuilder {
    pub(crate) fn new() -> Self {
        Self {
            clock: None,
            policies: Vec::new(),
            capacity: DEFAULT_SLOTS,
        }
    }

    /// The clock; the system's unless said.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::Limiter;
    /// let builder = Limiter::builder().clock(spark_core::Clock::system());
    /// ```
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// One policy more: every request is charged to all of them, or to none.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Limiter, Policy, Quota};
    /// # use std::time::Duration;
    /// let limiter = Limiter::builder()
    ///     .policy(Policy::new("burst", Quota::new(10, Duration::from_secs(1))?)?)
    ///     .policy(Policy::new("daily", Quota::new(1_000, Duration::from_secs(86_400))?)?)
    ///     .build()?;
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policies.push(policy);
        self
    }

    /// How many keys in debt each policy can tell apart, at 16 bytes each; 65,536 unless said.
    /// Taken from the system at once, and never more. Rounded up to a multiple of eight.
    ///
    /// Take three for each caller that is in debt at a time, which is whoever was active within one
    /// refill of the burst. With fewer, callers that meet in the same sets forget each other's debts.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::Limiter;
    /// let builder = Limiter::builder().capacity(1_000_000); // 16 MB for each policy
    /// ```
    #[must_use]
    pub fn capacity(mut self, slots: usize) -> Self {
        self.capacity = slots;
        self
    }

    /// The limiter.
    ///
    /// # Errors
    /// Without a policy, with two of one name or more than 32; with a tier that is given twice or
    /// has no usable name; with a capacity of zero or of more than 4 GiB.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{ConfigError, Limiter, Policy, Quota};
    /// # use std::time::Duration;
    /// let policy = Policy::new("requests", Quota::new(1, Duration::from_secs(1))?)?;
    /// let error = Limiter::builder().policy(policy.clone()).policy(policy).build().unwrap_err();
    /// assert!(matches!(error, ConfigError::DuplicatePolicy { .. }));
    /// # Ok::<(), ConfigError>(())
    /// ```
    pub fn build(self) -> Result<Limiter, ConfigError> {
        if !(1..=MAX_SLOTS).contains(&self.capacity) {
            return Err(ConfigError::Capacity {
                got: self.capacity,
                max: MAX_SLOTS,
            });
        }
        Limiter::new(
            self.clock.unwrap_or_default(),
            &self.policies,
            self.capacity,
        )
    }
}
