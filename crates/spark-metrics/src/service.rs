//! The service around the inner one.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use http_body::Body;
use spark_core::Watched;
use tower_service::Service;

use crate::{future::ResponseFuture, layer::Shared, observation::Observation};

/// The service that [`HttpMetricsLayer`](crate::HttpMetricsLayer) makes.
#[derive(Clone, Debug)]
pub struct HttpMetrics<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> HttpMetrics<S> {
    pub(crate) fn new(inner: S, shared: Arc<Shared>) -> Self {
        Self { inner, shared }
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for HttpMetrics<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Body<Data = bytes::Bytes>,
{
    type Response = Response<Watched<ResBody, Observation>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let observation = Observation::begin(&self.shared, &request);
        let method = request.method().clone();
        ResponseFuture::new(self.inner.call(request), method, observation)
    }
}
