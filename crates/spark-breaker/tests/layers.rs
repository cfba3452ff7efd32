//! The layers around a service: what they answer, what they count, how they end.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use spark_breaker::{
    Breaker, BreakerLayer, Bulkhead, BulkheadLayer, Config, Mode, State, TimeoutLayer, Timeouts,
};
use spark_core::testing::{Behaviour, Probe, TestBody, TestClock, contract};
use spark_core::{Refusal, Shape};
use tower::{Layer, Service, ServiceExt, service_fn};

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn breaker(config: Config) -> (Breaker, TestClock) {
    let clock = TestClock::new();
    clock.advance(secs(1_000));
    let breaker = Breaker::new("primary", config.jitter(0.0), clock.clock()).unwrap();
    (breaker, clock)
}

fn request() -> Request<TestBody> {
    Request::new(TestBody::frames(["hello"]))
}

fn healthy() -> Probe {
    let probe = Probe::new();
    probe.behave(Behaviour::Body(TestBody::frames(["ok"])));
    probe
}

fn with_status(
    status: u16,
) -> impl Service<Request<TestBody>, Response = Response<String>, Error = Infallible, Future: Send> + Clone
{
    service_fn(move |_| async move {
        Ok(Response::builder()
            .status(status)
            .body(String::from("body"))
            .unwrap())
    })
}

#[tokio::test]
async fn contract_breaker() {
    let (breaker, _clock) = breaker(Config::llm());
    contract::check(BreakerLayer::new(breaker.clone()), request).await;
    assert_eq!(breaker.snapshot().in_flight, 0);
}

#[tokio::test]
async fn a_refusal_carries_the_name_and_retry_after() {
    let (breaker, clock) = breaker(Config::llm().open_for(secs(10)));
    let service = BreakerLayer::new(breaker.clone()).layer(with_status(500));
    for _ in 0..5 {
        let response = service.clone().oneshot(request()).await.unwrap();
        assert_eq!(response.status(), 500);
    }
    clock.advance(Duration::from_millis(2_500));
    let response = service.clone().oneshot(request()).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["retry-after"], "8");
    assert_eq!(response.headers()["cache-control"], "no-store");
    let refusal = *response.extensions().get::<Refusal>().unwrap();
    assert_eq!((refusal.by, refusal.code), ("breaker", "breaker_open"));
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(body.to_vec()).unwrap();
    assert!(text.contains(r#""breaker":"primary""#), "{text}");
    assert!(text.contains("it failed too often"), "{text}");
}

#[tokio::test]
async fn a_refusal_is_in_the_shape_of_the_request() {
    let (breaker, clock) = breaker(Config::llm());
    breaker.set_mode(Mode::ForcedOpen);
    let service = BreakerLayer::new(breaker).layer(healthy());
    let mut request = request();
    let context = spark_core::Context::new(clock.clock().now()).with_shape(Shape::OPENAI);
    request.extensions_mut().insert(context);
    let response = service.oneshot(request).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(body.starts_with(br#"{"error""#), "{body:?}");
}

#[tokio::test]
async fn a_body_decides_at_its_end() {
    let (breaker, _clock) = breaker(Config::llm());
    let probe = Probe::new();
    let service = BreakerLayer::new(breaker.clone()).layer(probe.clone());

    probe.behave(Behaviour::Body(
        TestBody::frames(["a", "b"]).with_trailers(),
    ));
    let response = service.clone().oneshot(request()).await.unwrap();
    let mut body = response.into_body();
    body.frame().await.unwrap().unwrap();
    assert_eq!(breaker.snapshot().in_flight, 1, "the permit is in the body");
    body.collect().await.unwrap();
    let snapshot = breaker.snapshot();
    assert_eq!((snapshot.in_flight, snapshot.totals.successes), (0, 1));

    probe.behave(Behaviour::Body(TestBody::frames(["half"]).with_error()));
    let response = service.clone().oneshot(request()).await.unwrap();
    assert!(response.into_body().collect().await.is_err());
    assert_eq!(breaker.snapshot().totals.failures, 1);

    probe.behave(Behaviour::Body(TestBody::frames(["a", "b"])));
    let response = service.clone().oneshot(request()).await.unwrap();
    let mut body = response.into_body();
    body.frame().await.unwrap().unwrap();
    drop(body);
    let snapshot = breaker.snapshot();
    assert_eq!((snapshot.in_flight, snapshot.totals.cancelled), (0, 1));
    assert_eq!(snapshot.calls, 2, "cancelled counts for nothing");

    // A server sends no body in answer to HEAD, and drops it.
    probe.behave(Behaviour::Body(TestBody::frames(["a"])));
    let mut head = request();
    *head.method_mut() = Method::HEAD;
    drop(service.oneshot(head).await.unwrap());
    assert_eq!(breaker.snapshot().totals.successes, 2);
}

#[tokio::test]
async fn an_error_of_the_client_is_a_failure_and_comes_through() {
    let (breaker, _clock) = breaker(Config::llm());
    let probe = Probe::new();
    probe.behave(Behaviour::Fail);
    let service = BreakerLayer::new(breaker.clone()).layer(probe);
    let _: spark_core::testing::ProbeError = service.oneshot(request()).await.unwrap_err();
    assert_eq!(breaker.snapshot().failures, 1);
}

#[tokio::test]
async fn callers_mistakes_trip_nothing() {
    let (breaker, _clock) = breaker(Config::llm());
    let service = BreakerLayer::new(breaker.clone()).layer(with_status(422));
    for _ in 0..100 {
        service.clone().oneshot(request()).await.unwrap();
    }
    assert_eq!(breaker.snapshot().calls, 0);
    assert_eq!(breaker.snapshot().totals.ignored, 100);
}

#[tokio::test]
async fn b13_bad_keys_of_callers_trip_nothing_and_our_own_does() {
    use spark_breaker::LlmClassify;
    let (breaker, _clock) = breaker(Config::llm());
    let layer = BreakerLayer::new(breaker.clone());
    let callers = layer.clone().classify(LlmClassify::callers_key());
    let service = callers.layer(with_status(401));
    for _ in 0..1_000 {
        service.clone().oneshot(request()).await.unwrap();
    }
    assert_eq!(breaker.snapshot().calls, 0);
    let service = layer.layer(with_status(401));
    for _ in 0..5 {
        service.clone().oneshot(request()).await.unwrap();
    }
    assert_eq!(breaker.snapshot().state, State::Open);
}

#[tokio::test]
async fn an_open_breaker_does_not_call_the_inner_service() {
    let (breaker, _clock) = breaker(Config::llm());
    breaker.set_mode(Mode::ForcedOpen);
    let probe = Probe::new();
    let service = BreakerLayer::new(breaker).layer(probe.clone());
    service.oneshot(request()).await.unwrap();
    assert_eq!(probe.calls(), 0);
}

#[tokio::test]
async fn a_background_call_may_probe_before_users() {
    let (breaker, clock) = breaker(Config::llm().background_grace(secs(60)).consecutive(1));
    breaker
        .try_acquire()
        .unwrap()
        .failure(spark_breaker::FailKind::Transport);
    clock.advance(secs(11));
    let service = BreakerLayer::new(breaker.clone()).layer(healthy());
    let user = service.clone().oneshot(request()).await.unwrap();
    assert_eq!(user.status(), 503);
    let mut refresh = request();
    let context = spark_core::Context::new(clock.clock().now()).with_background(true);
    refresh.extensions_mut().insert(context);
    let refreshed = service.oneshot(refresh).await.unwrap();
    assert_eq!(refreshed.status(), 200);
}

#[tokio::test]
async fn b9_layered_twice_by_axum_it_is_one_breaker() {
    use axum::Router;
    use axum::routing::get;
    let calls = Arc::new(AtomicUsize::new(0));
    let (breaker, _clock) = breaker(Config::llm().consecutive(4));
    let counted = Arc::clone(&calls);
    let fails = move || {
        counted.fetch_add(1, Ordering::SeqCst);
        async { StatusCode::BAD_GATEWAY }
    };
    let app: Router = Router::new()
        .route("/a", get(fails.clone()))
        .route("/b", get(fails))
        .layer(BreakerLayer::new(breaker.clone()))
        .layer(TimeoutLayer::new(Timeouts::llm()))
        .layer(BulkheadLayer::new(Bulkhead::new("app", 9).unwrap()));
    for path in ["/a", "/b", "/a", "/b", "/a", "/b"] {
        let request = Request::get(path).body(axum::body::Body::empty()).unwrap();
        app.clone().oneshot(request).await.unwrap();
    }
    assert_eq!(calls.load(Ordering::SeqCst), 4);
    assert_eq!(breaker.snapshot().state, State::Open);
}
