//! An inner service that notices what a layer does to it.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use http::{Request, Response};
use tower_service::Service;

use super::TestBody;

/// An inner service that panics when it is called without having been ready, and counts what is
/// under way. Each clone must become ready by itself, as the contract of tower says.
///
/// # Example
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use spark_core::testing::{Behaviour, Probe};
/// use tower::ServiceExt;
/// let probe = Probe::new();
/// probe.behave(Behaviour::Fail);
/// assert!(probe.clone().oneshot(http::Request::new(())).await.is_err());
/// assert_eq!((probe.calls(), probe.in_flight()), (1, 0));
/// # });
/// ```
#[derive(Debug, Default)]
pub struct Probe {
    shared: Arc<Mutex<Shared>>,
    ready: bool,
}

#[derive(Debug, Default)]
struct Shared {
    behaviour: Behaviour,
    busy: bool,
    wakers: Vec<Waker>,
    readied: usize,
    calls: usize,
    in_flight: usize,
}

/// What a [`Probe`] answers.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Behaviour {
    /// 200 with two frames and trailers.
    #[default]
    Answer,
    /// 200 with this body.
    Body(TestBody),
    /// [`ProbeError`].
    Fail,
    /// Nothing, ever.
    Hang,
    /// A panic when the future is polled.
    Panic,
}

/// The error of a [`Probe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the probe failed, as it was told to")]
pub struct ProbeError;

impl Probe {
    /// A probe that answers.
    ///
    /// # Example
    /// ```
    /// assert_eq!(spark_core::testing::Probe::new().calls(), 0);
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// Chooses what it and its clones answer from now on.
    ///
    /// # Example
    /// ```
    /// # use spark_core::testing::{Behaviour, Probe};
    /// Probe::new().behave(Behaviour::Hang);
    /// ```
    pub fn behave(&self, behaviour: Behaviour) {
        self.shared().behaviour = behaviour;
    }

    /// Makes it and its clones busy (never ready) or free again, waking who waits.
    ///
    /// # Example
    /// ```
    /// spark_core::testing::Probe::new().set_busy(true);
    /// ```
    pub fn set_busy(&self, busy: bool) {
        let wakers = {
            let mut shared = self.shared();
            shared.busy = busy;
            std::mem::take(&mut shared.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// How often it was called.
    ///
    /// # Example
    /// ```
    /// assert_eq!(spark_core::testing::Probe::new().calls(), 0);
    /// ```
    pub fn calls(&self) -> usize {
        self.shared().calls
    }

    /// How often it or a clone became ready; being asked again before the call does not count.
    ///
    /// # Example
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use spark_core::testing::Probe;
    /// use tower::ServiceExt;
    /// let probe = Probe::new();
    /// probe.clone().oneshot(http::Request::new(())).await.unwrap();
    /// assert_eq!(probe.readied(), 1);
    /// # });
    /// ```
    pub fn readied(&self) -> usize {
        self.shared().readied
    }

    /// How many of its futures exist.
    ///
    /// # Example
    /// ```
    /// assert_eq!(spark_core::testing::Probe::new().in_flight(), 0);
    /// ```
    pub fn in_flight(&self) -> usize {
        self.shared().in_flight
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        lock(&self.shared)
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Clone for Probe {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            ready: false,
        }
    }
}

impl<B> Service<Request<B>> for Probe {
    type Response = Response<TestBody>;
    type Error = ProbeError;
    type Future = ProbeFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ProbeError>> {
        let mut shared = lock(&self.shared);
        if shared.busy {
            shared.wakers.push(cx.waker().clone());
            return Poll::Pending;
        }
        shared.readied += usize::from(!self.ready);
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _request: Request<B>) -> ProbeFuture {
        assert!(
            std::mem::take(&mut self.ready),
            "the layer called an inner service that was not ready"
        );
        let mut shared = self.shared();
        shared.calls += 1;
        shared.in_flight += 1;
        ProbeFuture {
            behaviour: shared.behaviour.clone(),
            shared: Arc::clone(&self.shared),
        }
    }
}

/// The future of a [`Probe`].
#[derive(Debug)]
pub struct ProbeFuture {
    behaviour: Behaviour,
    shared: Arc<Mutex<Shared>>,
}

impl Future for ProbeFuture {
    type Output = Result<Response<TestBody>, ProbeError>;

    fn poll(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match &mut self.behaviour {
            Behaviour::Answer => Ok(Response::new(answer())),
            Behaviour::Body(body) => Ok(Response::new(std::mem::take(body))),
            Behaviour::Fail => Err(ProbeError),
            Behaviour::Hang => return Poll::Pending,
            Behaviour::Panic => panic!("the probe panics, as it was told to"),
        })
    }
}

impl Drop for ProbeFuture {
    fn drop(&mut self) {
        lock(&self.shared).in_flight -= 1;
    }
}

/// What [`Behaviour::Answer`] sends.
pub(super) fn answer() -> TestBody {
    TestBody::frames(["hello ", "world"]).with_trailers()
}
