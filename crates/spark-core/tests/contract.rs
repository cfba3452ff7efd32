//! The contract suite notices what it is there to notice: layers that break it, one way each.
#![allow(missing_docs, reason = "a test")]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use http::{Request, Response};
use spark_core::testing::{ProbeError, TestBody, contract};
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::{Layer, Service, ServiceExt};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    CallsAnUnreadyClone,
    ReadiesAClone,
    IsAlwaysReady,
    LosesTheWaker,
    RewritesTheBody,
    GoesOnWhenDropped,
}

#[derive(Clone, Copy, Debug)]
struct Faulty(Fault);

impl<S> Layer<S> for Faulty {
    type Service = FaultyService<S>;

    fn layer(&self, inner: S) -> FaultyService<S> {
        FaultyService {
            fault: self.0,
            inner,
        }
    }
}

#[derive(Clone, Debug)]
struct FaultyService<S> {
    fault: Fault,
    inner: S,
}

type Answer = Result<Response<TestBody>, ProbeError>;

impl<S> Service<Request<TestBody>> for FaultyService<S>
where
    S: Service<Request<TestBody>, Response = Response<TestBody>, Error = ProbeError>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<TestBody>;
    type Error = ProbeError;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ProbeError>> {
        match self.fault {
            Fault::IsAlwaysReady => Poll::Ready(Ok(())),
            Fault::LosesTheWaker => self
                .inner
                .poll_ready(&mut Context::from_waker(Waker::noop())),
            _ => self.inner.poll_ready(cx),
        }
    }

    fn call(&mut self, request: Request<TestBody>) -> Self::Future {
        let fault = self.fault;
        let clone = self.inner.clone();
        match fault {
            Fault::CallsAnUnreadyClone => Box::pin({ clone }.call(request)),
            Fault::ReadiesAClone => Box::pin(clone.oneshot(request)),
            Fault::RewritesTheBody => {
                let answer = self.inner.call(request);
                Box::pin(
                    async move { Ok(answer.await?.map(|_| TestBody::frames(["hello world"]))) },
                )
            }
            Fault::GoesOnWhenDropped => {
                let answer = tokio::spawn(self.inner.call(request));
                Box::pin(async move { answer.await.unwrap() })
            }
            _ => Box::pin(self.inner.call(request)),
        }
    }
}

async fn check(fault: Fault) {
    contract::check(Faulty(fault), || Request::new(TestBody::frames(["x"]))).await;
}

#[tokio::test]
async fn a_layer_without_a_fault_passes() {
    check(Fault::None).await;
}

#[tokio::test]
#[should_panic(expected = "an inner service that was not ready")]
async fn calling_an_unready_clone_is_noticed() {
    check(Fault::CallsAnUnreadyClone).await;
}

#[tokio::test]
#[should_panic(expected = "not make a clone ready")]
async fn readying_a_clone_in_the_future_is_noticed() {
    check(Fault::ReadiesAClone).await;
}

#[tokio::test]
#[should_panic(expected = "not ready")]
async fn being_ready_before_the_inner_service_is_noticed() {
    check(Fault::IsAlwaysReady).await;
}

#[tokio::test]
#[should_panic(expected = "the wake-up of the inner service got lost")]
async fn losing_the_waker_is_noticed() {
    check(Fault::LosesTheWaker).await;
}

#[tokio::test]
#[should_panic(expected = "the trailers must come through")]
async fn another_body_is_noticed() {
    check(Fault::RewritesTheBody).await;
}

#[tokio::test]
#[should_panic(expected = "leaks")]
async fn going_on_after_being_dropped_is_noticed() {
    check(Fault::GoesOnWhenDropped).await;
}

#[tokio::test]
#[should_panic(expected = "poll_ready must reserve nothing")]
async fn reserving_a_place_in_poll_ready_is_noticed() {
    let layer = GlobalConcurrencyLimitLayer::new(100);
    contract::check(layer, || Request::new(TestBody::frames(["x"]))).await;
}
