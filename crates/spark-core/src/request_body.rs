//! The body of a request that a layer has read, or is reading.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::BoxError;
use crate::response_body::next_frame;

pin_project! {
    /// What a layer that limits or reads the request body hands on: still streaming, or already
    /// whole. It is collected once: [`collect`](crate::collect) takes a whole one without copying.
    ///
    /// # Example
    /// ```
    /// use spark_core::RequestBody;
    /// let read: RequestBody<String> = RequestBody::whole("{}");
    /// assert_eq!(read.as_whole().unwrap(), "{}");
    /// let unread = RequestBody::streaming(String::from("{}"));
    /// assert!(unread.as_whole().is_none());
    /// ```
    pub struct RequestBody<B> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<B> {
        Streaming { #[pin] body: B },
        Whole { bytes: Bytes },
    }
}

impl<B> RequestBody<B> {
    /// A body that nobody has read.
    ///
    /// # Example
    /// ```
    /// let body = spark_core::RequestBody::streaming(String::from("{}"));
    /// ```
    pub const fn streaming(body: B) -> Self {
        Self {
            kind: Kind::Streaming { body },
        }
    }

    /// A body that was read.
    ///
    /// # Example
    /// ```
    /// let body: spark_core::RequestBody<String> = spark_core::RequestBody::whole("{}");
    /// ```
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        Self {
            kind: Kind::Whole {
                bytes: bytes.into(),
            },
        }
    }

    /// The bytes, when the body was read and not yet taken.
    ///
    /// # Example
    /// ```
    /// let body = spark_core::RequestBody::<String>::whole("{}");
    /// assert_eq!(body.as_whole().map(|bytes| bytes.len()), Some(2));
    /// ```
    pub fn as_whole(&self) -> Option<&Bytes> {
        match &self.kind {
            Kind::Streaming { .. } => None,
            Kind::Whole { bytes } => Some(bytes),
        }
    }
}

impl<B: Default> Default for RequestBody<B> {
    fn default() -> Self {
        Self::streaming(B::default())
    }
}

impl<B> Body for RequestBody<B>
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
        match self.project().kind.project() {
            KindProj::Streaming { body } => body.poll_frame(cx).map_err(Into::into),
            KindProj::Whole { bytes } => Poll::Ready(next_frame(bytes)),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Streaming { body } => body.is_end_stream(),
            Kind::Whole { bytes } => bytes.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Streaming { body } => body.size_hint(),
            Kind::Whole { bytes } => SizeHint::with_exact(bytes.len() as u64),
        }
    }
}

impl<B> fmt::Debug for RequestBody<B> {
    /// Without the text, which may be a prompt or an answer.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = match &self.kind {
            Kind::Streaming { .. } => None,
            Kind::Whole { bytes } => Some(bytes.len()),
        };
        f.debug_struct("RequestBody")
            .field("whole_bytes", &whole)
            .finish_non_exhaustive()
    }
}
