//! The call under way.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use spark_core::{ResponseBody, Watched, watch_response};
use tower_service::Service;

use crate::body::{BreakerBody, Guard};
use crate::gate::sealed::Hold;
use crate::{Classify, FailKind, Head, Outcome, Permit, Verdict};

pin_project! {
    /// The answer of a [`BreakerService`](crate::BreakerService).
    pub struct BreakerFuture<S, ReqBody, ResBody, C, P = Permit>
    where
        S: Service<Request<ReqBody>>,
        ResBody: Body,
        C: Classify<S::Error>,
        P: Hold,
    {
        #[pin]
        state: State<S, ReqBody, ResBody, C, P>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, ReqBody, ResBody, C, P>
    where
        S: Service<Request<ReqBody>>,
        ResBody: Body,
        C: Classify<S::Error>,
        P: Hold,
    {
        Refused {
            response: Option<Response<BreakerBody<ResBody, C::Body, P>>>,
        },
        // Let through, although it had looked as if it would not be. Rare, and so apart: other calls
        // do not take the room for it along.
        Unready {
            waiting: Box<Waiting<S, ReqBody>>,
            call: Call<C, P>,
        },
        Calling {
            #[pin]
            inner: S::Future,
            call: Call<C, P>,
        },
    }
}

struct Waiting<S, ReqBody> {
    service: S,
    /// There until the service is ready.
    request: Option<Request<ReqBody>>,
}

/// What is needed when the answer comes.
pub(crate) struct Call<C, P: Hold> {
    /// There until it has come.
    permit: Option<P>,
    method: Method,
    classify: Arc<C>,
}

impl<C, P: Hold> Call<C, P> {
    pub(crate) fn new(permit: P, method: Method, classify: Arc<C>) -> Self {
        Self {
            permit: Some(permit),
            method,
            classify,
        }
    }

    /// Runs the callee: if that panics, it is to blame, and the permit is gone.
    pub(crate) fn run<T>(&mut self, callee: impl FnOnce() -> T) -> T {
        let mut blame = Blame {
            permit: &mut self.permit,
            returned: false,
        };
        let result = callee();
        blame.returned = true;
        result
    }

    #[expect(
        clippy::expect_used,
        reason = "polling a future after its end is the caller's bug"
    )]
    fn take(&mut self) -> P {
        self.permit.take().expect("polled after its end")
    }

    fn failed<E>(&mut self, error: &E)
    where
        C: Classify<E>,
    {
        let mut permit = self.take();
        permit.judging(true);
        permit.record(self.classify.error(error));
    }

    fn answered<B, E>(&mut self, response: Response<B>) -> Response<BreakerBody<B, C::Body, P>>
    where
        B: Body<Data = Bytes>,
        C: Classify<E>,
    {
        let mut permit = self.take();
        let (parts, body) = response.into_parts();
        permit.judging(true);
        let verdict = self.classify.response(&Head::new(&parts, permit.clock()));
        permit.judging(false);
        let guard = match verdict {
            Verdict::Now(outcome) => {
                permit.record(outcome);
                Guard::empty()
            }
            Verdict::AtTheEnd(body) => Guard::holding(permit, body),
        };
        let response = Response::from_parts(parts, body);
        let response: Response<Watched<B, _>> = watch_response(&self.method, response, guard);
        response.map(ResponseBody::inner)
    }
}

struct Blame<'a, P: Hold> {
    permit: &'a mut Option<P>,
    returned: bool,
}

impl<P: Hold> Drop for Blame<'_, P> {
    fn drop(&mut self) {
        if !self.returned
            && let Some(permit) = self.permit.take()
        {
            permit.record(Outcome::failure(FailKind::Panic));
        }
    }
}

impl<S, ReqBody, ResBody, C, P> BreakerFuture<S, ReqBody, ResBody, C, P>
where
    S: Service<Request<ReqBody>>,
    ResBody: Body,
    C: Classify<S::Error>,
    P: Hold,
{
    pub(crate) fn refused(response: Response<BreakerBody<ResBody, C::Body, P>>) -> Self {
        let response = Some(response);
        Self {
            state: State::Refused { response },
        }
    }

    pub(crate) fn calling(inner: S::Future, call: Call<C, P>) -> Self {
        Self {
            state: State::Calling { inner, call },
        }
    }

    pub(crate) fn unready(service: S, request: Request<ReqBody>, call: Call<C, P>) -> Self {
        let request = Some(request);
        let waiting = Box::new(Waiting { service, request });
        Self {
            state: State::Unready { waiting, call },
        }
    }
}

impl<S, ReqBody, ResBody, C, P> Future for BreakerFuture<S, ReqBody, ResBody, C, P>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Body<Data = Bytes>,
    C: Classify<S::Error>,
    P: Hold,
{
    type Output = Result<Response<BreakerBody<ResBody, C::Body, P>>, S::Error>;

    #[expect(
        clippy::expect_used,
        reason = "polling a future after its end is the caller's bug"
    )]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let calling = match state.as_mut().project() {
                StateProj::Refused { response } => {
                    return Poll::Ready(Ok(response.take().expect("polled after its end")));
                }
                StateProj::Calling { inner, call } => {
                    return Poll::Ready(match ready!(call.run(|| inner.poll(cx))) {
                        Ok(response) => Ok(call.answered(response)),
                        Err(error) => {
                            call.failed(&error);
                            Err(error)
                        }
                    });
                }
                StateProj::Unready { waiting, call } => {
                    let Waiting { service, request } = &mut **waiting;
                    if let Err(error) = ready!(call.run(|| service.poll_ready(cx))) {
                        call.failed(&error);
                        return Poll::Ready(Err(error));
                    }
                    let request = request.take().expect("polled after its end");
                    let inner = call.run(|| service.call(request));
                    let method = std::mem::take(&mut call.method);
                    let call = Call::new(call.take(), method, Arc::clone(&call.classify));
                    State::Calling { inner, call }
                }
            };
            state.set(calling);
        }
    }
}

impl<S, ReqBody, ResBody, C, P> fmt::Debug for BreakerFuture<S, ReqBody, ResBody, C, P>
where
    S: Service<Request<ReqBody>>,
    ResBody: Body,
    C: Classify<S::Error>,
    P: Hold,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BreakerFuture").finish_non_exhaustive()
    }
}
