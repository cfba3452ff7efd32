//! A time limit on connecting.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use spark_core::BoxError;
use tokio::time::{Sleep, sleep};
use tower_service::Service;

use crate::{Phase, TimeoutError};

/// A connector with a time limit, for any client that takes a connector as a tower service (as
/// hyper-util's does). One that is late fails with a [`TimeoutError`] of [`Phase::Connect`].
///
/// Put it around the whole connector: around that for TLS it limits the handshake too, which a
/// limit on TCP alone does not.
///
/// It needs tokio's timers: call it within a runtime that has them.
///
/// # Example
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use http::Uri;
/// use spark_breaker::{ConnectTimeout, Phase, TimeoutError};
/// use spark_core::BoxError;
/// use std::time::Duration;
/// use tower::{ServiceExt, service_fn};
///
/// let never = service_fn(|_: Uri| std::future::pending::<Result<(), BoxError>>());
/// let connector = ConnectTimeout::new(never, Duration::from_millis(5));
/// let error = connector.oneshot(Uri::from_static("http://localhost")).await.unwrap_err();
/// assert_eq!(TimeoutError::within(&*error).unwrap().phase, Phase::Connect);
/// # });
/// ```
#[derive(Debug, Clone, Copy)]
pub struct ConnectTimeout<C> {
    inner: C,
    limit: Option<Duration>,
}

impl<C> ConnectTimeout<C> {
    /// Gives each connection so long; `None` is without limit.
    ///
    /// # Example
    /// ```
    /// use hyper_util::client::legacy::connect::HttpConnector;
    /// use spark_breaker::ConnectTimeout;
    /// use std::time::Duration;
    /// let connector = ConnectTimeout::new(HttpConnector::new(), Duration::from_secs(2));
    /// ```
    pub fn new(inner: C, limit: impl Into<Option<Duration>>) -> Self {
        Self {
            inner,
            limit: limit.into(),
        }
    }
}

impl<C, Target> Service<Target> for ConnectTimeout<C>
where
    C: Service<Target>,
    C::Error: Into<BoxError>,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = ConnectFuture<C::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, target: Target) -> ConnectFuture<C::Future> {
        ConnectFuture {
            timer: self.limit.map(|limit| (limit, Box::pin(sleep(limit)))),
            inner: self.inner.call(target),
        }
    }
}

pin_project! {
    /// A connection in the making; of a [`ConnectTimeout`].
    #[derive(Debug)]
    pub struct ConnectFuture<F> {
        #[pin]
        inner: F,
        // Boxed, because hyper-util takes only futures that may be moved.
        timer: Option<(Duration, Pin<Box<Sleep>>)>,
    }
}

impl<F, T, E> Future for ConnectFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<T, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(connected) = this.inner.poll(cx) {
            return Poll::Ready(connected.map_err(Into::into));
        }
        let Some((limit, timer)) = this.timer else {
            return Poll::Pending;
        };
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(TimeoutError::new(Phase::Connect, *limit).into()))
    }
}
