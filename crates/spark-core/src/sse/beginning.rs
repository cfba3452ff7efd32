//! Whether a stream of events has said anything yet, other than that it lives.

use http::HeaderMap;
use http::header::CONTENT_TYPE;

use super::BOM;

/// Events of these names keep a connection open and say nothing else.
const PINGS: [&[u8]; 2] = [b"ping", b"keepalive"];

/// Whether the content type is `text/event-stream`.
///
/// # Example
/// ```
/// use http::HeaderMap;
/// use http::header::{CONTENT_TYPE, HeaderValue};
/// use spark_core::sse::is_event_stream;
/// let mut headers = HeaderMap::new();
/// assert!(!is_event_stream(&headers));
/// headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
/// assert!(is_event_stream(&headers));
/// ```
pub fn is_event_stream(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE);
    let essence = content_type.and_then(|value| value.as_bytes().split(|b| *b == b';').next());
    essence.is_some_and(|it| it.trim_ascii().eq_ignore_ascii_case(b"text/event-stream"))
}

/// Waits for the first content of a body, however its bytes come, and keeps none of them.
///
/// Of a stream of events that is the first byte of `data` that is no white space, in an event that
/// is no ping: one named `ping` or `keepalive` before its data. Comments, blank lines and other
/// fields are none. Of any other body it is the first byte.
///
/// # Example
/// ```
/// use http::{Response, header::CONTENT_TYPE};
/// use spark_core::sse::Beginning;
/// let response = Response::builder().header(CONTENT_TYPE, "text/event-stream").body(()).unwrap();
/// let mut beginning = Beginning::of(response.headers());
/// assert!(!beginning.is_in(b": working\n\n"));
/// assert!(!beginning.is_in(b"event: ping\ndata: {}\n\nevent: message_start\nda"));
/// assert!(beginning.is_in(b"ta: {"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beginning {
    at: At,
    /// The event under way is a ping, as far as it has come.
    is_ping: bool,
    /// The last byte was a CR: a LF right after it belongs to the same line break.
    after_cr: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// In a body that is no stream of events.
    Plain,
    /// So far into the byte order mark that may come first.
    Mark(usize),
    /// At the beginning of a line.
    Line,
    /// So far into a line that may be data.
    Data(usize),
    DataValue,
    /// So far into a line that may be the event's name.
    Name(usize),
    /// One space may come first.
    NameValue,
    /// So far into this name, which may be that of a ping.
    Ping(&'static [u8], usize),
    /// In the rest of a line that does not matter.
    Rest,
    /// It has begun.
    Over,
}

impl Beginning {
    /// Of the body that follows a head with these headers.
    ///
    /// # Example
    /// ```
    /// use spark_core::sse::Beginning;
    /// let mut beginning = Beginning::of(&http::HeaderMap::new());
    /// assert!(!beginning.is_in(b""));
    /// assert!(beginning.is_in(b":"));
    /// ```
    pub fn of(headers: &HeaderMap) -> Self {
        Self {
            at: match is_event_stream(headers) {
                true => At::Mark(0),
                false => At::Plain,
            },
            is_ping: false,
            after_cr: false,
        }
    }

    /// Whether it is in the bytes that follow, or was in those before.
    ///
    /// # Example
    /// ```
    /// # use spark_core::sse::Beginning;
    /// let mut beginning = Beginning::of(&http::HeaderMap::new());
    /// assert!(beginning.is_in(b"{"));
    /// assert!(beginning.is_in(b""));
    /// ```
    pub fn is_in(&mut self, data: &[u8]) -> bool {
        for byte in data {
            if self.at == At::Over {
                break;
            }
            self.step(*byte);
        }
        self.at == At::Over
    }

    fn step(&mut self, byte: u8) {
        let after_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
        self.at = match (self.at, byte) {
            (At::Plain | At::Over, _) => At::Over,
            (at, b'\n') if after_cr => at,
            (at, b'\n' | b'\r') => {
                self.line_ends(at);
                At::Line
            }
            (At::Mark(n), _) if byte == BOM[n] => match n + 1 == BOM.len() {
                true => At::Line,
                false => At::Mark(n + 1),
            },
            (At::Mark(0) | At::Line, b'd') => At::Data(1),
            (At::Mark(0) | At::Line, b'e') => At::Name(1),
            (At::Data(4), b':') => At::DataValue,
            (At::Data(n), _) if b"data".get(n) == Some(&byte) => At::Data(n + 1),
            (At::DataValue, _) if byte.is_ascii_whitespace() => At::DataValue,
            (At::DataValue, _) if !self.is_ping => At::Over,
            (At::Name(5), b':') => At::NameValue,
            (At::Name(n), _) if b"event".get(n) == Some(&byte) => At::Name(n + 1),
            (At::NameValue, b' ') => At::Ping(b"", 0),
            (At::NameValue | At::Ping(_, 0), _) => self.name_begins(byte),
            (At::Ping(name, n), _) if name.get(n) == Some(&byte) => At::Ping(name, n + 1),
            (At::Ping(..), _) => self.is_no_ping(),
            _ => At::Rest,
        };
    }

    fn name_begins(&mut self, byte: u8) -> At {
        match PINGS.into_iter().find(|name| name[0] == byte) {
            Some(name) => At::Ping(name, 1),
            None => self.is_no_ping(),
        }
    }

    fn is_no_ping(&mut self) -> At {
        self.is_ping = false;
        At::Rest
    }

    fn line_ends(&mut self, at: At) {
        match at {
            At::Ping(name, n) => self.is_ping = n > 0 && n == name.len(),
            // A blank line, and a name that is empty.
            At::Mark(0) | At::Line | At::Name(5) | At::NameValue => self.is_ping = false,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::sse::Splitter;

    fn of_events() -> Beginning {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_static("Text/Event-Stream ; charset=utf-8");
        headers.insert(CONTENT_TYPE, value);
        Beginning::of(&headers)
    }

    /// What the events say, cut out of the whole by the other reader.
    fn by_its_events(stream: &[u8]) -> bool {
        let text = [stream, b"\n\n"].concat();
        let (mut splitter, mut rest) = (Splitter::new(usize::MAX), &text[..]);
        let mut has_begun = false;
        while let Some(event) = splitter.next(&mut rest) {
            let is_blank = event.data().unwrap_or_default().trim_ascii().is_empty();
            has_begun |= !is_blank && !PINGS.contains(&event.name());
        }
        has_begun
    }

    fn begun(pieces: &[&[u8]]) -> bool {
        let mut beginning = of_events();
        pieces.iter().fold(false, |_, piece| beginning.is_in(piece))
    }

    fn assert_wherever_it_is_cut(stream: &[u8], expected: bool) {
        let text = String::from_utf8_lossy(stream);
        for at in 0..=stream.len() {
            let (one, two) = stream.split_at(at);
            assert_eq!(begun(&[one, b"", two]), expected, "{text:?} at {at}");
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(begun(&bytes), expected, "{text:?}, each byte");
    }

    #[test]
    fn only_data_outside_of_pings_is_content_wherever_it_is_cut() {
        let streams: [(&[u8], bool); 30] = [
            (b"", false),
            (b": ping\n\n: ping\n\n", false),
            (b":\r\r\n:: OPENROUTER PROCESSING\r\n\r\n", false),
            (b"\xEF\xBB\xBF: ping\n\n", false),
            (b"\xEF\xBB: ping", false),
            (b"\xEF\xBB\xBFdata:x", true),
            (b"\xEF\xBB\xBF\xEF\xBB\xBFdata:x", false),
            (b"\xEF\ndata:x", true),
            (b": ping\n\ndata: {}\n\n", true),
            (b": data: {}\r\ndata", false),
            (b"data\n\n", false),
            (b"data: \n\n", false),
            (b"data: \t\r\ndata: x", true),
            (b"data:x", true),
            (b"database: x\n\n", false),
            (b"date: x\n\n", false),
            (b"retry: 3000\nid: 1\n\n", false),
            (b"event: message_start\n\n", false),
            (b"event: message_start\ndata: {}\n\n", true),
            (b"event: ping\ndata: {\"type\": \"ping\"}\n\n", false),
            (b"event:ping\r\ndata: {}\r\n\r\n", false),
            (b"event:ping\r\ndata: {}\r\n\r\ndata: x", true),
            (b"event: keepalive\rdata: {}\r\r", false),
            (b"event: ping\nid: 1\n: x\ndata: {}\n", false),
            (b"event: pings\ndata: {}\n", true),
            (b"event: pin\ndata: {}\n", true),
            (b"event: pong\ndata: {}\n", true),
            (b"event: ping\nevent\ndata: {}\n", true),
            (b"event: ping\nevent: error\ndata: {}\n", true),
            (b"event:  ping\ndata: {}\n", true),
        ];
        for (stream, expected) in streams {
            assert_eq!(by_its_events(stream), expected, "{stream:?}");
            assert_wherever_it_is_cut(stream, expected);
        }
    }

    #[test]
    fn it_agrees_with_the_events_of_any_stream() {
        let tokens: [&[u8]; 18] = [
            b"\n",
            b"\n",
            b"\r",
            b"\r\n",
            b":",
            b" ",
            b"event",
            b"event:",
            b"event: ping",
            b"event: keepalive",
            b"ping",
            b"id: 1",
            b"x",
            b"\xEF\xBB\xBF",
            b"\xEF",
            b"eventdata",
            b"data",
            b"data:",
        ];
        let mut state = 7_u64;
        let mut some = [0; 2];
        for _ in 0..50_000 {
            let mut stream = Vec::new();
            let mut next = |below: usize| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                usize::try_from(state >> 33).unwrap() % below
            };
            for _ in 0..next(14) {
                stream.extend_from_slice(tokens[next(tokens.len())]);
            }
            // A name that comes after the data of its event is not waited for.
            let text = [&stream[..], b"\n\n"].concat();
            let (mut splitter, mut rest) = (Splitter::new(usize::MAX), &text[..]);
            let mut is_late = false;
            while let Some(event) = splitter.next(&mut rest) {
                let raw = event.raw();
                let raw = raw.strip_prefix(BOM).unwrap_or(raw);
                let lines: Vec<&[u8]> = raw.split(|b| matches!(b, b'\n' | b'\r')).collect();
                let data = lines.iter().position(|line| line.starts_with(b"data"));
                let name = lines.iter().rposition(|line| line.starts_with(b"event"));
                is_late |= data.is_some() && name > data;
            }
            if is_late {
                continue;
            }
            let expected = by_its_events(&stream);
            some[usize::from(expected)] += 1;
            let at = next(stream.len() + 1);
            let (one, two) = stream.split_at(at);
            let text = String::from_utf8_lossy(&stream);
            assert_eq!(begun(&[one, two]), expected, "{text:?} at {at}");
        }
        assert!(some.iter().all(|found| *found > 1_000), "{some:?}");
    }

    #[test]
    fn any_byte_of_another_body_is_content_and_no_byte_is_none() {
        let mut beginning = Beginning::of(&HeaderMap::new());
        assert!(!beginning.is_in(b""));
        assert!(beginning.is_in(b":"));
    }
}
