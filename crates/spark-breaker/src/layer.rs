//! The breaker around a service.

use std::fmt;
use std::sync::Arc;

use http::request::Parts;
use tower_layer::Layer;

use crate::{Breaker, BreakerService, Keyed, LlmClassify, ProviderKey, Registry};

/// Puts a [`Breaker`] around a client of HTTP, or breakers [by key](BreakerLayer::keyed).
///
/// A call that is not let through is answered 503 (`by` "breaker", code `breaker_open`) with
/// `Retry-After` and the breaker's name, and does not reach the inner service, which need not even be
/// ready. Otherwise the permit lives until the response body ends, and the body's end decides. A
/// panic of the inner service is a failure; one of the classifier, or of anyone else, is not.
///
/// # Example
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use spark_breaker::{Breaker, BreakerLayer, Config, HttpClassify};
/// use spark_core::Clock;
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
///
/// let breaker = Breaker::new("search", Config::standard(), Clock::system()).unwrap();
/// let client = ServiceBuilder::new()
///     .layer(BreakerLayer::new(breaker.clone()).classify(HttpClassify))
///     .service(service_fn(async |_: Request<String>| {
///         Ok::<_, std::io::Error>(Response::builder().status(500).body(String::new()).unwrap())
///     }));
/// for _ in 0..5 {
///     client.clone().oneshot(Request::new(String::new())).await.unwrap();
/// }
/// let refused = client.oneshot(Request::new(String::new())).await.unwrap();
/// assert_eq!(refused.status(), 503);
/// assert!(refused.headers().contains_key("retry-after"));
/// # });
/// ```
pub struct BreakerLayer<C = LlmClassify, G = Breaker> {
    gate: G,
    classify: Arc<C>,
}

impl BreakerLayer {
    /// Around a provider that is called with our own key; see [`classify`](Self::classify) for
    /// others.
    pub fn new(breaker: Breaker) -> Self {
        Self {
            gate: breaker,
            classify: Arc::new(LlmClassify::new()),
        }
    }
}

impl<F> BreakerLayer<LlmClassify, Keyed<F>> {
    /// Asks, for each request, the breakers of the key that `key` makes from its head: the
    /// provider's, the model's, the credential's. See [`Permits`](crate::Permits) for what each is
    /// told.
    ///
    /// A request for which there is no key is not refused for that: it falls to the registry's shared
    /// breaker [`OVERFLOW`](crate::OVERFLOW), is warned about once and counted as
    /// `spark_miswired_total`. A part of a key that cannot be a name (a client may have chosen the
    /// model's) falls to the shared breaker of its kind.
    ///
    /// Unlike a single breaker, these cannot refuse before the inner service is ready: until then
    /// there is no request to make a key from.
    ///
    /// # Example
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use http::{Request, Response};
    /// use spark_breaker::{BreakerLayer, Config, ProviderKey, Registry};
    /// use spark_core::Clock;
    /// use tower::{ServiceBuilder, ServiceExt, service_fn};
    ///
    /// #[derive(Clone)]
    /// struct Model(&'static str);
    ///
    /// let registry = Registry::new(100, Config::llm(), Clock::system())?;
    /// let client = ServiceBuilder::new()
    ///     .layer(BreakerLayer::keyed(registry.clone(), |head| {
    ///         let Model(model) = head.extensions.get()?;
    ///         Some(ProviderKey::new("openai").model(*model))
    ///     }))
    ///     .service(service_fn(async |request: Request<()>| {
    ///         let status = match request.extensions().get() {
    ///             Some(Model("overloaded")) => 529,
    ///             _ => 200,
    ///         };
    ///         let response = Response::builder().status(status);
    ///         Ok::<_, std::io::Error>(response.body(String::new()).unwrap())
    ///     }));
    /// let ask = async |model| {
    ///     let request = Request::builder().extension(Model(model)).body(()).unwrap();
    ///     client.clone().oneshot(request).await.unwrap().status()
    /// };
    /// for _ in 0..5 {
    ///     assert_eq!(ask("overloaded").await, 529);
    /// }
    /// assert_eq!(ask("overloaded").await, 503);
    /// assert_eq!(ask("another").await, 200);
    /// # Ok::<(), spark_breaker::ConfigError>(()) }).unwrap();
    /// ```
    pub fn keyed(registry: Registry, key: F) -> Self
    where
        F: Fn(&Parts) -> Option<ProviderKey> + Send + Sync + 'static,
    {
        Self {
            gate: Keyed::new(registry, key),
            classify: Arc::new(LlmClassify::new()),
        }
    }
}

impl<C, G> BreakerLayer<C, G> {
    /// Lets `classify` decide what an answer says about the callee.
    pub fn classify<D>(self, classify: D) -> BreakerLayer<D, G> {
        BreakerLayer {
            gate: self.gate,
            classify: Arc::new(classify),
        }
    }
}

impl<S, C, G: Clone> Layer<S> for BreakerLayer<C, G> {
    type Service = BreakerService<S, C, G>;

    fn layer(&self, inner: S) -> Self::Service {
        BreakerService::new(inner, self.gate.clone(), Arc::clone(&self.classify))
    }
}

impl<C, G: Clone> Clone for BreakerLayer<C, G> {
    fn clone(&self) -> Self {
        Self {
            gate: self.gate.clone(),
            classify: Arc::clone(&self.classify),
        }
    }
}

impl<C, G: fmt::Debug> fmt::Debug for BreakerLayer<C, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BreakerLayer")
            .field("gate", &self.gate)
            .finish_non_exhaustive()
    }
}
