//! Asks the breaker, then calls.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body;
use spark_core::{Problem, Shape};
use tower_service::Service;

use crate::body::BreakerBody;
use crate::future::{BreakerFuture, Call};
use crate::{Breaker, Classify, Gate, Rejected};

/// A service behind a [`Breaker`], or behind those of each request's key; made by
/// [`BreakerLayer`](crate::BreakerLayer).
pub struct BreakerService<S, C, G = Breaker> {
    inner: S,
    gate: G,
    classify: Arc<C>,
    /// The inner service was not asked whether it is ready, since the next call is to be refused.
    unready: bool,
}

impl<S, C, G> BreakerService<S, C, G> {
    pub(crate) fn new(inner: S, gate: G, classify: Arc<C>) -> Self {
        Self {
            inner,
            gate,
            classify,
            unready: false,
        }
    }
}

impl<S, C, G, ReqBody, ResBody> Service<Request<ReqBody>> for BreakerService<S, C, G>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
    ResBody: Body<Data = Bytes>,
    C: Classify<S::Error>,
    G: Gate,
{
    type Response = Response<BreakerBody<ResBody, C::Body, G::Permit>>;
    type Error = S::Error;
    type Future = BreakerFuture<S, ReqBody, ResBody, C, G::Permit>;

    /// Ready without the inner service, which may never be, while the breaker refuses. With breakers
    /// by key, that is known only once there is a request.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.unready = self.gate.refuses();
        if !self.unready {
            ready!(self.inner.poll_ready(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let background = spark_core::Context::of(request.extensions())
            .is_some_and(spark_core::Context::is_background);
        let (request, admitted) = self.gate.admit(request, background);
        match admitted {
            Ok(permit) => {
                let method = request.method().clone();
                let mut call = Call::new(permit, method, Arc::clone(&self.classify));
                if self.unready {
                    let clone = self.inner.clone();
                    let service = std::mem::replace(&mut self.inner, clone);
                    BreakerFuture::unready(service, request, call)
                } else {
                    let future = call.run(|| self.inner.call(request));
                    BreakerFuture::calling(future, call)
                }
            }
            Err(rejected) => {
                let shape = Shape::of(request.extensions(), request.headers());
                BreakerFuture::refused(problem(&rejected).into_response(shape))
            }
        }
    }
}

fn problem(rejected: &Rejected) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "breaker", "breaker_open")
        .detail(format!("{rejected}."))
        .member("breaker", (&*rejected.name).into())
        .retry_after(rejected.retry_after)
}

impl<S: Clone, C, G: Clone> Clone for BreakerService<S, C, G> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            gate: self.gate.clone(),
            classify: Arc::clone(&self.classify),
            unready: false,
        }
    }
}

impl<S: fmt::Debug, C, G: fmt::Debug> fmt::Debug for BreakerService<S, C, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BreakerService")
            .field("inner", &self.inner)
            .field("gate", &self.gate)
            .finish_non_exhaustive()
    }
}
