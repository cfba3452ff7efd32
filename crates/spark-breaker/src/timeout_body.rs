//! A response body with time limits.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use spark_core::BoxError;
use tokio::time::{Sleep, sleep, sleep_until};

use crate::timeout::Deadline;
use crate::{Phase, TimeoutError};

pin_project! {
    /// A response body with time limits; made by [`TimeoutLayer`](crate::TimeoutLayer).
    #[derive(Debug)]
    pub struct TimeoutBody<B> {
        #[pin]
        body: B,
        // Until the first frame, the limit on it; then the idle one, which runs only while we wait
        // for a frame, so that a slow reader is not the provider's fault.
        waiting: Option<(Phase, Duration)>,
        #[pin]
        wait_timer: Option<Sleep>,
        idle: Option<Duration>,
        total: Option<Duration>,
        #[pin]
        total_timer: Option<Sleep>,
        cut: bool,
    }
}

impl<B> TimeoutBody<B> {
    pub(crate) fn new(
        body: B,
        first_byte: Option<Deadline>,
        idle: Option<Duration>,
        total: Option<Deadline>,
    ) -> Self {
        let waiting = match first_byte {
            Some((limit, _)) => Some((Phase::FirstByte, limit)),
            None => idle.map(|limit| (Phase::Idle, limit)),
        };
        Self {
            body,
            waiting,
            wait_timer: first_byte.map(|(_, at)| sleep_until(at)),
            idle,
            total: total.map(|(limit, _)| limit),
            total_timer: total.map(|(_, at)| sleep_until(at)),
            cut: false,
        }
    }
}

impl<B> Body for TimeoutBody<B>
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
        let mut this = self.project();
        if *this.cut {
            return Poll::Ready(None);
        }
        // Before the frames: a body that always has one more does not outlive its deadline.
        if let (Some(timer), Some(limit)) = (this.total_timer.as_mut().as_pin_mut(), *this.total)
            && timer.poll(cx).is_ready()
        {
            *this.cut = true;
            return Poll::Ready(Some(Err(TimeoutError::new(Phase::Total, limit).into())));
        }
        if let Poll::Ready(frame) = this.body.poll_frame(cx) {
            if this.wait_timer.is_some() {
                this.wait_timer.set(None);
                *this.waiting = this.idle.map(|limit| (Phase::Idle, limit));
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let Some((phase, limit)) = *this.waiting else {
            return Poll::Pending;
        };
        if this.wait_timer.is_none() {
            this.wait_timer.set(Some(sleep(limit)));
        }
        let timer = this.wait_timer.as_mut().as_pin_mut();
        if timer.is_some_and(|timer| timer.poll(cx).is_ready()) {
            *this.cut = true;
            return Poll::Ready(Some(Err(TimeoutError::new(phase, limit).into())));
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.cut || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
