//! The next provider, when one does not answer.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body::Body;
use spark_core::{BoxError, Clock};
use tower_service::Service;

use crate::failover_body::FailoverBody;
use crate::failover_future::FailoverFuture;
use crate::jitter::Jitter;
use crate::last_resort::WaitingRoom;
use crate::{Hop, LastResort, Order, RetryBudget};

/// Tries providers in their order, until one answers.
///
/// | what a hop brings | then |
/// |---|---|
/// | refused by a breaker or a bulkhead of ours | next hop: the provider was not asked |
/// | 401, 402 or 403: it refuses our own credential | next hop; never shown to the caller, who would take it for theirs |
/// | 408, 425, 429, 5xx, a timeout of ours, an error of the client | next hop |
/// | any other answer | it is the answer |
///
/// No hop is tried twice, but for the [`LastResort`]; and none once an answer is handed on, which is
/// when its head is here or, with [`until_first_byte`](Self::until_first_byte), its first byte.
///
/// When no hop answers well, the last answer that came from a provider is given back; when none came,
/// the last error or timeout; when all were refused by layers of ours, the refusal with the least `Retry-After`; when nothing is left but
/// refused credentials, 502 (`by` "failover", code `provider_credential`). A 429 or 503 that is given
/// back has the least `Retry-After` of all hops. A response says in its extensions which hop it is
/// from ([`Answered`](crate::Answered)).
///
/// The request may have to be sent again, so its body has to be [`Clone`], as [`Bytes`] are. Each
/// hop's service adds what its provider needs (address, credential), keeps the request's extensions,
/// and stands behind that provider's own breaker. What a failed hop answered is read to its end
/// before the next is asked (up to 64 KiB and for up to half a second), so that it holds no permit,
/// place or connection in the meantime. That needs tokio's timers.
///
/// A failover may be a hop of another. Each then has its own limits, and the number of calls is
/// their product; the outer one's deadline bounds both, and so does one [`budget`](Self::budget) that
/// both are given.
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
type Repeat = dyn Fn(&Parts) -> bool + Send + Sync;

/// What all calls share.
#[derive(Clone)]
pub(crate) struct Rules {
    pub(crate) eligible: Arc<Eligible>,
    pub(crate) repeat: Arc<Repeat>,
    pub(crate) order: Order,
    pub(crate) max_hops: usize,
    pub(crate) deadline: Option<Duration>,
    pub(crate) until_first_byte: bool,
    pub(crate) callers_keys: bool,
    pub(crate) budget: Option<RetryBudget>,
    pub(crate) last_resort: LastResort,
    pub(crate) waiting: WaitingRoom,
    pub(crate) jitter: Arc<Jitter>,
    pub(crate) clock: Clock,
}

impl<S> Failover<S> {
    /// Over these hops, in this order.
    pub fn new(hops: Vec<Hop<S>>) -> Self {
        Self {
            hops: Arc::new(hops),
            rules: Arc::new(Rules {
                eligible: Arc::new(|_, _| true),
                repeat: Arc::new(|_| true),
                order: Order::default(),
                max_hops: usize::MAX,
                deadline: None,
                until_first_byte: false,
                callers_keys: false,
                budget: None,
                last_resort: LastResort::default(),
                waiting: WaitingRoom::default(),
                jitter: Arc::new(Jitter::new(None)),
                clock: Clock::system(),
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
        self.rules_mut().eligible = Arc::new(eligible);
        self
    }

    /// In which order the hops are asked; [`Order::Listed`] unless told otherwise.
    ///
    /// # Example
    /// ```
    /// use spark_breaker::{Failover, Hop, Order};
    /// let failover = Failover::new(vec![Hop::new("a", ()).weight(9), Hop::new("b", ())])
    ///     .order(Order::Weighted);
    /// ```
    #[must_use]
    pub fn order(mut self, order: Order) -> Self {
        self.rules_mut().order = order;
        self
    }

    /// Asks at most so many providers, and at least one. A hop whose breaker or bulkhead refuses
    /// was not asked, and does not count.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Failover, Hop};
    /// let two_of_three =
    ///     Failover::new(vec![Hop::new("a", ()), Hop::new("b", ()), Hop::new("c", ())]).max_hops(2);
    /// ```
    #[must_use]
    pub fn max_hops(mut self, hops: usize) -> Self {
        self.rules_mut().max_hops = hops.max(1);
        self
    }

    /// Until the head of an answer is here (or its first byte, see
    /// [`until_first_byte`](Self::until_first_byte)), all hops together may take so long. Then the
    /// hop under way is given up, and the best answer so far is given back, or 504 (`by` "failover",
    /// code `deadline_exceeded`) when there is none. A [`Deadline`](crate::Deadline) in the request's
    /// extensions counts when it is earlier. Needs tokio's timers.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Failover, Hop};
    /// # use std::time::Duration;
    /// let failover = Failover::new(vec![Hop::new("a", ())]).deadline(Duration::from_secs(60));
    /// ```
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.rules_mut().deadline = Some(deadline);
        self
    }

    /// With true, the head of a good answer is no commitment: it is handed on when the first byte of
    /// its body is here, and when the body breaks, runs out of time or ends before, the next hop is
    /// asked. Of a stream of events it is the first whole event that has to be here: comments and pings
    /// are none, and an error as the first one is a body that breaks. What was read is held in memory,
    /// up to 16 KiB of such; then the answer is handed on. The body is boxed. False unless told
    /// otherwise.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Failover, Hop};
    /// let failover = Failover::new(vec![Hop::new("a", ())]).until_first_byte(true);
    /// ```
    #[must_use]
    pub fn until_first_byte(mut self, until_first_byte: bool) -> Self {
        self.rules_mut().until_first_byte = until_first_byte;
        self
    }

    /// With true, the callers bring their own credentials for the providers: 401, 402 and 403 are
    /// answers to them, and passed on as they are. False unless told otherwise.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Failover, Hop};
    /// let failover = Failover::new(vec![Hop::new("a", ())]).callers_keys(true);
    /// ```
    #[must_use]
    pub fn callers_keys(mut self, callers_keys: bool) -> Self {
        self.rules_mut().callers_keys = callers_keys;
        self
    }

    /// Whether another provider may be asked after one that may have worked on the request (an error
    /// of the client, 408, 425, 5xx, a timeout). Always, unless told otherwise: then both may charge
    /// for it. After a refusal, a 401, 402, 403 or 429, the next is asked in any case.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Failover, Hop};
    /// let failover = Failover::new(vec![Hop::new("a", ())])
    ///     .repeat(|request| !request.uri.path().ends_with("/files"));
    /// ```
    #[must_use]
    pub fn repeat(mut self, repeat: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Self {
        self.rules_mut().repeat = Arc::new(repeat);
        self
    }

    /// Each provider that is asked after another one was asked takes a token, as a further attempt
    /// does. Given to the hops' [`RetryLayer`](crate::RetryLayer)s too, one budget bounds all calls to
    /// all providers to the requests and its share of them; each request puts in its share once.
    /// None unless told otherwise: then only [`max_hops`](Self::max_hops) and the breakers bound the
    /// hops, and a provider that fails without opening its breaker costs a second call each time.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Failover, Hop, RetryBudget};
    /// let failover = Failover::new(vec![Hop::new("a", ())]).budget(RetryBudget::new(0.2, 20)?);
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    #[must_use]
    pub fn budget(mut self, budget: RetryBudget) -> Self {
        self.rules_mut().budget = Some(budget);
        self
    }

    /// What is done when no hop answers well; [`LastResort::Answer`] unless told otherwise.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Failover, Hop, LastResort};
    /// # use std::time::Duration;
    /// let failover = Failover::new(vec![Hop::new("a", ())])
    ///     .last_resort(LastResort::wait_for_earliest(Duration::from_secs(3), 64));
    /// ```
    #[must_use]
    pub fn last_resort(mut self, last_resort: LastResort) -> Self {
        self.rules_mut().last_resort = last_resort;
        self
    }

    /// Makes its random choices the same each time: for tests and simulations.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Failover, Hop};
    /// let failover = Failover::new(vec![Hop::new("a", ())]).seed(7);
    /// ```
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.rules_mut().jitter = Arc::new(Jitter::new(Some(seed)));
        self
    }

    /// With this clock, by which a date in `Retry-After` is read; the system's unless told otherwise.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Failover, Hop};
    /// let failover = Failover::new(vec![Hop::new("a", ())]).clock(spark_core::Clock::system());
    /// ```
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.rules_mut().clock = clock;
        self
    }

    fn rules_mut(&mut self) -> &mut Rules {
        Arc::make_mut(&mut self.rules)
    }

    /// Whether any hop is eligible for this request.
    pub fn has_eligible(&self, request: &Parts) -> bool {
        let eligible = &self.rules.eligible;
        self.hops.iter().any(|hop| eligible(request, hop.name()))
    }

    /// The hops as they are listed.
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
}

impl<S, ReqBody, B> Service<Request<ReqBody>> for Failover<S>
where
    S: Service<Request<ReqBody>, Response = Response<B>> + Clone,
    ReqBody: Clone,
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Response = Response<FailoverBody<B>>;
    type Error = S::Error;
    type Future = FailoverFuture<S, ReqBody, B>;

    /// Always ready: each hop is made ready when its turn comes.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        FailoverFuture::new(self.clone(), request)
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
            .field("order", &self.rules.order)
            .field("max_hops", &self.rules.max_hops)
            .field("deadline", &self.rules.deadline)
            .field("until_first_byte", &self.rules.until_first_byte)
            .field("last_resort", &self.rules.last_resort)
            .finish_non_exhaustive()
    }
}
