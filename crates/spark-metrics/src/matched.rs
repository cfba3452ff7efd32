//! Carries axum's matched path out of a router.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::extract::MatchedPath;
use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

/// Copies axum's `MatchedPath` from the request to the response, so that a
/// [`HttpMetricsLayer`](crate::HttpMetricsLayer) **around** a whole router knows the route too.
/// Inside of it, as `router.layer(metrics)`, there is no need for this.
///
/// ```
/// use axum::{Router, routing::get};
/// use tower::Layer;
///
/// let metrics = spark_metrics::HttpMetricsLayer::new(Default::default());
/// let router: Router = Router::new()
///     .route("/users/{id}", get(|| async { "ok" }))
///     .layer(spark_metrics::MatchedPathLayer);
/// let service = metrics.layer(router);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct MatchedPathLayer;

impl<S> Layer<S> for MatchedPathLayer {
    type Service = MatchedPathService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        MatchedPathService { inner }
    }
}

/// The service that [`MatchedPathLayer`] makes.
#[derive(Clone, Debug)]
pub struct MatchedPathService<S> {
    inner: S,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for MatchedPathService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = MatchedPathFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let path = request.extensions().get::<MatchedPath>().cloned();
        MatchedPathFuture {
            inner: self.inner.call(request),
            path,
        }
    }
}

pin_project! {
    /// The future of [`MatchedPathService`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct MatchedPathFuture<F> {
        #[pin]
        inner: F,
        path: Option<MatchedPath>,
    }
}

impl<F, B, E> Future for MatchedPathFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<B>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut result = ready!(this.inner.poll(cx));
        if let Ok(response) = &mut result
            && let Some(path) = this.path.take()
        {
            response.extensions_mut().insert(path);
        }
        Poll::Ready(result)
    }
}
