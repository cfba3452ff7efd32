//! The body of a response that passed a cache.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use spark_core::{BoxError, ResponseBody};

use crate::Entry;
use crate::frame_log::{Next, Reader};

pin_project! {
    /// The body of a response that passed a [`CacheLayer`](crate::CacheLayer): the inner body as it
    /// is, an entry in the frames in which it came, or an answer on its way to several readers.
    ///
    /// Its error is boxed, since an answer on its way can fail for reasons of its own, which are
    /// [`BodyError`](crate::BodyError)s; errors of an inner body that passed are boxed as they are.
    ///
    /// # Example
    /// ```
    /// use spark_cache::CacheBody;
    /// fn is_body<B: http_body::Body<Data = bytes::Bytes, Error = spark_core::BoxError>>() {}
    /// is_body::<CacheBody<String>>();
    /// ```
    pub struct CacheBody<B> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<B> {
        Passed { #[pin] body: ResponseBody<B> },
        Kept { entry: Arc<Entry>, at: usize, left: u64 },
        Live { reader: Option<Reader>, left: Option<u64> },
    }
}

impl<B> CacheBody<B> {
    pub(crate) fn passed(body: ResponseBody<B>) -> Self {
        Self {
            kind: Kind::Passed { body },
        }
    }

    pub(crate) fn kept(entry: Arc<Entry>) -> Self {
        let left = entry.body_len();
        Self {
            kind: Kind::Kept { entry, at: 0, left },
        }
    }

    pub(crate) fn live(reader: Reader, declared: Option<u64>) -> Self {
        let reader = Some(reader).filter(|_| declared != Some(0));
        Self {
            kind: Kind::Live {
                reader,
                left: declared,
            },
        }
    }
}

impl<B> Body for CacheBody<B>
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
            KindProj::Passed { body } => body.poll_frame(cx).map_err(Into::into),
            KindProj::Kept { entry, at, left } => {
                let frame = entry.frames().get(*at).cloned();
                *at += 1;
                Poll::Ready(frame.map(|frame| {
                    *left = left.saturating_sub(frame.len() as u64);
                    Ok(Frame::data(frame))
                }))
            }
            KindProj::Live { reader, left } => {
                let Some(reading) = reader else {
                    return Poll::Ready(None);
                };
                Poll::Ready(match ready!(reading.poll_next(cx)) {
                    Next::Data(frame) => {
                        if let Some(left) = left {
                            *left = left.saturating_sub(frame.len() as u64);
                        }
                        Some(Ok(Frame::data(frame)))
                    }
                    Next::End(trailers) => {
                        *reader = None;
                        trailers.map(|trailers| Ok(Frame::trailers(trailers)))
                    }
                    Next::Broken(error) => {
                        *reader = None;
                        Some(Err(error.into()))
                    }
                })
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Passed { body } => body.is_end_stream(),
            Kind::Kept { entry, at, .. } => *at >= entry.frames().len(),
            Kind::Live { reader, .. } => reader.as_ref().is_none_or(Reader::is_done),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Passed { body } => body.size_hint(),
            Kind::Kept { left, .. } => SizeHint::with_exact(*left),
            Kind::Live {
                reader: Some(_),
                left: Some(left),
            } => SizeHint::with_exact(*left),
            Kind::Live {
                reader: Some(_),
                left: None,
            } => SizeHint::default(),
            Kind::Live { reader: None, .. } => SizeHint::with_exact(0),
        }
    }
}

impl<B> fmt::Debug for CacheBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.kind {
            Kind::Passed { .. } => "CacheBody(passed)",
            Kind::Kept { .. } => "CacheBody(kept)",
            Kind::Live { .. } => "CacheBody(live)",
        })
    }
}
