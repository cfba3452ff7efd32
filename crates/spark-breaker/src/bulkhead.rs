//! A fixed number of calls at a time.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use pin_project_lite::pin_project;
use spark_core::{End, Problem, ResponseBody, Shape, Watch, Watched, watch_response};
use tower_layer::Layer;
use tower_service::Service;

use crate::ConfigError;
use crate::config::is_name;
use crate::metrics::{self, InFlight, count};

/// Lets so many calls in at a time, and refuses the rest at once: no queue, so a provider that
/// hangs costs a bounded number of requests and nobody waits in vain. Clones share it.
///
/// # Example
/// ```
/// use spark_breaker::Bulkhead;
/// let bulkhead = Bulkhead::new("openai", 1)?;
/// let inside = bulkhead.try_enter().unwrap();
/// assert!(bulkhead.try_enter().is_none());
/// drop(inside);
/// assert!(bulkhead.try_enter().is_some());
/// # Ok::<(), spark_breaker::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Bulkhead(Arc<Shared>);

struct Shared {
    name: Arc<str>,
    max: usize,
    inside: AtomicUsize,
    gauge: InFlight,
}

impl Bulkhead {
    /// For at most `max` calls at a time. The name is a label of the metrics.
    ///
    /// # Errors
    /// [`ConfigError`] when `max` is zero or the name cannot be shown.
    ///
    /// # Example
    /// ```
    /// assert!(spark_breaker::Bulkhead::new("openai", 0).is_err());
    /// ```
    pub fn new(name: &str, max: usize) -> Result<Self, ConfigError> {
        if !is_name(name) {
            return Err(ConfigError::Name);
        }
        if max == 0 {
            return Err(ConfigError::out_of_range("max", &0, "give at least 1"));
        }
        Ok(Self(Arc::new(Shared {
            name: name.into(),
            max,
            inside: AtomicUsize::new(0),
            gauge: InFlight::default(),
        })))
    }

    /// A place, until it is dropped; `None` when all are taken.
    ///
    /// # Example
    /// ```
    /// # let bulkhead = spark_breaker::Bulkhead::new("openai", 8)?;
    /// let place = bulkhead.try_enter();
    /// assert_eq!(bulkhead.in_flight(), 1);
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn try_enter(&self) -> Option<Place> {
        let shared = &self.0;
        let entered = shared
            .inside
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |inside| {
                (inside < shared.max).then_some(inside + 1)
            });
        if entered.is_err() {
            count!(metrics::BULKHEAD_REJECTIONS, "bulkhead" => Arc::clone(&shared.name));
            return None;
        }
        shared.gauge.add(&shared.name, 1.0);
        Some(Place(Arc::clone(shared)))
    }

    /// How many calls are inside.
    ///
    /// # Example
    /// ```
    /// assert_eq!(spark_breaker::Bulkhead::new("openai", 8)?.in_flight(), 0);
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn in_flight(&self) -> usize {
        self.0.inside.load(Ordering::Relaxed)
    }

    /// How many may be inside.
    ///
    /// # Example
    /// ```
    /// assert_eq!(spark_breaker::Bulkhead::new("openai", 8)?.max(), 8);
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn max(&self) -> usize {
        self.0.max
    }
}

impl fmt::Debug for Bulkhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bulkhead")
            .field("name", &self.0.name)
            .field("max", &self.0.max)
            .field("in_flight", &self.in_flight())
            .finish()
    }
}

/// A place inside a [`Bulkhead`], given back when it is dropped.
#[must_use = "dropping a place gives it back"]
pub struct Place(Arc<Shared>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::AcqRel);
        self.0.gauge.add(&self.0.name, -1.0);
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Place").field(&self.0.name).finish()
    }
}

impl Watch for Place {
    fn end(self, _: End) {}
}

/// Puts a [`Bulkhead`] around a service. A call takes its place until its response body ends. When
/// the bulkhead is full, it is answered 503 (`by` "bulkhead", code `bulkhead_full`) with
/// `Retry-After: 1`, which a breaker outside does not hold against the provider.
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
}

impl BulkheadLayer {
    /// Around whatever service it is given: they share the places.
    pub fn new(bulkhead: Bulkhead) -> Self {
        Self { bulkhead }
    }
}

impl<S> Layer<S> for BulkheadLayer {
    type Service = BulkheadService<S>;

    fn layer(&self, inner: S) -> BulkheadService<S> {
        BulkheadService {
            inner,
            bulkhead: self.bulkhead.clone(),
        }
    }
}

/// A service inside a [`Bulkhead`]; made by [`BulkheadLayer`].
#[derive(Debug, Clone)]
pub struct BulkheadService<S> {
    inner: S,
    bulkhead: Bulkhead,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for BulkheadService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Body<Data = Bytes>,
{
    type Response = Response<ResponseBody<Watched<ResBody, Place>>>;
    type Error = S::Error;
    type Future = BulkheadFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let state = match self.bulkhead.try_enter() {
            Some(place) => State::Calling {
                method: request.method().clone(),
                place: Some(place),
                inner: self.inner.call(request),
            },
            None => State::Full {
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
        Full { shape: Shape },
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
    type Output = Result<Response<ResponseBody<Watched<B, Place>>>, E>;

    #[expect(
        clippy::expect_used,
        reason = "polling a future after its end is the caller's bug"
    )]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match self.project().state.project() {
            StateProj::Full { shape } => {
                Ok(
                    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "bulkhead", "bulkhead_full")
                        .detail("Too many calls to this provider are under way.")
                        .retry_after(Duration::from_secs(1))
                        .into_response(*shape),
                )
            }
            StateProj::Calling {
                inner,
                place,
                method,
            } => {
                let answer = ready!(inner.poll(cx));
                let place = place.take().expect("polled after its end");
                answer.map(|response| {
                    watch_response(method, response, place).map(ResponseBody::inner)
                })
            }
        })
    }
}
