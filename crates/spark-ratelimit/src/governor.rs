//! The bounded table as a state store for governor.

use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;

use ::governor::nanos::Nanos;
use ::governor::state::StateStore;

use crate::store::{Entry, MAX_SLOTS, Mark, Table};
use crate::{ConfigError, Key};

/// State for governor's `RateLimiter` in fixed memory: 16 bytes a slot, taken at once, whatever keys
/// come. Nothing has to call `retain_recent`.
///
/// governor's own stores keep every key that they have ever seen until somebody clears them away, so
/// that a flood of addresses takes all memory. Here the least indebted key makes room, as described
/// at [`Limiter`](crate::Limiter): who is exhausted stays exhausted.
///
/// # Example
/// ```
/// use governor::clock::MonotonicClock;
/// use governor::{Quota, RateLimiter, middleware::NoOpMiddleware};
/// use spark_ratelimit::BoundedStateStore;
/// use std::{net::IpAddr, num::NonZeroU32};
///
/// let quota = Quota::per_second(NonZeroU32::new(1).unwrap());
/// let store = BoundedStateStore::<IpAddr>::new(100_000)?;
/// let limiter: RateLimiter<_, _, _, NoOpMiddleware<std::time::Instant>> =
///     RateLimiter::new(quota, store, MonotonicClock);
/// let ip = IpAddr::from([192, 0, 2, 1]);
/// assert!(limiter.check_key(&ip).is_ok());
/// assert!(limiter.check_key(&ip).is_err());
/// # Ok::<(), spark_ratelimit::ConfigError>(())
/// ```
pub struct BoundedStateStore<K> {
    table: Table,
    key: PhantomData<fn(&K)>,
}

impl<K: Hash> BoundedStateStore<K> {
    /// A store of at least so many slots, 16 bytes each. Take two for each key that is in debt at a
    /// time.
    ///
    /// # Errors
    /// When `slots` is zero, or more than 2²⁸.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::BoundedStateStore;
    /// let store = BoundedStateStore::<String>::new(100_000)?; // 1.6 MB
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    pub fn new(slots: usize) -> Result<Self, ConfigError> {
        if !(1..=MAX_SLOTS).contains(&slots) {
            return Err(ConfigError::Capacity {
                got: slots,
                max: MAX_SLOTS,
            });
        }
        Ok(Self {
            table: Table::new(slots),
            key: PhantomData,
        })
    }
}

impl<K: Hash> StateStore for BoundedStateStore<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        // governor does not say what time it is. Nothing is in the past at 0, so the least arrival
        // time goes first, which is the same; and a key may sit in its second set for longer.
        const NOW: u64 = 0;
        let mut set = self.table.lock(Key::of(key), || NOW, u64::MAX);
        let before = set.get().filter(|entry| entry.tat > 0);
        let (outcome, after) = f(before.map(|entry| Nanos::from(entry.tat)))?;
        let entry = Entry {
            tat: after.into(),
            mark: Mark::default(),
        };
        set.put(entry);
        Ok(outcome)
    }
}

impl<K> fmt::Debug for BoundedStateStore<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundedStateStore")
            .field("capacity", &self.table.capacity())
            .finish_non_exhaustive()
    }
}
