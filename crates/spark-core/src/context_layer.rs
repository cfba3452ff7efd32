//! The edge: where a request gets its context.

use std::sync::Arc;
use std::task::{Context as Task, Poll};

use http::request::Parts;
use http::{HeaderMap, HeaderName, Request};
use tower_layer::Layer;
use tower_service::Service;

use crate::{ClientIp, Clock, Context, Miswired, Shape, TrustedProxies, peer_addr, shape};

/// Puts the [`Context`] into each request. It stands outside of all the other SPARK layers.
///
/// It reads the clock, finds out the [`ClientIp`], chooses the [`Shape`] of refusals, and removes
/// the `x-spark-*` headers that a client may have made up.
///
/// # Example
/// ```
/// use spark_core::{Clock, Context, ContextLayer, Shape, TrustedProxies};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let edge = ContextLayer::new(Clock::system(), TrustedProxies::none())
///     .shape(|request| match request.uri.path().starts_with("/v1/") {
///         true => Shape::OPENAI,
///         false => Shape::PROBLEM,
///     });
/// let service = ServiceBuilder::new().layer(edge).service(service_fn(
///     |request: http::Request<String>| async move {
///         assert!(Context::of(request.extensions()).is_some());
///         Ok::<_, std::convert::Infallible>(http::Response::new(String::new()))
///     },
/// ));
/// service.oneshot(http::Request::new(String::new())).await.unwrap();
/// # });
/// ```
#[derive(Clone, Debug)]
pub struct ContextLayer(Arc<Edge>);

#[derive(Clone, Debug)]
struct Edge {
    clock: Clock,
    proxies: TrustedProxies,
    shape: fn(&Parts) -> Shape,
    // Shared by clones of the layer, also after `shape` was called.
    miswired: Arc<Miswired>,
}

impl ContextLayer {
    /// An edge that reads this clock and believes these proxies.
    ///
    /// # Example
    /// ```
    /// use spark_core::{Clock, ContextLayer, TrustedProxies};
    /// let edge = ContextLayer::new(Clock::system(), TrustedProxies::none());
    /// ```
    pub fn new(clock: Clock, proxies: TrustedProxies) -> Self {
        Self(Arc::new(Edge {
            clock,
            proxies,
            shape: |parts| match shape::is_grpc(&parts.headers) {
                true => Shape::GRPC,
                false => Shape::PROBLEM,
            },
            miswired: Arc::new(Miswired::new("context")),
        }))
    }

    /// Chooses the shape of refusals by request. Without it, gRPC requests get gRPC statuses and
    /// all others problem details.
    ///
    /// # Example
    /// ```
    /// use spark_core::{Clock, ContextLayer, Shape, TrustedProxies};
    /// let edge = ContextLayer::new(Clock::system(), TrustedProxies::none())
    ///     .shape(|_request| Shape::OPENAI);
    /// ```
    #[must_use]
    pub fn shape(self, choose: fn(&Parts) -> Shape) -> Self {
        let mut edge = Arc::unwrap_or_clone(self.0);
        edge.shape = choose;
        Self(Arc::new(edge))
    }
}

impl<S> Layer<S> for ContextLayer {
    type Service = ContextService<S>;

    fn layer(&self, inner: S) -> ContextService<S> {
        ContextService {
            edge: Arc::clone(&self.0),
            inner,
        }
    }
}

/// The service of [`ContextLayer`].
#[derive(Clone, Debug)]
pub struct ContextService<S> {
    edge: Arc<Edge>,
    inner: S,
}

impl<S, B> Service<Request<B>> for ContextService<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> S::Future {
        let (mut parts, body) = request.into_parts();
        remove_spark_headers(&mut parts.headers);
        let context = Context::new(self.edge.clock.now())
            .with_client_ip(self.edge.client_ip(&parts))
            .with_shape((self.edge.shape)(&parts));
        parts.extensions.insert(context);
        self.inner.call(Request::from_parts(parts, body))
    }
}

impl Edge {
    fn client_ip(&self, parts: &Parts) -> Option<ClientIp> {
        let Some(peer) = peer_addr(&parts.extensions) else {
            self.miswired.report(
                "no peer address: serve with spark-serve, with axum's ConnectInfo (feature \
                 `axum`), or insert a SocketAddr as request extension",
            );
            return None;
        };
        let resolved = self.proxies.resolve(peer.ip(), &parts.headers);
        if resolved.ignored_header {
            self.miswired.report(
                "a forwarding header came from a peer that is not a trusted proxy and was \
                 ignored: if that peer is your proxy, add its network to the trusted proxies",
            );
        }
        Some(resolved.ip)
    }
}

/// Takes the `x-spark-*` headers out of a request: a client must not speak in the name of a layer.
///
/// [`ContextLayer`] does it, and so does whatever else finds out who calls.
///
/// # Example
/// ```
/// let mut headers = http::HeaderMap::new();
/// headers.insert("x-spark-tenant", http::HeaderValue::from_static("somebody else"));
/// spark_core::remove_spark_headers(&mut headers);
/// assert!(headers.is_empty());
/// ```
pub fn remove_spark_headers(headers: &mut HeaderMap) {
    let is_ours = |name: &HeaderName| name.as_str().starts_with("x-spark-");
    // Names are few and mostly not ours: look first, allocate only where there is one.
    if !headers.keys().any(is_ours) {
        return;
    }
    let ours: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_ours(name))
        .cloned()
        .collect();
    for name in ours {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use tower::{ServiceExt, service_fn};

    use super::*;
    use crate::testing::TestClock;

    async fn seen(layer: &ContextLayer, request: Request<()>) -> Request<()> {
        let echo =
            service_fn(
                |request: Request<()>| async move { Ok::<_, std::convert::Infallible>(request) },
            );
        layer.layer(echo).oneshot(request).await.unwrap()
    }

    #[tokio::test]
    async fn the_context_is_complete_and_made_up_headers_are_gone() {
        let clock = TestClock::new();
        clock.advance(Duration::from_secs(3));
        let proxies = TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap()]);
        let layer = ContextLayer::new(clock.clock(), proxies).shape(|_| Shape::OPENAI);
        let mut request = Request::builder()
            .header("x-forwarded-for", "192.0.2.7")
            .header("x-spark-tenant", "acme")
            .header("X-Spark-Tenant", "other")
            .header("x-other", "kept")
            .body(())
            .unwrap();
        request
            .extensions_mut()
            .insert(SocketAddr::from(([10, 0, 0, 1], 80)));

        let request = seen(&layer, request).await;
        let context = Context::of(request.extensions()).unwrap();
        assert_eq!(context.received().as_nanos(), 3_000_000_000);
        assert_eq!(context.client_ip().unwrap().to_string(), "192.0.2.7");
        assert!(context.shape().is_some());
        assert!(context.principal().is_none());
        assert!(!request.headers().contains_key("x-spark-tenant"));
        assert!(request.headers().contains_key("x-other"));
    }

    #[tokio::test]
    async fn a_missing_peer_is_no_error() {
        let layer = ContextLayer::new(Clock::system(), TrustedProxies::none());
        let request = seen(&layer, Request::new(())).await;
        assert!(
            Context::of(request.extensions())
                .unwrap()
                .client_ip()
                .is_none()
        );
    }

    #[tokio::test]
    async fn it_keeps_the_contract_of_tower() {
        let layer = ContextLayer::new(Clock::system(), TrustedProxies::none());
        crate::testing::contract::check(layer, || {
            Request::new(crate::testing::TestBody::frames(["hello"]))
        })
        .await;
    }
}
