//! A response body that holds what its request has taken, until it ends.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::InFlight;
use crate::budget::RequestBudget;

pin_project! {
    /// The body of a response that passed: the service's, untouched. While it lasts, the request is
    /// under way.
    ///
    /// # Example
    /// ```
    /// /// A service of your own can name it.
    /// type Body<B> = spark_core::ResponseBody<spark_ratelimit::HeldBody<B>>;
    /// ```
    pub struct HeldBody<B> {
        // First, so that it is dropped before what is held is let go: it may record a usage then.
        #[pin]
        body: B,
        held: Held,
    }
}

/// What a request has taken.
#[derive(Default)]
pub(crate) struct Held {
    in_flight: Option<InFlight>,
    budget: Option<Arc<RequestBudget>>,
}

impl Held {
    pub(crate) fn new(in_flight: Option<InFlight>, budget: Option<Arc<RequestBudget>>) -> Self {
        Self { in_flight, budget }
    }

    pub(crate) fn budget(&self) -> Option<&RequestBudget> {
        self.budget.as_deref()
    }

    /// The request is not under way any more. Its budget stays: a usage may still be recorded when
    /// the body is dropped.
    pub(crate) fn ended(&mut self) {
        self.in_flight = None;
        if let Some(budget) = &self.budget {
            budget.response_ended();
        }
    }
}

impl<B> HeldBody<B> {
    pub(crate) fn new(body: B, held: Held) -> Self {
        Self { body, held }
    }
}

impl<B: Body<Data = Bytes>> Body for HeldBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut this = self.project();
        let polled = this.body.as_mut().poll_frame(cx);
        let ended = match &polled {
            Poll::Pending => false,
            Poll::Ready(Some(Ok(frame))) => frame.is_trailers() || this.body.is_end_stream(),
            Poll::Ready(None | Some(Err(_))) => true,
        };
        if ended {
            this.held.ended();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Without the body, which may hold what a user has written.
impl<B> fmt::Debug for HeldBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeldBody").finish_non_exhaustive()
    }
}
