//! Settings that may be changed while the cache is in use.

use std::time::Duration;

use crate::ConfigError;
use crate::config::{check_entry, check_ttl};

/// What may be changed while the cache is in use, by [`Cache::reconfigure`](crate::Cache::reconfigure). What is not set stays
/// as it is.
///
/// # Example
/// ```
/// use spark_cache::{Cache, Tuning};
/// use std::time::Duration;
/// let cache = Cache::builder().build()?;
/// cache.reconfigure(&Tuning::new().ttl(Duration::from_secs(60)))?;
/// assert_eq!(cache.ttl(), Duration::from_secs(60));
/// # Ok::<(), spark_cache::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct Tuning {
    pub(crate) ttl: Option<Duration>,
    pub(crate) max_entry_bytes: Option<u64>,
}

impl Tuning {
    /// Changes nothing yet.
    ///
    /// # Example
    /// ```
    /// let tuning = spark_cache::Tuning::new();
    /// # let _ = tuning;
    /// ```
    pub const fn new() -> Self {
        Self {
            ttl: None,
            max_entry_bytes: None,
        }
    }

    /// How long an answer lives. A shorter time holds for the answers that are kept already; a
    /// longer one for new ones.
    ///
    /// # Example
    /// ```
    /// # use spark_cache::Tuning;
    /// let tuning = Tuning::new().ttl(std::time::Duration::from_secs(60));
    /// # let _ = tuning;
    /// ```
    pub const fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// How heavy a new answer may be.
    ///
    /// # Example
    /// ```
    /// # use spark_cache::Tuning;
    /// let tuning = Tuning::new().max_entry_bytes(64 << 10);
    /// # let _ = tuning;
    /// ```
    pub const fn max_entry_bytes(mut self, bytes: u64) -> Self {
        self.max_entry_bytes = Some(bytes);
        self
    }

    pub(crate) fn check(&self, total: u64) -> Result<(), ConfigError> {
        self.ttl.map_or(Ok(()), check_ttl)?;
        self.max_entry_bytes
            .map_or(Ok(()), |entry| check_entry(entry, total))
    }
}
