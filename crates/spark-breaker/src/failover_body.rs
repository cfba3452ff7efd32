//! The body of an answer that was chosen, perhaps after a look at its first frame.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use http::response::Parts;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use spark_core::completion::{Progress, Said};
use spark_core::sse::{Splitter, is_event_stream};
use spark_core::{BoxError, ResponseBody};

/// The response body of a [`Failover`](crate::Failover).
pub type FailoverBody<B> = ResponseBody<PeekedBody<B>>;

/// So much is read while it says nothing, in bytes; then it is handed on all the same.
const MOST: usize = 16 << 10;

pin_project! {
    /// A body that may have been looked into.
    pub struct PeekedBody<B> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<B> {
        Untouched { #[pin] body: B },
        Peeked { frames: VecDeque<Frame<Bytes>>, body: Pin<Box<B>> },
    }
}

impl<B> PeekedBody<B> {
    pub(crate) fn untouched(body: B) -> Self {
        Self {
            kind: Kind::Untouched { body },
        }
    }
}

impl<B> fmt::Debug for PeekedBody<B> {
    /// Without the text, which is a model's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = match &self.kind {
            Kind::Untouched { .. } => 0,
            Kind::Peeked { frames, .. } => frames.len(),
        };
        f.debug_struct("PeekedBody")
            .field("held", &held)
            .finish_non_exhaustive()
    }
}

impl<B: Body<Data = Bytes>> Body for PeekedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().kind.project() {
            KindProj::Untouched { body } => body.poll_frame(cx),
            KindProj::Peeked { frames, body } => match frames.pop_front() {
                Some(frame) => Poll::Ready(Some(Ok(frame))),
                None => body.as_mut().poll_frame(cx),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Untouched { body } => body.is_end_stream(),
            Kind::Peeked { frames, body } => frames.is_empty() && body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Untouched { body } => body.size_hint(),
            Kind::Peeked { frames, body } => {
                let held = frames.iter().filter_map(Frame::data_ref);
                let held: u64 = held.map(|data| data.len() as u64).sum();
                let rest = body.size_hint();
                let mut hint = SizeHint::new();
                hint.set_lower(rest.lower().saturating_add(held));
                if let Some(upper) = rest.upper() {
                    hint.set_upper(upper.saturating_add(held));
                }
                hint
            }
        }
    }
}

/// Waits for the first byte of an answer. Comments and pings of a stream of events are none.
pub(crate) struct Peek<B> {
    parts: Option<Parts>,
    frames: VecDeque<Frame<Bytes>>,
    held: usize,
    events: Option<Events>,
    body: Option<Pin<Box<B>>>,
}

impl<B: Body<Data = Bytes>> Peek<B> {
    pub(crate) fn new(response: Response<B>) -> Self {
        let (parts, body) = response.into_parts();
        Self {
            events: is_event_stream(&parts.headers).then(Events::new),
            parts: Some(parts),
            frames: VecDeque::new(),
            held: 0,
            body: Some(Box::pin(body)),
        }
    }

    /// The answer once it has begun; an error when it breaks off, or is an error, before.
    #[expect(
        clippy::expect_used,
        reason = "head and body are taken at the end, after which it is not polled"
    )]
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<FailoverBody<B>>, BoxError>>
    where
        B::Error: Into<BoxError>,
    {
        loop {
            let body = self.body.as_mut().expect("polled after its end");
            let begun = match ready!(body.as_mut().poll_frame(cx)) {
                Some(Ok(frame)) => self.hold(frame),
                Some(Err(error)) => return Poll::Ready(Err(error.into())),
                None => match &mut self.events {
                    Some(events) => events.end(),
                    // Any other body may be empty.
                    None => Begun::Answer,
                },
            };
            match begun {
                Begun::NotYet => {}
                Begun::Ended => {
                    return Poll::Ready(Err("the stream ended before its first event".into()));
                }
                Begun::Error => {
                    return Poll::Ready(Err("the stream began with an error".into()));
                }
                Begun::Answer => {
                    let kind = Kind::Peeked {
                        frames: std::mem::take(&mut self.frames),
                        body: self.body.take().expect("polled after its end"),
                    };
                    let parts = self.parts.take().expect("polled after its end");
                    let body = ResponseBody::inner(PeekedBody { kind });
                    return Poll::Ready(Ok(Response::from_parts(parts, body)));
                }
            }
        }
    }

    fn hold(&mut self, frame: Frame<Bytes>) -> Begun {
        let length = frame.data_ref().map_or(0, Bytes::len);
        self.held = self.held.saturating_add(length);
        let is_long = self.held > MOST || self.frames.len() > MOST / 64;
        let begun = match (frame.data_ref(), &mut self.events) {
            (Some(data), Some(events)) => events.read(data),
            (Some(data), None) if data.is_empty() => Begun::NotYet,
            // Trailers end it.
            (None, Some(_)) => Begun::NotYet,
            (_, None) => Begun::Answer,
        };
        self.frames.push_back(frame);
        match begun {
            Begun::NotYet if is_long => Begun::Answer,
            begun => begun,
        }
    }
}

/// What an answer has begun with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begun {
    NotYet,
    Answer,
    /// An error in the place of an answer.
    Error,
    /// Nothing came.
    Ended,
}

impl Begun {
    fn with(said: &Said) -> Self {
        match said {
            Said::Nothing => Self::NotYet,
            Said::Piece | Said::Last => Self::Answer,
            Said::Error(_) => Self::Error,
        }
    }
}

/// The events of a stream that has not begun.
struct Events {
    splitter: Splitter,
    progress: Progress,
}

impl Events {
    fn new() -> Self {
        Self {
            splitter: Splitter::new(MOST),
            progress: Progress::new(),
        }
    }

    fn read(&mut self, data: &[u8]) -> Begun {
        let mut rest = data;
        while let Some(event) = self.splitter.next(&mut rest) {
            let begun = Begun::with(&self.progress.event(&event));
            if begun != Begun::NotYet {
                return begun;
            }
        }
        Begun::NotYet
    }

    /// Some providers leave out the very last blank line.
    fn end(&mut self) -> Begun {
        let tail = self.splitter.finish();
        let said = tail.map_or(Said::Nothing, |tail| self.progress.tail(&tail));
        match Begun::with(&said) {
            Begun::NotYet => Begun::Ended,
            begun => begun,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use http::HeaderValue;
    use http::header::CONTENT_TYPE;
    use http_body_util::BodyExt;
    use spark_core::testing::TestBody;

    use super::*;

    async fn peeked(events: bool, body: TestBody) -> Result<FailoverBody<TestBody>, BoxError> {
        let mut response = Response::new(body);
        if events {
            let value = HeaderValue::from_static("Text/Event-Stream; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, value);
        }
        let mut peek = Peek::new(response);
        poll_fn(|cx| peek.poll(cx)).await.map(Response::into_body)
    }

    #[tokio::test]
    async fn all_that_was_looked_at_is_handed_on() {
        let body = TestBody::frames(["", "a"]).with_pause().with_data("b");
        let body = peeked(false, body.with_trailers().with_length(2))
            .await
            .unwrap();
        assert_eq!(body.size_hint().exact(), Some(2));
        assert!(!body.is_end_stream());
        let collected = body.collect().await.unwrap();
        assert!(collected.trailers().is_some());
        assert_eq!(collected.to_bytes(), "ab");

        let body = TestBody::frames([": ping\n", "\nda"]).with_data("ta: x\n\n");
        let body = peeked(true, body).await.unwrap();
        assert_eq!(
            body.collect().await.unwrap().to_bytes(),
            ": ping\n\ndata: x\n\n"
        );

        let secret = peeked(true, TestBody::frames(["data: x\n\n"]).with_pause());
        let shown = format!("{:?}", secret.await.unwrap());
        assert!(!shown.contains("data"), "{shown}");

        let empty = peeked(false, TestBody::frames([""])).await.unwrap();
        assert!(empty.collect().await.unwrap().to_bytes().is_empty());
    }

    #[tokio::test]
    async fn what_breaks_before_it_begins_is_an_error() {
        for (events, body) in [
            (false, TestBody::frames([]).with_pause().with_error()),
            (true, TestBody::frames([": ping\n\n"]).with_error()),
            (true, TestBody::frames([": ping\n\n"])),
            (true, TestBody::frames([": ping\n\n"]).with_trailers()),
            (true, TestBody::frames(["data: half of it"]).with_error()),
            (true, TestBody::frames(["data: {\"half\": "])),
        ] {
            assert!(peeked(events, body).await.is_err());
        }
    }

    /// What a stream begins with, cut anywhere: an answer, or why it is none.
    async fn begun_with(text: &'static str) -> Result<(), String> {
        let mut found = None;
        for at in 0..=text.len() {
            let mut two = Bytes::from_static(text.as_bytes());
            let one = two.split_to(at);
            let body = peeked(true, TestBody::bytes(one).with_data(two)).await;
            let this = body.map(drop).map_err(|error| error.to_string());
            assert_eq!(*found.get_or_insert(this.clone()), this, "{text:?} at {at}");
        }
        found.unwrap()
    }

    #[tokio::test]
    async fn only_an_event_that_says_something_and_is_no_error_is_an_answer() {
        for answer in [
            "data: {\"choices\":[]}\n\n",
            "event: ping\r\ndata: {}\r\n\r\ndata: x\r\n\r\n",
            "event: message_start\ndata: {}\n\n",
            "\u{feff}data:x\r\r",
            "data: {\"error\":null,\"choices\":[]}\n\n",
            "data: {\"errors\":1}\n\n",
            "data: [DONE]\n\n",
            "data: [DONE]",
        ] {
            assert_eq!(begun_with(answer).await, Ok(()));
        }
        for nothing in [
            "",
            ": ping\n\n: ping\n\n",
            "\n\r\n\r\r\n",
            "event: ping\ndata: {\"type\": \"ping\"}\n\n",
            "data: {\"type\": \"ping\"}\n\n",
            "retry: 3000\nid: 1\n\n",
            "event: message_start\n\n",
            "data\n\n",
        ] {
            assert_eq!(
                begun_with(nothing).await.unwrap_err(),
                "the stream ended before its first event",
                "{nothing:?}"
            );
        }
        for error in [
            "event: error\ndata: {}\n\n",
            ": a\n\nevent: ping\ndata: {}\n\ndata: {\"error\":{\"message\":\"m\"}}\n\n",
            "data: { \"error\" : \"overloaded\" }\n\n",
            "data: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}\n\n",
            "data: {\"id\":\"x\",\"error\":{\"code\":502},\"choices\":[]}\n\n",
        ] {
            assert_eq!(
                begun_with(error).await.unwrap_err(),
                "the stream began with an error",
                "{error:?}"
            );
        }
    }

    #[tokio::test]
    async fn an_event_that_is_longer_than_what_is_held_is_an_answer_before_its_end() {
        let body = TestBody::frames(["data: "]).with_data(vec![b'x'; MOST]);
        let body = peeked(true, body.with_pause().with_error()).await.unwrap();
        let held = body.size_hint().lower();
        assert_eq!(held, MOST as u64 + 6);
    }

    #[tokio::test]
    async fn pings_without_end_are_handed_on_at_last() {
        for ping in [": a\n", ""] {
            let body = (0..MOST).fold(TestBody::default(), |body, _| body.with_data(ping));
            let body = peeked(true, body.with_error()).await.unwrap();
            assert!(body.collect().await.is_err());
        }
    }
}
