//! Why an answer is not good enough, and which of several such is given back.

use std::time::Duration;

use http::header::{HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use spark_core::{Refusal, whole_seconds};

use crate::failover_body::FailoverBody;

/// Why an answer is not good enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// The provider refused our own credential: it did no work, and the caller can do nothing.
    Credential,
    /// A layer of ours did not let the call through: the provider was not asked.
    Refused,
    /// The provider takes no more calls: it did no work.
    Throttled,
    /// The provider did not answer, or not in time.
    Unanswered,
    /// The provider answered badly.
    Failed,
}

impl Flaw {
    /// The provider may have done what was asked.
    pub(crate) fn may_have_worked(self) -> bool {
        matches!(self, Self::Unanswered | Self::Failed)
    }

    /// How much it tells the caller.
    fn rank(self) -> u8 {
        match self {
            Self::Credential => 0,
            Self::Refused => 1,
            Self::Unanswered => 2,
            Self::Throttled | Self::Failed => 3,
        }
    }
}

/// What is wrong with the head of an answer, if anything.
pub(crate) fn flaw<B>(response: &Response<B>, callers_keys: bool) -> Option<Flaw> {
    let status = response.status();
    match response.extensions().get::<Refusal>() {
        Some(refusal) => match (refusal.by, refusal.code) {
            ("breaker" | "bulkhead", _) | ("failover", "no_provider") => Some(Flaw::Refused),
            ("failover", "provider_credential") => Some(Flaw::Credential),
            _ => of_status(status).map(|flaw| match flaw {
                // As a timeout of ours.
                Flaw::Failed => Flaw::Unanswered,
                flaw => flaw,
            }),
        },
        None if callers_keys => of_status(status),
        None => match status {
            StatusCode::UNAUTHORIZED | StatusCode::PAYMENT_REQUIRED | StatusCode::FORBIDDEN => {
                Some(Flaw::Credential)
            }
            _ => of_status(status),
        },
    }
}

fn of_status(status: StatusCode) -> Option<Flaw> {
    match status {
        StatusCode::TOO_MANY_REQUESTS => Some(Flaw::Throttled),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY => Some(Flaw::Failed),
        _ => status.is_server_error().then_some(Flaw::Failed),
    }
}

/// What is wrong with an answer, and when that hop may be asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) flaw: Flaw,
    pub(crate) retry_after: Option<Duration>,
}

impl Verdict {
    pub(crate) fn of(flaw: Flaw) -> Self {
        Self {
            flaw,
            retry_after: None,
        }
    }

    /// Whether an answer with this one is to be kept rather than one with the other: what a provider
    /// said tells more than that it did not answer, and that more than a refusal of ours; of refusals,
    /// the one that ends first; else the later.
    pub(crate) fn is_better_than(self, other: Self) -> bool {
        match (self.flaw, other.flaw) {
            (Flaw::Refused, Flaw::Refused) => {
                let wait = |verdict: Self| verdict.retry_after.unwrap_or(Duration::MAX);
                wait(self) < wait(other)
            }
            (ours, theirs) => ours.rank() >= theirs.rank(),
        }
    }
}

/// An answer that is not good enough.
pub(crate) struct Found<B, E> {
    pub(crate) answer: Result<Response<FailoverBody<B>>, E>,
    pub(crate) verdict: Verdict,
}

impl<B, E> Found<B, E> {
    /// The answer, with the time after which the first hop may be asked: the caller need not wait
    /// for this one.
    pub(crate) fn with_least(
        self,
        least: Option<Duration>,
    ) -> Result<Response<FailoverBody<B>>, E> {
        let own = self.verdict.retry_after;
        self.answer.map(|mut response| {
            let says_when = own.is_some() || matches!(response.status().as_u16(), 429 | 503);
            let is_less = |least: &Duration| own.is_none_or(|own| *least < own);
            if let Some(least) = least.filter(|least| says_when && is_less(least)) {
                let seconds = HeaderValue::from(whole_seconds(least));
                response.headers_mut().insert(RETRY_AFTER, seconds);
                if let Some(refusal) = response.extensions_mut().get_mut::<Refusal>() {
                    refusal.retry_after = Some(least);
                }
            }
            response
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, refusal: Option<(&'static str, &'static str)>) -> Option<Flaw> {
        let status = StatusCode::from_u16(status).unwrap();
        let response = match refusal {
            Some((by, code)) => spark_core::Problem::new(status, by, code)
                .into_response::<String>(spark_core::Shape::PROBLEM)
                .map(drop),
            None => Response::builder().status(status).body(()).unwrap(),
        };
        flaw(&response, false)
    }

    #[test]
    fn table() {
        for (status, refusal, expected) in [
            (200, None, None),
            (400, None, None),
            (404, None, None),
            (401, None, Some(Flaw::Credential)),
            (402, None, Some(Flaw::Credential)),
            (403, None, Some(Flaw::Credential)),
            (408, None, Some(Flaw::Failed)),
            (425, None, Some(Flaw::Failed)),
            (429, None, Some(Flaw::Throttled)),
            (500, None, Some(Flaw::Failed)),
            (529, None, Some(Flaw::Failed)),
            (503, Some(("breaker", "breaker_open")), Some(Flaw::Refused)),
            (
                503,
                Some(("bulkhead", "bulkhead_full")),
                Some(Flaw::Refused),
            ),
            (
                504,
                Some(("timeout", "upstream_timeout")),
                Some(Flaw::Unanswered),
            ),
            (503, Some(("failover", "no_provider")), Some(Flaw::Refused)),
            (
                502,
                Some(("failover", "provider_credential")),
                Some(Flaw::Credential),
            ),
            (
                504,
                Some(("failover", "deadline_exceeded")),
                Some(Flaw::Unanswered),
            ),
            // Refused by some layer inside of the hop, and no word of the provider's.
            (401, Some(("auth", "missing")), None),
        ] {
            assert_eq!(of(status, refusal), expected, "{status} {refusal:?}");
        }
    }
}
