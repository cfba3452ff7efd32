//! The future that catches panics and looks at what comes back.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, response};
use http_body::Body;
use pin_project_lite::pin_project;
use spark_core::{BoxError, Problem, Refusal, ResponseBody, Shape};

use crate::{
    EventId, Fingerprint, Severity,
    body::Guarded,
    layer::{RouteName, Settings},
    unwind::{Panicked, catch},
};

pin_project! {
    /// The future of [`Errors`](crate::Errors).
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: Option<F>,
        // The panic of `call` itself, told at the first poll.
        panicked: Option<Panicked>,
        errand: Errand,
    }
}

impl<F> ResponseFuture<F> {
    pub(crate) fn new(called: Result<F, Panicked>, errand: Errand) -> Self {
        match called {
            Ok(inner) => Self {
                inner: Some(inner),
                panicked: None,
                errand,
            },
            Err(panicked) => Self {
                inner: None,
                panicked: Some(panicked),
                errand,
            },
        }
    }
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Output = Result<Response<ResponseBody<Guarded<B>>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let polled = match this.inner.as_mut().as_pin_mut() {
            Some(inner) => catch(|| inner.poll(cx)),
            None => match this.panicked.take() {
                Some(panicked) => Err(panicked),
                // It was ready before: nothing more comes.
                None => return Poll::Pending,
            },
        };
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(result)) => {
                if let Err(panicked) = catch(|| this.inner.set(None)) {
                    this.errand.late_panic(panicked);
                }
                Poll::Ready(match result {
                    Ok(response) => Ok(this.errand.answered(response)),
                    Err(error) => {
                        this.errand.failed();
                        Err(error)
                    }
                })
            }
            Err(panicked) => {
                let response = this.errand.panicked(panicked);
                // What panicked once may do so again when it is dropped.
                drop(catch(|| this.inner.set(None)));
                Poll::Ready(Ok(response))
            }
        }
    }
}

impl<F> std::fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

/// What is known of a request.
#[derive(Clone, Debug)]
pub(crate) struct Errand {
    settings: Arc<Settings>,
    shape: Shape,
    route: Option<RouteName>,
}

impl Errand {
    pub(crate) fn of<B>(settings: &Arc<Settings>, request: &Request<B>) -> Self {
        let extensions = request.extensions();
        Self {
            settings: settings.clone(),
            shape: Shape::of(extensions, request.headers()),
            route: settings.route_in(extensions),
        }
    }

    /// Captures a panic that cannot change the answer any more.
    pub(crate) fn late_panic(&self, panicked: Panicked) -> EventId {
        panicked.capture(&self.settings.tracker, self.route())
    }

    fn route(&self) -> Option<&str> {
        self.route.as_ref().map(RouteName::as_str)
    }

    fn panicked<B>(&self, panicked: Panicked) -> Response<ResponseBody<Guarded<B>>> {
        let id = panicked.capture(&self.settings.tracker, self.route());
        let problem = Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "errors",
            "internal_error",
        )
        .detail("The service failed while answering. The instance names what was recorded.")
        .member("instance", id.urn().into());
        let mut response = problem.into_response(self.shape);
        response.extensions_mut().insert(id);
        response
    }

    fn answered<B>(&mut self, response: Response<B>) -> Response<ResponseBody<Guarded<B>>> {
        let (mut head, body) = response.into_parts();
        if let Some(route) = self.settings.route_in(&head.extensions) {
            self.route = Some(route);
        }
        if head.status.is_server_error() {
            self.server_error(&mut head);
        }
        Response::from_parts(head, ResponseBody::inner(Guarded::new(body, self.clone())))
    }

    #[cold]
    fn server_error(&self, head: &mut response::Parts) {
        if head.extensions.get::<EventId>().is_some() {
            return;
        }
        let refusal = head.extensions.get::<Refusal>().copied();
        if refusal.is_some() && !self.settings.refusals {
            return;
        }
        let status = head.status.as_u16();
        let tracker = &self.settings.tracker;
        let route = self.route().unwrap_or("unmatched");
        let draft = match refusal {
            Some(Refusal { by, code, .. }) => tracker
                .event("refusal")
                .severity(Severity::Warning)
                .group(Fingerprint::chosen(&format!("refusal {by} {code} {route}")))
                .message(format_args!("{by} refused with {code}: {status}")),
            None => tracker
                .event("response")
                .group(Fingerprint::chosen(&format!("response {status} {route}")))
                .message(format_args!("answered {status}")),
        };
        let id = draft.tag("status", status).route(route).send();
        head.extensions.insert(id);
    }

    #[cold]
    fn failed(&self) {
        let route = self.route().unwrap_or("unmatched");
        self.settings
            .tracker
            .event("service")
            .group(Fingerprint::chosen(&format!("service {route}")))
            .message("the service failed without an answer")
            .route(route)
            .send();
    }
}
