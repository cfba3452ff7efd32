//! The attempts under way.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use spark_core::{BoxError, Refusal, ResponseBody, Shape};
use tokio::time::{Sleep, sleep};
use tower_service::Service;

use crate::Deadline;
use crate::kept::Keep;
use crate::metrics::{self, count};
use crate::retry::{RetryBody, Rules};

pin_project! {
    /// The answer of a [`RetryService`](crate::RetryService).
    pub struct RetryFuture<S, ReqBody, B>
    where
        S: Service<Request<ReqBody>>,
    {
        service: S,
        // What a further attempt sends; none when there is to be no other.
        again: Option<Request<ReqBody>>,
        rules: Arc<Rules>,
        // How many attempts were made.
        made: u32,
        // What the attempt before brought.
        kept: Option<Result<Response<RetryBody<B>>, S::Error>>,
        // Until the next attempt.
        #[pin]
        pause: Option<Sleep>,
        #[pin]
        step: Step<S::Future, B>,
    }
}

pin_project! {
    #[project = StepProj]
    enum Step<F, B> {
        Calling { #[pin] future: F },
        Keeping { #[pin] keep: Keep<B> },
        Pausing,
        Readying,
    }
}

impl<S, ReqBody, B> RetryFuture<S, ReqBody, B>
where
    S: Service<Request<ReqBody>>,
{
    pub(crate) fn new(
        service: S,
        future: S::Future,
        again: Option<Request<ReqBody>>,
        rules: Arc<Rules>,
    ) -> Self {
        Self {
            service,
            again,
            rules,
            made: 1,
            kept: None,
            pause: None,
            step: Step::Calling { future },
        }
    }
}

impl<S, ReqBody, B> Future for RetryFuture<S, ReqBody, B>
where
    S: Service<Request<ReqBody>, Response = Response<B>>,
    ReqBody: Clone,
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Output = Result<Response<RetryBody<B>>, S::Error>;

    #[expect(
        clippy::expect_used,
        reason = "a request is at hand until the last attempt has taken it"
    )]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.step.as_mut().project() {
                StepProj::Calling { future } => {
                    let answer = ready!(future.poll(cx));
                    // A refusal of ours says nothing of the provider, which was not asked again.
                    if let Some(kept) = this.kept.take_if(|_| is_refused(&answer)) {
                        this.rules.budget.refund();
                        return Poll::Ready(kept);
                    }
                    let pause = this.again.as_ref().and_then(|request| {
                        let pause = sleep(this.rules.pause(&answer, *this.made)?);
                        Some((pause, request)).filter(|(pause, request)| may_begin(pause, request))
                    });
                    let Some((pause, request)) = pause else {
                        return Poll::Ready(answer.map(|answer| answer.map(ResponseBody::inner)));
                    };
                    if !this.rules.budget.withdraw() {
                        count!(metrics::RETRIES, "result" => "no_budget");
                        return Poll::Ready(answer.map(|answer| answer.map(ResponseBody::inner)));
                    }
                    this.pause.set(Some(pause));
                    match answer {
                        Ok(response) => {
                            let shape = Shape::of(request.extensions(), request.headers());
                            let keep = Keep::new(response, shape);
                            this.step.set(Step::Keeping { keep });
                        }
                        Err(error) => {
                            *this.kept = Some(Err(error));
                            this.step.set(Step::Pausing);
                        }
                    }
                }
                StepProj::Keeping { keep } => {
                    let kept = ready!(keep.poll(cx));
                    if kept.is_exhausted {
                        this.rules.budget.refund();
                        return Poll::Ready(Ok(kept.response));
                    }
                    *this.kept = Some(Ok(kept.response));
                    this.step.set(Step::Pausing);
                }
                StepProj::Pausing => {
                    if let Some(pause) = this.pause.as_mut().as_pin_mut() {
                        ready!(pause.poll(cx));
                    }
                    this.pause.set(None);
                    this.step.set(Step::Readying);
                }
                StepProj::Readying => {
                    let ready = ready!(this.service.poll_ready(cx));
                    // To read the answer before, and to become ready, took time.
                    let is_late = this.again.as_ref().is_some_and(is_late);
                    let goes_on = ready.is_ok() && !is_late;
                    if let Some(kept) = this.kept.take_if(|_| !goes_on) {
                        this.rules.budget.refund();
                        return Poll::Ready(kept);
                    }
                    ready?;
                    count!(metrics::RETRIES, "result" => "made");
                    *this.made += 1;
                    let is_last = *this.made >= this.rules.attempts;
                    let request = if is_last {
                        this.again.take()
                    } else {
                        this.again.clone()
                    };
                    let request = request.expect("each attempt has its request");
                    let future = this.service.call(request);
                    this.step.set(Step::Calling { future });
                }
            }
        }
    }
}

/// Whether an attempt after this pause would begin before the deadline.
fn may_begin<ReqBody>(pause: &Sleep, request: &Request<ReqBody>) -> bool {
    let deadline = Deadline::of(request.extensions());
    let in_time = deadline.is_none_or(|deadline| !deadline.is_before(pause));
    if !in_time {
        count!(metrics::RETRIES, "result" => "no_time");
    }
    in_time
}

fn is_late<ReqBody>(request: &Request<ReqBody>) -> bool {
    let has_deadline = Deadline::of(request.extensions()).is_some();
    has_deadline && !may_begin(&sleep(Duration::ZERO), request)
}

fn is_refused<B, E>(answer: &Result<Response<B>, E>) -> bool {
    let refusal = answer.as_ref().ok();
    let refusal = refusal.and_then(|response| response.extensions().get::<Refusal>());
    refusal.is_some_and(|it| matches!(it.by, "breaker" | "bulkhead"))
}

impl<S, ReqBody, B> fmt::Debug for RetryFuture<S, ReqBody, B>
where
    S: Service<Request<ReqBody>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryFuture")
            .field("made", &self.made)
            .finish_non_exhaustive()
    }
}
