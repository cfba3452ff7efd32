//! The walk from hop to hop.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use pin_project_lite::pin_project;
use spark_core::{Problem, ResponseBody, Shape};
use tokio::time::Sleep;
use tower_service::Service;

use crate::Answered;
use crate::failover::{Failover, Flaw, flaw};
use crate::metrics::HopEnd;

/// The response body of a [`Failover`](crate::Failover).
pub type FailoverBody<B> = ResponseBody<B>;

pin_project! {
    /// The answer of a [`Failover`](crate::Failover).
    pub struct FailoverFuture<S, B>
    where
        S: Service<Request<Bytes>>,
    {
        failover: Failover<S>,
        parts: Parts,
        body: Bytes,
        shape: Shape,
        #[pin]
        deadline: Option<Sleep>,
        #[pin]
        step: Step<S, S::Future>,
        // Which hop the step is about, and how many were tried with it.
        at: usize,
        tried: usize,
        // How many of those refused without asking their provider.
        refused: usize,
        kept: Option<Kept<B, S::Error>>,
    }
}

pin_project! {
    #[project = StepProj]
    enum Step<S, F> {
        // Looks for an eligible hop from this one on.
        Next { from: usize },
        Readying { service: S },
        Calling { #[pin] future: F },
    }
}

/// The best answer so far, none of them good.
struct Kept<B, E> {
    answer: Result<Response<B>, E>,
    flaw: Flaw,
}

impl<S, B> FailoverFuture<S, B>
where
    S: Service<Request<Bytes>>,
{
    pub(crate) fn new(
        failover: Failover<S>,
        request: Request<Bytes>,
        shape: Shape,
        deadline: Option<Duration>,
    ) -> Self {
        let (parts, body) = request.into_parts();
        Self {
            failover,
            parts,
            body,
            shape,
            deadline: deadline.map(tokio::time::sleep),
            step: Step::Next { from: 0 },
            at: 0,
            tried: 0,
            refused: 0,
            kept: None,
        }
    }
}

impl<S, B> Future for FailoverFuture<S, B>
where
    S: Service<Request<Bytes>, Response = Response<B>> + Clone,
{
    type Output = Result<Response<FailoverBody<B>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let answer = match this.step.as_mut().project() {
                StepProj::Next { from } => {
                    let hop = if *this.tried - *this.refused < this.failover.rules.max_hops {
                        this.failover.next_eligible(this.parts, *from)
                    } else {
                        None
                    };
                    let Some(hop) = hop else {
                        return Poll::Ready(give_up(this.kept.take(), *this.shape, &NO_PROVIDER));
                    };
                    *this.at = hop;
                    *this.tried += 1;
                    let service = this.failover.hops[hop].service.clone();
                    this.step.set(Step::Readying { service });
                    continue;
                }
                StepProj::Readying { service } => match service.poll_ready(cx) {
                    Poll::Ready(Ok(())) => {
                        let request = Request::from_parts(this.parts.clone(), this.body.clone());
                        let future = service.call(request);
                        this.step.set(Step::Calling { future });
                        continue;
                    }
                    Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                    Poll::Pending => Poll::Pending,
                },
                StepProj::Calling { future } => future.poll(cx),
            };
            let hop = &this.failover.hops[*this.at];
            let Poll::Ready(mut answer) = answer else {
                let late = this.deadline.as_mut().as_pin_mut();
                if late.is_some_and(|deadline| deadline.poll(cx).is_ready()) {
                    hop.metrics.count(hop.name(), HopEnd::Deadline);
                    // The hop under way is dropped with this future's step, now: it is given up.
                    this.step.set(Step::Next { from: usize::MAX });
                    return Poll::Ready(give_up(this.kept.take(), *this.shape, &DEADLINE));
                }
                return Poll::Pending;
            };
            if let Ok(response) = &mut answer {
                response.extensions_mut().insert(Answered {
                    hop: Arc::clone(hop.name()),
                    hops: *this.tried,
                });
            }
            let flaw = match &answer {
                Ok(response) => flaw(response),
                Err(_) => Some(Flaw::Failed),
            };
            let Some(flaw) = flaw else {
                hop.metrics.count(hop.name(), HopEnd::Answered);
                return Poll::Ready(answer.map(|response| response.map(ResponseBody::inner)));
            };
            let end = match (&answer, flaw) {
                (_, Flaw::Refused { .. }) => {
                    *this.refused += 1;
                    HopEnd::Refused
                }
                (Err(_), Flaw::Failed) => HopEnd::Error,
                (Ok(_), Flaw::Failed) => HopEnd::Status,
            };
            hop.metrics.count(hop.name(), end);
            let found = Kept { answer, flaw };
            if this.kept.as_ref().is_none_or(|kept| found.replaces(kept)) {
                *this.kept = Some(found);
            }
            let from = *this.at + 1;
            this.step.set(Step::Next { from });
        }
    }
}

impl<B, E> Kept<B, E> {
    /// What a provider said tells more than a refusal of ours; of refusals, the one that ends
    /// first; else the later answer.
    fn replaces(&self, other: &Self) -> bool {
        match (self.flaw, other.flaw) {
            (Flaw::Failed, _) => true,
            (Flaw::Refused { .. }, Flaw::Failed) => false,
            (
                Flaw::Refused { retry_after: ours },
                Flaw::Refused {
                    retry_after: theirs,
                },
            ) => ours.unwrap_or(Duration::MAX) < theirs.unwrap_or(Duration::MAX),
        }
    }
}

struct GivenUp {
    status: StatusCode,
    code: &'static str,
    detail: &'static str,
}

const NO_PROVIDER: GivenUp = GivenUp {
    status: StatusCode::SERVICE_UNAVAILABLE,
    code: "no_provider",
    detail: "No provider is configured for this request.",
};

const DEADLINE: GivenUp = GivenUp {
    status: StatusCode::GATEWAY_TIMEOUT,
    code: "deadline_exceeded",
    detail: "No provider answered in time.",
};

fn give_up<B, E>(
    kept: Option<Kept<B, E>>,
    shape: Shape,
    why: &GivenUp,
) -> Result<Response<FailoverBody<B>>, E> {
    match kept {
        Some(kept) => kept
            .answer
            .map(|response| response.map(ResponseBody::inner)),
        None => Ok(Problem::new(why.status, "failover", why.code)
            .detail(why.detail)
            .into_response(shape)),
    }
}

impl<S, B> fmt::Debug for FailoverFuture<S, B>
where
    S: Service<Request<Bytes>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FailoverFuture")
            .field("tried", &self.tried)
            .finish_non_exhaustive()
    }
}
