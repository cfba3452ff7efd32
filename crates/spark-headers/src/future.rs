//! The future: writes the set once the response is there.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Response, StatusCode};
use pin_project_lite::pin_project;

use crate::layer::Shared;
use crate::write::Occasion;

pin_project! {
    /// The response of a [`SecurityHeadersService`](crate::SecurityHeadersService).
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        shared: Arc<Shared>,
        occasion: Occasion,
    }
}

/// On a response whose headers are written: layers further out leave it alone.
#[derive(Clone, Copy, Debug)]
struct Written;

impl<F> ResponseFuture<F> {
    pub(crate) fn new(inner: F, shared: Arc<Shared>, occasion: Occasion) -> Self {
        Self {
            inner,
            shared,
            occasion,
        }
    }
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(cx))?;
        if response.extensions().get::<Written>().is_none() {
            this.occasion.not_modified = response.status() == StatusCode::NOT_MODIFIED;
            this.shared
                .set
                .write(response.headers_mut(), *this.occasion);
            response.extensions_mut().insert(Written);
        }
        Poll::Ready(Ok(response))
    }
}

impl<F> std::fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
