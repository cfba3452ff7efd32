//! Settings, checked once, at the start.

use std::time::Duration;

use spark_core::Clock;

use crate::flight::Bounds;
use crate::store::{MAX_ENTRY, MokaStore, Store};
use crate::{Cache, ConfigError};

/// What becomes of an upstream call when everyone who waited for it has left.
///
/// # Example
/// ```
/// use spark_cache::{Abandon, Cache};
/// let cache = Cache::builder().when_abandoned(Abandon::Cancel).build()?;
/// # let _ = cache;
/// # Ok::<(), spark_cache::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Abandon {
    /// It is finished and stored: the tokens are paid for, and whoever left tends to ask again. So
    /// a load that takes longer than its callers wait fills the cache all the same.
    #[default]
    Finish,
    /// It is dropped.
    Cancel,
}

/// A [`Cache`] in the making.
///
/// # Example
/// ```
/// use std::time::Duration;
/// use spark_cache::Cache;
///
/// let cache = Cache::builder()
///     .max_bytes(64 << 20)
///     .max_entry_bytes(1 << 20)
///     .ttl(Duration::from_secs(600))
///     .build()?;
/// # let _ = cache;
/// # Ok::<(), spark_cache::ConfigError>(())
/// ```
#[derive(Debug)]
#[must_use]
pub struct Builder {
    pub(crate) max_bytes: u64,
    pub(crate) max_entry_bytes: u64,
    pub(crate) max_flights: usize,
    pub(crate) max_waiters: usize,
    pub(crate) max_inflight_bytes: u64,
    pub(crate) ttl: Duration,
    pub(crate) hit_for_miss: Duration,
    pub(crate) abandon: Abandon,
    pub(crate) clock: Clock,
    pub(crate) store: Option<Box<dyn Store>>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            max_bytes: 64 << 20,
            max_entry_bytes: 1 << 20,
            max_flights: 1_024,
            max_waiters: 16_384,
            max_inflight_bytes: 64 << 20,
            ttl: Duration::from_secs(600),
            hit_for_miss: Duration::from_secs(5),
            abandon: Abandon::default(),
            clock: Clock::system(),
            store: None,
        }
    }
}

impl Builder {
    /// How much may be kept, in bytes of weight: bodies, headers and book-keeping. 64 MiB unless
    /// said.
    ///
    /// # Example
    /// ```
    /// # use spark_cache::Cache;
    /// let builder = Cache::builder().max_bytes(256 << 20);
    /// # let _ = builder;
    /// ```
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// How heavy one answer may be; a heavier one is delivered, and not kept. 1 MiB unless said.
    ///
    /// # Example
    /// ```
    /// # use spark_cache::Cache;
    /// let builder = Cache::builder().max_entry_bytes(256 << 10);
    /// # let _ = builder;
    /// ```
    pub fn max_entry_bytes(mut self, bytes: u64) -> Self {
        self.max_entry_bytes = bytes;
        self
    }

    /// How many upstream calls may be under way at one time; beyond them, requests pass and nothing
    /// is kept. 1,024 unless said.
    ///
    /// # Example
    /// ```
    /// # use spark_cache::Cache;
    /// let builder = Cache::builder().max_flights(64);
    /// # let _ = builder;
    /// ```
    pub fn max_flights(mut self, flights: usize) -> Self {
        self.max_flights = flights;
        self
    }

    /// How many callers may wait for somebody else's call; beyond them, requests pass. 16,384 unless
    /// said.
    ///
    /// # Example
    /// ```
    /// # use spark_cache::Cache;
    /// let builder = Cache::builder().max_waiters(1_000);
    /// # let _ = builder;
    /// ```
    pub fn max_waiters(mut self, waiters: usize) -> Self {
        self.max_waiters = waiters;
        self
    }

    /// How much of the answers under way may be buffered, in all; beyond it, answers are handed
    /// through and not kept. 64 MiB unless said.
    ///
    /// # Example
    /// ```
    /// # use spark_cache::Cache;
    /// let builder = Cache::builder().max_inflight_bytes(16 << 20);
    /// # let _ = builder;
    /// ```
    pub fn max_inflight_bytes(mut self, bytes: u64) -> Self {
        self.max_inflight_bytes = bytes;
        self
    }

    /// How long an answer lives. Ten minutes unless said.
    ///
    /// # Example
    /// ```
    /// # use spark_cache::Cache;
    /// let builder = Cache::builder().ttl(std::time::Duration::from_secs(60));
    /// # let _ = builder;
    /// ```
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// For how long a question of which the answer may not be kept is let pass at once, so that
    /// those who ask it do not wait for each other. Five seconds unless said.
    ///
    /// # Example
    /// ```
    /// # use spark_cache::Cache;
    /// let builder = Cache::builder().hit_for_miss(std::time::Duration::from_secs(30));
    /// # let _ = builder;
    /// ```
    pub fn hit_for_miss(mut self, time: Duration) -> Self {
        self.hit_for_miss = time;
        self
    }

    /// What becomes of a call that nobody waits for any more. It is finished, unless said.
    ///
    /// # Example
    /// ```
    /// # use spark_cache::{Abandon, Cache};
    /// let builder = Cache::builder().when_abandoned(Abandon::Cancel);
    /// # let _ = builder;
    /// ```
    pub fn when_abandoned(mut self, abandon: Abandon) -> Self {
        self.abandon = abandon;
        self
    }

    /// The clock, so that a test can move it.
    ///
    /// # Example
    /// ```
    /// # use spark_cache::Cache;
    /// let builder = Cache::builder().clock(spark_core::Clock::system());
    /// # let _ = builder;
    /// ```
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Another store than [`MokaStore`]. It keeps its own bound; `max_bytes` is then only what an
    /// entry is held against.
    ///
    /// # Example
    /// ```
    /// # use spark_cache::{Cache, MokaStore};
    /// let builder = Cache::builder().store(MokaStore::new(64 << 20));
    /// # let _ = builder;
    /// ```
    pub fn store(mut self, store: impl Store) -> Self {
        self.store = Some(Box::new(store));
        self
    }

    /// Checks the settings and makes the cache.
    ///
    /// # Errors
    /// [`ConfigError`] names the setting and the mend.
    ///
    /// # Example
    /// ```
    /// # use spark_cache::Cache;
    /// assert!(Cache::builder().build().is_ok());
    /// assert!(Cache::builder().max_bytes(10).max_entry_bytes(11).build().is_err());
    /// ```
    pub fn build(mut self) -> Result<Cache, ConfigError> {
        for (field, zero) in [
            ("max_bytes", self.max_bytes == 0),
            ("max_flights", self.max_flights == 0),
            ("max_inflight_bytes", self.max_inflight_bytes == 0),
        ] {
            if zero {
                return Err(ConfigError::Zero { field });
            }
        }
        check_ttl(self.ttl)?;
        check_entry(self.max_entry_bytes, self.max_bytes)?;
        let store = self
            .store
            .take()
            .unwrap_or_else(|| Box::new(MokaStore::new(self.max_bytes)));
        Ok(Cache::new(self, store))
    }

    pub(crate) fn bounds(&self) -> Bounds {
        Bounds::new(self.max_flights, self.max_waiters, self.max_inflight_bytes)
    }
}

pub(crate) fn check_ttl(ttl: Duration) -> Result<(), ConfigError> {
    match ttl.is_zero() {
        true => Err(ConfigError::Zero { field: "ttl" }),
        false => Ok(()),
    }
}

pub(crate) fn check_entry(entry: u64, total: u64) -> Result<(), ConfigError> {
    match entry {
        0 => Err(ConfigError::Zero {
            field: "max_entry_bytes",
        }),
        _ if entry > MAX_ENTRY => Err(ConfigError::EntryTooLarge {
            entry,
            max: MAX_ENTRY,
        }),
        _ if entry > total => Err(ConfigError::EntryOverTotal { entry, total }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tuning;

    #[test]
    fn every_wrong_setting_is_named() {
        let message = |builder: Builder| builder.build().unwrap_err().to_string();
        assert!(message(Cache::builder().max_bytes(0)).contains("`max_bytes`"));
        assert!(message(Cache::builder().max_entry_bytes(0)).contains("`max_entry_bytes`"));
        assert!(
            message(Cache::builder().max_entry_bytes(65 << 20)).contains("at most `max_bytes`")
        );
        assert!(
            message(
                Cache::builder()
                    .max_bytes(u64::MAX)
                    .max_entry_bytes(1 << 32)
            )
            .contains("at most 4294967295")
        );
        assert!(message(Cache::builder().max_flights(0)).contains("`max_flights`"));
        assert!(message(Cache::builder().max_inflight_bytes(0)).contains("`max_inflight_bytes`"));
        assert!(message(Cache::builder().ttl(Duration::ZERO)).contains("`ttl`"));
    }

    #[test]
    fn a_bad_change_changes_nothing() {
        let cache = Cache::builder().build().unwrap();
        let minute = Duration::from_secs(60);
        let bad = Tuning::new().ttl(minute).max_entry_bytes(u64::MAX);
        assert!(cache.reconfigure(&bad).is_err());
        assert_eq!(cache.ttl(), Duration::from_secs(600));
        cache
            .reconfigure(&Tuning::new().ttl(minute).max_entry_bytes(1_000))
            .unwrap();
        assert_eq!(cache.ttl(), minute);
    }
}
