//! The service: what is decided before anything is waited for.

use std::fmt;
use std::mem;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use spark_core::{BoxError, RequestBody, collect};
use tower_service::Service;

use crate::status::Status;
use crate::{CacheBody, CacheFuture, CacheLayer, Policy, Route};

/// A service with a [`Cache`](crate::Cache) in front; [`CacheLayer`] makes it.
///
/// # Example
/// ```
/// use spark_cache::{Cache, CacheLayer, LlmPolicy};
/// use tower_layer::Layer;
/// let cache = Cache::builder().build()?;
/// let policy = LlmPolicy::builder().path("/v1/chat/completions").build()?;
/// # let inner = ();
/// let service = CacheLayer::new(cache, policy).layer(inner);
/// # let _ = service;
/// # Ok::<(), spark_cache::ConfigError>(())
/// ```
pub struct CacheService<S, P> {
    pub(crate) inner: S,
    pub(crate) layer: CacheLayer<P>,
}

/// Says that this cache has seen a request, so that the same layer further in lets it be: two that
/// wait for each other's flight would wait for ever.
#[derive(Clone, Copy)]
struct Seen(usize);

impl<S, P, ReqBody, ResBody> Service<Request<ReqBody>> for CacheService<S, P>
where
    S: Service<Request<RequestBody<ReqBody>>, Response = Response<ResBody>>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
    S::Error: Send,
    P: Policy,
    ReqBody: Body<Data = Bytes> + Send + 'static,
    ReqBody::Error: Into<BoxError>,
    ResBody: Body<Data = Bytes> + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    type Response = Response<CacheBody<ResBody>>;
    type Error = S::Error;
    type Future = CacheFuture<S, P, ReqBody, ResBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        let seen = parts
            .extensions
            .get::<Seen>()
            .is_some_and(|seen| seen.0 == self.layer.cache.id());
        let route = if seen {
            Route::Ignore
        } else {
            let context = spark_core::Context::of(&parts.extensions);
            self.layer.policy.route(&parts, context)
        };
        let status = match route {
            Route::Ignore => None,
            Route::Bypass(reason) => Some(Status::Bypass(reason)),
            Route::Read => {
                parts.extensions.insert(Seen(self.layer.cache.id()));
                let clone = self.inner.clone();
                let service = mem::replace(&mut self.inner, clone);
                let body = collect(body, self.layer.policy.max_request_bytes());
                return CacheFuture::read(self.layer.clone(), service, parts, body);
            }
        };
        if let Some(status) = status {
            parts.extensions.insert(Seen(self.layer.cache.id()));
            self.layer.cache.count(status.result());
        }
        let request = Request::from_parts(parts, RequestBody::streaming(body));
        CacheFuture::pass(self.inner.call(request), status)
    }
}

impl<S: Clone, P> Clone for CacheService<S, P> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            layer: self.layer.clone(),
        }
    }
}

impl<S: fmt::Debug, P: Policy> fmt::Debug for CacheService<S, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheService")
            .field("inner", &self.inner)
            .field("layer", &self.layer)
            .finish()
    }
}
