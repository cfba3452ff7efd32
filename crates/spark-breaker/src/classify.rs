//! What an answer says about the provider that gave it.

use std::any::Any;
use std::time::Duration;

use bytes::Bytes;
use http::response::Parts;
use http::{HeaderMap, StatusCode};
use spark_core::{Clock, End, Refusal};

use crate::{FailKind, IgnoreKind, Outcome, Phase, TimeoutError, reset_after, retry_after};

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
    /// Some bytes have passed. Says whether the answer proper has begun: what comes before, as a
    /// comment that keeps the connection open, is no first byte.
    fn data(&mut self, data: &Bytes) -> bool {
        !data.is_empty()
    }

    /// The body has ended. `None` leaves the permit without a result, as if dropped: right for a
    /// body that the caller cancelled half-way.
    fn end(self, end: End) -> Option<Outcome>;
}

/// The plain rule for bodies: read to its end is a success, broken is a failure, cancelled is
/// nothing.
///
/// The breaker's layer knows more of two of them, whichever classifier reads the body. A
/// [`FailKind::Body`] because of a [`TimeoutError`] in a [`BoxError`](spark_core::BoxError), as the
/// bodies of [`TimeoutLayer`](crate::TimeoutLayer) have, becomes a [`FailKind::Timeout`] with the
/// same scope: a model that falls silent in its answer is not the whole provider. And what would be
/// nothing, because the body below panicked, is a [`FailKind::Panic`].
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

    /// How long the provider asks to be left alone: its [`retry_after`]; and where it says 429
    /// without one, its [`reset_after`].
    ///
    /// # Example
    /// ```
    /// use spark_breaker::Head;
    /// use std::time::Duration;
    /// let clock = spark_core::Clock::system();
    /// let response = http::Response::builder().header("x-ratelimit-reset-tokens", "6m0s");
    /// let (mut parts, ()) = response.body(()).unwrap().into_parts();
    /// assert_eq!(Head::new(&parts, &clock).retry_after(), None, "each answer has it");
    /// parts.status = http::StatusCode::TOO_MANY_REQUESTS;
    /// assert_eq!(Head::new(&parts, &clock).retry_after(), Some(Duration::from_secs(360)));
    /// ```
    pub fn retry_after(&self) -> Option<Duration> {
        let now = self.clock.unix_time();
        let asked = retry_after(self.headers(), now);
        if self.status() != StatusCode::TOO_MANY_REQUESTS {
            return asked;
        }
        // A limit that is full again lets more than one call pass: later than one that is asked for.
        asked.or_else(|| reset_after(self.headers(), now))
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
/// | refused by our own timeout | failure of the phase that took too long |
/// | refused by any other layer of ours | ignored |
/// | an error of the client | failure, see also [`ByCause`](crate::ByCause) |
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

impl<E: 'static> Classify<E> for HttpClassify {
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

    fn error(&self, error: &E) -> Outcome {
        no_answer(error)
    }
}

/// A time limit that an error in a box tells of is one; any other error is one of transport.
pub(crate) fn no_answer(error: &dyn Any) -> Outcome {
    let kind = match TimeoutError::behind(error) {
        Some(error) => FailKind::Timeout(error.phase),
        None => FailKind::Transport,
    };
    Outcome::failure(kind)
}

/// An answer of our own says nothing about the provider, or the breaker would feed itself; except
/// that a timeout of ours means that the provider did not answer.
pub(crate) fn own_refusal(head: &Head<'_>) -> Option<Outcome> {
    let refusal = head.refusal()?;
    Some(match refusal.by {
        "timeout" => {
            let error = head.parts.extensions.get::<TimeoutError>();
            let phase = error.map_or(Phase::FirstByte, |error| error.phase);
            Outcome::failure(FailKind::Timeout(phase))
        }
        _ => Outcome::Ignored(IgnoreKind::Local),
    })
}
