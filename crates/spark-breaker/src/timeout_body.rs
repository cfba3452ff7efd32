//! A response body with time limits.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use spark_core::BoxError;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use crate::{Phase, TimeoutError};

pin_project! {
    /// A response body with time limits; made by [`TimeoutLayer`](crate::TimeoutLayer).
    #[derive(Debug)]
    pub struct TimeoutBody<B> {
        #[pin]
        body: B,
        idle: Option<Duration>,
        // Runs only while we wait for a frame, so that a slow reader is not the provider's fault.
        #[pin]
        idle_timer: Option<Sleep>,
        total: Option<Duration>,
        #[pin]
        total_timer: Option<Sleep>,
        cut: bool,
    }
}

impl<B> TimeoutBody<B> {
    pub(crate) fn new(body: B, idle: Option<Duration>, total: Option<(Duration, Instant)>) -> Self {
        Self {
            body,
            idle,
            idle_timer: None,
            total: total.map(|(limit, _)| limit),
            total_timer: total.map(|(_, deadline)| sleep_until(deadline)),
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
            if this.idle_timer.is_some() {
                this.idle_timer.set(None);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let Some(limit) = *this.idle else {
            return Poll::Pending;
        };
        if this.idle_timer.is_none() {
            this.idle_timer.set(Some(sleep(limit)));
        }
        let timer = this.idle_timer.as_mut().as_pin_mut();
        if timer.is_some_and(|timer| timer.poll(cx).is_ready()) {
            *this.cut = true;
            return Poll::Ready(Some(Err(TimeoutError::new(Phase::Idle, limit).into())));
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
