//! What the events of a model's answer say: how far it is, and what went wrong.
//!
//! Of the fields of an event only those are read that say so, and few events are parsed at all. No
//! text that a model or a provider wrote is ever matched.

mod api_error;

use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde_json::{Map, Value};

pub use api_error::ApiError;

use crate::sse::Event;

/// After so many events in no dialect that is known, it is taken for an unknown one.
const ATTEMPTS: u8 = 8;

/// In whose words a stream is written, as its events show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dialect {
    /// OpenAI's chat completions, and the older completions; spoken by many. Ends with `[DONE]`.
    Chat,
    /// OpenAI's responses. Ends with `response.completed` or `response.incomplete`.
    Responses,
    /// Anthropic's messages. Ends with `message_stop`.
    Anthropic,
    /// Gemini's `streamGenerateContent`. Its last candidates have a `finishReason`.
    Gemini,
}

/// What one event says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// Nothing: a comment, a ping, an event without data.
    Nothing,
    /// A piece of the answer.
    Piece,
    /// The end of the answer.
    Last,
    /// An error, instead of the answer's rest.
    Error(ApiError),
}

/// Whether a stream that is over came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whole {
    /// The last event came.
    Yes,
    /// It did not.
    No,
    /// The stream is in no dialect that is known, or its end was too long to be read.
    Unknown,
}

/// How far a stream is; the dialect is found out on the way.
///
/// # Example
/// ```
/// use spark_core::completion::{Dialect, Progress, Said, Whole};
/// use spark_core::sse::Splitter;
/// let mut splitter = Splitter::new(1_024);
/// let mut progress = Progress::new();
/// let mut rest = &b"data: {\"choices\":[{\"delta\":{}}]}\n\ndata: [DONE]\n\n"[..];
/// let event = splitter.next(&mut rest).unwrap();
/// assert_eq!(progress.event(&event), Said::Piece);
/// assert_eq!((progress.dialect(), progress.whole()), (Some(Dialect::Chat), Whole::No));
/// let event = splitter.next(&mut rest).unwrap();
/// assert_eq!(progress.event(&event), Said::Last);
/// assert_eq!(progress.whole(), Whole::Yes);
/// ```
#[derive(Debug, Clone, Default)]
pub struct Progress {
    dialect: Option<Dialect>,
    attempts: u8,
    is_whole: bool,
    /// It ended within an event.
    is_cut: bool,
    /// What matters may have been in the part of an event that was cut off.
    is_unsure: bool,
}

impl Progress {
    /// Of a stream that begins.
    ///
    /// # Example
    /// ```
    /// use spark_core::completion::{Progress, Whole};
    /// assert_eq!(Progress::new().whole(), Whole::Unknown);
    /// ```
    pub const fn new() -> Self {
        Self {
            dialect: None,
            attempts: 0,
            is_whole: false,
            is_cut: false,
            is_unsure: false,
        }
    }

    /// The next event.
    ///
    /// # Example
    /// ```
    /// use spark_core::completion::{Progress, Said};
    /// use spark_core::sse::Splitter;
    /// let mut rest = &br#"data: {"type":"error","error":{"type":"overloaded_error"}}
    ///
    /// "#[..];
    /// let mut splitter = Splitter::new(1_024);
    /// let said = Progress::new().event(&splitter.next(&mut rest).unwrap());
    /// assert!(matches!(said, Said::Error(error) if error.kind() == Some("overloaded_error")));
    /// ```
    pub fn event(&mut self, event: &Event<'_>) -> Said {
        let data = event.data().unwrap_or_default().trim_ascii();
        if data.is_empty() {
            return Said::Nothing;
        }
        if data == b"[DONE]" {
            return self.sign(&Sign::Last(Dialect::Chat));
        }
        let is_error = event.name() == b"error";
        if let Some(sign) = leading_type(data).and_then(Sign::of)
            && !is_error
            && !matches!(sign, Sign::Error)
        {
            return self.sign(&sign);
        }
        if event.name() == b"ping" {
            return Said::Nothing;
        }
        if is_error || self.is_worth_parsing(data) {
            return self.parse(event, data);
        }
        self.is_unsure |= event.is_cut();
        Said::Piece
    }

    /// What came after the last event ([`Splitter::finish`](crate::sse::Splitter::finish)), when the
    /// stream is over. Some providers leave out the very last blank line, so what is whole counts.
    ///
    /// # Example
    /// ```
    /// use spark_core::completion::{Progress, Whole};
    /// use spark_core::sse::Splitter;
    /// for (text, whole) in [("data: [DONE]", Whole::Yes), ("data: {\"type", Whole::No)] {
    ///     let (mut splitter, mut progress) = (Splitter::new(1_024), Progress::new());
    ///     splitter.next(&mut text.as_bytes());
    ///     if let Some(tail) = splitter.finish() {
    ///         progress.tail(&tail);
    ///     }
    ///     assert_eq!(progress.whole(), whole);
    /// }
    /// ```
    pub fn tail(&mut self, event: &Event<'_>) -> Said {
        if event.is_cut() {
            self.is_whole = false;
            self.is_cut = self.dialect.is_some();
            return Said::Nothing;
        }
        let data = event.data().unwrap_or_default().trim_ascii();
        if data.starts_with(b"{") && serde_json::from_slice::<Value>(data).is_err() {
            self.is_cut = true;
            return Said::Nothing;
        }
        self.event(event)
    }

    /// The dialect, once it is known.
    ///
    /// # Example
    /// ```
    /// assert_eq!(spark_core::completion::Progress::new().dialect(), None);
    /// ```
    pub const fn dialect(&self) -> Option<Dialect> {
        self.dialect
    }

    /// Whether what came so far is a whole answer.
    ///
    /// # Example
    /// ```
    /// use spark_core::completion::{Progress, Whole};
    /// assert_eq!(Progress::new().whole(), Whole::Unknown);
    /// ```
    pub const fn whole(&self) -> Whole {
        match self.dialect {
            _ if self.is_whole => Whole::Yes,
            _ if self.is_cut => Whole::No,
            Some(_) if !self.is_unsure => Whole::No,
            _ => Whole::Unknown,
        }
    }

    fn sign(&mut self, sign: &Sign) -> Said {
        match *sign {
            Sign::Ping | Sign::Error => Said::Nothing,
            Sign::Piece(dialect) => {
                self.dialect.get_or_insert(dialect);
                Said::Piece
            }
            Sign::Last(dialect) => {
                self.dialect.get_or_insert(dialect);
                self.is_whole = true;
                Said::Last
            }
        }
    }

    /// Whether it may say more than that the answer goes on.
    fn is_worth_parsing(&self, data: &[u8]) -> bool {
        let holds = |needle: &LazyLock<Finder<'_>>| needle.find(data).is_some();
        match self.dialect {
            None if self.attempts < ATTEMPTS => true,
            None | Some(Dialect::Chat) => holds(&ERROR),
            Some(Dialect::Gemini) => self.is_whole || holds(&FINISH_REASON) || holds(&ERROR),
            Some(Dialect::Anthropic) => holds(&MESSAGE_STOP) || holds(&ERROR),
            Some(Dialect::Responses) => holds(&RESPONSE) || holds(&ERROR),
        }
    }

    fn parse(&mut self, event: &Event<'_>, data: &[u8]) -> Said {
        let parsed = serde_json::from_slice(data);
        let Ok(Value::Object(map)) = parsed else {
            self.is_unsure |= event.is_cut();
            self.attempts = self.attempts.saturating_add(1);
            return match event.name() {
                b"error" => Said::Error(ApiError::default()),
                _ => Said::Piece,
            };
        };
        if let Some(error) = ApiError::of(event.name(), &map) {
            return Said::Error(error);
        }
        let kind = map.get("type").and_then(Value::as_str);
        if let Some(sign) = kind.and_then(|kind| Sign::of(kind.as_bytes())) {
            return self.sign(&sign);
        }
        if map.contains_key("choices") {
            return self.sign(&Sign::Piece(Dialect::Chat));
        }
        let Some(is_last) = gemini(&map) else {
            self.attempts = self.attempts.saturating_add(1);
            return Said::Piece;
        };
        if *self.dialect.get_or_insert(Dialect::Gemini) == Dialect::Gemini {
            self.is_whole = is_last;
        }
        if is_last { Said::Last } else { Said::Piece }
    }
}

static ERROR: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"error\""));
static FINISH_REASON: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"finishReason\""));
static MESSAGE_STOP: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"message_stop\""));
static RESPONSE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"response."));

/// What the type of an event says.
enum Sign {
    Ping,
    Piece(Dialect),
    Last(Dialect),
    Error,
}

impl Sign {
    fn of(kind: &[u8]) -> Option<Self> {
        Some(match kind {
            b"ping" | b"keepalive" => Self::Ping,
            b"error" | b"response.failed" => Self::Error,
            b"message_start"
            | b"message_delta"
            | b"content_block_start"
            | b"content_block_delta"
            | b"content_block_stop" => Self::Piece(Dialect::Anthropic),
            b"message_stop" => Self::Last(Dialect::Anthropic),
            b"response.completed" | b"response.incomplete" => Self::Last(Dialect::Responses),
            _ if kind.starts_with(b"response.") => Self::Piece(Dialect::Responses),
            _ => return None,
        })
    }
}

/// The type, where it is the first field: then nothing else need be read.
fn leading_type(data: &[u8]) -> Option<&[u8]> {
    let mut rest = data;
    for token in [&b"{"[..], b"\"type\"", b":", b"\""] {
        rest = rest.trim_ascii_start().strip_prefix(token)?;
    }
    let end = memchr::memchr2(b'"', b'\\', rest)?;
    (rest[end] == b'"').then(|| &rest[..end])
}

/// Whether Gemini has finished with this event; `None` when it is not Gemini's.
fn gemini(map: &Map<String, Value>) -> Option<bool> {
    let is_set = |value: &Value, key: &str| value.get(key).is_some_and(|it| !it.is_null());
    match map.get("candidates") {
        Some(Value::Array(all)) => {
            Some(!all.is_empty() && all.iter().all(|it| is_set(it, "finishReason")))
        }
        _ => {
            let feedback = map.get("promptFeedback")?;
            Some(is_set(feedback, "blockReason"))
        }
    }
}

#[cfg(test)]
#[path = "completion_tests.rs"]
mod tests;
