//! Whether an event stream has said anything yet, other than that it lives.

use http::HeaderMap;
use http::header::CONTENT_TYPE;

/// Reads the beginning of an event stream (`text/event-stream`) for as long as it holds nothing but
/// comments (`: ping`) and blank lines, in pieces cut anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comments {
    /// So many bytes of the byte order mark that may come first.
    Mark(u8),
    /// At the beginning of a line.
    Line,
    /// In a comment.
    Comment,
    /// Something else came, or it is no event stream.
    Over,
}

const BYTE_ORDER_MARK: [u8; 3] = [0xEF, 0xBB, 0xBF];

impl Comments {
    /// For a response with these headers.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        if is_event_stream(headers) {
            Self::Mark(0)
        } else {
            Self::Over
        }
    }

    /// Whether this is the answer: bytes of it have come that are no comments.
    pub(crate) fn over_after(&mut self, data: &[u8]) -> bool {
        for &byte in data {
            *self = match (*self, byte) {
                (Self::Over, _) => return true,
                (Self::Mark(2), _) if byte == BYTE_ORDER_MARK[2] => Self::Line,
                (Self::Mark(seen @ 0..=1), _) if byte == BYTE_ORDER_MARK[usize::from(seen)] => {
                    Self::Mark(seen + 1)
                }
                (Self::Mark(0) | Self::Line, b':') => Self::Comment,
                (Self::Mark(0) | Self::Line | Self::Comment, b'\n' | b'\r') => Self::Line,
                (Self::Comment, _) => Self::Comment,
                (Self::Mark(_) | Self::Line, _) => Self::Over,
            };
        }
        *self == Self::Over && !data.is_empty()
    }
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return false;
    };
    let media = value.as_bytes().split(|byte| *byte == b';').next();
    media.is_some_and(|media| {
        media
            .trim_ascii()
            .eq_ignore_ascii_case(b"text/event-stream")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the standard says: lines end with LF, CR or CRLF; a line that begins with a colon is a
    /// comment; one byte order mark may come first.
    fn by_the_book(stream: &[u8]) -> bool {
        if (1..3).any(|n| stream == &BYTE_ORDER_MARK[..n]) {
            return false;
        }
        let stream = stream.strip_prefix(&BYTE_ORDER_MARK).unwrap_or(stream);
        let mut lines = stream.split(|byte| matches!(byte, b'\n' | b'\r'));
        lines.any(|line| !line.is_empty() && line[0] != b':')
    }

    #[test]
    fn only_comments_and_blank_lines_are_no_answer_wherever_they_are_cut() {
        let streams: [&[u8]; 12] = [
            b"",
            b": ping\n\n: ping\n\n",
            b":\r\r\n:: OPENROUTER PROCESSING\r\n\r\n",
            b"\xEF\xBB\xBF: ping\n\n",
            b"\xEF\xBB: ping",
            b"\xEF\xBB\xBF\xEF",
            b": ping\n\ndata: {}\n\n",
            b": ping\n\n ",
            b"event: ping\n\n",
            b": data: {}\r\ndata",
            b"x",
            b"\xEF\xBB",
        ];
        for stream in streams {
            for first in 0..=stream.len() {
                for second in first..=stream.len() {
                    let mut comments = Comments::Mark(0);
                    let mut over = false;
                    for piece in [&stream[..first], &stream[first..second], &stream[second..]] {
                        over |= comments.over_after(piece);
                    }
                    let text = String::from_utf8_lossy(stream);
                    assert_eq!(over, by_the_book(stream), "{text:?} at {first}, {second}");
                }
            }
        }
    }

    #[test]
    fn any_byte_of_another_media_type_is_the_answer_and_no_byte_is_none() {
        let mut headers = HeaderMap::new();
        let mut comments = Comments::of(&headers);
        assert!(!comments.over_after(b""));
        assert!(comments.over_after(b":"));
        headers.insert(
            CONTENT_TYPE,
            "Text/Event-Stream ; charset=utf-8".parse().unwrap(),
        );
        assert!(!Comments::of(&headers).over_after(b":"));
    }
}
