//! The future: the inner service's, or a probe's answer.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use pin_project_lite::pin_project;
use spark_core::ResponseBody;

use crate::health::Health;

pin_project! {
    /// The response of a [`ProbesService`](crate::ProbesService).
    pub struct ResponseFuture<F> {
        #[pin]
        kind: Kind<F>,
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<F> {
        Inner { #[pin] future: F },
        Probe { answer: Pin<Box<dyn Future<Output = Response<Bytes>> + Send>> },
        Known { answer: Option<Response<Bytes>> },
    }
}

impl<F> ResponseFuture<F> {
    pub(crate) fn inner(future: F) -> Self {
        Self {
            kind: Kind::Inner { future },
        }
    }

    pub(crate) fn known(answer: Response<Bytes>) -> Self {
        Self {
            kind: Kind::Known {
                answer: Some(answer),
            },
        }
    }

    pub(crate) fn ready(health: Health, head: bool) -> Self {
        let answer = Box::pin(async move {
            let readiness = health.ready().await;
            answer(readiness.is_ready(), readiness.as_str(), head)
        });
        Self {
            kind: Kind::Probe { answer },
        }
    }
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<ResponseBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = match self.project().kind.project() {
            KindProj::Inner { future } => {
                let response = ready!(future.poll(cx))?;
                return Poll::Ready(Ok(response.map(ResponseBody::inner)));
            }
            KindProj::Probe { answer } => ready!(answer.as_mut().poll(cx)),
            // A future is not polled again after its answer; whoever does it waits.
            KindProj::Known { answer } => match answer.take() {
                Some(answer) => answer,
                None => return Poll::Pending,
            },
        };
        Poll::Ready(Ok(answer.map(ResponseBody::whole)))
    }
}

impl<F> std::fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

/// One word as plain text; to HEAD, its length alone.
pub(crate) fn answer(good: bool, word: &'static str, head: bool) -> Response<Bytes> {
    let body = if head {
        Bytes::new()
    } else {
        Bytes::from_static(word.as_bytes())
    };
    let mut response = Response::new(body);
    if !good {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(word.len()));
    response
}
