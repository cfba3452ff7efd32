//! The call under way.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Method, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use spark_core::{ResponseBody, Watched, watch_response};

use crate::body::{BreakerBody, Guard};
use crate::{Classify, ClassifyBody, Head, Permit, Verdict};

pin_project! {
    /// The answer of a [`BreakerService`](crate::BreakerService).
    pub struct BreakerFuture<F, B, W, C>
    where
        B: Body,
        W: ClassifyBody,
    {
        #[pin]
        state: State<F, B, W, C>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, B, W, C>
    where
        B: Body,
        W: ClassifyBody,
    {
        Refused {
            response: Option<Response<BreakerBody<B, W>>>,
        },
        Calling {
            #[pin]
            inner: F,
            permit: Option<Permit>,
            method: Method,
            classify: Arc<C>,
        },
    }
}

impl<F, B, W, C> BreakerFuture<F, B, W, C>
where
    B: Body,
    W: ClassifyBody,
{
    pub(crate) fn refused(response: Response<BreakerBody<B, W>>) -> Self {
        let response = Some(response);
        Self {
            state: State::Refused { response },
        }
    }

    pub(crate) fn calling(inner: F, permit: Permit, method: Method, classify: Arc<C>) -> Self {
        let permit = Some(permit);
        Self {
            state: State::Calling {
                inner,
                permit,
                method,
                classify,
            },
        }
    }
}

impl<F, B, E, C> Future for BreakerFuture<F, B, C::Body, C>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body<Data = Bytes>,
    C: Classify<E>,
{
    type Output = Result<Response<BreakerBody<B, C::Body>>, E>;

    #[expect(
        clippy::expect_used,
        reason = "polling a future after its end is the caller's bug"
    )]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Refused { response } => {
                Poll::Ready(Ok(response.take().expect("polled after its end")))
            }
            StateProj::Calling {
                inner,
                permit: slot,
                method,
                classify,
            } => {
                // Out of the future while the inner one runs: a panic that somebody further out
                // catches drops it here, while panicking, and is counted.
                let permit = slot.take().expect("polled after its end");
                let polled = inner.poll(cx);
                if polled.is_pending() {
                    *slot = Some(permit);
                    return Poll::Pending;
                }
                match ready!(polled) {
                    Err(error) => {
                        permit.record(classify.error(&error));
                        Poll::Ready(Err(error))
                    }
                    Ok(response) => {
                        let (parts, body) = response.into_parts();
                        let guard = match classify.response(&Head::new(&parts, permit.clock())) {
                            Verdict::Now(outcome) => {
                                permit.record(outcome);
                                Guard::empty()
                            }
                            Verdict::AtTheEnd(body) => Guard::holding(permit, body),
                        };
                        let response = Response::from_parts(parts, body);
                        let response: Response<Watched<B, _>> =
                            watch_response(method, response, guard);
                        Poll::Ready(Ok(response.map(ResponseBody::inner)))
                    }
                }
            }
        }
    }
}

impl<F, B, W, C> fmt::Debug for BreakerFuture<F, B, W, C>
where
    B: Body,
    W: ClassifyBody,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BreakerFuture").finish_non_exhaustive()
    }
}
