//! The service that the layer makes.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use spark_core::ResponseBody;
use tower_service::Service;

use crate::HeldBody;
use crate::admit::{Admission, Shared};
use crate::future::ResponseFuture;

/// A service behind a [`RateLimitLayer`](crate::RateLimitLayer).
///
/// # Example
/// ```
/// use http::{Request, Response};
/// use spark_ratelimit::{KeyBy, Limiter, Policy, Quota, RateLimitLayer};
/// use std::time::Duration;
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let policy = Policy::new("requests", Quota::new(1, Duration::from_secs(60))?)?;
/// let limiter = Limiter::builder().policy(policy).build()?;
/// let service = ServiceBuilder::new()
///     .layer(RateLimitLayer::new(limiter).key(KeyBy::client_ip()))
///     .service(service_fn(|_: Request<()>| async {
///         Ok::<_, std::convert::Infallible>(Response::new(String::new()))
///     }));
///
/// assert_eq!(service.clone().oneshot(Request::new(())).await?.status(), 200);
/// let refused = service.oneshot(Request::new(())).await?;
/// assert_eq!(refused.status(), 429);
/// assert_eq!(refused.headers()["retry-after"], "60");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RateLimit<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> RateLimit<S> {
    pub(crate) fn new(inner: S, shared: Arc<Shared>) -> Self {
        Self { inner, shared }
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for RateLimit<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
{
    type Response = Response<ResponseBody<HeldBody<ResBody>>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        match self.shared.admit(&mut request) {
            Admission::Pass(fields, held) => {
                ResponseFuture::pass(self.inner.call(request), fields, held)
            }
            Admission::Refuse(problem, shape) => ResponseFuture::refuse(problem, shape),
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for RateLimit<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimit")
            .field("inner", &self.inner)
            .field("config", &self.shared.config)
            .finish()
    }
}
