//! The layer: which limiter, whose quota, what is exempt, what the client is told.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tower_layer::Layer;

use crate::admit::Shared;
use crate::{ConcurrencyLimiter, Head, KeyBy, Limiter, RateLimit};

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
    /// By policy, where not all have the same key.
    pub(crate) keys: Vec<(Box<str>, KeyBy)>,
    pub(crate) concurrency: Option<ConcurrencyLimiter>,
    pub(crate) budget: Option<Limiter>,
    pub(crate) headers: Headers,
    pub(crate) x_ratelimit: bool,
    pub(crate) openai: bool,
    pub(crate) jitter: Duration,
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
            keys: Vec::new(),
            concurrency: None,
            budget: None,
            headers: Headers::Always,
            x_ratelimit: false,
            openai: false,
            jitter: Duration::ZERO,
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

    /// Whose quota one of the policies is charged to, where it is not the same as for the others: so
    /// many for each tenant **and** so many on each route; so many for each /64 and for each /48. A
    /// request is charged to all or to none.
    ///
    /// A policy that is not there, perhaps not yet, is no error. Tiers go by the layer's own key.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{KeyBy, Limiter, Policy, Quota, RateLimitLayer};
    /// # use std::time::Duration;
    /// # let minute = Duration::from_secs(60);
    /// let limiter = Limiter::builder()
    ///     .policy(Policy::new("host", Quota::new(600, minute)?)?)
    ///     .policy(Policy::new("site", Quota::new(6_000, minute)?)?)
    ///     .build()?;
    /// let layer = RateLimitLayer::new(limiter)
    ///     .key(KeyBy::client_ip())
    ///     .key_for("site", KeyBy::client_ip().v6_prefix(48));
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    #[must_use]
    pub fn key_for(self, policy: &str, key: KeyBy) -> Self {
        self.change(|config| {
            config.keys.retain(|(name, _)| **name != *policy);
            config.keys.push((policy.into(), key));
        })
    }

    /// Limits how many requests of one key are under way at once, until the last byte of the
    /// response. One too many is answered with 429 and the code `too_many_at_once`, and charged to
    /// no policy.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Concurrency, ConcurrencyLimiter, Limiter, Policy, Quota, RateLimitLayer};
    /// # use std::time::Duration;
    /// # let policy = Policy::new("requests", Quota::new(60, Duration::from_secs(60))?)?;
    /// # let limiter = Limiter::builder().policy(policy).build()?;
    /// let streams = ConcurrencyLimiter::new(Concurrency::new("streams", 8)?);
    /// let layer = RateLimitLayer::new(limiter).concurrency(streams);
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    #[must_use]
    pub fn concurrency(self, limiter: ConcurrencyLimiter) -> Self {
        self.change(|config| config.concurrency = Some(limiter))
    }

    /// Gives each request a [`Budget`](spark_core::Budget) in its context, from which the handler
    /// reserves an estimate as soon as it knows one: tokens, once the body is parsed. What was used
    /// is settled when the response has ended, by the context's [`Usage`](spark_core::Usage). A
    /// reservation that is refused has cost what the request itself costs: it was admitted before its
    /// body was read.
    ///
    /// # Example
    /// ```
    /// use http::{Request, Response};
    /// use spark_core::{Context, Problem, Shape, UsageReport};
    /// use spark_ratelimit::{KeyBy, Limiter, Policy, Quota, RateLimitLayer, Unit};
    /// use std::{convert::Infallible, time::Duration};
    /// use tower::{ServiceBuilder, ServiceExt, service_fn};
    ///
    /// async fn answer(request: Request<String>) -> Result<Response<String>, Infallible> {
    ///     let context = Context::of(request.extensions()).expect("the layer put one in");
    ///     if let Some(budget) = context.budget()
    ///         && let Err(problem) = budget.reserve(request.body().len() as u64 / 4 + 1_000)
    ///     {
    ///         let refusal: Response<spark_core::ResponseBody<String>> =
    ///             problem.into_response(Shape::PROBLEM);
    ///         return Ok(refusal.map(|_| "a 429 with its Retry-After".to_owned()));
    ///     }
    ///     // ... and when the provider has answered:
    ///     context.usage().record(UsageReport::new("demo", "small").with_tokens(12, 34));
    ///     Ok(Response::new("an answer".to_owned()))
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # const MINUTE: Duration = Duration::from_secs(60);
    /// let requests = Policy::new("requests", Quota::new(60, MINUTE)?)?;
    /// let tokens = Policy::new("tokens", Quota::new(1_500, MINUTE)?)?.unit(Unit::Tokens);
    /// let tokens = Limiter::builder().policy(tokens).build()?;
    /// let layer = RateLimitLayer::new(Limiter::builder().policy(requests).build()?)
    ///     .key(KeyBy::client_ip())
    ///     .budget(tokens);
    ///
    /// let service = ServiceBuilder::new().layer(layer).service(service_fn(answer));
    /// for _ in 0..10 {
    ///     let response = service.clone().oneshot(Request::new("Hello!".to_owned())).await?;
    ///     assert_eq!(response.status(), 200, "46 of the 1,001 that were reserved");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn budget(self, limiter: Limiter) -> Self {
        self.change(|config| config.budget = Some(limiter))
    }

    /// Also writes `X-RateLimit-Limit`, `-Remaining` and `-Reset`, of the tightest policy: the reset
    /// is the moment when all of the burst can be used again, in seconds since 1970. They stand
    /// where the fields of the draft stand.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Limiter, Policy, Quota, RateLimitLayer};
    /// # use std::time::Duration;
    /// # let policy = Policy::new("requests", Quota::new(60, Duration::from_secs(60))?)?;
    /// # let limiter = Limiter::builder().policy(policy).build()?;
    /// let layer = RateLimitLayer::new(limiter).x_ratelimit();
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    #[must_use]
    pub fn x_ratelimit(self) -> Self {
        self.change(|config| config.x_ratelimit = true)
    }

    /// Also writes OpenAI's `x-ratelimit-limit-requests`, `-remaining-` and `-reset-`, and the same
    /// with `-tokens` where there is a [`budget`](Self::budget), as it stands when the response
    /// begins. The reset is a duration such as `6m0s`.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Limiter, Policy, Quota, RateLimitLayer};
    /// # use std::time::Duration;
    /// # let policy = Policy::new("requests", Quota::new(60, Duration::from_secs(60))?)?;
    /// # let limiter = Limiter::builder().policy(policy).build()?;
    /// let layer = RateLimitLayer::new(limiter).openai_headers();
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    #[must_use]
    pub fn openai_headers(self) -> Self {
        self.change(|config| config.openai = true)
    }

    /// Tells those who are refused to come back a little later than they could, each by another
    /// share of `most`, so that they do not all come at once. `Retry-After` has whole seconds, so
    /// less than a second spreads little.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Limiter, Policy, Quota, RateLimitLayer};
    /// # use std::time::Duration;
    /// # let policy = Policy::new("requests", Quota::new(60, Duration::from_secs(60))?)?;
    /// # let limiter = Limiter::builder().policy(policy).build()?;
    /// let layer = RateLimitLayer::new(limiter).retry_jitter(Duration::from_secs(5));
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    #[must_use]
    pub fn retry_jitter(self, most: Duration) -> Self {
        self.change(|config| config.jitter = most)
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
