//! The breaker around a service.

use std::fmt;
use std::sync::Arc;

use tower_layer::Layer;

use crate::{Breaker, BreakerService, LlmClassify};

/// Puts a [`Breaker`] around a client of HTTP.
///
/// A call that is not let through is answered 503 (`by` "breaker", code `breaker_open`) with
/// `Retry-After` and the breaker's name, and does not reach the inner service. Otherwise the permit
/// lives until the response body ends, and the body's end decides.
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
pub struct BreakerLayer<C = LlmClassify> {
    breaker: Breaker,
    classify: Arc<C>,
}

impl BreakerLayer {
    /// Around a provider that is called with our own key; see [`classify`](Self::classify) for
    /// others.
    pub fn new(breaker: Breaker) -> Self {
        Self {
            breaker,
            classify: Arc::new(LlmClassify::new()),
        }
    }
}

impl<C> BreakerLayer<C> {
    /// Lets `classify` decide what an answer says about the callee.
    pub fn classify<D>(self, classify: D) -> BreakerLayer<D> {
        BreakerLayer {
            breaker: self.breaker,
            classify: Arc::new(classify),
        }
    }
}

impl<S, C> Layer<S> for BreakerLayer<C> {
    type Service = BreakerService<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        BreakerService::new(inner, self.breaker.clone(), Arc::clone(&self.classify))
    }
}

impl<C> Clone for BreakerLayer<C> {
    fn clone(&self) -> Self {
        Self {
            breaker: self.breaker.clone(),
            classify: Arc::clone(&self.classify),
        }
    }
}

impl<C> fmt::Debug for BreakerLayer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BreakerLayer")
            .field("breaker", &self.breaker)
            .finish_non_exhaustive()
    }
}
