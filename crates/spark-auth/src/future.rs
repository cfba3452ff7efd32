//! The future of both services: the inner one's, or a refusal that is ready.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Response;
use pin_project_lite::pin_project;
use spark_core::{Problem, ResponseBody, Shape};

pin_project! {
    /// The future of [`AuthService`](crate::AuthService) and
    /// [`RequireService`](crate::RequireService).
    ///
    /// # Panics
    /// When it is polled after it was ready, as futures may.
    #[derive(Debug)]
    pub struct AuthFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[derive(Debug)]
    #[project = StateProj]
    enum State<F> {
        Pass { #[pin] inner: F },
        Refuse { problem: Option<Problem>, shape: Shape },
    }
}

impl<F> AuthFuture<F> {
    pub(crate) fn pass(inner: F) -> Self {
        Self {
            state: State::Pass { inner },
        }
    }

    pub(crate) fn refuse(problem: Problem, shape: Shape) -> Self {
        let problem = Some(problem);
        Self {
            state: State::Refuse { problem, shape },
        }
    }
}

impl<F, B, E> Future for AuthFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<ResponseBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Pass { inner } => inner
                .poll(cx)
                .map_ok(|response| response.map(ResponseBody::inner)),
            StateProj::Refuse { problem, shape } => {
                #[expect(
                    clippy::expect_used,
                    reason = "it was ready before: the caller's mistake"
                )]
                let problem = problem.take().expect("polled after it was ready");
                Poll::Ready(Ok(problem.into_response(*shape)))
            }
        }
    }
}
