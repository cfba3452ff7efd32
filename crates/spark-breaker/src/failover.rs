//! The next provider, when one does not answer.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use spark_core::{Refusal, Shape};
use tower_service::Service;

use crate::failover_future::{FailoverBody, FailoverFuture};
use crate::metrics::HopMetrics;

/// One provider among several: a name, and a service that calls it.
///
/// # Example
/// ```
/// let hop = spark_breaker::Hop::new("primary", "any service");
/// assert_eq!(&**hop.name(), "primary");
/// ```
#[derive(Clone)]
pub struct Hop<S> {
    name: Arc<str>,
    pub(crate) service: S,
    pub(crate) metrics: HopMetrics,
}

impl<S> Hop<S> {
    /// A provider of this name, which is a label of the metrics.
    pub fn new(name: impl Into<Arc<str>>, service: S) -> Self {
        Self {
            name: name.into(),
            service,
            metrics: HopMetrics::default(),
        }
    }

    /// The provider's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }
}

impl<S> fmt::Debug for Hop<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hop").field(&self.name).finish()
    }
}

/// Response extension: which hop answered, and how many were tried.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answered {
    /// The name of the hop whose answer this is.
    pub hop: Arc<str>,
    /// How many hops were tried, this one included.
    pub hops: usize,
}

/// Tries providers in their order, until one answers.
///
/// It moves on when a hop returns an error, when a breaker, a bulkhead or a timeout of ours refuses,
/// and on 408, 429 and 5xx; each hop is tried once at most. It moves on only before a byte of the
/// answer was handed on: a stream that breaks half-way is broken. What is given back when none
/// answers well is the last answer that came from a provider; when all of them were refused by
/// layers of ours, the refusal with the least `Retry-After`. A response says in its extensions
/// which hop it is from ([`Answered`]).
///
/// The request is `Request<Bytes>`, since it may have to be sent again. Each hop's service adds what
/// its provider needs (address, credential) and stands behind that provider's own breaker.
///
/// # Example
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use spark_breaker::{Answered, Failover, Hop};
/// use tower::{ServiceExt, service_fn};
///
/// let provider = |status: u16| {
///     service_fn(move |_: Request<Bytes>| async move {
///         Ok::<_, std::io::Error>(Response::builder().status(status).body(String::new()).unwrap())
///     })
/// };
/// let failover = Failover::new(vec![
///     Hop::new("primary", provider(500)),
///     Hop::new("second", provider(200)),
/// ]);
/// let response = failover.oneshot(Request::new(Bytes::new())).await.unwrap();
/// assert_eq!(response.status(), 200);
/// let answered = response.extensions().get::<Answered>().unwrap();
/// assert_eq!((&*answered.hop, answered.hops), ("second", 2));
/// # });
/// ```
pub struct Failover<S> {
    pub(crate) hops: Arc<Vec<Hop<S>>>,
    pub(crate) rules: Arc<Rules>,
}

type Eligible = dyn Fn(&Parts, &str) -> bool + Send + Sync;

/// What all calls share.
#[derive(Clone)]
pub(crate) struct Rules {
    eligible: Arc<Eligible>,
    pub(crate) max_hops: usize,
    deadline: Option<Duration>,
}

impl<S> Failover<S> {
    /// Over these hops, in this order.
    pub fn new(hops: Vec<Hop<S>>) -> Self {
        Self {
            hops: Arc::new(hops),
            rules: Arc::new(Rules {
                eligible: Arc::new(|_, _| true),
                max_hops: usize::MAX,
                deadline: None,
            }),
        }
    }

    /// Only over the hops for which this says yes, for example those that have the model. When it
    /// says yes to none, the answer is 503 (`by` "failover", code `no_provider`): a handler that
    /// wants to answer otherwise asks [`has_eligible`](Self::has_eligible) first.
    ///
    /// # Example
    /// ```
    /// use spark_breaker::{Failover, Hop};
    /// #[derive(Clone)]
    /// struct Model(&'static str);
    /// let failover = Failover::new(vec![Hop::new("local", ())]).eligible(|request, hop| {
    ///     hop == "local" && request.extensions.get::<Model>().is_some_and(|model| model.0 == "small")
    /// });
    /// let (parts, ()) = http::Request::new(()).into_parts();
    /// assert!(!failover.has_eligible(&parts));
    /// ```
    #[must_use]
    pub fn eligible(
        mut self,
        eligible: impl Fn(&Parts, &str) -> bool + Send + Sync + 'static,
    ) -> Self {
        Arc::make_mut(&mut self.rules).eligible = Arc::new(eligible);
        self
    }

    /// Asks at most so many providers, and at least one. A hop whose breaker or bulkhead refuses
    /// was not asked, and does not count.
    #[must_use]
    pub fn max_hops(mut self, hops: usize) -> Self {
        Arc::make_mut(&mut self.rules).max_hops = hops.max(1);
        self
    }

    /// Until the head of an answer is here, all hops together may take so long. Then the hop under
    /// way is given up, and the last answer is given back, or 504 (`by` "failover", code
    /// `deadline_exceeded`) when there is none. Needs tokio's timers.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        Arc::make_mut(&mut self.rules).deadline = Some(deadline);
        self
    }

    /// Whether any hop is eligible for this request.
    pub fn has_eligible(&self, request: &Parts) -> bool {
        self.next_eligible(request, 0).is_some()
    }

    /// The hops in their order.
    ///
    /// # Example
    /// ```
    /// use spark_breaker::{Failover, Hop};
    /// let failover = Failover::new(vec![Hop::new("a", ()), Hop::new("b", ())]);
    /// assert_eq!(failover.hops().len(), 2);
    /// ```
    pub fn hops(&self) -> &[Hop<S>] {
        &self.hops
    }

    /// The first eligible hop at or after `from`.
    pub(crate) fn next_eligible(&self, request: &Parts, from: usize) -> Option<usize> {
        let rest = self.hops.get(from..)?;
        let found = rest
            .iter()
            .position(|hop| (self.rules.eligible)(request, &hop.name))?;
        Some(from + found)
    }
}

/// Why an answer is not good enough, if it is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// A layer of ours did not let the call through: the provider was not asked.
    Refused {
        /// When it may be asked.
        retry_after: Option<Duration>,
    },
    /// The provider answered badly, late, or not at all.
    Failed,
}

pub(crate) fn flaw<B>(response: &Response<B>) -> Option<Flaw> {
    if let Some(refusal) = response.extensions().get::<Refusal>() {
        match refusal.by {
            "breaker" | "bulkhead" => {
                let retry_after = refusal.retry_after;
                return Some(Flaw::Refused { retry_after });
            }
            "timeout" => return Some(Flaw::Failed),
            _ => {}
        }
    }
    let status = response.status();
    let bad = status.is_server_error()
        || status == StatusCode::REQUEST_TIMEOUT
        || status == StatusCode::TOO_MANY_REQUESTS;
    bad.then_some(Flaw::Failed)
}

impl<S, B> Service<Request<Bytes>> for Failover<S>
where
    S: Service<Request<Bytes>, Response = Response<B>> + Clone,
{
    type Response = Response<FailoverBody<B>>;
    type Error = S::Error;
    type Future = FailoverFuture<S, B>;

    /// Always ready: each hop is made ready when its turn comes.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let shape = Shape::of(request.extensions(), request.headers());
        FailoverFuture::new(self.clone(), request, shape, self.rules.deadline)
    }
}

impl<S> Clone for Failover<S> {
    fn clone(&self) -> Self {
        Self {
            hops: Arc::clone(&self.hops),
            rules: Arc::clone(&self.rules),
        }
    }
}

impl<S> fmt::Debug for Failover<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failover")
            .field("hops", &self.hops)
            .field("max_hops", &self.rules.max_hops)
            .field("deadline", &self.rules.deadline)
            .finish_non_exhaustive()
    }
}
