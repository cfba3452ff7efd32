//! Whether a stream of events has begun.
//!
//! Source of the format: WHATWG HTML, 9.2 Server-sent events.

use std::mem;

/// So much of a line is looked at: its field, and the beginning of its value.
const MOST: usize = 64;

/// Looks for the first event that says something: comments, blank lines and pings do not.
#[derive(Debug, Default)]
pub(crate) struct FirstEvent {
    /// The beginning of the line under way.
    line: Vec<u8>,
    name: Name,
    after_cr: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Name {
    #[default]
    Other,
    Ping,
    Error,
}

/// What a stream has begun with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begun {
    Event,
    /// An error in the place of an answer.
    Error,
}

impl FirstEvent {
    /// The bytes that follow.
    pub(crate) fn feed(&mut self, data: &[u8]) -> Option<Begun> {
        for byte in data {
            match byte {
                b'\n' if mem::take(&mut self.after_cr) => {}
                b'\r' | b'\n' => {
                    self.after_cr = *byte == b'\r';
                    if let Some(begun) = self.line_ends() {
                        return Some(begun);
                    }
                }
                _ => {
                    self.after_cr = false;
                    if self.line.len() < MOST {
                        self.line.push(*byte);
                    }
                }
            }
        }
        None
    }

    fn line_ends(&mut self) -> Option<Begun> {
        let line = mem::take(&mut self.line);
        let line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&line);
        if line.is_empty() {
            self.name = Name::Other;
            return None;
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (field, value) = line.split_at(colon.unwrap_or(line.len()));
        let value = value.get(1..).unwrap_or_default().trim_ascii_start();
        match field {
            b"event" => {
                self.name = match value {
                    b"ping" => Name::Ping,
                    b"error" => Name::Error,
                    _ => Name::Other,
                };
                None
            }
            b"data" => match self.name {
                Name::Ping => None,
                Name::Error => Some(Begun::Error),
                Name::Other if is_error(value) => Some(Begun::Error),
                Name::Other => Some(Begun::Event),
            },
            // A comment has an empty field.
            _ => None,
        }
    }
}

/// An object whose first member is an error.
fn is_error(value: &[u8]) -> bool {
    let first = value.strip_prefix(b"{").unwrap_or_default();
    let first = first.trim_ascii_start();
    let rest = first.strip_prefix(b"\"error\"").unwrap_or_default();
    let told = rest
        .trim_ascii_start()
        .strip_prefix(b":")
        .unwrap_or_default();
    let told = told.trim_ascii_start();
    !told.is_empty() && !told.starts_with(b"null")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        for (text, expected) in [
            ("", None),
            (": ping\n\n: ping\n\n", None),
            ("\n\r\n\r\r\n", None),
            ("event: ping\ndata: {\"type\": \"ping\"}\n\n", None),
            ("retry: 3000\nid: 1\n\n", None),
            ("data: {\"choices\":[]}\n", Some(Begun::Event)),
            ("data: not whole", None),
            ("\u{feff}data:x\r", Some(Begun::Event)),
            ("data\n", Some(Begun::Event)),
            ("event: message_start\ndata: {}\n\n", Some(Begun::Event)),
            (
                "event: ping\r\ndata: {}\r\n\r\ndata: x\r\n",
                Some(Begun::Event),
            ),
            ("event: error\ndata: {}\n\n", Some(Begun::Error)),
            (
                "data: {\"error\":{\"message\":\"overloaded\"}}\n",
                Some(Begun::Error),
            ),
            ("data: { \"error\" : \"overloaded\" }\n", Some(Begun::Error)),
            (
                "data: {\"error\":null,\"choices\":[]}\n",
                Some(Begun::Event),
            ),
            ("data: {\"errors\":1}\n", Some(Begun::Event)),
            ("data: [DONE]\n", Some(Begun::Event)),
        ] {
            assert_eq!(
                FirstEvent::default().feed(text.as_bytes()),
                expected,
                "{text:?}"
            );
            // The same, a byte at a time.
            let mut first = FirstEvent::default();
            let found = text.bytes().find_map(|byte| first.feed(&[byte]));
            assert_eq!(found, expected, "{text:?}");
        }
    }

    #[test]
    fn a_line_without_end_takes_no_memory() {
        let mut first = FirstEvent::default();
        for _ in 0..1_000 {
            assert_eq!(first.feed(&[b'x'; 1_000]), None);
        }
        assert!(first.line.capacity() <= 2 * MOST);
    }
}
