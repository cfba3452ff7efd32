//! A response body with time limits.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use spark_core::BoxError;
use spark_core::sse::Beginning;
use tokio::time::{Sleep, sleep_until};

use crate::Phase;
use crate::timeout_layer::{Deadlines, Due, earliest, now};

pin_project! {
    /// A response body with time limits; made by [`TimeoutLayer`](crate::TimeoutLayer).
    #[derive(Debug)]
    pub struct TimeoutBody<B> {
        #[pin]
        body: B,
        deadlines: Deadlines,
        // Runs only while we wait for a frame, so that a slow reader is not the provider's fault.
        idle: Option<Due>,
        // What came before the first byte, as far as it was no answer.
        beginning: Beginning,
        // The one timer for all of them. It goes off at the earliest deadline or before: a frame
        // moves the next deadline away, but the timer only when it has gone off, so that a frame
        // costs no timer.
        #[pin]
        timer: Option<Sleep>,
        cut: bool,
    }
}

impl<B> TimeoutBody<B> {
    pub(crate) fn new(body: B, deadlines: Deadlines, beginning: Beginning) -> Self {
        let due = earliest([deadlines.first_byte, deadlines.total]);
        Self {
            body,
            deadlines,
            idle: None,
            beginning,
            timer: due.map(|due| sleep_until(due.at)),
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
        if let Some(total) = this.deadlines.total
            && let Some(mut timer) = this.timer.as_mut().as_pin_mut()
            && timer.as_mut().poll(cx).is_ready()
        {
            if timer.deadline() >= total.at {
                *this.cut = true;
                return Poll::Ready(Some(Err(total.error().into())));
            }
            timer.reset(total.at);
        }
        if let Poll::Ready(frame) = this.body.poll_frame(cx) {
            let data = frame
                .as_ref()
                .and_then(|frame| frame.as_ref().ok()?.data_ref());
            if data.is_none_or(|data| !data.is_empty()) {
                *this.idle = None;
            }
            if this.deadlines.first_byte.is_some()
                && data.is_none_or(|data| this.beginning.is_in(data))
            {
                this.deadlines.first_byte = None;
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        if this.deadlines.first_byte.is_none() && this.idle.is_none() {
            let limit = this.deadlines.idle;
            *this.idle = limit.and_then(|limit| Due::after(now(), Phase::Idle, Some(limit)));
        }
        let phase = this.deadlines.first_byte.or(*this.idle);
        let Some(due) = earliest([phase, this.deadlines.total]) else {
            return Poll::Pending;
        };
        if this.timer.is_none() {
            this.timer.set(Some(sleep_until(due.at)));
        }
        let Some(mut timer) = this.timer.as_mut().as_pin_mut() else {
            return Poll::Pending;
        };
        if timer.deadline() > due.at {
            timer.as_mut().reset(due.at);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= due.at {
                *this.cut = true;
                return Poll::Ready(Some(Err(due.error().into())));
            }
            // It was set for a frame that has come.
            timer.as_mut().reset(due.at);
        }
    }

    fn is_end_stream(&self) -> bool {
        self.cut || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
