//! The service: tells probes from all other requests.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Request, Response};
use spark_core::ResponseBody;
use tower_service::Service;

use crate::future::{ResponseFuture, answer};
use crate::health::{Health, Readiness};

/// What [`ProbesLayer`](crate::ProbesLayer) makes of a service.
#[derive(Clone, Debug)]
pub struct ProbesService<S> {
    inner: S,
    health: Health,
}

impl<S> ProbesService<S> {
    pub(crate) fn new(inner: S, health: Health) -> Self {
        Self { inner, health }
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for ProbesService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: http_body::Body<Data = Bytes>,
{
    type Response = Response<ResponseBody<ResBody>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let head = request.method() == Method::HEAD;
        if !head && request.method() != Method::GET {
            return ResponseFuture::inner(self.inner.call(request));
        }
        match request.uri().path() {
            "/livez" => ResponseFuture::known(answer(true, "alive", head)),
            "/startupz" => {
                let started = self.health.is_started();
                let word = if started {
                    "started"
                } else {
                    Readiness::Starting.as_str()
                };
                ResponseFuture::known(answer(started, word, head))
            }
            "/readyz" => ResponseFuture::ready(self.health.clone(), head),
            _ => ResponseFuture::inner(self.inner.call(request)),
        }
    }
}
