//! The body limit: refused before it is read where the length is known, counted where it is not.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH},
};
use http_body::Body;
use pin_project_lite::pin_project;
use spark_core::{BoxError, Problem, RequestBody, ResponseBody, Shape};
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    body::{LimitedBody, Tripped},
    metrics,
};

/// Limits the size of request bodies.
///
/// A body whose declared length is over the limit is answered with 413 and never read. One of
/// unknown length (chunked) is counted as it streams; when it passes the limit, the reader gets
/// [`BodyTooLarge`](crate::BodyTooLarge), and whatever the inner service makes of that, the client
/// gets 413. A response that has begun before the limit was passed stays as it is; its reader sees
/// the body break off.
///
/// ```
/// use spark_sanitize::BodyLimitLayer;
/// use tower::{ServiceBuilder, service_fn};
///
/// let service = ServiceBuilder::new()
///     .layer(BodyLimitLayer::new(1 << 20))
///     .service(service_fn(|_request: http::Request<_>| async {
///         Ok::<_, std::convert::Infallible>(http::Response::new(String::new()))
///     }));
/// # use tower::Service;
/// # fn check<S: Service<http::Request<String>>>(_: S) {}
/// # check(service);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct BodyLimitLayer {
    max: usize,
}

impl BodyLimitLayer {
    /// Allows bodies of up to `max_bytes`, that many included.
    ///
    /// ```
    /// let layer = spark_sanitize::BodyLimitLayer::new(64 * 1024);
    /// ```
    pub const fn new(max_bytes: usize) -> Self {
        Self { max: max_bytes }
    }
}

impl<S> Layer<S> for BodyLimitLayer {
    type Service = BodyLimit<S>;

    fn layer(&self, inner: S) -> BodyLimit<S> {
        BodyLimit {
            inner,
            max: self.max,
        }
    }
}

/// The service of [`BodyLimitLayer`].
#[derive(Clone, Debug)]
pub struct BodyLimit<S> {
    inner: S,
    max: usize,
}

impl<S, B, R> Service<Request<B>> for BodyLimit<S>
where
    S: Service<Request<RequestBody<LimitedBody<B>>>, Response = Response<R>>,
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody<R>>;
    type Error = S::Error;
    type Future = BodyLimitFuture<S::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let tripped = Tripped::default();
        let refusal = TooLarge {
            max: self.max,
            shape: Shape::of(request.extensions(), request.headers()),
            version: request.version(),
        };
        let declared = declared(request.headers()).max(request.body().size_hint().lower());
        if usize::try_from(declared).map_or(true, |declared| declared > self.max) {
            return BodyLimitFuture {
                state: State::Refused,
                refusal,
            };
        }
        let request = request
            .map(|body| RequestBody::streaming(LimitedBody::new(body, self.max, tripped.clone())));
        let future = self.inner.call(request);
        BodyLimitFuture {
            state: State::Inner { future, tripped },
            refusal,
        }
    }
}

/// The declared length; what does not parse is left to the server, and the body is counted anyway.
fn declared(headers: &HeaderMap) -> u64 {
    headers
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok())
        .and_then(|length| length.trim().parse().ok())
        .unwrap_or(0)
}

pin_project! {
    /// The future of [`BodyLimit`].
    pub struct BodyLimitFuture<F> {
        #[pin]
        state: State<F>,
        refusal: TooLarge,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        Refused,
        Inner { #[pin] future: F, tripped: Tripped },
    }
}

impl<F, R, E> Future for BodyLimitFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<ResponseBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let (answer, tripped) = match this.state.project() {
            StateProj::Refused => return Poll::Ready(Ok(this.refusal.respond())),
            StateProj::Inner { future, tripped } => (ready!(future.poll(cx)), tripped),
        };
        if tripped.is_set() {
            return Poll::Ready(Ok(this.refusal.respond()));
        }
        Poll::Ready(answer.map(|response| response.map(ResponseBody::inner)))
    }
}

impl<F> fmt::Debug for BodyLimitFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyLimitFuture").finish_non_exhaustive()
    }
}

#[derive(Clone, Copy)]
struct TooLarge {
    max: usize,
    shape: Shape,
    version: Version,
}

impl TooLarge {
    fn respond<R>(self) -> Response<ResponseBody<R>> {
        metrics::refusal("body_too_large");
        let mut problem = too_large(self.max);
        // The rest of the body is on its way, and nobody is going to read it. HTTP/2 has its own
        // means for that, and no such header.
        if self.version <= Version::HTTP_11 {
            problem = problem.header(CONNECTION, HeaderValue::from_static("close"));
        }
        problem.into_response(self.shape)
    }
}

pub(crate) fn too_large(max: usize) -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "sanitize", "body_too_large")
        .detail(format!(
            "The request body is longer than {max} bytes: send a smaller one."
        ))
        .member("limit", max.into())
}
