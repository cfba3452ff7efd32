//! How many at once: work that is under way, by key.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use spark_core::Name;

use crate::ledger::Ledger;
use crate::{ConfigError, Key};

/// A named limit of how much one caller may have under way at once, with others for named tiers.
///
/// # Example
/// ```
/// use spark_ratelimit::Concurrency;
/// let streams = Concurrency::new("streams", 4)?.tier("pro", 32)?;
/// # Ok::<(), spark_ratelimit::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Concurrency {
    name: Name,
    most: u32,
    tiers: Vec<(Name, u32)>,
}

impl Concurrency {
    /// A limit of this name: `most` at once for those whose tier is not named.
    ///
    /// # Errors
    /// When `most` is 0, or when `name` is not 1 to 64 characters of `A-Z a-z 0-9 . _ : - *`.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Concurrency, ConfigError};
    /// assert_eq!(Concurrency::new("streams", 0), Err(ConfigError::ZeroConcurrency));
    /// ```
    pub fn new(name: &str, most: u32) -> Result<Self, ConfigError> {
        Ok(Self {
            name: usable(name, "the name of a concurrency limit")?,
            most: positive(most)?,
            tiers: Vec::new(),
        })
    }

    /// Gives the callers of a tier a limit of their own; given again, it replaces the first.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::Concurrency;
    /// let jobs = Concurrency::new("jobs", 1)?.tier("pro", 8)?.tier("team", 64)?;
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    pub fn tier(mut self, name: &str, most: u32) -> Result<Self, ConfigError> {
        let tier = usable(name, "the name of a tier of a concurrency limit")?;
        let most = positive(most)?;
        match self.tiers.binary_search_by(|(it, _)| it.cmp(&tier)) {
            Ok(at) => self.tiers[at].1 = most,
            Err(at) => self.tiers.insert(at, (tier, most)),
        }
        Ok(self)
    }

    /// The name.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::Concurrency;
    /// assert_eq!(Concurrency::new("streams", 4)?.name(), "streams");
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    pub(crate) fn policy_name(&self) -> &Name {
        &self.name
    }

    /// How much the callers of a tier may have under way.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::Concurrency;
    /// let streams = Concurrency::new("streams", 4)?.tier("pro", 32)?;
    /// assert_eq!((streams.most(None), streams.most(Some("pro"))), (4, 32));
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    pub fn most(&self, tier: Option<&str>) -> u32 {
        let Some(tier) = tier else { return self.most };
        self.tiers
            .binary_search_by(|(name, _)| name.as_str().cmp(tier))
            .map_or(self.most, |at| self.tiers[at].1)
    }
}

fn usable(name: &str, what: &str) -> Result<Name, ConfigError> {
    Name::new(name).map_err(|source| ConfigError::Name {
        what: what.to_owned(),
        source,
    })
}

fn positive(most: u32) -> Result<u32, ConfigError> {
    if most == 0 {
        return Err(ConfigError::ZeroConcurrency);
    }
    Ok(most)
}

/// Limits how much each key has under way at once.
///
/// Cloning is cheap; clones share everything. Memory is one entry of some 24 bytes for each key
/// that has something under way, so it is bounded by whatever bounds the work itself.
///
/// # Example
/// ```
/// use spark_ratelimit::{Concurrency, ConcurrencyLimiter, Key};
/// let streams = ConcurrencyLimiter::new(Concurrency::new("streams", 1)?);
///
/// let first = streams.acquire(&Key::of("ann"), None).expect("nothing is under way");
/// assert!(streams.acquire(&Key::of("ann"), None).is_err());
/// assert!(streams.acquire(&Key::of("bob"), None).is_ok());
/// drop(first);
/// assert!(streams.acquire(&Key::of("ann"), None).is_ok());
/// # Ok::<(), spark_ratelimit::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct ConcurrencyLimiter {
    shared: Arc<Shared>,
}

struct Shared {
    id: u64,
    limit: ArcSwap<Concurrency>,
    ledger: Ledger,
}

/// One under way, until it is dropped.
///
/// # Example
/// ```
/// # use spark_ratelimit::{Concurrency, ConcurrencyLimiter, InFlight, Key};
/// /// Held as long as the work takes.
/// struct Job(InFlight);
/// let limiter = ConcurrencyLimiter::new(Concurrency::new("jobs", 2)?);
/// let job = Job(limiter.acquire(&Key::of("ann"), None).unwrap());
/// assert_eq!(limiter.in_flight(&Key::of("ann")), 1);
/// # Ok::<(), spark_ratelimit::ConfigError>(())
/// ```
#[must_use = "dropped at once, it limits nothing"]
pub struct InFlight {
    shared: Arc<Shared>,
    key: Key,
}

/// Too many are under way already.
///
/// # Example
/// ```
/// # use spark_ratelimit::{Concurrency, ConcurrencyLimiter, Key};
/// let limiter = ConcurrencyLimiter::new(Concurrency::new("jobs", 1)?);
/// let job = limiter.acquire(&Key::shared(), None);
/// let full = limiter.acquire(&Key::shared(), None).unwrap_err();
/// assert_eq!(full.to_string(), "1 of 1 under way: wait until one has ended");
/// # Ok::<(), spark_ratelimit::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{in_flight} of {most} under way: wait until one has ended")]
#[non_exhaustive]
pub struct AtCapacity {
    /// How many the key has under way. More than `most` after the limit was lowered.
    pub in_flight: u32,
    /// How many it may have.
    pub most: u32,
}

impl ConcurrencyLimiter {
    /// A limiter by this limit.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Concurrency, ConcurrencyLimiter};
    /// let limiter = ConcurrencyLimiter::new(Concurrency::new("streams", 4)?);
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    pub fn new(limit: Concurrency) -> Self {
        // Half of all numbers, so that none is that of a rate limiter.
        static NEXT: AtomicU64 = AtomicU64::new(1 << 63);
        Self {
            shared: Arc::new(Shared {
                id: NEXT.fetch_add(1, Ordering::Relaxed),
                limit: ArcSwap::from_pointee(limit),
                ledger: Ledger::new(),
            }),
        }
    }

    /// Told apart from all limiters that were ever made in this process.
    pub(crate) fn id(&self) -> u64 {
        self.shared.id
    }

    /// One more under way.
    ///
    /// # Errors
    /// When the key has as many under way as its tier may.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Concurrency, ConcurrencyLimiter, Key};
    /// let limiter = ConcurrencyLimiter::new(Concurrency::new("streams", 1)?.tier("pro", 2)?);
    /// let first = limiter.acquire(&Key::of("ann"), Some("pro"));
    /// let second = limiter.acquire(&Key::of("ann"), Some("pro"));
    /// assert!(first.is_ok() && second.is_ok());
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    pub fn acquire(&self, key: &Key, tier: Option<&str>) -> Result<InFlight, AtCapacity> {
        let most = self.shared.limit.load().most(tier);
        match self.shared.ledger.open(key.bits(), most) {
            Ok(()) => Ok(InFlight {
                shared: Arc::clone(&self.shared),
                key: *key,
            }),
            Err(in_flight) => Err(AtCapacity { in_flight, most }),
        }
    }

    /// Replaces the limit. What is under way stays under way; a key that has more than the new
    /// limit begins nothing until it has less.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Concurrency, ConcurrencyLimiter, Key};
    /// let limiter = ConcurrencyLimiter::new(Concurrency::new("streams", 1)?);
    /// let first = limiter.acquire(&Key::shared(), None);
    /// limiter.reconfigure(Concurrency::new("streams", 2)?);
    /// assert!(limiter.acquire(&Key::shared(), None).is_ok());
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    pub fn reconfigure(&self, limit: Concurrency) {
        self.shared.limit.store(Arc::new(limit));
    }

    /// The limit as it is now.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Concurrency, ConcurrencyLimiter};
    /// let limiter = ConcurrencyLimiter::new(Concurrency::new("streams", 4)?);
    /// assert_eq!(limiter.limit().most(None), 4);
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    pub fn limit(&self) -> Arc<Concurrency> {
        self.shared.limit.load_full()
    }

    /// How much a key has under way.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Concurrency, ConcurrencyLimiter, Key};
    /// let limiter = ConcurrencyLimiter::new(Concurrency::new("streams", 4)?);
    /// assert_eq!(limiter.in_flight(&Key::of("ann")), 0);
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    pub fn in_flight(&self, key: &Key) -> u32 {
        self.shared.ledger.count(key.bits())
    }

    /// How many keys have anything under way.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Concurrency, ConcurrencyLimiter, Key};
    /// let limiter = ConcurrencyLimiter::new(Concurrency::new("streams", 4)?);
    /// let one = limiter.acquire(&Key::of("ann"), None);
    /// assert_eq!(limiter.keys(), 1);
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    pub fn keys(&self) -> usize {
        self.shared.ledger.keys()
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.shared.ledger.close(self.key.bits());
    }
}

impl fmt::Debug for ConcurrencyLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ConcurrencyLimiter")
            .field(&self.shared.limit.load())
            .finish()
    }
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InFlight").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lowered_limit_waits_until_enough_has_ended() {
        let limiter = ConcurrencyLimiter::new(Concurrency::new("c", 3).unwrap());
        let key = Key::of("a");
        let mut held: Vec<InFlight> = (0..3)
            .map(|_| limiter.acquire(&key, None).unwrap())
            .collect();
        limiter.reconfigure(Concurrency::new("c", 1).unwrap());
        let full = |in_flight| AtCapacity { in_flight, most: 1 };
        for left in (1..=3).rev() {
            assert_eq!(limiter.acquire(&key, None).unwrap_err(), full(left));
            held.pop();
        }
        assert_eq!(limiter.keys(), 0);
        assert!(limiter.acquire(&key, None).is_ok());
    }

    #[test]
    fn threads_never_have_more_under_way_than_the_limit() {
        use std::sync::atomic::AtomicU32;
        let limiter = ConcurrencyLimiter::new(Concurrency::new("c", 2).unwrap());
        let now = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        if let Ok(one) = limiter.acquire(&Key::shared(), None) {
                            assert!(now.fetch_add(1, Ordering::SeqCst) < 2);
                            now.fetch_sub(1, Ordering::SeqCst);
                            drop(one);
                        }
                    }
                });
            }
        });
        assert_eq!(limiter.keys(), 0);
    }
}
