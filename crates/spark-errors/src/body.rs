//! A response body whose panic is an error.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use spark_core::BoxError;

use crate::{EventId, future::Errand, unwind::catch};

pin_project! {
    /// Passes a body through; a panic in it is captured and becomes an error, after which the
    /// body has ended.
    pub struct Guarded<B> {
        #[pin]
        inner: Option<B>,
        errand: Errand,
    }
}

impl<B> Guarded<B> {
    pub(crate) fn new(inner: B, errand: Errand) -> Self {
        Self {
            inner: Some(inner),
            errand,
        }
    }
}

impl<B> Body for Guarded<B>
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
        let Some(inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        match catch(|| inner.poll_frame(cx)) {
            Ok(polled) => polled.map_err(Into::into),
            Err(panicked) => {
                let id = this.errand.late_panic(panicked);
                // What panicked once may do so again when it is dropped.
                drop(catch(|| this.inner.set(None)));
                Poll::Ready(Some(Err(BodyPanicked(id).into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl<B> fmt::Debug for Guarded<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded").finish_non_exhaustive()
    }
}

/// The response body panicked; the event tells where.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the response body panicked ({0})")]
struct BodyPanicked(EventId);
