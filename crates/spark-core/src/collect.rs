//! Reading a body whole, up to a limit.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Body;
use pin_project_lite::pin_project;

use crate::BoxError;

/// After so many frames at once it lets others have their turn: a body that always has one more,
/// and an empty one at that, would hold the thread for good, and with it whoever limits its time.
const FRAMES: usize = 1_024;

/// Reads `body` whole, at most `max` bytes of it. Trailers are dropped.
///
/// A body of one frame, as a [`RequestBody`](crate::RequestBody) that was read before, is handed
/// over without copying. Several frames are copied into one buffer, which doubles as it fills and
/// never grows beyond `max`: a body that declares a length and sends little takes little. A body that
/// declares more than `max` is refused before it is read.
///
/// # Errors
/// [`CollectError`], from the future.
///
/// # Example
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use spark_core::{CollectError, collect};
/// assert_eq!(collect(String::from("hello"), 5).await.unwrap(), "hello");
/// let refused = collect(String::from("hello"), 4).await.unwrap_err();
/// assert!(matches!(refused, CollectError::TooLarge { limit: 4 }));
/// # });
/// ```
pub fn collect<B: Body<Data = Bytes>>(body: B, max: usize) -> Collect<B> {
    Collect {
        body,
        max,
        read: Read::Nothing,
    }
}

pin_project! {
    /// The future of [`collect`].
    #[must_use = "futures do nothing unless polled"]
    pub struct Collect<B> {
        #[pin]
        body: B,
        max: usize,
        read: Read,
    }
}

enum Read {
    Nothing,
    One(Bytes),
    More(Vec<u8>),
}

/// Why a body could not be read whole.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CollectError {
    /// It is longer than the limit.
    #[error("the body is longer than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// It broke off.
    #[error("the body could not be read")]
    Read(#[source] BoxError),
}

impl<B> Future for Collect<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Output = Result<Bytes, CollectError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let max = *this.max;
        let too_large = Poll::Ready(Err(CollectError::TooLarge { limit: max }));
        if matches!(this.read, Read::Nothing) && exceeds(this.body.size_hint().lower(), max) {
            return too_large;
        }
        for _ in 0..FRAMES {
            let frame = match ready!(this.body.as_mut().poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Poll::Ready(Err(CollectError::Read(error.into()))),
                None => return Poll::Ready(Ok(this.read.take())),
            };
            let Ok(data) = frame.into_data() else {
                continue;
            };
            if data.len() > max.saturating_sub(this.read.len()) {
                return too_large;
            }
            this.read.push(data, max);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<B> fmt::Debug for Collect<B> {
    /// Without the text, which may be a prompt or an answer.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collect")
            .field("max", &self.max)
            .field("read", &self.read.len())
            .finish_non_exhaustive()
    }
}

impl Read {
    fn len(&self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::One(bytes) => bytes.len(),
            Self::More(buffer) => buffer.len(),
        }
    }

    /// The caller has seen to it that what was read and `data` are no more than `max` bytes.
    fn push(&mut self, data: Bytes, max: usize) {
        match self {
            _ if data.is_empty() => {}
            Self::Nothing => *self = Self::One(data),
            Self::One(first) => {
                let mut buffer = Vec::with_capacity(first.len() + data.len());
                buffer.extend_from_slice(first);
                buffer.extend_from_slice(&data);
                *self = Self::More(buffer);
            }
            Self::More(buffer) => {
                if data.len() > buffer.capacity() - buffer.len() {
                    let doubled = buffer.len().min(max.saturating_sub(buffer.len()));
                    buffer.reserve_exact(doubled.max(data.len()));
                }
                buffer.extend_from_slice(&data);
            }
        }
    }

    fn take(&mut self) -> Bytes {
        match std::mem::replace(self, Self::Nothing) {
            Self::Nothing => Bytes::new(),
            Self::One(bytes) => bytes,
            Self::More(buffer) => buffer.into(),
        }
    }
}

fn exceeds(declared: u64, max: usize) -> bool {
    usize::try_from(declared).map_or(true, |declared| declared > max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RequestBody;
    use crate::testing::TestBody;

    #[tokio::test]
    async fn the_limit_is_exact_whatever_the_frames() {
        for body in [
            TestBody::frames(["hello"]),
            TestBody::frames(["he", "", "l", "lo"]).with_trailers(),
            TestBody::frames(["hello"]).with_length(5),
        ] {
            assert_eq!(collect(body.clone(), 5).await.unwrap(), "hello");
            let refused = collect(body, 4).await.unwrap_err();
            assert!(matches!(refused, CollectError::TooLarge { limit: 4 }));
        }
    }

    #[tokio::test]
    async fn a_body_that_declares_too_much_is_not_read() {
        let broken = TestBody::frames([]).with_error().with_length(6);
        let refused = collect(broken, 5).await.unwrap_err();
        assert!(matches!(refused, CollectError::TooLarge { limit: 5 }));
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_an_error_with_its_source() {
        let broken = collect(TestBody::frames(["he"]).with_error(), 5).await;
        let error = broken.unwrap_err();
        assert!(std::error::Error::source(&error).is_some(), "{error}");
    }

    #[test]
    fn a_body_that_always_has_one_more_frame_lets_others_have_their_turn() {
        /// Never ends, and never has to be waited for.
        struct Endless;
        impl Body for Endless {
            type Data = Bytes;
            type Error = BoxError;
            fn poll_frame(
                self: Pin<&mut Self>,
                _: &mut Context<'_>,
            ) -> Poll<Option<Result<http_body::Frame<Bytes>, BoxError>>> {
                Poll::Ready(Some(Ok(http_body::Frame::data(Bytes::new()))))
            }
        }
        let mut read = std::pin::pin!(collect(Endless, 5));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(read.as_mut().poll(&mut cx).is_pending());
    }

    #[tokio::test]
    async fn many_frames_are_read_all_the_same() {
        let frames = ["x"; 3 * FRAMES];
        let read = collect(TestBody::frames(frames), 4 * FRAMES).await.unwrap();
        assert_eq!(read.len(), 3 * FRAMES);
    }

    #[test]
    fn debug_shows_no_text() {
        let text = "my secret prompt";
        let request: RequestBody<String> = RequestBody::whole(text);
        let response: crate::ResponseBody<String> = crate::ResponseBody::whole(text);
        let mut read = Read::Nothing;
        read.push(text.into(), 100);
        let collecting = Collect {
            body: (),
            max: 100,
            read,
        };
        for shown in [
            format!("{request:?}"),
            format!("{response:?}"),
            format!("{collecting:?}"),
        ] {
            assert!(!shown.contains("secret") && shown.contains("16"), "{shown}");
        }
    }

    #[test]
    fn the_buffer_never_grows_beyond_the_limit() {
        let max = 1_000_000;
        let mut read = Read::Nothing;
        while read.len() < max {
            let frame = 7_000.min(max - read.len());
            read.push(vec![b'x'; frame].into(), max);
            if let Read::More(buffer) = &read {
                assert!(buffer.capacity() <= max, "{} bytes", buffer.capacity());
            }
        }
        assert_eq!(read.take().len(), max);
    }

    #[tokio::test]
    async fn a_whole_body_is_not_copied() {
        let bytes = Bytes::from(vec![b'x'; 1_000]);
        let body: RequestBody<String> = RequestBody::whole(bytes.clone());
        let collected = collect(body, 1_000).await.unwrap();
        assert_eq!(collected.as_ptr(), bytes.as_ptr());
    }
}
