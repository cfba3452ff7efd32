//! The layer: which limiter, whose quota, what is exempt, what the client is told.

use std::fmt;
use std::sync::Arc;

use tower_layer::Layer;

use crate::admit::Shared;
use crate::{Head, KeyBy, Limiter, RateLimit};

/// Limits the requests of a service; a refused one is answered with 429 and never reaches it.
///
/// One request is one unit. True CORS preflights (`OPTIONS` with `Origin` and
/// `Access-Control-Request-Method`) are exempt, since no client can send credentials with them.
///
/// # Example
/// ```
/// use spark_ratelimit::{Headers, KeyBy, Limiter, Policy, Quota, RateLimitLayer};
/// use std::time::Duration;
///
/// let policy = Policy::new("ip", Quota::new(6_000, Duration::from_secs(60))?)?;
/// let limiter = Limiter::builder().policy(policy).build()?;
/// let layer = RateLimitLayer::new(limiter)
///     .scope("ip")
///     .key(KeyBy::client_ip())
///     .headers(Headers::OnRefusal)
///     .exempt("health", |head| head.uri.path() == "/livez");
/// # Ok::<(), spark_ratelimit::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct RateLimitLayer {
    shared: Arc<Shared>,
}

/// When the layer writes `RateLimit` and `RateLimit-Policy`. `Retry-After` is on every refusal.
///
/// A response that has the fields already, from a limiter further in, keeps them.
///
/// # Example
/// ```
/// assert_eq!(spark_ratelimit::Headers::default(), spark_ratelimit::Headers::Always);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Headers {
    /// On every response: for the limiter that clients plan by.
    #[default]
    Always,
    /// On this layer's refusals: for the outer one of two limiters.
    OnRefusal,
    /// Never.
    Never,
}

/// Whether a request passes uncharged.
type Exemption = fn(&Head<'_>) -> bool;

/// What a layer is told.
#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) limiter: Limiter,
    pub(crate) scope: &'static str,
    pub(crate) key: KeyBy,
    pub(crate) headers: Headers,
    pub(crate) exempt: Vec<(&'static str, Exemption)>,
}

impl RateLimitLayer {
    /// Limits by [`KeyBy::principal`], with header fields on every response, in scope `default`.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Limiter, Policy, Quota, RateLimitLayer};
    /// # use std::time::Duration;
    /// let policy = Policy::new("requests", Quota::new(60, Duration::from_secs(60))?)?;
    /// let layer = RateLimitLayer::new(Limiter::builder().policy(policy).build()?);
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    pub fn new(limiter: Limiter) -> Self {
        Self::with(Config {
            limiter,
            scope: "default",
            key: KeyBy::principal(),
            headers: Headers::Always,
            exempt: vec![("cors-preflight", is_preflight)],
        })
    }

    /// Whose quota a request is charged to.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{KeyBy, Limiter, Policy, Quota, RateLimitLayer};
    /// # use std::time::Duration;
    /// # let policy = Policy::new("requests", Quota::new(60, Duration::from_secs(60))?)?;
    /// # let limiter = Limiter::builder().policy(policy).build()?;
    /// let layer = RateLimitLayer::new(limiter).key(KeyBy::client_ip());
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    #[must_use]
    pub fn key(self, key: KeyBy) -> Self {
        self.change(|config| config.key = key)
    }

    /// The name of this layer among several, such as `ip`, `tenant` or `export`: a label of its
    /// metrics.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Limiter, Policy, Quota, RateLimitLayer};
    /// # use std::time::Duration;
    /// # let policy = Policy::new("requests", Quota::new(60, Duration::from_secs(60))?)?;
    /// # let limiter = Limiter::builder().policy(policy).build()?;
    /// let layer = RateLimitLayer::new(limiter).scope("tenant");
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    #[must_use]
    pub fn scope(self, scope: &'static str) -> Self {
        self.change(|config| config.scope = scope)
    }

    /// When the client is told its quota.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Headers, Limiter, Policy, Quota, RateLimitLayer};
    /// # use std::time::Duration;
    /// # let policy = Policy::new("requests", Quota::new(60, Duration::from_secs(60))?)?;
    /// # let limiter = Limiter::builder().policy(policy).build()?;
    /// let layer = RateLimitLayer::new(limiter).headers(Headers::OnRefusal);
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    #[must_use]
    pub fn headers(self, headers: Headers) -> Self {
        self.change(|config| config.headers = headers)
    }

    /// Lets some requests pass without charging them. The name is a label of a metric.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Limiter, Policy, Quota, RateLimitLayer};
    /// # use std::time::Duration;
    /// # let policy = Policy::new("requests", Quota::new(60, Duration::from_secs(60))?)?;
    /// # let limiter = Limiter::builder().policy(policy).build()?;
    /// let layer = RateLimitLayer::new(limiter).exempt("health", |head| head.uri.path() == "/livez");
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    #[must_use]
    pub fn exempt(self, name: &'static str, exempt: fn(&Head<'_>) -> bool) -> Self {
        self.change(|config| config.exempt.push((name, exempt)))
    }

    /// Takes back every exemption so far, that of CORS preflights included.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Limiter, Policy, Quota, RateLimitLayer};
    /// # use std::time::Duration;
    /// # let policy = Policy::new("requests", Quota::new(60, Duration::from_secs(60))?)?;
    /// # let limiter = Limiter::builder().policy(policy).build()?;
    /// let layer = RateLimitLayer::new(limiter).without_exemptions();
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    #[must_use]
    pub fn without_exemptions(self) -> Self {
        self.change(|config| config.exempt.clear())
    }

    /// The limiter, to look at it or to reconfigure it.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Limiter, Policy, Quota, RateLimitLayer};
    /// # use std::time::Duration;
    /// # let policy = Policy::new("requests", Quota::new(60, Duration::from_secs(60))?)?;
    /// # let limiter = Limiter::builder().policy(policy).build()?;
    /// let layer = RateLimitLayer::new(limiter);
    /// assert_eq!(layer.limiter().stats()[0].occupied, 0);
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    pub fn limiter(&self) -> &Limiter {
        &self.shared.config.limiter
    }

    fn with(config: Config) -> Self {
        Self {
            shared: Arc::new(Shared::new(config)),
        }
    }

    fn change(self, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = self.shared.config.clone();
        change(&mut config);
        Self::with(config)
    }
}

fn is_preflight(head: &Head<'_>) -> bool {
    head.method == http::Method::OPTIONS
        && head.headers.contains_key(http::header::ORIGIN)
        && head
            .headers
            .contains_key(http::header::ACCESS_CONTROL_REQUEST_METHOD)
}

impl<S> Layer<S> for RateLimitLayer {
    type Service = RateLimit<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RateLimit::new(inner, Arc::clone(&self.shared))
    }
}

impl fmt::Debug for RateLimitLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.config.fmt(f)
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exempt: Vec<_> = self.exempt.iter().map(|(name, _)| name).collect();
        f.debug_struct("RateLimit")
            .field("scope", &self.scope)
            .field("key", &self.key)
            .field("headers", &self.headers)
            .field("exempt", &exempt)
            .field("limiter", &self.limiter)
            .finish()
    }
}
