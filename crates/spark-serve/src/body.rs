//! A request body that does not wait for ever for its client.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use spark_core::BoxError;
use tokio::time::{Sleep, sleep};

use crate::config::Config;
use crate::metrics;

/// The body of a request, as a service behind a [`Server`](crate::Server) gets it.
///
/// It breaks with a [`BodyTimeout`] when the client takes too long, and costs no timer while the
/// bytes are there.
pub type Body = TimedBody<hyper::body::Incoming>;

/// A body `B` with the two deadlines of [`Config`]; see [`Body`].
#[derive(Debug)]
pub struct TimedBody<B> {
    inner: B,
    idle: Option<Duration>,
    total: Option<Duration>,
    idle_timer: Option<Pin<Box<Sleep>>>,
    idle_timer_runs: bool,
    total_timer: Option<Pin<Box<Sleep>>>,
    late: Option<Late>,
}

/// Why a request body broke: the client took too long for it. Answer it with 408; where a service
/// answers it with another error, the server makes it a 408.
///
/// # Example
/// ```
/// use spark_serve::BodyTimeout;
/// let error: spark_core::BoxError = Box::new(BodyTimeout::Idle);
/// assert!(error.is::<BodyTimeout>());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BodyTimeout {
    /// It paused for longer than `body_idle_timeout`.
    #[error("the client paused for too long within the body of its request")]
    Idle,
    /// It took longer than `body_deadline` for the whole.
    #[error("the client took too long for the body of its request")]
    Total,
}

impl BodyTimeout {
    /// The timeout behind an error, which frameworks wrap in errors of their own.
    ///
    /// # Example
    /// ```
    /// use spark_serve::BodyTimeout;
    /// let wrapped = std::io::Error::other(BodyTimeout::Idle);
    /// assert_eq!(BodyTimeout::of(&wrapped), Some(BodyTimeout::Idle));
    /// assert_eq!(BodyTimeout::of(&std::io::Error::other("else")), None);
    /// ```
    pub fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(timeout) = error.downcast_ref() {
                return Some(*timeout);
            }
            // An io::Error passes over the error inside it, straight to the source of that one.
            let inside = error
                .downcast_ref::<io::Error>()
                .and_then(io::Error::get_ref);
            next = match inside {
                Some(inside) => Some(inside),
                None => error.source(),
            };
        }
        None
    }
}

/// Whether a body broke for being late; shared with the one who writes the response.
#[derive(Clone, Debug, Default)]
pub(crate) struct Late(Arc<AtomicBool>);

impl Late {
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl<B: http_body::Body> TimedBody<B> {
    /// The body, and where its lateness shows: nowhere if there is nothing to wait for.
    pub(crate) fn new(inner: B, config: &Config) -> (Self, Option<Late>) {
        let waits = !inner.is_end_stream()
            && (config.body_idle_timeout.is_some() || config.body_deadline.is_some());
        let late = waits.then(Late::default);
        let body = Self {
            inner,
            idle: config.body_idle_timeout,
            total: config.body_deadline,
            idle_timer: None,
            idle_timer_runs: false,
            total_timer: None,
            late: late.clone(),
        };
        (body, late)
    }

    fn poll_deadlines(&mut self, cx: &mut Context<'_>) -> Poll<BodyTimeout> {
        if let Some(total) = self.total {
            let timer = self
                .total_timer
                .get_or_insert_with(|| Box::pin(sleep(total)));
            if timer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(BodyTimeout::Total);
            }
        }
        if let Some(idle) = self.idle {
            let timer = match &mut self.idle_timer {
                Some(timer) if self.idle_timer_runs => timer,
                Some(timer) => {
                    timer.as_mut().set(sleep(idle));
                    timer
                }
                none => none.insert(Box::pin(sleep(idle))),
            };
            self.idle_timer_runs = true;
            if timer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(BodyTimeout::Idle);
            }
        }
        Poll::Pending
    }

    fn give_up(&mut self, timeout: BodyTimeout) {
        if let Some(late) = &self.late {
            late.0.store(true, Ordering::Release);
        }
        metrics::body_timeout(match timeout {
            BodyTimeout::Idle => "idle",
            BodyTimeout::Total => "total",
        });
        self.idle_timer = None;
        self.total_timer = None;
        self.idle = None;
        self.total = None;
    }
}

impl<B> http_body::Body for TimedBody<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            self.idle_timer_runs = false;
            return Poll::Ready(frame.map(|result| result.map_err(Into::into)));
        }
        let Poll::Ready(timeout) = self.poll_deadlines(cx) else {
            return Poll::Pending;
        };
        self.give_up(timeout);
        Poll::Ready(Some(Err(Box::new(timeout))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::channel::Channel;
    use http_body_util::{BodyExt, Empty};

    use super::*;

    fn config(idle: u64, total: u64) -> Config {
        Config::default()
            .body_idle_timeout(Duration::from_secs(idle))
            .body_deadline(Duration::from_secs(total))
    }

    async fn fed(idle: u64, total: u64, pause: u64, frames: usize) -> Result<usize, BodyTimeout> {
        let (mut feed, inner) = Channel::<Bytes>::new(1);
        let (body, late) = TimedBody::new(inner, &config(idle, total));
        let late = late.unwrap();
        tokio::spawn(async move {
            for _ in 0..frames {
                sleep(Duration::from_secs(pause)).await;
                let _ = feed.send_data(Bytes::from_static(b"x")).await;
            }
        });
        let read = body.collect().await;
        assert_eq!(late.is_set(), read.is_err());
        read.map(|read| read.to_bytes().len())
            .map_err(|error| *error.downcast::<BodyTimeout>().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_add_up_to_the_deadline_only() {
        assert_eq!(fed(10, 1_000, 9, 20).await, Ok(20));
        assert_eq!(fed(10, 1_000, 11, 2).await, Err(BodyTimeout::Idle));
        assert_eq!(fed(10, 30, 9, 20).await, Err(BodyTimeout::Total));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_without_deadlines_waits() {
        let (mut feed, inner) = Channel::<Bytes>::new(1);
        let config = Config::default()
            .body_idle_timeout(None)
            .body_deadline(None);
        let (body, late) = TimedBody::new(inner, &config);
        assert!(late.is_none());
        tokio::spawn(async move {
            sleep(Duration::from_secs(86_400)).await;
            feed.send_data(Bytes::from_static(b"x")).await
        });
        assert_eq!(body.collect().await.unwrap().to_bytes(), "x");
    }

    #[tokio::test]
    async fn nothing_to_wait_for_costs_nothing() {
        let (body, late) = TimedBody::new(Empty::<Bytes>::new(), &Config::default());
        assert!(late.is_none());
        assert!(http_body::Body::is_end_stream(&body));
    }
}
