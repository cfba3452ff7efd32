//! The future that hands the observation on from the request to the body.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Method, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use spark_core::{Watched, watch_response};

use crate::observation::Observation;

pin_project! {
    /// The future of [`HttpMetrics`](crate::HttpMetrics).
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        method: Method,
        observation: Option<Observation>,
    }
}

impl<F> ResponseFuture<F> {
    pub(crate) fn new(inner: F, method: Method, observation: Observation) -> Self {
        Self {
            inner,
            method,
            observation: Some(observation),
        }
    }
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body<Data = bytes::Bytes>,
{
    type Output = Result<Response<Watched<B, Observation>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(cx));
        #[expect(
            clippy::expect_used,
            reason = "set at birth, taken only where Ready is returned"
        )]
        let mut observation = this.observation.take().expect("polled after it was ready");
        Poll::Ready(match result {
            Ok(response) => {
                let (head, body) = response.into_parts();
                observation.answered(&head);
                let response = Response::from_parts(head, body);
                Ok(watch_response(this.method, response, observation))
            }
            Err(error) => {
                observation.failed();
                Err(error)
            }
        })
    }
}
