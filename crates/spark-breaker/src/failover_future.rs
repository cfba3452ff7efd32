//! The walk from hop to hop.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use spark_core::BoxError;
use tokio::time::{Sleep, sleep_until};
use tower_service::Service;

use crate::Failover;
use crate::failover_body::{FailoverBody, Peek};
use crate::flaw::{Flaw, Found, Verdict};
use crate::kept::Keep;
use crate::last_resort::Seat;
use crate::metrics::HopEnd;
use crate::walk::{Brought, DEADLINE, Judged, NO_PROVIDER, Next, Walk};

pin_project! {
    /// The answer of a [`Failover`](crate::Failover).
    pub struct FailoverFuture<S, ReqBody, B>
    where
        S: Service<Request<ReqBody>>,
    {
        #[pin]
        deadline: Option<Sleep>,
        #[pin]
        step: Step<S, S::Future, B>,
        kept: Option<Found<B, S::Error>>,
        walk: Walk<S, ReqBody>,
    }
}

pin_project! {
    #[project = StepProj]
    enum Step<S, F, B> {
        Start,
        Readying { service: S },
        Calling { #[pin] future: F },
        // A good head: the first byte decides.
        Peeking { peek: Peek<B> },
        // What was answered is read before the next step, since it may be the best that there is.
        Keeping { #[pin] keep: Keep<B>, verdict: Verdict, next: Option<Next> },
        Waiting { #[pin] timer: Sleep, hop: usize, seat: Seat },
    }
}

impl<S, ReqBody, B> FailoverFuture<S, ReqBody, B>
where
    S: Service<Request<ReqBody>>,
{
    pub(crate) fn new(failover: Failover<S>, request: Request<ReqBody>) -> Self {
        let walk = Walk::new(failover, request);
        Self {
            deadline: walk.deadline().map(sleep_until),
            step: Step::Start,
            kept: None,
            walk,
        }
    }
}

impl<S, ReqBody, B> Future for FailoverFuture<S, ReqBody, B>
where
    S: Service<Request<ReqBody>, Response = Response<B>> + Clone,
    ReqBody: Clone,
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Output = Result<Response<FailoverBody<B>>, S::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let walked = self.as_mut().walk_on(cx);
        let mut this = self.project();
        if walked.is_ready() || !is_late(this.deadline.as_mut(), cx) {
            return walked;
        }
        if let StepProj::Keeping { keep, verdict, .. } = this.step.as_mut().project() {
            this.walk.refund();
            let found = this.walk.found(keep.cut().response, *verdict);
            better(this.kept, found);
        } else {
            this.walk.count(HopEnd::Deadline);
        }
        // What is under way is dropped with the step, now: it is given up.
        this.step.set(Step::Start);
        Poll::Ready(this.walk.give_up(this.kept.take(), &DEADLINE))
    }
}

impl<S, ReqBody, B> FailoverFuture<S, ReqBody, B>
where
    S: Service<Request<ReqBody>, Response = Response<B>> + Clone,
    ReqBody: Clone,
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    fn walk_on(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<FailoverBody<B>>, S::Error>> {
        let mut this = self.project();
        let walk = this.walk;
        loop {
            let (brought, verdict) = match this.step.as_mut().project() {
                StepProj::Start => {
                    let Some(hop) = walk.first() else {
                        return Poll::Ready(walk.give_up(None, &NO_PROVIDER));
                    };
                    this.step.set(step(walk, Next::Ask(hop)));
                    continue;
                }
                StepProj::Readying { service } => match ready!(service.poll_ready(cx)) {
                    Ok(()) => {
                        let future = service.call(walk.request());
                        this.step.set(Step::Calling { future });
                        continue;
                    }
                    Err(error) => walk.failed(error),
                },
                StepProj::Calling { future } => match ready!(future.poll(cx)) {
                    Ok(response) => match walk.judge(response) {
                        Judged::Bad(brought, verdict) => (brought, verdict),
                        Judged::Promising(response) => {
                            let peek = Peek::new(response);
                            this.step.set(Step::Peeking { peek });
                            continue;
                        }
                        Judged::Good(response) => return Poll::Ready(Ok(response)),
                    },
                    Err(error) => walk.failed(error),
                },
                StepProj::Peeking { peek } => match ready!(peek.poll(cx)) {
                    Ok(response) => {
                        walk.count(HopEnd::Answered);
                        return Poll::Ready(Ok(response));
                    }
                    Err(error) => walk.no_first_byte(&error),
                },
                StepProj::Keeping {
                    keep,
                    verdict,
                    next,
                } => {
                    let kept = ready!(keep.poll(cx));
                    better(this.kept, walk.found(kept.response, *verdict));
                    let mut next = next.take();
                    if kept.is_exhausted {
                        next = walk.not_worth_waiting_for(next);
                    }
                    let next = next.filter(|_| !is_late(this.deadline.as_mut(), cx));
                    let Some(next) = next else {
                        walk.refund();
                        return Poll::Ready(walk.give_up(this.kept.take(), &DEADLINE));
                    };
                    this.step.set(step(walk, next));
                    continue;
                }
                StepProj::Waiting { timer, hop, .. } => {
                    ready!(timer.poll(cx));
                    let next = Next::Ask(*hop);
                    this.step.set(step(walk, next));
                    continue;
                }
            };
            walk.note(verdict);
            let kept = this.kept.as_ref();
            let is_best = kept.is_none_or(|kept| verdict.is_better_than(kept.verdict));
            let late = is_late(this.deadline.as_mut(), cx);
            let next = if late { None } else { walk.next(verdict) };
            // What is told of our own credential is for nobody's eyes but the breaker's.
            let is_ours = verdict.flaw == Flaw::Credential;
            match (next, brought) {
                (next, Brought::Live(response)) if is_ours || (is_best && next.is_some()) => {
                    let keep = Keep::new(response, walk.shape());
                    this.step.set(Step::Keeping {
                        keep,
                        verdict,
                        next,
                    });
                }
                (next, brought) => {
                    let answer = brought.into_answer();
                    better(this.kept, Found { answer, verdict });
                    let Some(next) = next else {
                        return Poll::Ready(walk.give_up(this.kept.take(), &DEADLINE));
                    };
                    this.step.set(step(walk, next));
                }
            }
        }
    }
}

fn step<S: Clone, ReqBody, F, B>(walk: &mut Walk<S, ReqBody>, next: Next) -> Step<S, F, B> {
    match next {
        Next::Ask(hop) => Step::Readying {
            service: walk.go_to(hop),
        },
        Next::Wait { timer, hop, seat } => Step::Waiting { timer, hop, seat },
    }
}

/// Keeps the better of the two.
fn better<B, E>(kept: &mut Option<Found<B, E>>, found: Found<B, E>) {
    if kept
        .as_ref()
        .is_none_or(|kept| found.verdict.is_better_than(kept.verdict))
    {
        *kept = Some(found);
    }
}

fn is_late(deadline: Pin<&mut Option<Sleep>>, cx: &mut Context<'_>) -> bool {
    let deadline = deadline.as_pin_mut();
    deadline.is_some_and(|deadline| deadline.poll(cx).is_ready())
}

impl<S, ReqBody, B> fmt::Debug for FailoverFuture<S, ReqBody, B>
where
    S: Service<Request<ReqBody>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FailoverFuture")
            .field("tried", &self.walk.tried())
            .finish_non_exhaustive()
    }
}
