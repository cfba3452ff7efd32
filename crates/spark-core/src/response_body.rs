//! The body of a response that a layer may answer itself.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

pin_project! {
    /// Either the inner service's body, untouched, or the layer's own answer.
    ///
    /// # Example
    /// ```
    /// use http_body::Body;
    /// use spark_core::ResponseBody;
    /// let own: ResponseBody<String> = ResponseBody::whole("no");
    /// assert_eq!(own.size_hint().exact(), Some(2));
    /// let passed = ResponseBody::inner(String::from("yes"));
    /// assert_eq!(passed.size_hint().exact(), Some(3));
    /// ```
    pub struct ResponseBody<B> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<B> {
        Inner { #[pin] body: B },
        Whole { bytes: Bytes },
    }
}

impl<B> ResponseBody<B> {
    /// The inner service's body.
    ///
    /// # Example
    /// ```
    /// let body = spark_core::ResponseBody::inner(String::from("yes"));
    /// ```
    pub const fn inner(body: B) -> Self {
        Self {
            kind: Kind::Inner { body },
        }
    }

    /// An answer of the layer's own.
    ///
    /// # Example
    /// ```
    /// let body: spark_core::ResponseBody<String> = spark_core::ResponseBody::whole("no");
    /// ```
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        Self {
            kind: Kind::Whole {
                bytes: bytes.into(),
            },
        }
    }
}

impl<B: Default> Default for ResponseBody<B> {
    fn default() -> Self {
        Self::inner(B::default())
    }
}

impl<B: Body<Data = Bytes>> Body for ResponseBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().kind.project() {
            KindProj::Inner { body } => body.poll_frame(cx),
            KindProj::Whole { bytes } => Poll::Ready(next_frame(bytes)),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Inner { body } => body.is_end_stream(),
            Kind::Whole { bytes } => bytes.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Inner { body } => body.size_hint(),
            Kind::Whole { bytes } => SizeHint::with_exact(bytes.len() as u64),
        }
    }
}

/// The bytes as one frame, then nothing.
pub(crate) fn next_frame<E>(bytes: &mut Bytes) -> Option<Result<Frame<Bytes>, E>> {
    let bytes = std::mem::take(bytes);
    (!bytes.is_empty()).then(|| Ok(Frame::data(bytes)))
}

impl<B> fmt::Debug for ResponseBody<B> {
    /// Without the text, which may be a prompt or an answer.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = match &self.kind {
            Kind::Inner { .. } => None,
            Kind::Whole { bytes } => Some(bytes.len()),
        };
        f.debug_struct("ResponseBody")
            .field("whole_bytes", &whole)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn both_kinds_are_read_to_the_end() {
        let own: ResponseBody<String> = ResponseBody::whole("no");
        assert_eq!(own.collect().await.unwrap().to_bytes(), "no");
        let passed = ResponseBody::inner(String::from("yes"));
        assert_eq!(passed.collect().await.unwrap().to_bytes(), "yes");
        let empty: ResponseBody<String> = ResponseBody::whole("");
        assert!(empty.is_end_stream());
        assert!(empty.collect().await.unwrap().to_bytes().is_empty());
    }
}
