//! A body to order.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

/// A body of chosen frames. Its length is unknown unless [`with_length`](Self::with_length) is said.
///
/// # Example
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use spark_core::testing::TestBody;
/// let body = TestBody::frames(["hel", "lo"]);
/// assert_eq!(spark_core::collect(body, 10).await.unwrap(), "hello");
/// # });
/// ```
#[derive(Clone, Debug, Default)]
pub struct TestBody {
    steps: VecDeque<Step>,
    length: Option<u64>,
}

#[derive(Clone, Debug)]
enum Step {
    Data(Bytes),
    Trailers(HeaderMap),
    Error,
    Pending,
}

/// The error of a [`TestBody`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the test body broke off")]
pub struct TestError;

impl TestBody {
    /// These frames, one after the other.
    ///
    /// # Example
    /// ```
    /// # use spark_core::testing::TestBody;
    /// let empty = TestBody::frames([]);
    /// ```
    pub fn frames<const N: usize>(frames: [&'static str; N]) -> Self {
        Self {
            steps: frames.map(|f| Step::Data(f.into())).into(),
            length: None,
        }
    }

    /// These bytes as one frame.
    ///
    /// # Example
    /// ```
    /// # use spark_core::testing::TestBody;
    /// let body = TestBody::bytes(vec![0; 1_000]);
    /// ```
    pub fn bytes(bytes: impl Into<Bytes>) -> Self {
        Self {
            steps: [Step::Data(bytes.into())].into(),
            length: None,
        }
    }

    /// Then one more frame.
    ///
    /// # Example
    /// ```
    /// # use spark_core::testing::TestBody;
    /// let body = TestBody::frames(["a"]).with_data("b");
    /// ```
    #[must_use]
    pub fn with_data(self, bytes: impl Into<Bytes>) -> Self {
        self.with(Step::Data(bytes.into()))
    }

    /// Then a pause: pending once, woken at once.
    ///
    /// # Example
    /// ```
    /// # use spark_core::testing::TestBody;
    /// let body = TestBody::frames(["a"]).with_pause().with_data("b");
    /// ```
    #[must_use]
    pub fn with_pause(self) -> Self {
        self.with(Step::Pending)
    }

    /// Then trailers.
    ///
    /// # Example
    /// ```
    /// # use spark_core::testing::TestBody;
    /// let body = TestBody::frames(["a"]).with_trailers();
    /// ```
    #[must_use]
    pub fn with_trailers(self) -> Self {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-trailer", http::HeaderValue::from_static("kept"));
        self.with(Step::Trailers(trailers))
    }

    /// Then an error.
    ///
    /// # Example
    /// ```
    /// # use spark_core::testing::TestBody;
    /// let body = TestBody::frames(["a"]).with_error();
    /// ```
    #[must_use]
    pub fn with_error(self) -> Self {
        self.with(Step::Error)
    }

    /// Declares the length.
    ///
    /// # Example
    /// ```
    /// # use spark_core::testing::TestBody;
    /// use http_body::Body;
    /// assert_eq!(TestBody::frames(["abc"]).with_length(3).size_hint().exact(), Some(3));
    /// ```
    #[must_use]
    pub fn with_length(mut self, length: u64) -> Self {
        self.length = Some(length);
        self
    }

    fn with(mut self, step: Step) -> Self {
        self.steps.push_back(step);
        self
    }
}

impl Body for TestBody {
    type Data = Bytes;
    type Error = TestError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, TestError>>> {
        Poll::Ready(match self.steps.pop_front() {
            None => None,
            Some(Step::Data(data)) => {
                if let Some(length) = &mut self.length {
                    *length = length.saturating_sub(data.len() as u64);
                }
                Some(Ok(Frame::data(data)))
            }
            Some(Step::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Some(Step::Error) => Some(Err(TestError)),
            Some(Step::Pending) => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.length
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
