//! A bulkhead around a service, and what a call's answer says to it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use pin_project_lite::pin_project;
use spark_core::sse::Beginning;
use spark_core::{
    End, Miswired, Problem, Refusal, ResponseBody, Shape, Watch, Watched, watch_response,
};
use tower_layer::Layer;
use tower_service::Service;

use crate::share::Tenant;
use crate::{Bulkhead, BulkheadFull, Place, TimeoutError};

/// Puts a [`Bulkhead`] around a service. A call takes its place until its response body ends. When
/// there is none, it is answered 503 (`by` "bulkhead", code `bulkhead_full` or `tenant_share_full`)
/// with its name and `Retry-After: 1`, which a breaker outside does not hold against the provider.
///
/// The tenant is that of the request's [`Context`](spark_core::Context). An adaptive limit is told:
/// 429, 503 and 529 of the provider, but not a refusal of ours, as throttled; the first byte of the
/// body, after pings; an answer of 2xx or 3xx that came to its end as a success; 5xx, errors and
/// time limits as failures.
///
/// # Example
/// ```
/// use spark_breaker::{Bulkhead, BulkheadLayer};
/// let layer = BulkheadLayer::new(Bulkhead::new("openai", 64)?);
/// # Ok::<(), spark_breaker::ConfigError>(())
/// ```
#[derive(Debug, Clone)]
pub struct BulkheadLayer {
    bulkhead: Bulkhead,
    miswired: Arc<Miswired>,
}

impl BulkheadLayer {
    /// Around whatever service it is given: they share the places.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Bulkhead, BulkheadLayer};
    /// let layer = BulkheadLayer::new(Bulkhead::new("openai", 64)?.tenant_share(0.8)?);
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn new(bulkhead: Bulkhead) -> Self {
        Self {
            bulkhead,
            miswired: Arc::new(Miswired::new("bulkhead")),
        }
    }
}

impl<S> Layer<S> for BulkheadLayer {
    type Service = BulkheadService<S>;

    fn layer(&self, inner: S) -> BulkheadService<S> {
        BulkheadService {
            inner,
            layer: self.clone(),
        }
    }
}

/// A service inside a [`Bulkhead`]; made by [`BulkheadLayer`].
#[derive(Debug, Clone)]
pub struct BulkheadService<S> {
    inner: S,
    layer: BulkheadLayer,
}

/// The response body of a service inside a bulkhead.
pub type BulkheadBody<B> = ResponseBody<Watched<B, Held>>;

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for BulkheadService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Body<Data = Bytes>,
{
    type Response = Response<BulkheadBody<ResBody>>;
    type Error = S::Error;
    type Future = BulkheadFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let context = spark_core::Context::of(request.extensions());
        if context.is_none() && self.layer.bulkhead.has_shares() {
            let mend =
                "no context, so all tenants share one share: hand on the request's extensions";
            self.layer.miswired.report(mend);
        }
        let state = match self.layer.bulkhead.enter(|| Tenant::of(context)) {
            Ok(place) => State::Calling {
                method: request.method().clone(),
                place: Some(place),
                inner: self.inner.call(request),
            },
            Err(full) => State::Full {
                full,
                bulkhead: self.layer.bulkhead.name(),
                shape: Shape::of(request.extensions(), request.headers()),
            },
        };
        BulkheadFuture { state }
    }
}

pin_project! {
    /// The answer of a [`BulkheadService`].
    #[derive(Debug)]
    pub struct BulkheadFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProj]
    #[derive(Debug)]
    enum State<F> {
        Full { full: BulkheadFull, bulkhead: Arc<str>, shape: Shape },
        Calling {
            #[pin]
            inner: F,
            place: Option<Place>,
            method: Method,
        },
    }
}

impl<F, B, E> Future for BulkheadFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body<Data = Bytes>,
{
    type Output = Result<Response<BulkheadBody<B>>, E>;

    #[expect(
        clippy::expect_used,
        reason = "polling a future after its end is the caller's bug"
    )]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match self.project().state.project() {
            StateProj::Full {
                full,
                bulkhead,
                shape,
            } => Ok(refused(*full, bulkhead, *shape)),
            StateProj::Calling {
                inner,
                place,
                method,
            } => {
                let answer = ready!(inner.poll(cx));
                let mut place = place.take().expect("polled after its end");
                match answer {
                    Ok(response) => {
                        let held = Held::new(place, &response);
                        Ok(watch_response(method, response, held).map(ResponseBody::inner))
                    }
                    Err(error) => {
                        place.failed();
                        Err(error)
                    }
                }
            }
        })
    }
}

fn refused<B>(full: BulkheadFull, bulkhead: &str, shape: Shape) -> Response<ResponseBody<B>> {
    let detail = match full {
        BulkheadFull::Places => "Too many calls to this provider are under way.",
        BulkheadFull::TenantShare => "You have too many calls to this provider under way.",
    };
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "bulkhead", full.code())
        .detail(detail)
        .member("bulkhead", bulkhead.into())
        .retry_after(Duration::from_secs(1))
        .into_response(shape)
}

/// The place of a response that is under way.
#[derive(Debug)]
pub struct Held {
    place: Place,
    beginning: Beginning,
    /// Its head promises well.
    good: bool,
}

impl Held {
    fn new<B>(mut place: Place, response: &Response<B>) -> Self {
        let status = response.status();
        let refusal = response.extensions().get::<Refusal>().is_some();
        let timeout = response.extensions().get::<TimeoutError>().is_some();
        match status.as_u16() {
            _ if timeout => place.failed(),
            _ if refusal => {}
            429 | 503 | 529 => place.throttled(),
            500..=599 => place.failed(),
            _ => {}
        }
        Self {
            place,
            beginning: Beginning::of(response.headers()),
            good: !refusal && (status.is_success() || status.is_redirection()),
        }
    }
}

impl Watch for Held {
    fn data(&mut self, data: &Bytes) {
        if self.good && self.beginning.is_in(data) {
            self.place.first_byte();
        }
    }

    fn end(mut self, end: End) {
        match end {
            End::Complete if self.good => self.place.succeeded(),
            End::Error if self.good => self.place.failed(),
            _ => {}
        }
    }
}
