//! Reads the body of a model provider's answer as it passes.

use bytes::Bytes;
use spark_core::End;
use spark_core::completion::{ApiError, Progress, Said, Whole};
use spark_core::sse::{Event, Splitter};

use crate::{ClassifyBody, FailKind, Outcome, ToTheEnd, fault};

/// What is kept of an event that has not ended, in bytes. What ends a stream stands at the beginning
/// of its event.
const MAX_EVENT: usize = 64 << 10;

/// What is kept of an error, in bytes.
const MAX_ERROR: usize = 16 << 10;

/// By so many bytes an answer in JSON shows whether it is an error.
const MAX_HEAD: usize = 64;

/// What the body of a model provider's answer says at its end; made by
/// [`LlmClassify`](crate::LlmClassify).
///
/// | body | outcome |
/// |---|---|
/// | a stream of events with an error among them | as the status that the error stands for |
/// | one that ended in the way of its dialect, whatever came after | success |
/// | one that is over before that | [truncated](FailKind::Truncated) |
/// | one of nothing but comments and pings | [truncated](FailKind::Truncated) |
/// | one in no known dialect | as [`ToTheEnd`] |
/// | a JSON object that begins with an `error` | as the status that the error stands for |
/// | one that does not end with its brace | [truncated](FailKind::Truncated) |
/// | any other | as [`ToTheEnd`] |
///
/// The dialects are those of [`Dialect`](spark_core::completion::Dialect). Errors are told apart by
/// their `type`, `code` and `status`, never by their message; one in no known words is the
/// provider's, as a 500 is.
///
/// Nothing is kept of an answer but the beginning of an event whose end has not come (up to 64 KiB),
/// and of an error (up to 16 KiB). An answer in JSON is not read whole: an error whose first field
/// is another one is not found. A body in a content coding is not read at all.
///
/// # Example
/// ```
/// use bytes::Bytes;
/// use spark_breaker::*;
/// use spark_core::{Clock, End};
/// let response = http::Response::builder().header("content-type", "text/event-stream");
/// let (parts, ()) = response.body(()).unwrap().into_parts();
/// let clock = Clock::system();
/// let verdict = |events: &'static str| {
///     let head = Head::new(&parts, &clock);
///     let verdict = Classify::<std::io::Error>::response(&LlmClassify::new(), &head);
///     let Verdict::AtTheEnd(mut body) = verdict else { unreachable!() };
///     body.data(&Bytes::from_static(events.as_bytes()));
///     body.end(End::Complete).unwrap()
/// };
/// let truncated = verdict("data: {\"choices\":[]}\n\n");
/// assert_eq!(truncated, Outcome::failure(FailKind::Truncated));
/// let overloaded = verdict("data: {\"error\":{\"type\":\"overloaded_error\"}}\n\n");
/// assert_eq!(overloaded, Outcome::failure(FailKind::Status(529)));
/// ```
#[derive(Debug)]
pub struct LlmBody(Reading);

#[derive(Debug)]
enum Reading {
    Nothing,
    Events(Events),
    Json(Json),
    Refusal(Refusal),
}

impl LlmBody {
    pub(crate) const fn to_the_end() -> Self {
        Self(Reading::Nothing)
    }

    pub(crate) const fn events(callers_key: bool) -> Self {
        Self(Reading::Events(Events {
            callers_key,
            splitter: Splitter::new(MAX_EVENT),
            progress: Progress::new(),
            error: None,
            has_come: false,
            has_begun: false,
        }))
    }

    pub(crate) const fn json(callers_key: bool) -> Self {
        Self(Reading::Json(Json {
            callers_key,
            kept: Kept::new(),
            is_decided: false,
            first: None,
            last: b' ',
        }))
    }

    /// `head` is what the head said.
    pub(crate) const fn refusal(head: Outcome) -> Self {
        let kept = Kept::new();
        Self(Reading::Refusal(Refusal { head, kept }))
    }
}

impl ClassifyBody for LlmBody {
    fn data(&mut self, data: &Bytes) -> bool {
        match &mut self.0 {
            Reading::Nothing => !data.is_empty(),
            Reading::Events(events) => events.data(data),
            Reading::Json(json) => json.data(data),
            Reading::Refusal(refusal) => {
                refusal.kept.push(data);
                !data.is_empty()
            }
        }
    }

    fn end(self, end: End) -> Option<Outcome> {
        match self.0 {
            Reading::Nothing => ToTheEnd.end(end),
            Reading::Events(events) => events.end(end),
            Reading::Json(json) => json.end(end),
            Reading::Refusal(refusal) => Some(match refusal.kept.error() {
                Some(error) => fault::of_refusal(refusal.head, &error),
                None => refusal.head,
            }),
        }
    }
}

#[derive(Debug)]
struct Events {
    callers_key: bool,
    splitter: Splitter,
    progress: Progress,
    error: Option<Outcome>,
    /// Any byte.
    has_come: bool,
    /// The answer proper.
    has_begun: bool,
}

impl Events {
    fn data(&mut self, data: &[u8]) -> bool {
        self.has_come |= !data.is_empty();
        let mut rest = data;
        while self.error.is_none()
            && let Some(event) = self.splitter.next(&mut rest)
        {
            match self.progress.event(&event) {
                Said::Nothing => {}
                Said::Piece | Said::Last => self.has_begun = true,
                Said::Error(error) => {
                    self.has_begun = true;
                    self.error = Some(fault::of_error(&error, self.callers_key));
                }
            }
        }
        self.has_begun
    }

    fn end(mut self, end: End) -> Option<Outcome> {
        if self.error.is_some() {
            return self.error;
        }
        let before = self.progress.whole();
        let tail = self.splitter.finish();
        let said = tail.map(|tail: Event<'_>| self.progress.tail(&tail));
        // Who sees an error does not read on, not even to the blank line behind it.
        if let Some(Said::Error(error)) = said {
            return Some(fault::of_error(&error, self.callers_key));
        }
        self.has_begun |= matches!(said, Some(Said::Piece | Said::Last));
        let whole = match end {
            End::Complete => self.progress.whole(),
            End::Error | End::Cancelled => before,
        };
        let is_truncated = match whole {
            // Many clients do not read on after the last event.
            Whole::Yes => return Some(Outcome::Success),
            Whole::No => true,
            // No byte at all may be the answer to HEAD.
            Whole::Unknown => self.has_come && !self.has_begun,
        };
        match end {
            End::Complete if is_truncated => Some(Outcome::failure(FailKind::Truncated)),
            _ => ToTheEnd.end(end),
        }
    }
}

#[derive(Debug)]
struct Json {
    callers_key: bool,
    kept: Kept,
    /// Whether it begins as an error is known; if not, nothing is kept any more.
    is_decided: bool,
    /// The first and the last byte that are not white space.
    first: Option<u8>,
    last: u8,
}

impl Json {
    fn data(&mut self, data: &[u8]) -> bool {
        // Some providers send white space while the model works.
        let text = match self.first {
            Some(_) => data,
            None => data.trim_ascii_start(),
        };
        self.first = self.first.or(text.first().copied());
        if let Some(last) = text.trim_ascii_end().last() {
            self.last = *last;
        }
        if self.is_decided {
            self.kept.push(text);
        } else if !text.is_empty() {
            self.decide(text);
        }
        self.first.is_some()
    }

    fn decide(&mut self, text: &[u8]) {
        // Mostly the first frame decides, and nothing is kept.
        let is_error = match self.kept.text() {
            [] => begins_as_error(text),
            _ => None,
        };
        if is_error == Some(false) {
            self.kept = Kept::TooMuch;
            self.is_decided = true;
            return;
        }
        self.kept.push(text);
        let is_error = is_error.or_else(|| begins_as_error(self.kept.text()));
        self.is_decided = is_error.is_some();
        if is_error == Some(false) || (is_error.is_none() && self.kept.text().len() > MAX_HEAD) {
            self.kept = Kept::TooMuch;
            self.is_decided = true;
        }
    }

    fn end(self, end: End) -> Option<Outcome> {
        if let Some(error) = self.kept.error() {
            return Some(fault::of_error(&error, self.callers_key));
        }
        let is_open = self.first == Some(b'{') && self.last != b'}';
        if end == End::Complete && is_open {
            return Some(Outcome::failure(FailKind::Truncated));
        }
        ToTheEnd.end(end)
    }
}

/// Whether a JSON text begins with an `error` that is not null, or with the `type` of one. `None`
/// when that cannot be told yet.
fn begins_as_error(text: &[u8]) -> Option<bool> {
    let by_field = begins(text, &[b"{", b"\"error\"", b":"]).map(|rest| match rest {
        None => Some(false),
        Some(rest) => rest.trim_ascii_start().first().map(|byte| *byte != b'n'),
    });
    let by_type = begins(text, &[b"{", b"\"type\"", b":", b"\"error\""]);
    match (by_field.flatten(), by_type) {
        (Some(true), _) | (_, Some(Some(_))) => Some(true),
        (Some(false), Some(None)) => Some(false),
        _ => None,
    }
}

/// What follows these tokens; `Some(None)` when it begins otherwise, `None` when it is too short.
fn begins<'a>(text: &'a [u8], tokens: &[&[u8]]) -> Option<Option<&'a [u8]>> {
    let mut rest = text;
    for token in tokens {
        rest = rest.trim_ascii_start();
        match rest.strip_prefix(*token) {
            Some(after) => rest = after,
            None if token.starts_with(rest) => return None,
            None => return Some(None),
        }
    }
    Some(Some(rest))
}

/// An error that the head announced.
#[derive(Debug)]
struct Refusal {
    head: Outcome,
    kept: Kept,
}

/// The beginning of a body, while it is short.
enum Kept {
    Text(Vec<u8>),
    TooMuch,
}

impl Kept {
    const fn new() -> Self {
        Self::Text(Vec::new())
    }

    fn push(&mut self, data: &[u8]) {
        match self {
            Self::Text(text) if data.len() <= MAX_ERROR - text.len() => {
                text.extend_from_slice(data);
            }
            _ => *self = Self::TooMuch,
        }
    }

    fn text(&self) -> &[u8] {
        match self {
            Self::Text(text) => text,
            Self::TooMuch => &[],
        }
    }

    /// The error, if this is the whole of one: also when nobody read on to the body's end.
    fn error(&self) -> Option<ApiError> {
        match self.text() {
            [] => None,
            text => ApiError::read(text),
        }
    }
}

impl std::fmt::Debug for Kept {
    /// Without the text.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept")
            .field("bytes", &self.text().len())
            .finish()
    }
}
