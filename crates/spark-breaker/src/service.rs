//! Asks the breaker, then calls.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body;
use spark_core::{Problem, Shape};
use tower_service::Service;

use crate::body::BreakerBody;
use crate::future::BreakerFuture;
use crate::{Breaker, Classify, Rejected};

/// A service behind a [`Breaker`]; made by [`BreakerLayer`](crate::BreakerLayer).
pub struct BreakerService<S, C> {
    inner: S,
    breaker: Breaker,
    classify: Arc<C>,
}

impl<S, C> BreakerService<S, C> {
    pub(crate) fn new(inner: S, breaker: Breaker, classify: Arc<C>) -> Self {
        Self {
            inner,
            breaker,
            classify,
        }
    }
}

impl<S, C, ReqBody, ResBody> Service<Request<ReqBody>> for BreakerService<S, C>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Body<Data = Bytes>,
    C: Classify<S::Error>,
{
    type Response = Response<BreakerBody<ResBody, C::Body>>;
    type Error = S::Error;
    type Future = BreakerFuture<S::Future, ResBody, C::Body, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let background = spark_core::Context::of(request.extensions())
            .is_some_and(spark_core::Context::is_background);
        let admitted = if background {
            self.breaker.try_acquire_background()
        } else {
            self.breaker.try_acquire()
        };
        match admitted {
            Ok(permit) => {
                let method = request.method().clone();
                // The permit is held here while the inner service is called: should that panic, it
                // is dropped in the panic, which counts.
                let future = self.inner.call(request);
                BreakerFuture::calling(future, permit, method, Arc::clone(&self.classify))
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

impl<S: Clone, C> Clone for BreakerService<S, C> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            breaker: self.breaker.clone(),
            classify: Arc::clone(&self.classify),
        }
    }
}

impl<S: fmt::Debug, C> fmt::Debug for BreakerService<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BreakerService")
            .field("inner", &self.inner)
            .field("breaker", &self.breaker)
            .finish_non_exhaustive()
    }
}
