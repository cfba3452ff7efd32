//! The cache, with no HTTP service in it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use spark_core::{Clock, Miswired};

use crate::flight::{Bound, Flights, Joined, Ticket};
use crate::passes::Passes;
use crate::store::Store;
use crate::{
    Abandon, Answer, Builder, CacheKey, CacheResult, ConfigError, Entry, Freshness, Scope, Stats,
    Tuning, metrics,
};

/// A bounded store of answers in which equal questions are asked once. Cloning it shares it.
///
/// # Example
/// ```
/// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
/// # runtime.block_on(async {
/// use spark_cache::{Answer, Cache, CacheKey, Scope};
///
/// let cache = Cache::builder().max_bytes(1 << 20).max_entry_bytes(1 << 16).build().unwrap();
/// let key = CacheKey::builder(Scope::Tenant("acme".parse().unwrap()))
///     .field("question", b"how far is the moon?")
///     .build();
///
/// let ask = || cache.get_or_fetch(key, || async { Ok(Answer::new("384,400 km")) });
/// assert_eq!(ask().await.unwrap().frames(), ["384,400 km"]);
/// assert_eq!(ask().await.unwrap().frames(), ["384,400 km"], "from the store");
/// assert_eq!(cache.stats().hits, 1);
/// # });
/// ```
#[derive(Clone)]
pub struct Cache(Arc<Inner>);

struct Inner {
    store: Box<dyn Store>,
    flights: Arc<Flights>,
    passes: Passes,
    clock: Clock,
    ttl_nanos: AtomicU64,
    max_entry_bytes: AtomicU64,
    max_bytes: u64,
    hit_for_miss: Duration,
    abandon: Abandon,
    results: [AtomicU64; 4],
    rejected: AtomicU64,
    handles: metrics::Handles,
    no_runtime: Miswired,
}

/// What the store had.
pub(crate) enum Found {
    Fresh {
        entry: Arc<Entry>,
        age: Duration,
        left: Duration,
    },
    /// Fresh, and the request wants it fresher.
    Refused,
    Stale,
    Nothing,
}

impl Cache {
    /// Starts a cache.
    ///
    /// # Example
    /// ```
    /// let cache = spark_cache::Cache::builder().build()?;
    /// # let _ = cache;
    /// # Ok::<(), spark_cache::ConfigError>(())
    /// ```
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn new(builder: Builder, store: Box<dyn Store>) -> Self {
        Self(Arc::new(Inner {
            store,
            flights: Arc::new(Flights::new(builder.bounds())),
            passes: Passes::default(),
            ttl_nanos: AtomicU64::new(nanos(builder.ttl)),
            max_entry_bytes: AtomicU64::new(builder.max_entry_bytes),
            max_bytes: builder.max_bytes,
            hit_for_miss: builder.hit_for_miss,
            abandon: builder.abandon,
            clock: builder.clock,
            results: Default::default(),
            rejected: AtomicU64::new(0),
            handles: metrics::Handles::default(),
            no_runtime: Miswired::new("cache"),
        }))
    }

    /// The entry for `key`, if there is one and it is fresh.
    ///
    /// # Example
    /// ```
    /// # use spark_cache::{Answer, Cache, CacheKey, Scope};
    /// # let cache = Cache::builder().build()?;
    /// # let key = CacheKey::builder(Scope::Master).build();
    /// assert!(cache.get(&key).is_none());
    /// cache.put(key, Answer::new("hello"));
    /// assert_eq!(cache.get(&key).unwrap().frames(), ["hello"]);
    /// # Ok::<(), spark_cache::ConfigError>(())
    /// ```
    pub fn get(&self, key: &CacheKey) -> Option<Arc<Entry>> {
        match self.lookup(key, &Freshness::default()) {
            Found::Fresh { entry, .. } => {
                self.count(CacheResult::Hit);
                Some(entry)
            }
            Found::Refused | Found::Stale | Found::Nothing => {
                self.count(CacheResult::Miss);
                None
            }
        }
    }

    /// Keeps an answer; false when it is heavier than one may be.
    ///
    /// # Example
    /// ```
    /// # use spark_cache::{Answer, Cache, CacheKey, Scope};
    /// # let cache = Cache::builder().max_entry_bytes(1_000).build()?;
    /// # let key = CacheKey::builder(Scope::Master).build();
    /// assert!(cache.put(key, Answer::new("hello")));
    /// assert!(!cache.put(key, Answer::new(vec![0; 2_000])));
    /// # Ok::<(), spark_cache::ConfigError>(())
    /// ```
    pub fn put(&self, key: CacheKey, answer: Answer) -> bool {
        let entry = Arc::new(answer.keep(self.0.clock.now(), self.ttl()));
        let fits = self.fits(&entry);
        if fits {
            self.0.store.put(key, entry);
            self.settle();
        } else {
            self.reject("too_large");
        }
        fits
    }

    /// Forgets the entry for `key`. A call for it that is under way serves those who wait for it, and
    /// is not kept.
    ///
    /// # Example
    /// ```
    /// # use spark_cache::{Answer, Cache, CacheKey, Scope};
    /// # let cache = Cache::builder().build()?;
    /// # let key = CacheKey::builder(Scope::Master).build();
    /// cache.put(key, Answer::new("hello"));
    /// cache.invalidate(&key);
    /// assert!(cache.get(&key).is_none());
    /// # Ok::<(), spark_cache::ConfigError>(())
    /// ```
    pub fn invalidate(&self, key: &CacheKey) {
        self.0.flights.detach_one(key);
        self.0.store.remove(key);
        self.settle();
    }

    /// Forgets everything of one scope, calls under way included. It walks the whole store: an
    /// operator's act, not a request's.
    ///
    /// # Example
    /// ```
    /// # use spark_cache::{Answer, Cache, CacheKey, Scope};
    /// # let cache = Cache::builder().build()?;
    /// let acme = Scope::Tenant("acme".parse().unwrap());
    /// let key = CacheKey::builder(acme.clone()).build();
    /// cache.put(key, Answer::new("hello"));
    /// cache.purge_scope(&acme);
    /// assert!(cache.get(&key).is_none());
    /// # Ok::<(), spark_cache::ConfigError>(())
    /// ```
    pub fn purge_scope(&self, scope: &Scope) {
        let tag = scope.tag();
        self.0.flights.detach(|key| key.has(tag));
        self.0.store.remove_if(&|key| key.has(tag));
        self.settle();
    }

    /// Forgets everything, calls under way included.
    ///
    /// # Example
    /// ```
    /// # let cache = spark_cache::Cache::builder().build()?;
    /// cache.purge_all();
    /// assert_eq!(cache.stats().entries, 0);
    /// # Ok::<(), spark_cache::ConfigError>(())
    /// ```
    pub fn purge_all(&self) {
        self.0.flights.detach(|_| true);
        self.0.store.clear();
        self.settle();
    }

    /// Changes what may be changed while the cache is in use; all of it, or nothing.
    ///
    /// # Errors
    /// [`ConfigError`] names the setting and the mend.
    ///
    /// # Example
    /// ```
    /// # use spark_cache::{Cache, Tuning};
    /// # let cache = Cache::builder().build()?;
    /// cache.reconfigure(&Tuning::new().ttl(std::time::Duration::from_secs(60)))?;
    /// # Ok::<(), spark_cache::ConfigError>(())
    /// ```
    pub fn reconfigure(&self, tuning: &Tuning) -> Result<(), ConfigError> {
        tuning.check(self.0.max_bytes)?;
        if let Some(ttl) = tuning.ttl {
            self.0.ttl_nanos.store(nanos(ttl), Ordering::Relaxed);
        }
        if let Some(bytes) = tuning.max_entry_bytes {
            self.0.max_entry_bytes.store(bytes, Ordering::Relaxed);
        }
        Ok(())
    }

    /// How long a new answer lives.
    ///
    /// # Example
    /// ```
    /// # let cache = spark_cache::Cache::builder().build()?;
    /// assert_eq!(cache.ttl().as_secs(), 600);
    /// # Ok::<(), spark_cache::ConfigError>(())
    /// ```
    pub fn ttl(&self) -> Duration {
        Duration::from_nanos(self.0.ttl_nanos.load(Ordering::Relaxed))
    }

    /// What it holds and has done. It waits for nothing.
    ///
    /// # Example
    /// ```
    /// # let cache = spark_cache::Cache::builder().build()?;
    /// assert_eq!(cache.stats().bytes, 0);
    /// # Ok::<(), spark_cache::ConfigError>(())
    /// ```
    pub fn stats(&self) -> Stats {
        let usage = self.0.store.usage();
        let bounds = &self.0.flights.bounds;
        let of = |result: CacheResult| self.0.results[result as usize].load(Ordering::Relaxed);
        Stats {
            entries: usage.entries,
            bytes: usage.bytes,
            evictions: usage.evictions,
            hits: of(CacheResult::Hit),
            misses: of(CacheResult::Miss),
            collapsed: of(CacheResult::Collapsed),
            bypassed: of(CacheResult::Bypass),
            rejected: self.0.rejected.load(Ordering::Relaxed),
            flights: bounds.flights(),
            waiters: bounds.waiters(),
            inflight_bytes: bounds.bytes(),
        }
    }

    /// Does what the store put off, such as evictions, so that [`stats`](Self::stats) is exact. The
    /// cache does so itself whenever it stores or forgets something.
    ///
    /// # Example
    /// ```
    /// # let cache = spark_cache::Cache::builder().build()?;
    /// cache.run_pending();
    /// # Ok::<(), spark_cache::ConfigError>(())
    /// ```
    pub fn run_pending(&self) {
        self.settle();
    }

    pub(crate) fn lookup(&self, key: &CacheKey, freshness: &Freshness) -> Found {
        let Some(entry) = self.0.store.get(key) else {
            return Found::Nothing;
        };
        let age = entry.age(self.0.clock.now());
        let left = entry.ttl().min(self.ttl()).saturating_sub(age);
        if left.is_zero() {
            Found::Stale
        } else if freshness.accepts(age, left) {
            Found::Fresh { entry, age, left }
        } else {
            Found::Refused
        }
    }

    pub(crate) fn join(&self, key: CacheKey, follow: bool) -> Joined {
        let max_bytes = self.max_entry_bytes();
        self.0.flights.join(key, follow, max_bytes)
    }

    /// Stores what a flight brought; false when it is too heavy, or was invalidated meanwhile.
    pub(crate) fn land(&self, ticket: &Ticket, entry: &Arc<Entry>) -> bool {
        if !self.fits(entry) {
            self.reject("too_large");
            ticket.retire();
            return false;
        }
        let mut stored = false;
        ticket.land(|key| {
            self.0.store.put(key, Arc::clone(entry));
            stored = true;
        });
        match stored {
            true => self.settle(),
            false => self.reject("invalidated"),
        }
        stored
    }

    pub(crate) fn count(&self, result: CacheResult) {
        self.0.results[result as usize].fetch_add(1, Ordering::Relaxed);
        self.0.handles.count(result);
    }

    pub(crate) fn reject(&self, reason: &'static str) {
        self.0.rejected.fetch_add(1, Ordering::Relaxed);
        metrics::rejected(reason);
    }

    pub(crate) fn overflow(&self, bound: Bound) {
        metrics::overflowed(bound.as_str());
    }

    pub(crate) fn pass(&self, key: CacheKey) {
        self.0
            .passes
            .mark(key, self.0.clock.now(), self.0.hit_for_miss);
    }

    pub(crate) fn passes(&self, key: &CacheKey) -> bool {
        self.0.passes.contains(key, self.0.clock.now())
    }

    pub(crate) fn now(&self) -> spark_core::Instant {
        self.0.clock.now()
    }

    pub(crate) fn cancels(&self) -> bool {
        self.0.abandon == Abandon::Cancel
    }

    pub(crate) fn max_entry_bytes(&self) -> u64 {
        self.0.max_entry_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn no_runtime(&self) {
        self.0
            .no_runtime
            .report("the cache layer runs outside of a tokio runtime: nothing is kept");
    }

    /// What tells this cache from another.
    pub(crate) fn id(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    fn fits(&self, entry: &Entry) -> bool {
        entry.weight() <= self.max_entry_bytes()
    }

    fn settle(&self) {
        self.0.store.run_pending();
        metrics::usage(self.0.store.usage());
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("ttl", &self.ttl())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
