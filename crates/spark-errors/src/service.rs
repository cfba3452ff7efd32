//! The service around the inner one.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use spark_core::{BoxError, ResponseBody};
use tower_service::Service;

use crate::{
    body::Guarded,
    future::{Errand, ResponseFuture},
    layer::Settings,
    unwind::catch,
};

/// The service that [`ErrorsLayer`](crate::ErrorsLayer) makes.
#[derive(Clone, Debug)]
pub struct Errors<S> {
    inner: S,
    settings: Arc<Settings>,
}

impl<S> Errors<S> {
    pub(crate) fn new(inner: S, settings: Arc<Settings>) -> Self {
        Self { inner, settings }
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for Errors<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Body<Data = Bytes>,
    ResBody::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody<Guarded<ResBody>>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let errand = Errand::of(&self.settings, &request);
        ResponseFuture::new(catch(|| self.inner.call(request)), errand)
    }
}
