//! What can go wrong, and the mend.

use std::error::Error;
use std::sync::Arc;

use http::HeaderName;

/// A setting that cannot be kept.
///
/// # Example
/// ```
/// let error = spark_cache::Cache::builder().max_bytes(0).build().unwrap_err();
/// assert_eq!(error.to_string(), "`max_bytes` is 0: it must be at least 1");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A bound or a duration is nought.
    #[error("`{field}` is 0: it must be at least 1")]
    Zero {
        /// The setting.
        field: &'static str,
    },
    /// One answer could not fit.
    #[error("`max_entry_bytes` is {entry}: it must be at most `max_bytes`, which is {total}")]
    EntryOverTotal {
        /// `max_entry_bytes`.
        entry: u64,
        /// `max_bytes`.
        total: u64,
    },
    /// One answer could not be weighed.
    #[error("`max_entry_bytes` is {entry}: it must be at most {max}")]
    EntryTooLarge {
        /// `max_entry_bytes`.
        entry: u64,
        /// The most that can be weighed.
        max: u64,
    },
    /// Not the path of a route.
    #[error("`path` {path:?} must begin with `/` and hold neither `?` nor `#`")]
    Path {
        /// The path.
        path: String,
    },
    /// No route is opted in.
    #[error("`path` is never set: name the routes of which the answers may be kept")]
    NoPath,
    /// A header that must not be replayed to somebody else.
    #[error("`keep_header` {name}: this header belongs to one exchange and is never replayed")]
    Header {
        /// The header.
        name: HeaderName,
    },
}

/// Why the body of an answer ended before its end, for whoever was reading along.
///
/// # Example
/// ```
/// use spark_cache::BodyError;
/// assert_eq!(BodyError::Panicked.to_string(), "the upstream service panicked");
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// The upstream body failed. Its error is the source.
    #[error("the upstream body failed")]
    Upstream(#[source] Arc<dyn Error + Send + Sync>),
    /// The upstream service or its body panicked.
    #[error("the upstream service panicked")]
    Panicked,
    /// The task that read upstream was dropped: the runtime shuts down.
    #[error("the upstream call was dropped")]
    Aborted,
    /// The answer outgrew the bound on what is buffered, and this reader fell that far behind
    /// another one.
    #[error("this reader fell too far behind")]
    Lagged,
}

/// Why [`Cache::get_or_fetch`](crate::Cache::get_or_fetch) has no answer.
///
/// # Example
/// ```
/// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
/// # runtime.block_on(async {
/// use spark_cache::{Cache, CacheKey, FetchError, Scope};
/// let cache = Cache::builder().build().unwrap();
/// let key = CacheKey::builder(Scope::Master).build();
/// let error = cache.get_or_fetch(key, || async { Err("no route".into()) }).await.unwrap_err();
/// assert!(matches!(error, FetchError::Failed(_)));
/// # });
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The fetch failed. Everyone who waited for it is told the same.
    #[error("the fetch failed")]
    Failed(#[source] Arc<dyn Error + Send + Sync>),
    /// The fetch panicked.
    #[error("the fetch panicked")]
    Panicked,
    /// The task that fetched was dropped: the runtime shuts down, or there is none.
    #[error("the fetch was dropped")]
    Aborted,
}
