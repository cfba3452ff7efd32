//! What a cache holds and has done.

/// How a request was answered. [`CacheLayer`](crate::CacheLayer) leaves it in the extensions of the
/// response, for whoever counts further out.
///
/// # Example
/// ```
/// use spark_cache::CacheResult;
/// let response = http::Response::new(());
/// let hit = response.extensions().get::<CacheResult>() == Some(&CacheResult::Hit);
/// # assert!(!hit);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CacheResult {
    /// From the store.
    Hit,
    /// From upstream.
    Miss,
    /// From an upstream call that another request had begun.
    Collapsed,
    /// From upstream, and the cache took no part in it.
    Bypass,
}

impl CacheResult {
    #[cfg(feature = "metrics")]
    pub(crate) const ALL: [Self; 4] = [Self::Hit, Self::Miss, Self::Collapsed, Self::Bypass];

    /// The label that it has in metrics.
    ///
    /// # Example
    /// ```
    /// assert_eq!(spark_cache::CacheResult::Hit.as_str(), "hit");
    /// ```
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Collapsed => "collapsed",
            Self::Bypass => "bypass",
        }
    }
}

/// What a cache holds and has done.
///
/// # Example
/// ```
/// let stats = spark_cache::Cache::builder().build()?.stats();
/// assert_eq!((stats.entries, stats.hits, stats.flights), (0, 0, 0));
/// # Ok::<(), spark_cache::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Entries that are kept, expired ones that were not yet met included.
    pub entries: u64,
    /// Their weight.
    pub bytes: u64,
    /// Entries that were put out for want of room, since the start.
    pub evictions: u64,
    /// Requests that were answered from the store.
    pub hits: u64,
    /// Requests that were not.
    pub misses: u64,
    /// Requests that were answered by another's upstream call.
    pub collapsed: u64,
    /// Requests that the cache had no part in.
    pub bypassed: u64,
    /// Answers that were not kept.
    pub rejected: u64,
    /// Upstream calls under way.
    pub flights: usize,
    /// Callers that wait for, or read, another's call.
    pub waiters: usize,
    /// What is buffered of the answers under way.
    pub inflight_bytes: u64,
}
