//! What was sent before an error arrives before the connection is cut.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use spark_core::BoxError;

pin_project! {
    /// A response body that is pending once before it fails.
    ///
    /// hyper cuts the connection as soon as a body fails, and with it what it holds of the frames
    /// before; it sends them when a body is pending. So the last words of a stream that breaks off,
    /// such as an event that tells of the error, would be lost in most cases.
    #[derive(Debug)]
    pub(crate) struct Flushed<B> {
        #[pin]
        body: B,
        held: bool,
        error: Option<BoxError>,
    }
}

impl<B> Flushed<B> {
    pub(crate) fn new(body: B) -> Self {
        Self {
            body,
            held: false,
            error: None,
        }
    }
}

impl<B> Body for Flushed<B>
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
        let this = self.project();
        if let Some(error) = this.error.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let frame = match this.body.poll_frame(cx) {
            Poll::Pending => {
                *this.held = false;
                return Poll::Pending;
            }
            Poll::Ready(frame) => frame.map(|frame| frame.map_err(Into::into)),
        };
        match frame {
            Some(Err(error)) if *this.held => {
                *this.error = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            frame => {
                *this.held = true;
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.error.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use spark_core::testing::TestBody;

    use super::*;

    #[test]
    fn it_is_pending_once_before_an_error_and_never_otherwise() {
        let mut body = Flushed::new(TestBody::frames(["a", "b"]).with_error());
        let mut cx = Context::from_waker(Waker::noop());
        let mut next = || Pin::new(&mut body).poll_frame(&mut cx);
        assert!(matches!(next(), Poll::Ready(Some(Ok(_)))));
        assert!(matches!(next(), Poll::Ready(Some(Ok(_)))));
        assert!(next().is_pending());
        assert!(matches!(next(), Poll::Ready(Some(Err(_)))));
        assert!(matches!(next(), Poll::Ready(None)));
    }
}
