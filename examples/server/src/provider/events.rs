//! Server-sent events: split, one per frame, and known to be whole.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame};
use pin_project_lite::pin_project;
use spark_core::BoxError;
use spark_core::completion::{Progress, Said};
use spark_core::sse::Splitter;

/// The longest event, in bytes; a longer one fails the stream.
const MAX_EVENT: usize = 1 << 20;

pin_project! {
    /// A stream of chat completion chunks: one event per frame, not copied where it came in one. It
    /// fails when it ends before `data: [DONE]`, when an event reports an error, and when an event is
    /// too long.
    pub(crate) struct WholeEvents<B> {
        #[pin]
        body: B,
        splitter: Splitter,
        progress: Progress,
        // What came and was not looked at yet.
        input: Bytes,
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
            splitter: Splitter::new(MAX_EVENT),
            progress: Progress::new(),
            input: Bytes::new(),
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
            let mut rest = &this.input[..];
            if let Some(event) = this.splitter.next(&mut rest) {
                let error = match this.progress.event(&event) {
                    _ if event.is_cut() => Some(EventError::TooLong),
                    Said::Error(_) => Some(EventError::Reported),
                    Said::Last => {
                        *this.done = true;
                        None
                    }
                    Said::Nothing | Said::Piece => None,
                };
                let frame = match error {
                    Some(error) => Err(error.into()),
                    None => Ok(Frame::data(event.to_bytes(this.input))),
                };
                let taken = this.input.len() - rest.len();
                this.input.advance(taken);
                *this.done |= frame.is_err();
                return Poll::Ready(Some(frame));
            }
            // All of it was taken, though no event ended.
            this.input.clear();
            match ready!(this.body.as_mut().poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        *this.input = data;
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

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    /// Chunks that each keep waiting once.
    struct Chunks(std::collections::VecDeque<Bytes>, bool);

    impl Body for Chunks {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            self.1 = !self.1;
            if self.1 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(self.0.pop_front().map(|chunk| Ok(Frame::data(chunk))))
        }
    }

    async fn read(text: &str, chunk: usize) -> (Vec<String>, Option<String>) {
        let chunks = text.as_bytes().chunks(chunk).map(Bytes::copy_from_slice);
        let mut body = WholeEvents::new(Chunks(chunks.collect(), false));
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
            for chunk in 1..text.len() {
                let (events, error) = read(&text, chunk).await;
                assert_eq!(error, None, "{newline:?} {chunk}");
                assert_eq!(events.len(), 3, "{newline:?} {chunk} {events:?}");
                assert_eq!(events[2].trim_end(), "data: [DONE]");
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

    #[tokio::test]
    async fn an_event_that_is_whole_in_its_frame_is_not_copied() {
        let frame = Bytes::from_static(b"data: {\"choices\":[]}\n\ndata: [DONE]\n\n");
        let mut body = WholeEvents::new(Chunks([frame.clone()].into(), false));
        for at in [0, 22] {
            let event = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(event.as_ptr(), frame[at..].as_ptr());
        }
        assert!(body.frame().await.is_none());
    }
}
