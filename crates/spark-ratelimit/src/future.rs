//! The future of a response: the service's with header fields added, or a refusal.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Response;
use pin_project_lite::pin_project;
use spark_core::{Problem, ResponseBody, Shape};

use crate::HeldBody;
use crate::body::Held;
use crate::fields::Fields;

pin_project! {
    /// The response of a [`RateLimit`](crate::RateLimit) service.
    ///
    /// # Example
    /// ```
    /// /// A layer of your own can name it.
    /// type Limited<F> = spark_ratelimit::ResponseFuture<F>;
    /// ```
    pub struct ResponseFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        Passed {
            #[pin]
            inner: F,
            fields: Option<Fields>,
            held: Held,
        },
        Refused {
            problem: Option<Problem>,
            shape: Shape,
        },
    }
}

impl<F> ResponseFuture<F> {
    pub(crate) fn pass(inner: F, fields: Option<Fields>, held: Held) -> Self {
        Self {
            state: State::Passed {
                inner,
                fields,
                held,
            },
        }
    }

    pub(crate) fn refuse(problem: Problem, shape: Shape) -> Self {
        Self {
            state: State::Refused {
                problem: Some(problem),
                shape,
            },
        }
    }
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<ResponseBody<HeldBody<B>>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Passed {
                inner,
                fields,
                held,
            } => {
                let answered = ready!(inner.poll(cx));
                if answered.is_err() {
                    held.ended();
                }
                let mut response = answered?;
                let held = std::mem::take(held);
                if let Some(fields) = fields.take() {
                    fields.write(&mut response, held.budget());
                }
                Poll::Ready(Ok(
                    response.map(|body| ResponseBody::inner(HeldBody::new(body, held)))
                ))
            }
            StateProj::Refused { problem, shape } => {
                problem.take().map_or(Poll::Pending, |problem| {
                    Poll::Ready(Ok(problem.into_response(*shape)))
                })
            }
        }
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
