//! The layer.

use std::fmt;
use std::sync::Arc;

use tower_layer::Layer;

use crate::{Cache, CacheService, Policy};

/// Puts a [`Cache`] in front of a service. Cloning it, or applying it twice, shares the cache.
///
/// # Example
/// ```
/// use spark_cache::{Cache, CacheLayer, LlmPolicy};
/// let cache = Cache::builder().build()?;
/// let policy = LlmPolicy::builder().path("/v1/chat/completions").build()?;
/// let layer = CacheLayer::new(cache, policy);
/// # let _ = layer;
/// # Ok::<(), spark_cache::ConfigError>(())
/// ```
pub struct CacheLayer<P> {
    pub(crate) cache: Cache,
    pub(crate) policy: Arc<P>,
}

impl<P: Policy> CacheLayer<P> {
    /// Makes the layer. Keep a clone of the cache, and of the policy, to change them while it is in
    /// use.
    ///
    /// # Example
    /// ```
    /// # use spark_cache::{Cache, CacheLayer, LlmPolicy, When};
    /// # let cache = Cache::builder().build()?;
    /// # let policy = LlmPolicy::builder().path("/v1").build()?;
    /// let layer = CacheLayer::new(cache.clone(), policy.clone());
    /// policy.set_when(When::Always);
    /// cache.purge_all();
    /// # let _ = layer;
    /// # Ok::<(), spark_cache::ConfigError>(())
    /// ```
    pub fn new(cache: Cache, policy: P) -> Self {
        Self {
            cache,
            policy: Arc::new(policy),
        }
    }
}

impl<P> Clone for CacheLayer<P> {
    fn clone(&self) -> Self {
        Self {
            cache: self.cache.clone(),
            policy: Arc::clone(&self.policy),
        }
    }
}

impl<P: Policy> fmt::Debug for CacheLayer<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheLayer")
            .field("cache", &self.cache)
            .field("policy", &self.policy)
            .finish()
    }
}

impl<S, P> Layer<S> for CacheLayer<P> {
    type Service = CacheService<S, P>;

    fn layer(&self, inner: S) -> Self::Service {
        CacheService {
            inner,
            layer: self.clone(),
        }
    }
}
