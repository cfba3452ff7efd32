//! The service: looks at the request, and leaves the rest to the future.

use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tower_service::Service;

use crate::future::ResponseFuture;
use crate::layer::Shared;
use crate::metrics;
use crate::nonce::CspNonce;
use crate::write::Occasion;

/// What [`SecurityHeadersLayer`](crate::SecurityHeadersLayer) makes of a service.
#[derive(Clone, Debug)]
pub struct SecurityHeadersService<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> SecurityHeadersService<S> {
    pub(crate) fn new(inner: S, shared: Arc<Shared>) -> Self {
        Self { inner, shared }
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for SecurityHeadersService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
{
    type Response = Response<ResBody>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let occasion = Occasion {
            secure: is_secure(&self.shared, &request),
            nonce: give_nonce(&self.shared, &mut request),
            not_modified: false,
        };
        ResponseFuture::new(self.inner.call(request), Arc::clone(&self.shared), occasion)
    }
}

fn is_secure<B>(shared: &Shared, request: &Request<B>) -> bool {
    let https = shared.set.https_source();
    https
        .is_secure(request.extensions(), request.headers())
        .unwrap_or_else(|| {
            shared.miswired.report(
            "no peer address, so X-Forwarded-Proto is not believed and HSTS not sent: serve with \
             spark-serve, or with axum's ConnectInfo",
        );
            false
        })
}

/// A nonce of a layer further out is taken away where this one's policy has no use for it: a page
/// must not carry a nonce that its own policy does not name.
fn give_nonce<B>(shared: &Shared, request: &mut Request<B>) -> Option<CspNonce> {
    let extensions = request.extensions_mut();
    let nonce = if shared.set.uses_nonce() {
        CspNonce::generate()
            .inspect_err(|_| metrics::nonce_failure())
            .ok()
    } else {
        None
    };
    match nonce {
        Some(nonce) => {
            extensions.insert(nonce);
        }
        None => {
            extensions.remove::<CspNonce>();
        }
    }
    nonce
}
