//! The way of a request through the cache.

use std::fmt;
use std::future::Future;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response, StatusCode, request};
use http_body::Body;
use pin_project_lite::pin_project;
use spark_core::{BoxError, Collect, CollectError, Problem, RequestBody, Shape};
use tokio::sync::oneshot;
use tower_service::Service;
use tracing::Instrument;

use crate::cache::Found;
use crate::flight::Joined;
use crate::frame_log::{Reader, Stage};
use crate::load::{Landing, Load};
use crate::respond::{hit, passed, refused, shared};
use crate::status::{Forward, Status};
use crate::{CacheBody, CacheLayer, FetchError, Lookup, Policy};

pin_project! {
    /// The answer of a [`CacheService`](crate::CacheService), on its way.
    ///
    /// # Example
    /// ```
    /// use spark_cache::CacheService;
    /// use tower_service::Service;
    /// # use spark_cache::{CacheBody, LlmPolicy};
    /// # use http::{Request, Response};
    /// async fn ask<S>(mut service: CacheService<S, LlmPolicy>, request: Request<String>)
    /// # where CacheService<S, LlmPolicy>: Service<Request<String>, Response = Response<CacheBody<String>>>
    /// {
    ///     let answer = service.call(request).await;
    /// #   let _ = answer;
    /// }
    /// ```
    #[must_use = "futures do nothing unless polled"]
    pub struct CacheFuture<S, P, ReqBody, ResBody>
    where
        S: Service<Request<RequestBody<ReqBody>>>,
    {
        #[pin]
        state: State<S, P, ReqBody, ResBody, S::Future, S::Error>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, P, ReqBody, ResBody, F, E> {
        /// Inside: the inner service, and nothing else.
        Pass { #[pin] future: F, status: Option<Status> },
        /// The request's body is being read.
        Read { #[pin] body: Collect<ReqBody>, asked: Option<Asked<S, P>> },
        /// Waiting for the flight that this request began.
        Lead {
            landing: oneshot::Receiver<Landing<ResBody, E>>,
            reader: Option<Reader>,
            forward: Forward,
            shape: Shape,
            layer: CacheLayer<P>,
        },
        /// Waiting for somebody else's flight.
        Follow { reader: Option<Reader>, again: Option<Again<S, P>> },
        /// Waiting for the inner service to be ready, to ask alone after all.
        Ready { again: Option<Again<S, P>> },
    }
}

/// A request of which the body is being read, and the readied service.
struct Asked<S, P> {
    layer: CacheLayer<P>,
    service: S,
    parts: request::Parts,
}

/// A request that may yet have to be asked alone, and a service that is not readied.
struct Again<S, P> {
    layer: CacheLayer<P>,
    service: S,
    parts: request::Parts,
    body: Bytes,
    forward: Forward,
}

impl<S, P, ReqBody, ResBody> CacheFuture<S, P, ReqBody, ResBody>
where
    S: Service<Request<RequestBody<ReqBody>>>,
{
    pub(crate) fn pass(future: S::Future, status: Option<Status>) -> Self {
        Self {
            state: State::Pass { future, status },
        }
    }

    pub(crate) fn read(
        layer: CacheLayer<P>,
        service: S,
        parts: request::Parts,
        body: Collect<ReqBody>,
    ) -> Self {
        let asked = Some(Asked {
            layer,
            service,
            parts,
        });
        Self {
            state: State::Read { body, asked },
        }
    }
}

/// Either an answer, or the next thing to wait for.
enum Step<T, B> {
    Done(Response<CacheBody<B>>),
    Next(T),
}

impl<S, P, ReqBody, ResBody> Future for CacheFuture<S, P, ReqBody, ResBody>
where
    S: Service<Request<RequestBody<ReqBody>>, Response = Response<ResBody>>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
    S::Error: Send,
    P: Policy,
    ReqBody: Body<Data = Bytes> + Send + 'static,
    ReqBody::Error: Into<BoxError>,
    ResBody: Body<Data = Bytes> + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    type Output = Result<Response<CacheBody<ResBody>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let step = match state.as_mut().project() {
                StateProj::Pass { future, status } => {
                    let response = ready!(future.poll(cx))?;
                    return Poll::Ready(Ok(passed(response, *status)));
                }
                StateProj::Read { body, asked } => {
                    let body = ready!(body.poll(cx));
                    let asked = taken(asked);
                    match body {
                        Ok(body) => asked.decide(body),
                        Err(error) => Step::Done(asked.unreadable(&error)),
                    }
                }
                StateProj::Lead {
                    landing,
                    reader,
                    forward,
                    shape,
                    layer,
                } => {
                    let landing = ready!(Pin::new(landing).poll(cx));
                    let reader = taken(reader);
                    return Poll::Ready(lead(landing, reader, *forward, *shape, layer));
                }
                StateProj::Follow { reader, again } => {
                    let Some(reading) = reader else {
                        polled_again()
                    };
                    let stage = ready!(reading.poll_stage(cx));
                    let (reader, again) = (taken(reader), taken(again));
                    again.follow(stage, reader)
                }
                StateProj::Ready { again } => {
                    let Some(waiting) = again else { polled_again() };
                    ready!(waiting.service.poll_ready(cx))?;
                    let mut again = taken(again);
                    let request = Request::from_parts(again.parts, RequestBody::whole(again.body));
                    let future = again.service.call(request);
                    Step::Next(State::Pass {
                        future,
                        status: Some(Status::Miss(again.forward)),
                    })
                }
            };
            match step {
                Step::Done(response) => return Poll::Ready(Ok(response)),
                Step::Next(next) => state.set(next),
            }
        }
    }
}

type Next<S, P, ReqBody, ResBody, F, E> = Step<State<S, P, ReqBody, ResBody, F, E>, ResBody>;

impl<S, P: Policy> Asked<S, P> {
    fn decide<ReqBody, ResBody>(
        mut self,
        body: Bytes,
    ) -> Next<S, P, ReqBody, ResBody, S::Future, S::Error>
    where
        S: Service<Request<RequestBody<ReqBody>>, Response = Response<ResBody>>
            + Clone
            + Send
            + 'static,
        S::Future: Send,
        S::Error: Send,
        ReqBody: Send + 'static,
        ResBody: Body<Data = Bytes> + Send + 'static,
        ResBody::Error: Into<BoxError>,
    {
        let context = spark_core::Context::of(&self.parts.extensions);
        let (key, freshness) = match self.layer.policy.request(&self.parts, &body, context) {
            Lookup::Bypass(reason) => return self.pass(body, Status::Bypass(reason)),
            Lookup::Use { key, freshness } => (key, freshness),
        };
        let cache = &self.layer.cache;
        let forward = match cache.lookup(&key, &freshness) {
            Found::Fresh { entry, age, left } => {
                cache.count(crate::CacheResult::Hit);
                return Step::Done(hit(entry, age, left));
            }
            Found::Refused => Forward::Request,
            Found::Stale => Forward::Stale,
            Found::Nothing if freshness.wants_its_own() => Forward::Request,
            Found::Nothing => Forward::Miss,
        };
        if freshness.only_if_cached {
            return Step::Done(self.only_if_cached());
        }
        if cache.passes(&key) {
            return self.pass(body, Status::Miss(Forward::HitForMiss));
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            cache.no_runtime();
            return self.pass(body, Status::Bypass("no_runtime"));
        };
        match cache.join(key, !freshness.wants_its_own()) {
            Joined::Leader(ticket, reader) => {
                cache.count(crate::CacheResult::Miss);
                let shape = Shape::of(&self.parts.extensions, &self.parts.headers);
                let (caller, landing) = oneshot::channel();
                let layer = self.layer;
                let load = Load {
                    cache: layer.cache.clone(),
                    policy: Arc::clone(&layer.policy),
                    key,
                    ticket,
                };
                let request = Request::from_parts(self.parts, RequestBody::whole(body));
                runtime.spawn(load.run(self.service, request, caller).in_current_span());
                Step::Next(State::Lead {
                    landing,
                    reader: Some(reader),
                    forward,
                    shape,
                    layer,
                })
            }
            Joined::Follower(reader) => {
                // What was reserved by making the service ready is given back while this one waits.
                let service = self.service.clone();
                let again = Again {
                    layer: self.layer,
                    service,
                    parts: self.parts,
                    body,
                    forward,
                };
                Step::Next(State::Follow {
                    reader: Some(reader),
                    again: Some(again),
                })
            }
            Joined::Full(bound) => {
                cache.overflow(bound);
                self.pass(body, Status::Bypass("full"))
            }
            Joined::Taken => self.pass(body, Status::Miss(Forward::Request)),
        }
    }

    fn pass<ReqBody, ResBody>(
        &mut self,
        body: Bytes,
        status: Status,
    ) -> Next<S, P, ReqBody, ResBody, S::Future, S::Error>
    where
        S: Service<Request<RequestBody<ReqBody>>, Response = Response<ResBody>>,
    {
        self.layer.cache.count(status.result());
        let parts = std::mem::replace(&mut self.parts, Request::new(()).into_parts().0);
        let future = self
            .service
            .call(Request::from_parts(parts, RequestBody::whole(body)));
        Step::Next(State::Pass {
            future,
            status: Some(status),
        })
    }

    fn only_if_cached<B>(self) -> Response<CacheBody<B>> {
        let status = Status::Miss(Forward::OnlyIfCached);
        self.layer.cache.count(status.result());
        let problem = Problem::new(StatusCode::GATEWAY_TIMEOUT, "cache", "only_if_cached").detail(
            "`Cache-Control: only-if-cached` was asked for, and nothing fitting is cached.",
        );
        refused(
            &problem,
            Shape::of(&self.parts.extensions, &self.parts.headers),
            Some(status),
        )
    }

    fn unreadable<B>(self, error: &CollectError) -> Response<CacheBody<B>> {
        let problem = match error {
            CollectError::TooLarge { limit } => {
                Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "cache", "body_too_large")
                    .detail(format!("The body must be at most {limit} bytes long."))
            }
            _ => Problem::new(StatusCode::BAD_REQUEST, "cache", "body_unreadable")
                .detail("The body broke off before its end."),
        };
        refused(
            &problem,
            Shape::of(&self.parts.extensions, &self.parts.headers),
            None,
        )
    }
}

impl<S, P: Policy> Again<S, P> {
    fn follow<ReqBody, ResBody, F, E>(
        self,
        stage: Stage,
        reader: Reader,
    ) -> Next<S, P, ReqBody, ResBody, F, E> {
        let cache = &self.layer.cache;
        let error = match stage {
            Stage::Shared(head) => {
                cache.count(crate::CacheResult::Collapsed);
                return Step::Done(shared(&head, reader));
            }
            Stage::Failed(FetchError::Failed(_)) => {
                Problem::new(StatusCode::BAD_GATEWAY, "cache", "upstream_failed")
                    .detail("The call that this request waited for failed.")
            }
            Stage::Failed(FetchError::Panicked) => Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "cache",
                "upstream_panicked",
            )
            .detail("The call that this request waited for failed."),
            Stage::Waiting | Stage::Alone | Stage::Failed(FetchError::Aborted) => {
                cache.count(crate::CacheResult::Miss);
                return Step::Next(State::Ready { again: Some(self) });
            }
        };
        cache.count(crate::CacheResult::Collapsed);
        let shape = Shape::of(&self.parts.extensions, &self.parts.headers);
        Step::Done(refused(&error, shape, Some(Status::Collapsed)))
    }
}

/// The answer of the flight that this request began.
fn lead<P, B, E>(
    landing: Result<Landing<B, E>, oneshot::error::RecvError>,
    reader: Reader,
    forward: Forward,
    shape: Shape,
    layer: &CacheLayer<P>,
) -> Result<Response<CacheBody<B>>, E> {
    let status = Status::Miss(forward);
    match landing {
        Ok(Landing::Own(response)) => Ok(passed(response, Some(status))),
        Ok(Landing::Shared(mut parts, declared)) => {
            status.write(&mut parts.headers, &mut parts.extensions);
            let body = CacheBody::live(reader, declared);
            Ok(Response::from_parts(*parts, body))
        }
        Ok(Landing::Failed(error)) => Err(error),
        Ok(Landing::Panicked(payload)) => resume_unwind(payload),
        Err(_) => {
            // The runtime shuts down, or a policy panicked.
            tracing::error!(cache = ?layer.cache, "the upstream call of a cache was dropped");
            let problem =
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, "cache", "upstream_dropped")
                    .detail("The call was dropped before it was answered.");
            Ok(refused(&problem, shape, Some(status)))
        }
    }
}

#[expect(
    clippy::expect_used,
    reason = "a state is left in the same poll that takes from it"
)]
fn taken<T>(slot: &mut Option<T>) -> T {
    slot.take().expect("a finished future is not polled again")
}

#[expect(
    clippy::panic,
    reason = "as for every future, polling it again is the caller's mistake"
)]
fn polled_again() -> ! {
    panic!("a finished future is not polled again")
}

impl<S, P, ReqBody, ResBody> fmt::Debug for CacheFuture<S, P, ReqBody, ResBody>
where
    S: Service<Request<RequestBody<ReqBody>>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.state {
            State::Pass { .. } => "CacheFuture(pass)",
            State::Read { .. } => "CacheFuture(read)",
            State::Lead { .. } => "CacheFuture(lead)",
            State::Follow { .. } => "CacheFuture(follow)",
            State::Ready { .. } => "CacheFuture(ready)",
        })
    }
}
