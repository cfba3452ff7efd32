//! Server-sent events: split, one per frame, and known to be whole.
//!
//! Source of the format: WHATWG HTML, 9.2 Server-sent events.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use pin_project_lite::pin_project;
use spark_core::BoxError;

/// The longest event, in bytes; a longer one fails the stream.
const MAX_EVENT: usize = 1 << 20;

pin_project! {
    /// A stream of chat completion chunks: one event per frame. It fails when it ends before
    /// `data: [DONE]`, when an event reports an error, and when an event is too long.
    pub(crate) struct WholeEvents<B> {
        #[pin]
        body: B,
        splitter: Splitter,
        done: bool,
    }
}

/// Why a stream is no good.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum EventError {
    #[error("the provider's stream ended before its last event")]
    Truncated,
    #[error("the provider reported an error inside of its stream")]
    Reported,
    #[error("an event of the provider's stream is longer than {MAX_EVENT} bytes")]
    TooLong,
}

impl<B> WholeEvents<B> {
    pub(crate) fn new(body: B) -> Self {
        Self {
            body,
            splitter: Splitter::default(),
            done: false,
        }
    }
}

impl<B> Body for WholeEvents<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut this = self.project();
        if *this.done {
            // What follows the last event is not looked at.
            return Poll::Ready(None);
        }
        loop {
            if let Some(event) = this.splitter.next() {
                let data = data_of(&event);
                if data.as_deref() == Some(b"[DONE]") {
                    *this.done = true;
                } else if data.as_deref().is_some_and(is_error) {
                    return Poll::Ready(Some(Err(EventError::Reported.into())));
                }
                return Poll::Ready(Some(Ok(Frame::data(event))));
            }
            if this.splitter.pending() > MAX_EVENT {
                return Poll::Ready(Some(Err(EventError::TooLong.into())));
            }
            match ready!(this.body.as_mut().poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        this.splitter.push(&data);
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => {
                    // Told once: a body that is polled after its end stays ended.
                    *this.done = true;
                    return Poll::Ready(Some(Err(EventError::Truncated.into())));
                }
            }
        }
    }
}

fn is_error(data: &[u8]) -> bool {
    // Few events hold the word at all, so that few are parsed.
    data.windows(7).any(|w| w == b"\"error\"")
        && serde_json::from_slice::<serde_json::Value>(data)
            .is_ok_and(|value| value.get("error").is_some_and(|error| !error.is_null()))
}

/// Cuts a stream of bytes after each blank line. Linear in the bytes, however they are cut.
#[derive(Debug, Default)]
struct Splitter {
    buffer: BytesMut,
    scanned: usize,
    line_start: usize,
}

impl Splitter {
    fn push(&mut self, data: &[u8]) {
        self.buffer.extend_from_slice(data);
    }

    /// Bytes of an event that has not ended.
    fn pending(&self) -> usize {
        self.buffer.len()
    }

    /// The next event, with the blank line that ends it.
    fn next(&mut self) -> Option<Bytes> {
        while self.scanned < self.buffer.len() {
            let at = self.scanned;
            let end_of_line = match self.buffer[at] {
                b'\n' => at + 1,
                // A carriage return ends a line alone or with a line feed, which may be on its way.
                b'\r' => match self.buffer.get(at + 1) {
                    None => return None,
                    Some(b'\n') => at + 2,
                    Some(_) => at + 1,
                },
                _ => {
                    self.scanned += 1;
                    continue;
                }
            };
            let blank = self.line_start == at;
            self.scanned = end_of_line;
            self.line_start = end_of_line;
            if blank {
                self.scanned = 0;
                self.line_start = 0;
                return Some(self.buffer.split_to(end_of_line).freeze());
            }
        }
        None
    }
}

/// The data of an event: its `data` lines, joined by line feeds.
pub(crate) fn data_of(event: &[u8]) -> Option<Vec<u8>> {
    let mut data: Option<Vec<u8>> = None;
    for line in event.split(|b| matches!(b, b'\n' | b'\r')) {
        let Some(rest) = line.strip_prefix(b"data") else {
            continue;
        };
        let value = match rest {
            [] => rest,
            [b':', b' ', value @ ..] | [b':', value @ ..] => value,
            _ => continue,
        };
        match &mut data {
            Some(data) => {
                data.push(b'\n');
                data.extend_from_slice(value);
            }
            None => data = Some(value.to_vec()),
        }
    }
    data
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    struct Chunks(std::collections::VecDeque<Bytes>);

    impl Body for Chunks {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            Poll::Ready(self.0.pop_front().map(|chunk| Ok(Frame::data(chunk))))
        }
    }

    async fn read(text: &str, chunk: usize) -> (Vec<String>, Option<String>) {
        let chunks = text.as_bytes().chunks(chunk).map(Bytes::copy_from_slice);
        let mut body = WholeEvents::new(Chunks(chunks.collect()));
        let mut events = Vec::new();
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => {
                    let data = frame.into_data().unwrap_or_default();
                    events.push(String::from_utf8(data.to_vec()).unwrap());
                }
                Err(error) => return (events, Some(error.to_string())),
            }
        }
        (events, None)
    }

    #[tokio::test]
    async fn events_come_one_per_frame_however_they_are_cut() {
        for newline in ["\n", "\r\n", "\r"] {
            let text = [
                "data: {\"a\":1}",
                "",
                ": comment",
                "data: b",
                "",
                "data: [DONE]",
                "",
                "",
            ]
            .join(newline);
            // A lone carriage return at the very end may be half of a line break: give one more byte.
            let text = if newline == "\r" { text + ":" } else { text };
            for chunk in 1..text.len() {
                let (events, error) = read(&text, chunk).await;
                assert_eq!(error, None, "{newline:?} {chunk}");
                assert_eq!(events.len(), 3, "{newline:?} {chunk} {events:?}");
                assert_eq!(data_of(events[2].as_bytes()).unwrap(), b"[DONE]");
            }
        }
    }

    #[tokio::test]
    async fn a_stream_cut_at_any_byte_is_an_error() {
        let text = "data: {\"a\":1}\n\ndata: {\"b\":2}\n\ndata: [DONE]\n\n";
        for cut in 0..text.len() {
            let (_, error) = read(&text[..cut], 7).await;
            assert!(error.is_some(), "cut at {cut}");
        }
        assert_eq!(read(text, 7).await.1, None);
    }

    #[tokio::test]
    async fn an_error_event_is_an_error() {
        let (events, error) = read("data: {\"error\":{\"message\":\"overloaded\"}}\n\n", 9).await;
        assert!(events.is_empty());
        assert!(error.unwrap().contains("reported"));
        let (events, _) = read("data: {\"content\":\"\\\"error\\\"\"}\n\n", 9).await;
        assert_eq!(events.len(), 1, "the word alone is no error");
    }

    #[tokio::test]
    async fn an_endless_event_is_cut() {
        let (_, error) = read(&"x".repeat(MAX_EVENT + 100), 4_096).await;
        assert!(error.unwrap().contains("longer"));
    }

    #[test]
    fn data_lines_are_joined() {
        assert_eq!(data_of(b"data: a\ndata:b\nid: 1\n\n").unwrap(), b"a\nb");
        assert_eq!(data_of(b": only a comment\n\n"), None);
        assert_eq!(data_of(b"data\n\n").unwrap(), b"");
    }
}
