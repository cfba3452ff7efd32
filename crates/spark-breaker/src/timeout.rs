//! Time limits for the phases of a call.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body;
use pin_project_lite::pin_project;
use spark_core::{BoxError, Problem, ResponseBody, Shape};
use tokio::time::Sleep;
use tower_layer::Layer;
use tower_service::Service;

use crate::ConfigError;
use crate::metrics::{self, count};
use crate::timeout_body::TimeoutBody;

/// How long the phases of a call may take. `None` is without limit.
///
/// The time to connect belongs to the client's connector, which alone knows when it is connected;
/// `first_byte` covers it when the connector has no limit of its own.
///
/// # Example
/// ```
/// use spark_breaker::Timeouts;
/// use std::time::Duration;
/// let timeouts = Timeouts { total: Some(Duration::from_secs(120)), ..Timeouts::llm() };
/// assert_eq!(timeouts.first_byte, Some(Duration::from_secs(30)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timeouts {
    /// From the call to the first byte of the body. Some providers send the head of a stream at
    /// once and its first word much later, so the head alone does not end this phase.
    pub first_byte: Option<Duration>,
    /// From one frame of the body to the next, while we wait for it.
    pub idle: Option<Duration>,
    /// From the call to the end of the body.
    pub total: Option<Duration>,
}

impl Timeouts {
    /// For model providers: 30 s to the first byte, 15 s between frames, 10 minutes in all.
    pub const fn llm() -> Self {
        Self {
            first_byte: Some(Duration::from_secs(30)),
            idle: Some(Duration::from_secs(15)),
            total: Some(Duration::from_secs(600)),
        }
    }

    /// For those who read them from a file: says which of them cannot work. A layer takes them as
    /// they are.
    ///
    /// # Errors
    /// [`ConfigError`] when one is zero.
    ///
    /// # Example
    /// ```
    /// use spark_breaker::Timeouts;
    /// use std::time::Duration;
    /// let timeouts = Timeouts { idle: Some(Duration::ZERO), ..Timeouts::llm() };
    /// assert!(timeouts.validate().is_err());
    /// ```
    pub fn validate(&self) -> Result<(), ConfigError> {
        for (field, limit) in [
            ("timeouts.first_byte", self.first_byte),
            ("timeouts.idle", self.idle),
            ("timeouts.total", self.total),
        ] {
            if limit.is_some_and(|limit| limit.is_zero()) {
                let mend = "give a longer time, or leave it out for none";
                return Err(ConfigError::out_of_range(field, &Duration::ZERO, mend));
            }
        }
        Ok(())
    }
}

/// The phase of a call that took too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// There was no connection.
    Connect,
    /// The head of the response did not come.
    Headers,
    /// The first byte of the response did not come.
    FirstByte,
    /// The next frame of the body did not come.
    Idle,
    /// The call as a whole was not over.
    Total,
}

impl Phase {
    /// `connect`, `headers`, `first_byte`, `idle` or `total`.
    ///
    /// # Example
    /// ```
    /// assert_eq!(spark_breaker::Phase::Idle.as_str(), "idle");
    /// ```
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Headers => "headers",
            Self::FirstByte => "first_byte",
            Self::Idle => "idle",
            Self::Total => "total",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the response body yields when a time limit cuts it off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the provider took too long: over {limit:?} ({phase})")]
#[non_exhaustive]
pub struct TimeoutError {
    /// Which limit.
    pub phase: Phase,
    /// How long it is.
    pub limit: Duration,
}

impl TimeoutError {
    pub(crate) fn new(phase: Phase, limit: Duration) -> Self {
        count!(metrics::TIMEOUTS, "phase" => phase.as_str());
        Self { phase, limit }
    }
}

/// Limits the time of each call.
///
/// A head that is late is answered 504 (`by` "timeout", code `upstream_timeout`), which a breaker
/// outside counts as a failure. A body that is late ends with a [`TimeoutError`].
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
        TimeoutFuture {
            first_byte: self.timeouts.first_byte.map(tokio::time::sleep),
            total: self.timeouts.total.map(tokio::time::sleep),
            timeouts: self.timeouts,
            shape,
            inner: self.inner.call(request),
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
        first_byte: Option<Sleep>,
        #[pin]
        total: Option<Sleep>,
        timeouts: Timeouts,
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
            let first_byte = deadline(this.first_byte.as_ref(), this.timeouts.first_byte);
            let total = deadline(this.total.as_ref(), this.timeouts.total);
            let idle = this.timeouts.idle;
            return Poll::Ready(answer.map(|response| {
                response.map(|body| {
                    ResponseBody::inner(TimeoutBody::new(body, first_byte, idle, total))
                })
            }));
        }
        let late = |timer: &mut Pin<&mut Option<Sleep>>, cx: &mut Context<'_>| {
            timer
                .as_mut()
                .as_pin_mut()
                .is_some_and(|timer| timer.poll(cx).is_ready())
        };
        let (phase, limit) = if late(&mut this.first_byte, cx) {
            (Phase::FirstByte, this.timeouts.first_byte)
        } else if late(&mut this.total, cx) {
            (Phase::Total, this.timeouts.total)
        } else {
            return Poll::Pending;
        };
        let error = TimeoutError::new(phase, limit.unwrap_or_default());
        let problem =
            Problem::new(StatusCode::GATEWAY_TIMEOUT, "timeout", "upstream_timeout").detail(
                format!("The provider did not answer within {:?}.", error.limit),
            );
        Poll::Ready(Ok(problem.into_response(*this.shape)))
    }
}

/// A limit, and when it is reached.
pub(crate) type Deadline = (Duration, tokio::time::Instant);

fn deadline(timer: Pin<&Option<Sleep>>, limit: Option<Duration>) -> Option<Deadline> {
    limit.zip(timer.get_ref().as_ref().map(Sleep::deadline))
}
