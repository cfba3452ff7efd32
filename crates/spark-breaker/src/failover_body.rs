//! The body of an answer that was chosen, perhaps after a look at its first frame.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::response::Parts;
use http::{HeaderMap, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use spark_core::{BoxError, ResponseBody};

use crate::first_event::{Begun, FirstEvent};

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
    events: Option<FirstEvent>,
    body: Option<Pin<Box<B>>>,
}

impl<B: Body<Data = Bytes>> Peek<B> {
    pub(crate) fn new(response: Response<B>) -> Self {
        let (parts, body) = response.into_parts();
        Self {
            events: is_event_stream(&parts.headers).then(FirstEvent::default),
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
                // A stream of events that says nothing; any other body may be empty.
                None if self.events.is_some() => {
                    return Poll::Ready(Err("the stream ended before its first event".into()));
                }
                None => Some(Begun::Event),
            };
            match begun {
                None => {}
                Some(Begun::Error) => {
                    return Poll::Ready(Err("the stream began with an error".into()));
                }
                Some(Begun::Event) => {
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

    fn hold(&mut self, frame: Frame<Bytes>) -> Option<Begun> {
        let length = frame.data_ref().map_or(0, Bytes::len);
        self.held = self.held.saturating_add(length);
        let is_long = self.held > MOST || self.frames.len() > MOST / 64;
        let begun = match (frame.data_ref(), &mut self.events) {
            (Some(data), Some(events)) => events.feed(data),
            (Some(data), None) => (!data.is_empty()).then_some(Begun::Event),
            // Trailers end it.
            (None, Some(_)) => None,
            (None, None) => Some(Begun::Event),
        };
        self.frames.push_back(frame);
        begun.or(is_long.then_some(Begun::Event))
    }
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE);
    let essence = content_type.and_then(|value| value.as_bytes().split(|b| *b == b';').next());
    essence.is_some_and(|it| it.trim_ascii().eq_ignore_ascii_case(b"text/event-stream"))
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use http::HeaderValue;
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
        assert!(
            shown.contains("held: 1") && !shown.contains("data"),
            "{shown}"
        );

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
            (true, TestBody::frames(["event: error\ndata: {}\n\n"])),
        ] {
            assert!(peeked(events, body).await.is_err());
        }
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
