//! Knowing how a body ended.

use std::any::Any;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Everything was handed over: the body said so, or trailers came, or it was dropped when
    /// nothing was left of it: a server never polls such a body to its end.
    Complete,
    /// The body failed.
    Error,
    /// It was dropped with something left: the client went away. Neither success nor failure.
    Cancelled,
}

/// What is told of a body under way. Permits, gauges and reservations live in one of these.
///
/// # Example
/// ```
/// use bytes::Bytes;
/// use spark_core::{End, Watch};
/// struct Count(u64);
/// impl Watch for Count {
///     fn data(&mut self, data: &Bytes) {
///         self.0 += data.len() as u64;
///     }
///     fn end(self, end: End) {
///         println!("{} bytes, {end:?}", self.0);
///     }
/// }
/// ```
pub trait Watch {
    /// A data frame is handed over.
    fn data(&mut self, data: &Bytes) {
        let _ = data;
    }

    /// The body failed with this: its own type of error. [`End::Error`] follows.
    ///
    /// # Example
    /// ```
    /// use spark_core::{BoxError, End, Watch};
    /// use std::any::Any;
    /// #[derive(Default)]
    /// struct Why(String);
    /// impl Watch for Why {
    ///     fn failed(&mut self, error: &dyn Any) {
    ///         self.0 = error.downcast_ref::<BoxError>().map(ToString::to_string).unwrap_or_default();
    ///     }
    ///     fn end(self, end: End) {
    ///         println!("{end:?}: {}", self.0);
    ///     }
    /// }
    /// ```
    fn failed(&mut self, error: &dyn Any) {
        let _ = error;
    }

    /// The body panicked when it was asked for a frame, and is now dropped. Its end follows.
    ///
    /// # Example
    /// ```
    /// use spark_core::{End, Watch};
    /// struct Blame(bool);
    /// impl Watch for Blame {
    ///     fn panicked(&mut self) {
    ///         self.0 = true;
    ///     }
    ///     fn end(self, end: End) {
    ///         println!("{}", if self.0 { "panicked" } else { "did not" });
    ///     }
    /// }
    /// ```
    fn panicked(&mut self) {}

    /// The body ended. Called exactly once, also when the body is dropped.
    fn end(self, end: End)
    where
        Self: Sized;
}

pin_project! {
    /// A body that tells a [`Watch`] how it ended; frames, size hint and end of stream are
    /// untouched.
    ///
    /// # Example
    /// ```
    /// use spark_core::{End, Watch, Watched};
    /// struct Print;
    /// impl Watch for Print {
    ///     fn end(self, end: End) {
    ///         assert_eq!(end, End::Cancelled);
    ///     }
    /// }
    /// drop(Watched::new(String::from("unread"), Print, None));
    /// ```
    #[derive(Debug)]
    pub struct Watched<B, W>
    where
        B: Body,
        W: Watch,
    {
        // Taken out when the whole is dropped: before the end is told, so that what the body itself
        // does when it is dropped (it may fill in a usage) comes first.
        #[pin]
        body: Option<B>,
        watch: Option<W>,
        // What is still to come, where the length was declared.
        left: Option<u64>,
        // It was asked for a frame and has not come back: it panicked.
        polls: bool,
    }

    impl<B, W> PinnedDrop for Watched<B, W>
    where
        B: Body,
        W: Watch,
    {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if let Some(mut watch) = this.watch.take() {
                // Who has panicked is not asked again, least of all while the thread unwinds.
                let is_ended = || this.body.as_ref().as_pin_ref().is_none_or(|it| it.is_end_stream());
                let complete = *this.left == Some(0) || (!*this.polls && is_ended());
                this.body.set(None);
                if *this.polls {
                    watch.panicked();
                }
                watch.end(if complete { End::Complete } else { End::Cancelled });
            }
        }
    }
}

impl<B: Body, W: Watch> Watched<B, W> {
    /// Watches `body`. `declared` is its length where one was declared, as in a `Content-Length`
    /// header: once so many bytes are handed over, a drop counts as complete.
    ///
    /// # Example
    /// ```
    /// # use spark_core::{End, Watch, Watched};
    /// # struct Ignore;
    /// # impl Watch for Ignore { fn end(self, _: End) {} }
    /// let body = Watched::new(String::from("hello"), Ignore, Some(5));
    /// ```
    pub fn new(body: B, watch: W, declared: Option<u64>) -> Self {
        let left = declared.or_else(|| body.size_hint().exact());
        Self {
            body: Some(body),
            watch: Some(watch),
            left,
            polls: false,
        }
    }
}

/// Watches the body of the response to a request of this method. A response that has no body on the
/// wire (to HEAD; 204; 304) is complete when it is dropped.
///
/// # Example
/// ```
/// use http::{Method, Response};
/// use spark_core::{End, Watch, watch_response};
/// struct Print;
/// impl Watch for Print {
///     fn end(self, end: End) {
///         assert_eq!(end, End::Complete);
///     }
/// }
/// let response = Response::new(String::from("not sent"));
/// drop(watch_response(&Method::HEAD, response, Print));
/// ```
pub fn watch_response<B: Body, W: Watch>(
    method: &Method,
    response: Response<B>,
    watch: W,
) -> Response<Watched<B, W>> {
    let bodiless = method == Method::HEAD
        || response.status().is_informational()
        || matches!(
            response.status(),
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        );
    let declared = if bodiless {
        Some(0)
    } else {
        content_length(response.headers())
    };
    response.map(|body| Watched::new(body, watch, declared))
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

impl<B, W> Body for Watched<B, W>
where
    B: Body<Data = Bytes>,
    B::Error: 'static,
    W: Watch,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        let Some(body) = this.body.as_pin_mut() else {
            return Poll::Ready(None);
        };
        *this.polls = true;
        let polled = body.poll_frame(cx);
        *this.polls = false;
        let end = match &polled {
            Poll::Pending => None,
            Poll::Ready(None) => Some(End::Complete),
            Poll::Ready(Some(Err(error))) => {
                if let Some(watch) = this.watch {
                    watch.failed(error);
                }
                Some(End::Error)
            }
            Poll::Ready(Some(Ok(frame))) => match frame.data_ref() {
                Some(data) => {
                    if let Some(watch) = this.watch {
                        watch.data(data);
                    }
                    if let Some(left) = this.left {
                        *left = left.saturating_sub(data.len() as u64);
                    }
                    None
                }
                None => Some(End::Complete),
            },
        };
        if let Some(end) = end
            && let Some(watch) = this.watch.take()
        {
            watch.end(end);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(B::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let body = self.body.as_ref();
        body.map_or_else(|| SizeHint::with_exact(0), B::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use http_body_util::BodyExt;

    use super::*;
    use crate::testing::{TestBody, TestError};

    #[derive(Clone, Debug, Default)]
    struct Record(Arc<Mutex<(u64, Vec<End>)>>);

    impl Watch for Record {
        fn data(&mut self, data: &Bytes) {
            self.0.lock().unwrap().0 += data.len() as u64;
        }

        fn end(self, end: End) {
            self.0.lock().unwrap().1.push(end);
        }
    }

    impl Record {
        fn ends(&self) -> Vec<End> {
            self.0.lock().unwrap().1.clone()
        }
    }

    #[tokio::test]
    async fn a_body_that_is_read_to_its_end_is_complete_once() {
        let record = Record::default();
        let body = TestBody::frames(["ab", "c"]).with_trailers();
        let body = Watched::new(body, record.clone(), None);
        let collected = body.collect().await.unwrap();
        assert!(collected.trailers().is_some());
        assert_eq!(collected.to_bytes(), "abc");
        assert_eq!(record.ends(), [End::Complete]);
        assert_eq!(record.0.lock().unwrap().0, 3);
    }

    #[tokio::test]
    async fn an_error_is_an_error_also_when_the_body_is_dropped_after_it() {
        let record = Record::default();
        let body = Watched::new(TestBody::frames(["ab"]).with_error(), record.clone(), None);
        assert!(body.collect().await.is_err());
        assert_eq!(record.ends(), [End::Error]);
    }

    #[tokio::test]
    async fn dropped_half_way_is_cancelled() {
        let record = Record::default();
        let mut body = Watched::new(TestBody::frames(["ab", "c"]), record.clone(), None);
        body.frame().await.unwrap().unwrap();
        drop(body);
        assert_eq!(record.ends(), [End::Cancelled]);
    }

    #[tokio::test]
    async fn dropped_when_the_declared_length_was_delivered_is_complete() {
        let record = Record::default();
        let mut body = Watched::new(TestBody::frames(["ab", "c"]), record.clone(), Some(3));
        body.frame().await.unwrap().unwrap();
        body.frame().await.unwrap().unwrap();
        drop(body);
        assert_eq!(record.ends(), [End::Complete]);
    }

    #[tokio::test]
    async fn responses_without_a_body_on_the_wire_are_complete_when_dropped() {
        for (method, status, expected) in [
            (Method::HEAD, 200, End::Complete),
            (Method::GET, 204, End::Complete),
            (Method::GET, 304, End::Complete),
            (Method::GET, 200, End::Cancelled),
        ] {
            let record = Record::default();
            let mut response = Response::new(TestBody::frames(["abc"]));
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            drop(watch_response(&method, response, record.clone()));
            assert_eq!(record.ends(), [expected], "{method} {status}");
        }
    }

    /// A body that does something when it is dropped.
    struct Last(Record);

    impl Body for Last {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            Poll::Pending
        }
    }

    impl Drop for Last {
        fn drop(&mut self) {
            assert_eq!(
                self.0.ends(),
                [],
                "the body is dropped before its end is told"
            );
        }
    }

    #[tokio::test]
    async fn a_body_is_dropped_before_its_end_is_told() {
        let record = Record::default();
        drop(Watched::new(Last(record.clone()), record.clone(), None));
        assert_eq!(record.ends(), [End::Cancelled]);
    }

    /// Writes down what it is told, in order.
    struct Log(Arc<Mutex<Vec<String>>>);

    impl Watch for Log {
        fn failed(&mut self, error: &dyn Any) {
            let error = error.downcast_ref::<TestError>().unwrap();
            self.0.lock().unwrap().push(error.to_string());
        }

        fn panicked(&mut self) {
            self.0.lock().unwrap().push("panicked".into());
        }

        fn end(self, end: End) {
            self.0.lock().unwrap().push(format!("{end:?}"));
        }
    }

    #[tokio::test]
    async fn the_error_is_told_before_the_end() {
        let log = Arc::default();
        let body = TestBody::frames(["ab"]).with_error();
        let body = Watched::new(body, Log(Arc::clone(&log)), None);
        let error = body.collect().await.unwrap_err().to_string();
        assert_eq!(*log.lock().unwrap(), [error.as_str(), "Error"]);
    }

    struct Panics;

    impl Body for Panics {
        type Data = Bytes;
        type Error = TestError;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, TestError>>> {
            panic!("a body that panics")
        }

        fn is_end_stream(&self) -> bool {
            panic!("a body that is asked again")
        }
    }

    #[tokio::test]
    async fn a_panic_of_the_body_is_told_and_the_body_is_left_alone() {
        let log = Arc::default();
        let body = Watched::new(Panics, Log(Arc::clone(&log)), None);
        let task = tokio::spawn(body.collect());
        assert!(task.await.unwrap_err().is_panic());
        assert_eq!(*log.lock().unwrap(), ["panicked", "Cancelled"]);
    }

    #[tokio::test]
    async fn an_empty_body_is_complete_when_dropped() {
        let record = Record::default();
        drop(Watched::new(TestBody::frames([]), record.clone(), None));
        assert_eq!(record.ends(), [End::Complete]);
    }
}
