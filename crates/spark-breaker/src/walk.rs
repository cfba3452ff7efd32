//! Where a request has been, and where it goes next.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use spark_core::{BoxError, Problem, Refusal, ResponseBody, Shape};
use tokio::time::{Instant, Sleep, sleep};

use crate::budget::PaidInto;
use crate::failover_body::{FailoverBody, PeekedBody};
use crate::flaw::{Flaw, Found, Verdict, flaw};
use crate::last_resort::Seat;
use crate::metrics::HopEnd;
use crate::{Answered, Deadline, Failover, LastResort, TimeoutError, retry_after};

/// The request, and where it has been.
pub(crate) struct Walk<S, ReqBody> {
    failover: Failover<S>,
    parts: Parts,
    body: ReqBody,
    shape: Shape,
    deadline: Option<Deadline>,
    /// Which hop the step is about, and the ones before it.
    at: usize,
    before: Vec<usize>,
    /// How many hops were tried with it, and how many of their providers were asked.
    tried: usize,
    asked: usize,
    /// It was paid for by the budget.
    paid: bool,
    waited: bool,
    /// When which hop may be asked again, by what it said last.
    waits: Vec<(Duration, usize)>,
}

/// What follows an answer that is not good enough.
pub(crate) enum Next {
    Ask(usize),
    /// The last resort: one of those that were asked.
    Wait {
        timer: Sleep,
        hop: usize,
        seat: Seat,
    },
}

/// What the head of an answer is worth.
pub(crate) enum Judged<B, E> {
    Good(Response<FailoverBody<B>>),
    /// Good, if its body begins.
    Promising(Response<B>),
    Bad(Brought<B, E>, Verdict),
}

/// What a hop brought that is not good enough.
pub(crate) enum Brought<B, E> {
    /// Its body holds a connection, a permit and a place.
    Live(Response<B>),
    Whole(Result<Response<FailoverBody<B>>, E>),
}

impl<S, ReqBody> Walk<S, ReqBody> {
    pub(crate) fn new(failover: Failover<S>, request: Request<ReqBody>) -> Self {
        let shape = Shape::of(request.extensions(), request.headers());
        let (mut parts, body) = request.into_parts();
        let rules = &failover.rules;
        let theirs = Deadline::of(&parts.extensions);
        let ours = rules.deadline.map(Deadline::after);
        let deadline = theirs.into_iter().chain(ours).min();
        if let Some(deadline) = deadline {
            parts.extensions.insert(deadline);
        }
        if let Some(budget) = &rules.budget {
            budget.deposit_for(&parts.extensions);
            parts.extensions.insert(PaidInto(budget.clone()));
        }
        Self {
            failover,
            parts,
            body,
            shape,
            deadline,
            at: 0,
            before: Vec::new(),
            tried: 0,
            asked: 0,
            paid: false,
            waited: false,
            waits: Vec::new(),
        }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline.map(|deadline| deadline.0)
    }

    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    pub(crate) fn tried(&self) -> usize {
        self.tried
    }

    pub(crate) fn first(&self) -> Option<usize> {
        self.failover.next_hop(&self.parts, &[])
    }

    pub(crate) fn judge<B, E>(&self, mut response: Response<B>) -> Judged<B, E>
    where
        B: Body<Data = Bytes>,
    {
        let rules = &self.failover.rules;
        let Some(flaw) = flaw(&response, rules.callers_keys) else {
            self.mark(&mut response);
            if rules.until_first_byte && self.parts.method != Method::HEAD {
                return Judged::Promising(response);
            }
            self.count(HopEnd::Answered);
            return Judged::Good(untouched(response));
        };
        self.count(match flaw {
            Flaw::Credential => HopEnd::Credential,
            Flaw::Refused => HopEnd::Refused,
            Flaw::Throttled | Flaw::Unanswered | Flaw::Failed => HopEnd::Status,
        });
        if flaw == Flaw::Credential {
            return Judged::Bad(Brought::Live(response), Verdict::of(flaw));
        }
        self.mark(&mut response);
        let refusal = response.extensions().get::<Refusal>();
        let retry_after = match refusal.and_then(|refusal| refusal.retry_after) {
            Some(after) => Some(after),
            None => retry_after(response.headers(), rules.clock.unix_time()),
        };
        Judged::Bad(Brought::Live(response), Verdict { flaw, retry_after })
    }

    pub(crate) fn failed<B, E>(&self, error: E) -> (Brought<B, E>, Verdict) {
        self.count(HopEnd::Error);
        (Brought::Whole(Err(error)), Verdict::of(Flaw::Unanswered))
    }

    pub(crate) fn no_first_byte<B, E>(&self, error: &BoxError) -> (Brought<B, E>, Verdict) {
        self.count(HopEnd::FirstByte);
        let why = match TimeoutError::within(&**error) {
            Some(_) => &TIMEOUT,
            None => &NO_FIRST_BYTE,
        };
        let answer = Ok(self.problem(why));
        (Brought::Whole(answer), Verdict::of(Flaw::Unanswered))
    }

    /// What may be given back of an answer that was read.
    pub(crate) fn found<B, E>(
        &self,
        response: Response<FailoverBody<B>>,
        verdict: Verdict,
    ) -> Found<B, E> {
        let answer = Ok(match verdict.flaw {
            Flaw::Credential => self.problem(&CREDENTIAL),
            _ => response,
        });
        Found { answer, verdict }
    }

    fn problem<B>(&self, why: &Why) -> Response<FailoverBody<B>> {
        let mut response = why.response(self.shape);
        self.mark(&mut response);
        response
    }

    fn mark<T>(&self, response: &mut Response<T>) {
        response.extensions_mut().insert(Answered {
            hop: Arc::clone(self.failover.hops[self.at].name()),
            hops: self.tried,
        });
    }

    pub(crate) fn count(&self, end: HopEnd) {
        let hop = &self.failover.hops[self.at];
        hop.metrics.count(hop.name(), end);
    }

    pub(crate) fn note(&mut self, verdict: Verdict) {
        if verdict.flaw == Flaw::Refused {
            self.refund();
        } else {
            self.asked += 1;
            self.paid = false;
        }
        self.waits.retain(|(_, hop)| *hop != self.at);
        let wait = verdict.retry_after.map(|wait| (wait, self.at));
        self.waits.extend(wait);
    }

    /// The hop that was paid for is not asked.
    pub(crate) fn refund(&mut self) {
        let paid = std::mem::take(&mut self.paid);
        if let Some(budget) = self.failover.rules.budget.as_ref().filter(|_| paid) {
            budget.refund();
        }
    }

    /// The hop that may be asked first.
    fn least(&self) -> Option<(Duration, usize)> {
        self.waits.iter().copied().min()
    }

    /// What is done after an answer that is not good enough; `None` when it is the end.
    pub(crate) fn next(&mut self, verdict: Verdict) -> Option<Next> {
        let failover = self.failover.clone();
        let rules = &failover.rules;
        let is_over = self.waited
            || self.asked >= rules.max_hops
            || (verdict.flaw.may_have_worked() && !(rules.repeat)(&self.parts));
        if is_over {
            return None;
        }
        self.before.push(self.at);
        let next = match failover.next_hop(&self.parts, &self.before) {
            Some(hop) => Next::Ask(hop),
            None => self.last_resort()?,
        };
        // The first provider that is asked is the call itself.
        if let Some(budget) = rules.budget.as_ref().filter(|_| self.asked > 0) {
            if !budget.withdraw() {
                let (Next::Ask(hop) | Next::Wait { hop, .. }) = next;
                let hop = &failover.hops[hop];
                hop.metrics.count(hop.name(), HopEnd::NoBudget);
                return None;
            }
            self.paid = true;
        }
        self.waited = matches!(next, Next::Wait { .. });
        Some(next)
    }

    fn last_resort(&self) -> Option<Next> {
        let rules = &self.failover.rules;
        let LastResort::WaitForEarliest { at_most, waiting } = rules.last_resort else {
            return None;
        };
        let context = spark_core::Context::of(&self.parts.extensions);
        let (wait, hop) = self.least().filter(|(wait, _)| *wait <= at_most)?;
        if context.is_some_and(spark_core::Context::is_background) {
            return None;
        }
        let timer = sleep(rules.jitter.lengthen(wait, 0.2));
        if self
            .deadline
            .is_some_and(|deadline| deadline.is_before(&timer))
        {
            return None;
        }
        let seat = rules.waiting.enter(waiting)?;
        Some(Next::Wait { timer, hop, seat })
    }

    /// This hop's credit is used up, whenever it says to come back.
    pub(crate) fn not_worth_waiting_for(&mut self, next: Option<Next>) -> Option<Next> {
        self.waits.retain(|(_, hop)| *hop != self.at);
        match next? {
            Next::Wait { hop, seat, .. } if hop == self.at => {
                drop(seat);
                self.last_resort()
            }
            next => Some(next),
        }
    }

    /// The next step is about this hop.
    pub(crate) fn go_to(&mut self, hop: usize) -> S
    where
        S: Clone,
    {
        self.at = hop;
        self.tried += 1;
        self.failover.hops[hop].service.clone()
    }

    pub(crate) fn request(&self) -> Request<ReqBody>
    where
        ReqBody: Clone,
    {
        Request::from_parts(self.parts.clone(), self.body.clone())
    }

    pub(crate) fn give_up<B, E>(
        &self,
        best: Option<Found<B, E>>,
        why: &Why,
    ) -> Result<Response<FailoverBody<B>>, E> {
        match best {
            Some(found) => found.with_least(self.least().map(|(wait, _)| wait)),
            None => Ok(why.response(self.shape)),
        }
    }
}

impl<B, E> Brought<B, E> {
    pub(crate) fn into_answer(self) -> Result<Response<FailoverBody<B>>, E> {
        match self {
            Self::Live(response) => Ok(untouched(response)),
            Self::Whole(answer) => answer,
        }
    }
}

fn untouched<B>(response: Response<B>) -> Response<FailoverBody<B>> {
    response.map(|body| ResponseBody::inner(PeekedBody::untouched(body)))
}

/// What is answered when no hop's answer is.
pub(crate) struct Why {
    status: StatusCode,
    by: &'static str,
    code: &'static str,
    detail: &'static str,
}

impl Why {
    fn response<B>(&self, shape: Shape) -> Response<FailoverBody<B>> {
        Problem::new(self.status, self.by, self.code)
            .detail(self.detail)
            .into_response(shape)
    }
}

pub(crate) const NO_PROVIDER: Why = Why {
    status: StatusCode::SERVICE_UNAVAILABLE,
    by: "failover",
    code: "no_provider",
    detail: "No provider is configured for this request.",
};

pub(crate) const DEADLINE: Why = Why {
    status: StatusCode::GATEWAY_TIMEOUT,
    by: "failover",
    code: "deadline_exceeded",
    detail: "No provider answered in time.",
};

const CREDENTIAL: Why = Why {
    status: StatusCode::BAD_GATEWAY,
    by: "failover",
    code: "provider_credential",
    detail: "The provider does not accept this service's own credential.",
};

const NO_FIRST_BYTE: Why = Why {
    status: StatusCode::BAD_GATEWAY,
    by: "failover",
    code: "no_first_byte",
    detail: "The provider's answer broke off before its first byte.",
};

const TIMEOUT: Why = Why {
    status: StatusCode::GATEWAY_TIMEOUT,
    by: "timeout",
    code: "upstream_timeout",
    detail: "The provider's answer did not begin in time.",
};
