//! From hyper's service to tower's.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use http::header::{CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use spark_core::{BoxError, PeerAddr, Problem, ResponseBody, Shape};
use tower_service::Service;

use crate::body::{Body, Late, TimedBody};
use crate::config::Config;
use crate::flushed::Flushed;

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    /// Set during the drain's delay: clients are asked to come back on another connection, which
    /// will be to another server.
    pub(crate) leaving: AtomicBool,
}

/// The service of one connection.
#[derive(Debug)]
pub(crate) struct Connected<S> {
    pub(crate) service: S,
    pub(crate) peer: SocketAddr,
    pub(crate) shared: Arc<Shared>,
    /// Whether a request has come whole.
    pub(crate) asked: Arc<AtomicBool>,
}

impl<S, B> hyper::service::Service<Request<Incoming>> for Connected<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone,
    S::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody<Flushed<B>>>;
    type Error = BoxError;
    type Future = Answer<S, S::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.asked.store(true, Ordering::Relaxed);
        let (parts, body) = request.into_parts();
        let (body, late) = TimedBody::new(body, &self.shared.config);
        let late = late.map(|late| (late, Shape::of(&parts.extensions, &parts.headers)));
        let mut request = Request::from_parts(parts, body);
        request.extensions_mut().insert(PeerAddr(self.peer));
        let state = State::Waiting {
            service: self.service.clone(),
            request: Some(request),
        };
        Answer {
            state,
            late,
            shared: Arc::clone(&self.shared),
        }
    }
}

pin_project! {
    /// Waits until the service is ready, and for its response.
    pub(crate) struct Answer<S, F> {
        #[pin]
        state: State<S, F>,
        late: Option<(Late, Shape)>,
        shared: Arc<Shared>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, F> {
        Waiting { service: S, request: Option<Request<Body>> },
        Called { #[pin] future: F },
    }
}

impl<S, B> Future for Answer<S, S::Future>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: Into<BoxError>,
{
    type Output = Result<Response<ResponseBody<Flushed<B>>>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let result = match this.state.as_mut().project() {
                StateProj::Called { future } => ready!(future.poll(cx)),
                StateProj::Waiting { service, request } => match ready!(service.poll_ready(cx)) {
                    Err(error) => Err(error),
                    Ok(()) => {
                        let Some(request) = request.take() else {
                            return Poll::Pending;
                        };
                        let future = service.call(request);
                        this.state.set(State::Called { future });
                        continue;
                    }
                },
            };
            let mut response = result.map_or_else(|error| failed(error.into()), pass_on);
            let is_late = this.late.as_ref().is_some_and(|(late, _)| late.is_set());
            if let (true, Some((_, shape))) = (is_late, this.late.take()) {
                response = too_late(response, shape);
            }
            // After a late body, the rest of it may still come: what follows on this connection
            // could not be believed.
            let closes = is_late || this.shared.leaving.load(Ordering::Relaxed);
            if closes && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                let close = HeaderValue::from_static("close");
                let _ = response.headers_mut().try_insert(CONNECTION, close);
            }
            return Poll::Ready(Ok(response));
        }
    }
}

fn pass_on<B>(response: Response<B>) -> Response<ResponseBody<Flushed<B>>> {
    response.map(|body| ResponseBody::inner(Flushed::new(body)))
}

/// A layer answers; a service that fails all the same has an answer made for it, since the client
/// would otherwise see nothing but a closed connection.
#[expect(clippy::needless_pass_by_value, reason = "it ends here")]
fn failed<B>(error: BoxError) -> Response<ResponseBody<B>> {
    tracing::error!(error = %error, "the service failed: its outermost layer should answer instead");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "serve", "service_failed")
        .into_response(Shape::PROBLEM)
}

/// What the service made of a body that came too late, as the client is to see it: an error becomes
/// 408, under the headers that the layers wrote.
fn too_late<B>(mut response: Response<ResponseBody<B>>, shape: Shape) -> Response<ResponseBody<B>> {
    let status = response.status();
    if status.is_client_error() || status.is_server_error() {
        let problem = Problem::new(StatusCode::REQUEST_TIMEOUT, "serve", "request_body_timeout")
            .detail("The body of the request took too long; send it without pauses.")
            .into_response(shape);
        let (old, _) = std::mem::replace(&mut response, problem).into_parts();
        let headers = response.headers_mut();
        for name in old.headers.keys() {
            if ![CONTENT_LENGTH, CONTENT_TYPE, CONTENT_ENCODING].contains(name)
                && !headers.contains_key(name)
            {
                for value in old.headers.get_all(name) {
                    let _ = headers.try_append(name.clone(), value.clone());
                }
            }
        }
    }
    response
}
