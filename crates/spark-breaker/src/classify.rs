//! What an answer says about the provider that gave it.

use std::time::Duration;

use bytes::Bytes;
use http::response::Parts;
use http::{HeaderMap, StatusCode};
use spark_core::{Clock, End, Refusal};

use crate::{FailKind, IgnoreKind, Outcome, Phase, retry_after};

/// Decides what an answer, or the lack of one, says about the callee.
///
/// # Example
/// ```
/// use spark_breaker::{Classify, FailKind, Head, Outcome, ToTheEnd, Verdict};
///
/// /// A search engine that says 404 while it is starting.
/// #[derive(Debug)]
/// struct Search;
///
/// impl<E> Classify<E> for Search {
///     type Body = ToTheEnd;
///     fn response(&self, head: &Head<'_>) -> Verdict<ToTheEnd> {
///         match head.status().as_u16() {
///             404 => Verdict::Now(Outcome::failure(FailKind::Status(404))),
///             _ => Verdict::AtTheEnd(ToTheEnd),
///         }
///     }
///     fn error(&self, _: &E) -> Outcome {
///         Outcome::failure(FailKind::Transport)
///     }
/// }
/// ```
pub trait Classify<E>: Send + Sync + 'static {
    /// Reads the body where the head alone does not decide.
    type Body: ClassifyBody;

    /// The head of an answer has come.
    fn response(&self, head: &Head<'_>) -> Verdict<Self::Body>;

    /// There is no answer.
    fn error(&self, error: &E) -> Outcome;
}

/// What the head of an answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict<B> {
    /// All that there is to know.
    Now(Outcome),
    /// The body decides.
    AtTheEnd(B),
}

/// Reads a body as it passes, and decides at its end.
pub trait ClassifyBody: Send + 'static {
    /// Some bytes have passed.
    fn data(&mut self, data: &Bytes) {
        let _ = data;
    }

    /// The body has ended. `None` leaves the permit without a result, as if dropped: right for a
    /// body that the caller cancelled half-way.
    fn end(self, end: End) -> Option<Outcome>;
}

/// The plain rule for bodies: read to its end is a success, broken is a failure, cancelled is
/// nothing.
///
/// # Example
/// ```
/// use spark_breaker::{ClassifyBody, Outcome, ToTheEnd};
/// use spark_core::End;
/// assert_eq!(ToTheEnd.end(End::Complete), Some(Outcome::Success));
/// assert_eq!(ToTheEnd.end(End::Cancelled), None);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ToTheEnd;

impl ClassifyBody for ToTheEnd {
    fn end(self, end: End) -> Option<Outcome> {
        match end {
            End::Complete => Some(Outcome::Success),
            End::Error => Some(Outcome::failure(FailKind::Body)),
            End::Cancelled => None,
        }
    }
}

/// The head of an answer, as a [`Classify`] sees it.
#[derive(Debug)]
pub struct Head<'a> {
    parts: &'a Parts,
    clock: &'a Clock,
}

impl<'a> Head<'a> {
    /// The head of an answer that came just now.
    ///
    /// # Example
    /// ```
    /// use spark_breaker::Head;
    /// use spark_core::Clock;
    /// let (parts, ()) = http::Response::builder().status(503).body(()).unwrap().into_parts();
    /// assert_eq!(Head::new(&parts, &Clock::system()).status(), 503);
    /// ```
    pub fn new(parts: &'a Parts, clock: &'a Clock) -> Self {
        Self { parts, clock }
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.parts.status
    }

    /// The headers.
    pub fn headers(&self) -> &'a HeaderMap {
        &self.parts.headers
    }

    /// Which layer of ours refused, when the answer is not the provider's.
    pub fn refusal(&self) -> Option<&'a Refusal> {
        self.parts.extensions.get()
    }

    /// How long the provider asks to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        retry_after(self.headers(), self.clock.unix_time())
    }
}

/// For plain HTTP services:
///
/// | answer | outcome |
/// |---|---|
/// | 408, 425, 5xx | failure, with its `Retry-After` |
/// | 429 | throttled, with its `Retry-After` |
/// | other 4xx | ignored |
/// | 1xx, 2xx, 3xx | decided by the body: complete, broken or cancelled |
/// | refused by our own timeout | failure |
/// | refused by any other layer of ours | ignored |
/// | an error of the client | failure |
///
/// # Example
/// ```
/// use spark_breaker::{Classify, Head, HttpClassify, IgnoreKind, Outcome, Verdict};
/// let (parts, ()) = http::Response::builder().status(404).body(()).unwrap().into_parts();
/// let verdict = Classify::<std::io::Error>::response(
///     &HttpClassify,
///     &Head::new(&parts, &spark_core::Clock::system()),
/// );
/// assert_eq!(verdict, Verdict::Now(Outcome::Ignored(IgnoreKind::Client)));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HttpClassify;

impl<E> Classify<E> for HttpClassify {
    type Body = ToTheEnd;

    fn response(&self, head: &Head<'_>) -> Verdict<ToTheEnd> {
        if let Some(outcome) = own_refusal(head) {
            return Verdict::Now(outcome);
        }
        let status = head.status().as_u16();
        match status {
            429 => Verdict::Now(Outcome::throttled().with_retry_after(head.retry_after())),
            408 | 425 | 500..=599 => {
                let failure = Outcome::failure(FailKind::Status(status));
                Verdict::Now(failure.with_retry_after(head.retry_after()))
            }
            400..=499 => Verdict::Now(Outcome::Ignored(IgnoreKind::Client)),
            _ => Verdict::AtTheEnd(ToTheEnd),
        }
    }

    fn error(&self, _: &E) -> Outcome {
        Outcome::failure(FailKind::Transport)
    }
}

/// For model providers that are called with our own key: as [`HttpClassify`], and 401, 402 and 403
/// are failures, because every further call would be refused too. The default.
///
/// # Example
/// ```
/// use spark_breaker::{Classify, FailKind, Head, IgnoreKind, LlmClassify, Outcome, Verdict};
/// let (parts, ()) = http::Response::builder().status(401).body(()).unwrap().into_parts();
/// let clock = spark_core::Clock::system();
/// let of = |classify: LlmClassify| {
///     Classify::<std::io::Error>::response(&classify, &Head::new(&parts, &clock))
/// };
/// assert_eq!(of(LlmClassify::new()), Verdict::Now(Outcome::failure(FailKind::Auth)));
/// assert_eq!(of(LlmClassify::callers_key()), Verdict::Now(Outcome::Ignored(IgnoreKind::Client)));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LlmClassify {
    callers_key: bool,
}

impl LlmClassify {
    /// For calls with our own key.
    pub const fn new() -> Self {
        Self { callers_key: false }
    }

    /// For calls with a key that each caller brings: one caller's bad key says nothing about the
    /// provider.
    pub const fn callers_key() -> Self {
        Self { callers_key: true }
    }
}

impl<E> Classify<E> for LlmClassify {
    type Body = ToTheEnd;

    fn response(&self, head: &Head<'_>) -> Verdict<ToTheEnd> {
        let refuses_key = matches!(head.status().as_u16(), 401..=403);
        if refuses_key && !self.callers_key && head.refusal().is_none() {
            return Verdict::Now(Outcome::failure(FailKind::Auth));
        }
        Classify::<E>::response(&HttpClassify, head)
    }

    fn error(&self, error: &E) -> Outcome {
        HttpClassify.error(error)
    }
}

/// An answer of our own says nothing about the provider, or the breaker would feed itself; except
/// that a timeout of ours means that the provider did not answer.
fn own_refusal(head: &Head<'_>) -> Option<Outcome> {
    let refusal = head.refusal()?;
    Some(match refusal.by {
        "timeout" => Outcome::failure(FailKind::Timeout(Phase::FirstByte)),
        _ => Outcome::Ignored(IgnoreKind::Local),
    })
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Response, header::RETRY_AFTER};
    use spark_core::{Problem, ResponseBody, Shape};

    use super::*;

    fn of<B>(response: Response<B>) -> Verdict<ToTheEnd> {
        let (parts, _) = response.into_parts();
        let clock = Clock::system();
        Classify::<()>::response(&LlmClassify::new(), &Head::new(&parts, &clock))
    }

    fn status(status: u16) -> Response<()> {
        Response::builder().status(status).body(()).unwrap()
    }

    #[test]
    fn statuses() {
        for pending in [100, 101, 200, 204, 301, 304] {
            assert_eq!(of(status(pending)), Verdict::AtTheEnd(ToTheEnd));
        }
        for ignored in [400, 404, 405, 409, 413, 415, 422, 451] {
            let ignored = of(status(ignored));
            assert_eq!(ignored, Verdict::Now(Outcome::Ignored(IgnoreKind::Client)));
        }
        for auth in [401, 402, 403] {
            let failure = Outcome::failure(FailKind::Auth);
            assert_eq!(of(status(auth)), Verdict::Now(failure));
        }
        for failed in [408, 425, 500, 501, 502, 503, 504, 520, 524, 529] {
            let failure = Outcome::failure(FailKind::Status(failed));
            assert_eq!(of(status(failed)), Verdict::Now(failure));
        }
        let throttled = Outcome::throttled();
        assert_eq!(of(status(429)), Verdict::Now(throttled));
    }

    #[test]
    fn retry_after_goes_along() {
        let retry_after = Some(Duration::from_secs(9));
        for code in [429, 503, 529] {
            let mut response = status(code);
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from_static("9"));
            let expected = match code {
                429 => Outcome::throttled(),
                _ => Outcome::failure(FailKind::Status(code)),
            }
            .with_retry_after(retry_after);
            assert_eq!(of(response), Verdict::Now(expected));
        }
    }

    #[test]
    fn our_own_refusals_are_ignored_except_timeouts() {
        let refusal = |status: u16, by| -> Response<ResponseBody<String>> {
            Problem::new(StatusCode::from_u16(status).unwrap(), by, "code")
                .into_response(Shape::PROBLEM)
        };
        for (status, by) in [
            (503, "breaker"),
            (503, "bulkhead"),
            (429, "ratelimit"),
            (401, "auth"),
        ] {
            let ignored = Outcome::Ignored(IgnoreKind::Local);
            assert_eq!(of(refusal(status, by)), Verdict::Now(ignored));
        }
        let timeout = Outcome::failure(FailKind::Timeout(Phase::FirstByte));
        assert_eq!(of(refusal(504, "timeout")), Verdict::Now(timeout));
    }
}
