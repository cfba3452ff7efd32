//! Where the answers lie.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use moka::notification::RemovalCause;

use crate::{CacheKey, Entry};

/// The heaviest entry that a store must be able to weigh: what a `u32` holds.
pub(crate) const MAX_ENTRY: u64 = u32::MAX as u64;

/// Where the answers lie: a bounded map, and nothing else. Whether an entry is still fresh is the
/// [`Cache`](crate::Cache)'s to say, by its own clock.
///
/// A store may forget any entry at any time. It must never hold more than its bound for long, nor
/// block for long: it is called on the runtime's threads.
///
/// # Example
/// ```
/// use spark_cache::{Cache, MokaStore};
/// let cache = Cache::builder().store(MokaStore::new(1 << 20)).max_entry_bytes(1 << 10).build()?;
/// # let _ = cache;
/// # Ok::<(), spark_cache::ConfigError>(())
/// ```
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// The entry, if it is there.
    fn get(&self, key: &CacheKey) -> Option<Arc<Entry>>;
    /// Keeps an entry in place of the one that was there.
    fn put(&self, key: CacheKey, entry: Arc<Entry>);
    /// Forgets an entry.
    fn remove(&self, key: &CacheKey);
    /// Forgets every entry of which the key answers to `which`.
    fn remove_if(&self, which: &dyn Fn(&CacheKey) -> bool);
    /// Forgets everything.
    fn clear(&self);
    /// How full it is.
    fn usage(&self) -> StoreUsage;
    /// Does what was put off, such as evictions.
    fn run_pending(&self) {}
}

/// How full a store is. Counts may lag behind by what [`Store::run_pending`] would do.
///
/// # Example
/// ```
/// use spark_cache::{MokaStore, Store};
/// assert_eq!(MokaStore::new(1 << 20).usage().entries, 0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreUsage {
    /// Entries, expired ones that were not yet met included.
    pub entries: u64,
    /// Their weight.
    pub bytes: u64,
    /// How many were put out for want of room, since the start.
    pub evictions: u64,
}

/// A store in memory, on [moka](https://docs.rs/moka): bounded by weight, and it prefers what is
/// asked for often (TinyLFU), so that a flood of questions asked once does not wash out the rest.
///
/// # Example
/// ```
/// use spark_cache::{Cache, MokaStore};
/// let store = MokaStore::new(64 << 20);
/// let cache = Cache::builder().store(store).build()?;
/// # let _ = cache;
/// # Ok::<(), spark_cache::ConfigError>(())
/// ```
pub struct MokaStore {
    entries: moka::sync::Cache<CacheKey, Arc<Entry>>,
    evictions: Arc<AtomicU64>,
}

impl MokaStore {
    /// A store that holds entries of up to `max_bytes` in weight.
    ///
    /// # Example
    /// ```
    /// let store = spark_cache::MokaStore::new(64 << 20);
    /// # let _ = store;
    /// ```
    pub fn new(max_bytes: u64) -> Self {
        let evictions = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&evictions);
        let entries = moka::sync::Cache::builder()
            .max_capacity(max_bytes)
            .weigher(|_, entry: &Arc<Entry>| u32::try_from(entry.weight()).unwrap_or(u32::MAX))
            .eviction_listener(move |_, _, cause| {
                if cause == RemovalCause::Size {
                    counted.fetch_add(1, Ordering::Relaxed);
                    crate::metrics::evicted();
                }
            })
            .build();
        Self { entries, evictions }
    }
}

impl Store for MokaStore {
    fn get(&self, key: &CacheKey) -> Option<Arc<Entry>> {
        self.entries.get(key)
    }

    fn put(&self, key: CacheKey, entry: Arc<Entry>) {
        self.entries.insert(key, entry);
    }

    fn remove(&self, key: &CacheKey) {
        self.entries.invalidate(key);
    }

    fn remove_if(&self, which: &dyn Fn(&CacheKey) -> bool) {
        for (key, _) in &self.entries {
            if which(&key) {
                self.entries.invalidate(&*key);
            }
        }
    }

    fn clear(&self) {
        self.entries.invalidate_all();
    }

    fn usage(&self) -> StoreUsage {
        StoreUsage {
            entries: self.entries.entry_count(),
            bytes: self.entries.weighted_size(),
            evictions: self.evictions.load(Ordering::Relaxed),
        }
    }

    fn run_pending(&self) {
        self.entries.run_pending_tasks();
    }
}

impl fmt::Debug for MokaStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MokaStore")
            .field("usage", &self.usage())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Answer, Scope};
    use spark_core::Instant;

    fn key(i: usize) -> CacheKey {
        CacheKey::builder(Scope::Master)
            .field("i", &i.to_be_bytes())
            .build()
    }

    fn entry(bytes: usize) -> Arc<Entry> {
        let answer = Answer::new(vec![0; bytes]);
        Arc::new(answer.keep(Instant::from_nanos(0), Duration::from_secs(1)))
    }

    #[test]
    fn weight_is_bounded_and_evictions_are_counted() {
        let store = MokaStore::new(10_000);
        for i in 0..1_000 {
            store.put(key(i), entry(500));
            store.run_pending();
            let usage = store.usage();
            assert!(usage.bytes <= 10_000, "{usage:?}");
        }
        let usage = store.usage();
        assert!((5..=20).contains(&usage.entries), "{usage:?}");
        assert_eq!(usage.entries + usage.evictions, 1_000, "{usage:?}");
    }

    #[test]
    fn weight_is_bounded_when_keys_come_again() {
        let store = MokaStore::new(2_048);
        for round in 0..200 {
            for i in 0..10 {
                store.put(key(i), entry(700 + round));
            }
        }
        store.run_pending();
        assert!(store.usage().bytes <= 2_048, "{store:?}");
    }

    #[test]
    fn what_was_cleared_is_gone() {
        let store = MokaStore::new(1 << 20);
        (0..10).for_each(|i| store.put(key(i), entry(1)));
        store.remove(&key(0));
        store.remove_if(&|k| *k == key(1));
        assert!(store.get(&key(0)).is_none() && store.get(&key(1)).is_none());
        assert!(store.get(&key(2)).is_some());
        store.clear();
        assert!((0..10).all(|i| store.get(&key(i)).is_none()));
        store.run_pending();
        assert_eq!(store.usage(), StoreUsage::default());
    }
}
