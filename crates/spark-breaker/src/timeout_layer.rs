//! Keeps the time limits of a call: what is late at its head is answered here.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body;
use pin_project_lite::pin_project;
use spark_core::sse::Beginning;
use spark_core::{BoxError, Problem, ResponseBody, Shape};
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tower_layer::Layer;
use tower_service::Service;

use crate::timeout_body::TimeoutBody;
use crate::{Phase, TimeoutError, Timeouts};

/// Limits the time of each call.
///
/// A head that is late is answered 504 (`by` "timeout", code `upstream_timeout`), with the
/// [`TimeoutError`] as an extension of the response; a breaker outside counts it as a failure. A
/// body that is late ends with a [`TimeoutError`].
///
/// It needs tokio's timers: call it within a runtime that has them.
///
/// # Example
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use http::{Request, Response};
/// use spark_breaker::{TimeoutLayer, Timeouts};
/// use std::time::Duration;
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
///
/// let first_byte = Some(Duration::from_millis(5));
/// let client = ServiceBuilder::new()
///     .layer(TimeoutLayer::new(Timeouts { first_byte, ..Timeouts::default() }))
///     .service(service_fn(async |_: Request<String>| {
///         std::future::pending::<Result<Response<String>, std::io::Error>>().await
///     }));
/// let response = client.oneshot(Request::new(String::new())).await.unwrap();
/// assert_eq!(response.status(), 504);
/// # });
/// ```
#[derive(Debug, Clone, Copy)]
pub struct TimeoutLayer {
    timeouts: Timeouts,
}

impl TimeoutLayer {
    /// With these limits.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{TimeoutLayer, Timeouts};
    /// let layer = TimeoutLayer::new(Timeouts::llm());
    /// ```
    pub const fn new(timeouts: Timeouts) -> Self {
        Self { timeouts }
    }
}

impl<S> Layer<S> for TimeoutLayer {
    type Service = TimeoutService<S>;

    fn layer(&self, inner: S) -> TimeoutService<S> {
        TimeoutService {
            inner,
            timeouts: self.timeouts,
        }
    }
}

/// A service with time limits; made by [`TimeoutLayer`].
#[derive(Debug, Clone)]
pub struct TimeoutService<S> {
    inner: S,
    timeouts: Timeouts,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for TimeoutService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Body<Data = Bytes>,
    ResBody::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody<TimeoutBody<ResBody>>>;
    type Error = S::Error;
    type Future = TimeoutFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let shape = Shape::of(request.extensions(), request.headers());
        let deadlines = Deadlines::from_now(&self.timeouts);
        let due = earliest([deadlines.headers, deadlines.first_byte, deadlines.total]);
        TimeoutFuture {
            inner: self.inner.call(request),
            timer: due.map(|due| sleep_until(due.at)),
            due,
            deadlines,
            shape,
        }
    }
}

/// When a phase is over, and which limit that is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Due {
    pub(crate) phase: Phase,
    pub(crate) limit: Duration,
    pub(crate) at: Instant,
}

impl Due {
    /// So long after `start`; none where that is further away than can be told.
    pub(crate) fn after(start: Instant, phase: Phase, limit: Option<Duration>) -> Option<Self> {
        let limit = limit?;
        let at = start.checked_add(limit)?;
        Some(Self { phase, limit, at })
    }

    pub(crate) fn error(self) -> TimeoutError {
        TimeoutError::new(self.phase, self.limit)
    }
}

/// Of two at the same moment, the first in the list.
pub(crate) fn earliest<const N: usize>(dues: [Option<Due>; N]) -> Option<Due> {
    dues.into_iter().flatten().min_by_key(|due| due.at)
}

/// Now, as tokio's timers tell it, which a test can move.
pub(crate) fn now() -> Instant {
    sleep(Duration::ZERO).deadline()
}

/// Of one call: the limits that begin with it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Deadlines {
    headers: Option<Due>,
    pub(crate) first_byte: Option<Due>,
    pub(crate) total: Option<Due>,
    pub(crate) idle: Option<Duration>,
}

impl Deadlines {
    fn from_now(timeouts: &Timeouts) -> Self {
        let idle = timeouts.idle;
        if (timeouts.headers, timeouts.first_byte, timeouts.total) == (None, None, None) {
            return Self {
                idle,
                ..Self::default()
            };
        }
        let start = now();
        Self {
            headers: Due::after(start, Phase::Headers, timeouts.headers),
            first_byte: Due::after(start, Phase::FirstByte, timeouts.first_byte),
            total: Due::after(start, Phase::Total, timeouts.total),
            idle,
        }
    }
}

pin_project! {
    /// The answer of a [`TimeoutService`].
    #[derive(Debug)]
    pub struct TimeoutFuture<F> {
        #[pin]
        inner: F,
        #[pin]
        timer: Option<Sleep>,
        due: Option<Due>,
        deadlines: Deadlines,
        shape: Shape,
    }
}

impl<F, B, E> Future for TimeoutFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Output = Result<Response<ResponseBody<TimeoutBody<B>>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Poll::Ready(answer) = this.inner.poll(cx) {
            // The body goes on with the same deadlines: they do not start anew.
            let deadlines = *this.deadlines;
            return Poll::Ready(answer.map(|response| {
                let beginning = Beginning::of(response.headers());
                response
                    .map(|body| ResponseBody::inner(TimeoutBody::new(body, deadlines, beginning)))
            }));
        }
        let (Some(timer), Some(due)) = (this.timer.as_mut().as_pin_mut(), *this.due) else {
            return Poll::Pending;
        };
        ready!(timer.poll(cx));
        Poll::Ready(Ok(too_late(due.error(), *this.shape)))
    }
}

fn too_late<B>(error: TimeoutError, shape: Shape) -> Response<ResponseBody<B>> {
    let mut response = Problem::new(StatusCode::GATEWAY_TIMEOUT, "timeout", "upstream_timeout")
        .detail(format!(
            "The provider did not answer within {:?}.",
            error.limit
        ))
        .into_response(shape);
    response.extensions_mut().insert(error);
    response
}
