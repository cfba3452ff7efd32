//! A further attempt on the same provider, while the budget lasts.

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body::Body;
use spark_core::{BoxError, Clock, Refusal, ResponseBody};
use tower_layer::Layer;
use tower_service::Service;

use crate::retry_future::RetryFuture;
use crate::{Backoff, RetryBudget, retry_after};

/// The response body of a [`RetryService`].
pub type RetryBody<B> = ResponseBody<B>;

/// Asks the same provider again when an attempt failed in a way that may pass:
///
/// | answer | with no `Retry-After` | with one up to [`max_retry_after`](Self::max_retry_after) | with a longer one |
/// |---|---|---|---|
/// | an error of the client | again | | |
/// | 408, 425, 500, 502, 503, 504, 529 | again | again, after that time | no |
/// | 429 | no | again, after that time, unless its code says that the credit is used up | no |
/// | any other, or one of a layer of ours | no | no | no |
///
/// It stands outside the breaker, so that every attempt is admitted and counted, and inside the hop
/// of a [`Failover`](crate::Failover). There is one further attempt ([`attempts`](Self::attempts)),
/// after a [`Backoff`], and none
/// - of a request that may do something twice: see [`repeat`](Self::repeat);
/// - when a layer of ours refused (a breaker, a bulkhead, a timeout);
/// - of a background call, which can wait for its next turn;
/// - when the budget is used up, or when it would begin after the request's
///   [`Deadline`](crate::Deadline);
/// - once the head of a good answer was handed on.
///
/// When a further attempt is refused by a breaker or a bulkhead, or does not come about, what the
/// attempt before brought is the answer, and the budget gets its token back.
///
/// The body is sent again by cloning it, so it has to be [`Clone`]: bytes that are whole, not a
/// stream. (A body whose clones share what is read from them would arrive empty: do not use one.)
/// An answer that is to be improved on is read to its end first, up to 64 KiB and for up to half a
/// second, and frees its permit, its place and its connection; a longer or slower one is replaced by
/// a problem of the same status. That, and the pauses, need tokio's timers.
///
/// # Example
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use spark_breaker::{RetryBudget, RetryLayer};
/// use std::sync::atomic::{AtomicU32, Ordering};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
///
/// static CALLS: AtomicU32 = AtomicU32::new(0);
/// let client = ServiceBuilder::new()
///     .layer(RetryLayer::new(RetryBudget::new(0.1, 10).unwrap()))
///     .service(service_fn(async |_: Request<Bytes>| match CALLS.fetch_add(1, Ordering::Relaxed) {
///         0 => Err(std::io::Error::other("connection reset")),
///         _ => Ok(Response::new(String::from("hello"))),
///     }));
/// let response = client.oneshot(Request::new(Bytes::new())).await.unwrap();
/// assert_eq!(response.status(), 200);
/// assert_eq!(CALLS.load(Ordering::Relaxed), 2);
/// # });
/// ```
///
/// A stream cannot be sent again, and does not compile:
/// ```compile_fail
/// # use spark_breaker::{RetryBudget, RetryLayer};
/// # use tower::{Layer, Service, service_fn};
/// struct Stream; // not Clone
/// let client = service_fn(async |_: http::Request<Stream>| {
///     Ok::<_, std::io::Error>(http::Response::new(String::new()))
/// });
/// let mut client = RetryLayer::new(RetryBudget::new(0.1, 10).unwrap()).layer(client);
/// let _ = client.call(http::Request::new(Stream));
/// ```
#[derive(Clone)]
pub struct RetryLayer {
    rules: Arc<Rules>,
}

type Repeat = dyn Fn(&Parts) -> bool + Send + Sync;

#[derive(Clone)]
pub(crate) struct Rules {
    pub(crate) budget: RetryBudget,
    pub(crate) backoff: Backoff,
    pub(crate) attempts: u32,
    max_retry_after: Duration,
    repeat: Arc<Repeat>,
    clock: Clock,
}

impl RetryLayer {
    /// With this budget, and otherwise as the methods say.
    pub fn new(budget: RetryBudget) -> Self {
        Self {
            rules: Arc::new(Rules {
                budget,
                backoff: Backoff::default(),
                attempts: 2,
                max_retry_after: Duration::from_secs(2),
                repeat: Arc::new(is_idempotent),
                clock: Clock::system(),
            }),
        }
    }

    /// At most so many attempts, the first included; at least one. Two unless told otherwise.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{RetryBudget, RetryLayer};
    /// let three = RetryLayer::new(RetryBudget::new(0.1, 10)?).attempts(3);
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.rules_mut().attempts = attempts.max(1);
        self
    }

    /// With these pauses between the attempts; [`Backoff::default`] unless told otherwise.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Backoff, RetryBudget, RetryLayer};
    /// # use std::time::Duration;
    /// let pauses = Backoff::new(Duration::from_millis(20), Duration::from_millis(500));
    /// let layer = RetryLayer::new(RetryBudget::new(0.1, 10)?).backoff(pauses);
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.rules_mut().backoff = backoff;
        self
    }

    /// Waits for as long as `Retry-After` says, plus a pause of the [`Backoff`]'s first, but only up
    /// to this; 2 s unless told otherwise. When the provider asks for longer, its answer stands.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{RetryBudget, RetryLayer};
    /// # use std::time::Duration;
    /// let layer = RetryLayer::new(RetryBudget::new(0.1, 10)?).max_retry_after(Duration::from_secs(5));
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    #[must_use]
    pub fn max_retry_after(mut self, longest: Duration) -> Self {
        self.rules_mut().max_retry_after = longest;
        self
    }

    /// Sends again only what this says yes to. Unless told otherwise: requests whose method is
    /// idempotent (RFC 9110, 9.2.2), and those with an `Idempotency-Key`, by which the callee knows
    /// them.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{RetryBudget, RetryLayer};
    /// let layer = RetryLayer::new(RetryBudget::new(0.1, 10)?)
    ///     .repeat(|request| request.uri.path().ends_with("/embeddings"));
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    #[must_use]
    pub fn repeat(mut self, repeat: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Self {
        self.rules_mut().repeat = Arc::new(repeat);
        self
    }

    /// Sends any request again, whatever its method, as is usual for chat completions. The provider
    /// may have worked on an attempt whose answer was lost, and charge for both.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{RetryBudget, RetryLayer};
    /// let layer = RetryLayer::new(RetryBudget::new(0.1, 10)?).repeat_posts();
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    #[must_use]
    pub fn repeat_posts(self) -> Self {
        self.repeat(|_| true)
    }

    /// With this clock, by which a date in `Retry-After` is read; the system's unless told otherwise.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{RetryBudget, RetryLayer};
    /// # let clock = spark_core::Clock::system();
    /// let layer = RetryLayer::new(RetryBudget::new(0.1, 10)?).clock(clock);
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.rules_mut().clock = clock;
        self
    }

    fn rules_mut(&mut self) -> &mut Rules {
        Arc::make_mut(&mut self.rules)
    }
}

fn is_idempotent(request: &Parts) -> bool {
    request.method.is_idempotent() || request.headers.contains_key("idempotency-key")
}

impl Rules {
    /// After which pause another attempt may help; `None` when it does not.
    pub(crate) fn pause<B, E>(
        &self,
        answer: &Result<Response<B>, E>,
        made: u32,
    ) -> Option<Duration> {
        let Ok(response) = answer else {
            return Some(self.backoff.pause(made));
        };
        let status = response.status().as_u16();
        let may_pass = matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504 | 529);
        if !may_pass || response.extensions().get::<Refusal>().is_some() {
            return None;
        }
        match retry_after(response.headers(), self.clock.unix_time()) {
            Some(wait) => (wait <= self.max_retry_after).then(|| self.backoff.after(wait)),
            None => (status != 429).then(|| self.backoff.pause(made)),
        }
    }
}

impl<S> Layer<S> for RetryLayer {
    type Service = RetryService<S>;

    fn layer(&self, inner: S) -> RetryService<S> {
        RetryService {
            inner,
            rules: Arc::clone(&self.rules),
        }
    }
}

/// A service that tries again; made by [`RetryLayer`].
#[derive(Clone)]
pub struct RetryService<S> {
    inner: S,
    rules: Arc<Rules>,
}

impl<S, ReqBody, B> Service<Request<ReqBody>> for RetryService<S>
where
    S: Service<Request<ReqBody>, Response = Response<B>> + Clone,
    ReqBody: Clone,
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Response = Response<RetryBody<B>>;
    type Error = S::Error;
    type Future = RetryFuture<S, ReqBody, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let clone = self.inner.clone();
        let mut ready = mem::replace(&mut self.inner, clone);
        self.rules.budget.deposit_for(request.extensions());
        let background = spark_core::Context::of(request.extensions())
            .is_some_and(spark_core::Context::is_background);
        let (parts, body) = request.into_parts();
        let repeats = self.rules.attempts > 1 && !background && (self.rules.repeat)(&parts);
        let request = Request::from_parts(parts, body);
        let again = repeats.then(|| request.clone());
        let future = ready.call(request);
        RetryFuture::new(ready, future, again, Arc::clone(&self.rules))
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules")
            .field("budget", &self.budget)
            .field("backoff", &self.backoff)
            .field("attempts", &self.attempts)
            .field("max_retry_after", &self.max_retry_after)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for RetryLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RetryLayer").field(&self.rules).finish()
    }
}

impl<S: fmt::Debug> fmt::Debug for RetryService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryService")
            .field("inner", &self.inner)
            .field("rules", &self.rules)
            .finish()
    }
}
