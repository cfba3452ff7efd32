//! What the answer of a model provider says about it.

use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};

use crate::classify::{no_answer, own_refusal};
use crate::{Classify, Head, LlmBody, Outcome, Verdict, fault};

/// For model providers. The default.
///
/// | answer | outcome | of |
/// |---|---|---|
/// | 401, 402, 403 | failure: with our own key, every further call would be refused too | credential |
/// | 429 | throttled, with its `Retry-After` or its limits' [reset](crate::reset_after) | credential |
/// | 402, 403 or 429 whose error says that the credit or a spend limit is used up | [exhausted](Outcome::exhausted) | credential |
/// | 429 whose error says that the model is overloaded | throttled | model |
/// | 408, 425, 5xx | failure, with its `Retry-After` | model |
/// | 520 to 527, 530: an edge did not reach what is behind it | failure | provider |
/// | other 4xx | ignored | |
/// | refused by our own timeout | failure of the phase that took too long | provider |
/// | refused by any other layer of ours | ignored | |
/// | an error of the client | failure, see also [`ByCause`](crate::ByCause) | provider |
/// | anything else | decided by the body, see [`LlmBody`] | |
///
/// 502, 503 and 504 are held against the model alone: the gateways of providers stand in front of
/// one pool of machines for each model, and where all of them are down, all of them will say so.
///
/// With [callers' keys](Self::callers_key), 401, 402, 403 and 429 are ignored: they are the caller's
/// own business.
///
/// # Example
/// ```
/// use spark_breaker::{Classify, FailKind, Head, IgnoreKind, LlmClassify, Outcome, Verdict};
/// let (parts, ()) = http::Response::builder().status(401).body(()).unwrap().into_parts();
/// let clock = spark_core::Clock::system();
/// let of = |classify: LlmClassify| {
///     match Classify::<std::io::Error>::response(&classify, &Head::new(&parts, &clock)) {
///         Verdict::Now(outcome) => outcome,
///         Verdict::AtTheEnd(_) => unreachable!("the head says it all"),
///     }
/// };
/// assert_eq!(of(LlmClassify::new()), Outcome::failure(FailKind::Auth));
/// assert_eq!(of(LlmClassify::callers_key()), Outcome::Ignored(IgnoreKind::Client));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LlmClassify {
    callers_key: bool,
}

impl LlmClassify {
    /// For calls with our own key.
    ///
    /// # Example
    /// ```
    /// use spark_breaker::LlmClassify;
    /// assert_eq!(LlmClassify::new(), LlmClassify::default());
    /// ```
    pub const fn new() -> Self {
        Self { callers_key: false }
    }

    /// For calls with a key that each caller brings: one caller's bad key, or one that has used up
    /// its quota, says nothing about the provider.
    ///
    /// # Example
    /// ```
    /// use spark_breaker::LlmClassify;
    /// assert_ne!(LlmClassify::callers_key(), LlmClassify::new());
    /// ```
    pub const fn callers_key() -> Self {
        Self { callers_key: true }
    }
}

impl<E: 'static> Classify<E> for LlmClassify {
    type Body = LlmBody;

    fn response(&self, head: &Head<'_>) -> Verdict<LlmBody> {
        if let Some(outcome) = own_refusal(head) {
            return Verdict::Now(outcome);
        }
        let status = head.status();
        if !status.is_client_error() && !status.is_server_error() {
            return Verdict::AtTheEnd(self.answer(head));
        }
        let outcome = fault::of_status(status.as_u16(), self.callers_key);
        if matches!(outcome, Outcome::Ignored(_)) {
            return Verdict::Now(outcome);
        }
        let outcome = outcome.with_retry_after(head.retry_after());
        if fault::may_be_exhausted(status) && is_readable(head.headers()) {
            return Verdict::AtTheEnd(LlmBody::refusal(outcome));
        }
        Verdict::Now(outcome)
    }

    fn error(&self, error: &E) -> Outcome {
        no_answer(error)
    }
}

impl LlmClassify {
    fn answer(self, head: &Head<'_>) -> LlmBody {
        if !head.status().is_success() || !is_readable(head.headers()) {
            return LlmBody::to_the_end();
        }
        let essence = essence(head.headers());
        let is = |kind: &[u8]| essence.eq_ignore_ascii_case(kind);
        if is(b"text/event-stream") {
            LlmBody::events(self.callers_key)
        } else if is(b"application/json") {
            LlmBody::json(self.callers_key)
        } else {
            LlmBody::to_the_end()
        }
    }
}

/// Whether there is a body, as plain text.
fn is_readable(headers: &HeaderMap) -> bool {
    let is_plain = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .all(|coding| coding == "identity");
    is_plain
        && headers
            .get(CONTENT_LENGTH)
            .is_none_or(|length| length != "0")
}

/// The content type without its parameters.
fn essence(headers: &HeaderMap) -> &[u8] {
    let value = headers.get(CONTENT_TYPE).map(http::HeaderValue::as_bytes);
    let mut parts = value.unwrap_or_default().split(|byte| *byte == b';');
    parts.next().unwrap_or_default().trim_ascii()
}
