//! A request body that is counted while it streams.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use spark_core::BoxError;

/// The error of a [`LimitedBody`] that passed its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request body is longer than {limit} bytes")]
#[non_exhaustive]
pub struct BodyTooLarge {
    /// The limit in bytes.
    pub limit: usize,
}

/// Set once by a body, read by whoever answers the request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tripped(Arc<AtomicBool>);

impl Tripped {
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

pin_project! {
    /// A body that fails with [`BodyTooLarge`] instead of handing on more than its limit. Nothing
    /// is held back or stored: memory is that of one frame.
    #[derive(Debug)]
    pub struct LimitedBody<B> {
        #[pin]
        body: B,
        left: usize,
        limit: usize,
        tripped: Tripped,
    }
}

impl<B> LimitedBody<B> {
    pub(crate) fn new(body: B, limit: usize, tripped: Tripped) -> Self {
        Self {
            body,
            left: limit,
            limit,
            tripped,
        }
    }
}

impl<B> Body for LimitedBody<B>
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
        if this.tripped.is_set() {
            return Poll::Ready(None);
        }
        let frame = match ready!(this.body.poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            None => return Poll::Ready(None),
        };
        let length = frame.data_ref().map_or(0, Bytes::len);
        match this.left.checked_sub(length) {
            Some(left) => {
                *this.left = left;
                Poll::Ready(Some(Ok(frame)))
            }
            None => {
                this.tripped.0.store(true, Ordering::Relaxed);
                Poll::Ready(Some(Err(BodyTooLarge { limit: *this.limit }.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.tripped.is_set() || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use spark_core::testing::TestBody;

    use super::*;

    #[tokio::test]
    async fn the_limit_is_exact_and_the_flag_follows() {
        let tripped = Tripped::default();
        let body = LimitedBody::new(TestBody::frames(["ab", "", "cd"]), 4, tripped.clone());
        assert_eq!(body.collect().await.unwrap().to_bytes(), "abcd");
        assert!(!tripped.is_set());

        let mut body = LimitedBody::new(TestBody::frames(["ab", "cd", "ef"]), 3, tripped.clone());
        assert!(body.frame().await.unwrap().is_ok());
        let error = body.frame().await.unwrap().unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&BodyTooLarge { limit: 3 }));
        assert!(tripped.is_set() && body.is_end_stream());
        assert!(body.frame().await.is_none(), "nothing more is read");
    }
}
