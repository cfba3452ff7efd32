//! What a call that went wrong below the breaker is counted as, and who is blamed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::future::pending;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty};
use spark_breaker::{
    Breaker, BreakerLayer, ByCause, Classify, Config, ConnectTimeout, Deadline, FailKind,
    HttpClassify, LlmClassify, Outcome, Phase, ProviderKey, Reason, Registry, Scope, TimeoutLayer,
    Timeouts,
};
use spark_core::BoxError;
use spark_core::testing::{TestBody, TestClock};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

const IDLE: FailKind = FailKind::Timeout(Phase::Idle);

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn breaker() -> Breaker {
    let rules = Config::llm().jitter(0.0).consecutive(1);
    Breaker::new("primary", rules, TestClock::new().clock()).unwrap()
}

/// As what the one call that failed was counted.
fn counted(breaker: &Breaker) -> Option<FailKind> {
    match breaker.snapshot().last_trip?.reason {
        Reason::Consecutive { failures: 1, last } => Some(last),
        reason => panic!("{reason:?}"),
    }
}

/// Some frames; then it hangs.
#[derive(Clone)]
struct Stalls(Vec<&'static str>);

impl Body for Stalls {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.0.is_empty() {
            return Poll::Pending;
        }
        Poll::Ready(Some(Ok(Frame::data(self.0.remove(0).into()))))
    }
}

/// Answers 200 with this body.
fn stalls<B: Clone>(
    frames: &[&'static str],
) -> impl Service<Request<B>, Response = Response<Stalls>, Error = Infallible, Future: Send>
+ Clone
+ use<B> {
    let body = Stalls(frames.to_vec());
    service_fn(move |_: Request<B>| {
        let response = Response::builder().header("content-type", "text/event-stream");
        let response = response.body(body.clone()).unwrap();
        async move { Ok(response) }
    })
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_is_reached_inside_of_a_stream_is_counted_as_that_limit() {
    let all = Timeouts {
        first_byte: Some(secs(30)),
        idle: Some(secs(15)),
        total: Some(secs(60)),
        ..Timeouts::default()
    };
    let no_idle = Timeouts { idle: None, ..all };
    let piece = "data: {\"choices\":[]}\n\n";
    for (timeouts, frames, phase) in [
        (all, &[piece][..], Phase::Idle),
        (all, &[": ping\n\n"][..], Phase::FirstByte),
        (no_idle, &[piece][..], Phase::Total),
    ] {
        let breaker = breaker();
        let service = ServiceBuilder::new()
            .layer(BreakerLayer::new(breaker.clone()))
            .layer(TimeoutLayer::new(timeouts))
            .service(stalls(frames));
        let response = service.oneshot(Request::new(())).await.unwrap();
        assert_eq!(response.status(), 200);
        response.into_body().collect().await.unwrap_err();
        assert_eq!(counted(&breaker), Some(FailKind::Timeout(phase)));
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_stream_itself_said_before_it_stalled_counts() {
    let error = "data: {\"error\":{\"type\":\"overloaded_error\"}}\n\n";
    for (last, expected) in [
        (error, Some(FailKind::Status(529))),
        ("data: [DONE]\n\n", None),
    ] {
        let breaker = breaker();
        let service = ServiceBuilder::new()
            .layer(BreakerLayer::new(breaker.clone()))
            .layer(TimeoutLayer::new(Timeouts::llm()))
            .service(stalls(&[last]));
        let response = service.oneshot(Request::new(())).await.unwrap();
        response.into_body().collect().await.unwrap_err();
        assert_eq!(counted(&breaker), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_stalls_is_held_against_its_model() {
    let rules = Config::llm().jitter(0.0).consecutive(1);
    let registry = Registry::new(16, rules, TestClock::new().clock()).unwrap();
    let key = ProviderKey::new("openai")
        .model("gpt-x")
        .credential("key-1");
    let of = key.clone();
    let service = ServiceBuilder::new()
        .layer(BreakerLayer::keyed(registry.clone(), move |_| {
            Some(of.clone())
        }))
        .layer(TimeoutLayer::new(Timeouts::llm()))
        .service(stalls(&["data: {\"choices\":[]}\n\n"]));
    let response = service.oneshot(Request::new(())).await.unwrap();
    response.into_body().collect().await.unwrap_err();
    let breakers = registry.breakers(&key).unwrap();
    assert_eq!(counted(breakers.of(Scope::Model).unwrap()), Some(IDLE));
    for other in [Scope::Provider, Scope::Credential] {
        assert_eq!(counted(breakers.of(other).unwrap()), None);
    }
}

#[tokio::test]
async fn a_body_that_breaks_for_any_other_reason_is_broken() {
    let breaker = breaker();
    let client = service_fn(async |_: Request<()>| {
        Ok::<_, Infallible>(Response::new(TestBody::frames(["x"]).with_error()))
    });
    let service = BreakerLayer::new(breaker.clone()).layer(client);
    let response = service.oneshot(Request::new(())).await.unwrap();
    response.into_body().collect().await.unwrap_err();
    assert_eq!(counted(&breaker), Some(FailKind::Body));
}

/// A frame, and then a panic.
struct Panics(bool);

impl Body for Panics {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        assert!(!self.0, "a body that panics");
        self.0 = true;
        Poll::Ready(Some(Ok(Frame::data("x".into()))))
    }
}

#[tokio::test]
async fn a_body_that_panics_is_a_panic_of_the_provider() {
    let breaker = breaker();
    let client =
        service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(Panics(false))));
    let service = BreakerLayer::new(breaker.clone()).layer(client);
    let response = service.oneshot(Request::new(())).await.unwrap();
    let reads = tokio::spawn(response.into_body().collect());
    assert!(reads.await.unwrap_err().is_panic());
    assert_eq!(counted(&breaker), Some(FailKind::Panic));
    assert_eq!(breaker.snapshot().in_flight, 0);
}

/// As clients wrap what their connector fails with.
#[derive(Debug)]
struct ClientError(BoxError);

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("client error (connect)")
    }
}

impl Error for ClientError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}

async fn connect<E>(as_error: impl Fn(BoxError) -> E, classify: impl Classify<E>) -> FailKind {
    let never = service_fn(|_: Uri| pending::<Result<(), BoxError>>());
    let connector = ConnectTimeout::new(never, secs(5));
    let as_error = &as_error;
    let client = service_fn(move |_: Request<()>| {
        let connecting = connector.oneshot(Uri::from_static("http://localhost"));
        async move {
            connecting.await.map_err(as_error)?;
            Ok(Response::new(Empty::<Bytes>::new()))
        }
    });
    let breaker = breaker();
    let service = BreakerLayer::new(breaker.clone())
        .classify(classify)
        .layer(client);
    assert!(service.oneshot(Request::new(())).await.is_err());
    counted(&breaker).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_takes_too_long_is_told_from_one_that_is_refused() {
    let late = FailKind::Timeout(Phase::Connect);
    let own = |error| error;
    assert_eq!(connect(own, LlmClassify::new()).await, late);
    assert_eq!(connect(own, HttpClassify).await, late);
    let boxed = |error| BoxError::from(ClientError(error));
    assert_eq!(connect(boxed, LlmClassify::new()).await, late);
    // Of an error that is no box nothing is known, unless it is said that it has causes.
    let unknown = FailKind::Transport;
    assert_eq!(connect(ClientError, LlmClassify::new()).await, unknown);
    let by_cause = ByCause::new(LlmClassify::new());
    assert_eq!(connect(ClientError, by_cause).await, late);
    let by_cause = ByCause::new(HttpClassify);
    assert_eq!(connect(ClientError, by_cause).await, late);

    let refused = std::io::Error::other("refused");
    let outcome = Outcome::failure(FailKind::Transport);
    assert_eq!(by_cause.error(&refused), outcome);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_for_the_beginning_does_not_cut_an_answer_that_has_begun() {
    let client = service_fn(async |_: Request<()>| {
        let body = TestBody::frames(["a"]).with_pause().with_data("b");
        Ok::<_, Infallible>(Response::new(body))
    });
    let service = TimeoutLayer::new(Timeouts::llm()).layer(client);
    let mut request = Request::new(());
    request.extensions_mut().insert(Deadline::after(secs(1)));
    let response = service.oneshot(request).await.unwrap();
    let mut body = Box::pin(response.into_body());
    body.frame().await.unwrap().unwrap();
    tokio::time::sleep(secs(60)).await;
    assert_eq!(body.collect().await.unwrap().to_bytes(), "b");
}
