//! A second attempt on the same provider, while the budget lasts.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{Request, Response};
use pin_project_lite::pin_project;
use spark_core::Refusal;
use tokio::time::Sleep;
use tower_layer::Layer;
use tower_service::Service;

use crate::ConfigError;
use crate::metrics::{self, count};

/// How many second attempts the calls of one provider may make together. Clones share it.
///
/// Each call puts in a share of a token, and each second attempt takes a whole one out: with a share
/// of 0.1, a provider that fails altogether gets a tenth more calls, not twice as many.
///
/// # Example
/// ```
/// use spark_breaker::RetryBudget;
/// let budget = RetryBudget::new(0.1, 1)?;
/// assert!(budget.withdraw()); // what it starts with
/// assert!(!budget.withdraw());
/// for _ in 0..10 {
///     budget.deposit();
/// }
/// assert!(budget.withdraw());
/// # Ok::<(), spark_breaker::ConfigError>(())
/// ```
#[derive(Debug, Clone)]
pub struct RetryBudget(Arc<Tokens>);

#[derive(Debug)]
struct Tokens {
    /// In thousandths.
    left: AtomicU64,
    share: u64,
    most: u64,
}

const TOKEN: u64 = 1_000;

impl RetryBudget {
    /// Starts with, and holds at most, `reserve` tokens; each call puts in `share` of one.
    ///
    /// # Errors
    /// [`ConfigError`] unless `share` is a number from 0 to 1.
    ///
    /// # Example
    /// ```
    /// assert!(spark_breaker::RetryBudget::new(2.0, 10).is_err());
    /// ```
    pub fn new(share: f64, reserve: u32) -> Result<Self, ConfigError> {
        if !(0.0..=1.0).contains(&share) {
            let mend = "give a share of 0 to 1";
            return Err(ConfigError::out_of_range("share", &share, mend));
        }
        let most = u64::from(reserve) * TOKEN;
        Ok(Self(Arc::new(Tokens {
            left: AtomicU64::new(most),
            // From 0 to 1,000, as checked above.
            share: (share * TOKEN as f64).round() as u64,
            most,
        })))
    }

    /// A call is made.
    pub fn deposit(&self) {
        let add = |left: u64| Some(left.saturating_add(self.0.share).min(self.0.most));
        let _ = self
            .0
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// Whether a second attempt may be made; it is paid for with that.
    pub fn withdraw(&self) -> bool {
        let take = |left: u64| left.checked_sub(TOKEN);
        self.0
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .is_ok()
    }
}

/// Makes a second attempt when the first one failed in a way that may pass: an error of the client,
/// or 500, 502, 503 or 504 without `Retry-After`.
///
/// It stands outside the breaker, so that both attempts are admitted and counted. It makes at most
/// one second attempt, after a short pause, and none
/// - when a layer of ours refused the first (a breaker, a bulkhead, a timeout);
/// - for a background call, which can wait for its next turn;
/// - when the budget is used up;
/// - once a byte of the answer was handed on.
///
/// The provider may have worked on the first attempt all the same, and charge for both.
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
/// assert_eq!(response.into_body(), "hello");
/// # });
/// ```
#[derive(Debug, Clone)]
pub struct RetryLayer {
    budget: RetryBudget,
    pause: Duration,
}

impl RetryLayer {
    /// With this budget, and a pause of 100 ms between the attempts.
    pub fn new(budget: RetryBudget) -> Self {
        Self {
            budget,
            pause: Duration::from_millis(100),
        }
    }

    /// With another pause.
    #[must_use]
    pub fn pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }
}

impl<S> Layer<S> for RetryLayer {
    type Service = RetryService<S>;

    fn layer(&self, inner: S) -> RetryService<S> {
        RetryService {
            inner,
            rules: self.clone(),
        }
    }
}

/// A service that tries twice; made by [`RetryLayer`].
#[derive(Debug, Clone)]
pub struct RetryService<S> {
    inner: S,
    rules: RetryLayer,
}

impl<S, B> Service<Request<Bytes>> for RetryService<S>
where
    S: Service<Request<Bytes>, Response = Response<B>> + Clone,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = RetryFuture<S>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Bytes>) -> RetryFuture<S> {
        let clone = self.inner.clone();
        let mut ready = mem::replace(&mut self.inner, clone);
        let background = spark_core::Context::of(request.extensions())
            .is_some_and(spark_core::Context::is_background);
        self.rules.budget.deposit();
        let again = (!background).then(|| request.clone());
        let future = ready.call(request);
        RetryFuture {
            service: ready,
            again,
            first: None,
            rules: self.rules.clone(),
            step: Step::Calling { future },
        }
    }
}

pin_project! {
    /// The answer of a [`RetryService`].
    pub struct RetryFuture<S>
    where
        S: Service<Request<Bytes>>,
    {
        service: S,
        // What a second attempt would send; none is left when there is to be no other.
        again: Option<Request<Bytes>>,
        // What the first attempt brought, once there is a second.
        first: Option<Result<S::Response, S::Error>>,
        rules: RetryLayer,
        #[pin]
        step: Step<S::Future>,
    }
}

pin_project! {
    #[project = StepProj]
    enum Step<F> {
        Calling { #[pin] future: F },
        Pausing { #[pin] timer: Sleep, request: Option<Request<Bytes>> },
        Readying { request: Option<Request<Bytes>> },
    }
}

impl<S, B> Future for RetryFuture<S>
where
    S: Service<Request<Bytes>, Response = Response<B>>,
{
    type Output = Result<Response<B>, S::Error>;

    #[expect(
        clippy::expect_used,
        reason = "a step is entered with a request and left with it"
    )]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.step.as_mut().project() {
                StepProj::Calling { future } => {
                    let answer = ready!(future.poll(cx));
                    // A refusal of ours says nothing of the provider, which was not asked again.
                    if let Some(first) = this.first.take_if(|_| is_refused(&answer)) {
                        return Poll::Ready(first);
                    }
                    let Some(request) = this.again.take().filter(|_| may_pass(&answer)) else {
                        return Poll::Ready(answer);
                    };
                    if !this.rules.budget.withdraw() {
                        count!(metrics::RETRIES, "result" => "no_budget");
                        return Poll::Ready(answer);
                    }
                    count!(metrics::RETRIES, "result" => "made");
                    *this.first = Some(answer);
                    this.step.set(Step::Pausing {
                        timer: tokio::time::sleep(this.rules.pause),
                        request: Some(request),
                    });
                }
                StepProj::Pausing { timer, request } => {
                    ready!(timer.poll(cx));
                    let request = request.take();
                    this.step.set(Step::Readying { request });
                }
                StepProj::Readying { request } => {
                    ready!(this.service.poll_ready(cx))?;
                    let request = request.take().expect("each attempt has its request");
                    let future = this.service.call(request);
                    this.step.set(Step::Calling { future });
                }
            }
        }
    }
}

fn is_refused<B, E>(answer: &Result<Response<B>, E>) -> bool {
    let refusal = answer.as_ref().ok();
    let refusal = refusal.and_then(|response| response.extensions().get::<Refusal>());
    refusal.is_some_and(|it| matches!(it.by, "breaker" | "bulkhead"))
}

fn may_pass<B, E>(answer: &Result<Response<B>, E>) -> bool {
    match answer {
        Err(_) => true,
        Ok(response) => {
            matches!(response.status().as_u16(), 500 | 502 | 503 | 504)
                && response.extensions().get::<Refusal>().is_none()
                && !response.headers().contains_key(RETRY_AFTER)
        }
    }
}

impl<S> fmt::Debug for RetryFuture<S>
where
    S: Service<Request<Bytes>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryFuture").finish_non_exhaustive()
    }
}
