//! Tokens through the layer: reserved by the handler, settled when the response has ended.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Waker;

use common::{MINUTE, acme, field, from, hello, limiter, policy, remaining, retry_after, tenant};
use http::{Request, Response};
use http_body_util::BodyExt;
use spark_core::testing::{TestBody, TestClock};
use spark_core::{Context, ResponseBody, Shape, UsageReport};
use spark_ratelimit::{Key, Limiter, RateLimitLayer, Unit};
use tower::{Layer, Service, ServiceExt, service_fn};

const BUDGET: u64 = 10_000;

fn tokens(clock: &TestClock) -> Limiter {
    limiter(clock, [policy("tokens", BUDGET, MINUTE).unit(Unit::Tokens)])
}

/// A million requests, and ten thousand tokens.
fn layer(clock: &TestClock) -> (Limiter, RateLimitLayer) {
    let tokens = tokens(clock);
    let requests = limiter(clock, [policy("requests", 1_000_000, MINUTE)]);
    (tokens.clone(), RateLimitLayer::new(requests).budget(tokens))
}

fn left(tokens: &Limiter) -> u64 {
    remaining(tokens, acme(), None)
}

/// What the handler does with the context of its request, and the body that it answers.
fn handler<H>(
    handle: H,
) -> impl Service<Request<()>, Response = Response<TestBody>, Error = Infallible, Future: Send> + Clone
where
    H: Fn(&Context) -> TestBody + Clone + Send + 'static,
{
    service_fn(move |request: Request<()>| {
        let body = handle(Context::of(request.extensions()).unwrap());
        async move { Ok(Response::new(body)) }
    })
}

fn body() -> TestBody {
    TestBody::frames(["one ", "two ", "three"])
}

fn reserve(context: &Context, units: u64) {
    context.budget().unwrap().reserve(units).unwrap();
}

fn report(context: &Context, tokens: u64) {
    let report = UsageReport::new("demo", "small").with_tokens(tokens / 4, tokens - tokens / 4);
    assert!(context.usage().record(report));
}

#[test]
fn r10_a_hundred_estimates_at_once_begin_no_more_than_the_quota_covers() {
    let tokens = tokens(&TestClock::new());
    let barrier = std::sync::Barrier::new(100);
    let permits = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| {
                barrier.wait();
                if let Ok(permit) = tokens.acquire(&acme(), None, 1_000) {
                    permits.lock().unwrap().push(permit);
                }
            });
        }
    });
    let permits = permits.into_inner().unwrap();
    assert_eq!((permits.len(), left(&tokens)), (10, 0));
    // A permit that is dropped with nothing known leaves its estimate charged.
    drop(permits);
    assert_eq!(left(&tokens), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r10_a_hundred_requests_at_once_reserve_ten_times_a_tenth() {
    let (tokens, layer) = layer(&TestClock::new());
    let barrier = Arc::new(tokio::sync::Barrier::new(100));
    let service = layer.layer(service_fn(move |request: Request<()>| {
        let barrier = Arc::clone(&barrier);
        async move {
            barrier.wait().await;
            let context = Context::of(request.extensions()).unwrap();
            Ok::<_, Infallible>(match context.budget().unwrap().reserve(1_000) {
                Ok(()) => Response::new(ResponseBody::inner(body())),
                Err(problem) => problem.into_response(Shape::PROBLEM),
            })
        }
    }));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..100 {
        tasks.spawn(service.clone().oneshot(from(tenant("acme"))));
    }
    let (mut passed, mut refused) = (0, 0);
    while let Some(response) = tasks.join_next().await {
        let response = response.unwrap().unwrap();
        match response.status().as_u16() {
            200 => passed += 1,
            429 => {
                refused += 1;
                assert_eq!(retry_after(&response), 6, "a tenth of a minute");
                assert_eq!(
                    response.headers().get_all("ratelimit").iter().count(),
                    1,
                    "of the budget, and not once more of the requests"
                );
                let limit = field(&response, "ratelimit").unwrap();
                assert!(limit.starts_with(r#""tokens";r=0"#), "{limit}");
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!((passed, refused), (10, 90));
    assert_eq!(left(&tokens), 0, "nothing is known, so all stays reserved");
}

#[tokio::test]
async fn r10_the_usage_is_settled_when_the_response_has_ended() {
    let (tokens, layer) = layer(&TestClock::new());
    let service = layer.layer(handler(|context| {
        reserve(context, 4_000);
        report(context, 100);
        body()
    }));
    let response = service.clone().oneshot(from(tenant("acme"))).await.unwrap();
    assert_eq!(left(&tokens), BUDGET - 4_000, "it has not ended");
    response.into_body().collect().await.unwrap();
    assert_eq!(left(&tokens), BUDGET - 100);
    assert_eq!(remaining(&tokens, Key::shared(), None), BUDGET);

    // So it is when the body is never read.
    let response = service.oneshot(from(tenant("acme"))).await.unwrap();
    drop(response);
    assert_eq!(left(&tokens), BUDGET - 200);
}

#[tokio::test]
async fn r10_more_than_reserved_is_charged_too() {
    let (tokens, layer) = layer(&TestClock::new());
    let service = layer.layer(handler(|context| {
        reserve(context, 100);
        reserve(context, 200);
        report(context, 1_000);
        body()
    }));
    service.oneshot(from(tenant("acme"))).await.unwrap();
    assert_eq!(left(&tokens), BUDGET - 1_000);
}

/// What one of them gives back may be counted against the others: then it stays charged.
#[tokio::test]
async fn r10_several_reservations_are_settled_together() {
    for used in [0, 50, 200, 300, 4_000, 4_300, 9_000] {
        let (tokens, layer) = layer(&TestClock::new());
        let service = layer.layer(handler(move |context| {
            for units in [100, 200, 4_000] {
                reserve(context, units);
            }
            report(context, used);
            body()
        }));
        service.oneshot(from(tenant("acme"))).await.unwrap();
        let charged = BUDGET - left(&tokens);
        assert!(
            (used..=used.max(4_300)).contains(&charged),
            "{charged} for {used}"
        );
    }
}

#[tokio::test]
async fn r10_a_client_that_leaves_mid_stream_pays_what_was_observed() {
    let (tokens, layer) = layer(&TestClock::new());
    let service = layer.layer(handler(|context| {
        reserve(context, 4_000);
        let budget = context.budget().unwrap();
        budget.observe(700);
        budget.observe(300);
        body()
    }));
    let response = service.oneshot(from(tenant("acme"))).await.unwrap();
    let mut body = response.into_body();
    body.frame().await.unwrap().unwrap();
    assert_eq!(left(&tokens), BUDGET - 4_000);
    drop(body);
    assert_eq!(left(&tokens), BUDGET - 700);
}

#[tokio::test]
async fn r10_without_any_usage_the_reservation_stays() {
    for breaks in [false, true] {
        let (tokens, layer) = layer(&TestClock::new());
        let service = layer.layer(handler(move |context| {
            reserve(context, 4_000);
            if breaks { body().with_error() } else { body() }
        }));
        let response = service.oneshot(from(tenant("acme"))).await.unwrap();
        assert_eq!(response.into_body().collect().await.is_err(), breaks);
        assert_eq!(left(&tokens), BUDGET - 4_000);
    }
}

#[tokio::test]
async fn r10_settled_twice_is_settled_once() {
    let (tokens, layer) = layer(&TestClock::new());
    let service = layer.layer(handler(|context| {
        reserve(context, 4_000);
        let budget = context.budget().unwrap();
        budget.settle(100);
        budget.settle(0);
        budget.settle(9_000);
        budget.observe(5_000);
        report(context, 8_000);
        body()
    }));
    let response = service.oneshot(from(tenant("acme"))).await.unwrap();
    assert_eq!(left(&tokens), BUDGET - 100, "at once");
    response.into_body().collect().await.unwrap();
    assert_eq!(left(&tokens), BUDGET - 100);
}

#[tokio::test]
async fn r10_a_refused_reservation_takes_nothing_and_the_others_stand() {
    let (tokens, layer) = layer(&TestClock::new());
    let service = layer.clone().layer(handler(|context| {
        reserve(context, 6_000);
        let budget = context.budget().unwrap();
        assert_eq!(budget.reserve(6_000).unwrap_err().code(), "rate_limited");
        assert!(budget.reserve(BUDGET + 1).is_err(), "never");
        report(context, 50);
        body()
    }));
    service.oneshot(from(tenant("acme"))).await.unwrap();
    assert_eq!(left(&tokens), BUDGET - 50);
    let requests = remaining(layer.limiter(), acme(), None);
    assert_eq!(requests, 999_999, "one request, whatever its reservations");
}

/// The inner service reserves, and then: hangs until the request is cancelled, or fails.
#[tokio::test]
async fn r10_a_cancelled_request_and_an_error_settle_what_is_known() {
    for (observed, used, expected) in [
        (None, None, 4_000),
        (Some(30), None, 30),
        (None, Some(60), 60),
        (Some(30), Some(60), 60),
    ] {
        for fails in [false, true] {
            let (tokens, layer) = layer(&TestClock::new());
            let service = layer.layer(service_fn(move |request: Request<()>| async move {
                let context = Context::of(request.extensions()).unwrap();
                reserve(context, 4_000);
                if let Some(units) = observed {
                    context.budget().unwrap().observe(units);
                }
                if let Some(units) = used {
                    report(context, units);
                }
                if !fails {
                    std::future::pending::<()>().await;
                }
                Err::<Response<TestBody>, _>("failed")
            }));
            let request = service.oneshot(from(tenant("acme")));
            if fails {
                assert_eq!(request.await.unwrap_err(), "failed");
            } else {
                let mut request = Box::pin(request);
                let mut cx = std::task::Context::from_waker(Waker::noop());
                assert!(pin!(&mut request).poll(&mut cx).is_pending());
                assert_eq!(left(&tokens), BUDGET - 4_000);
                drop(request);
            }
            assert_eq!(
                left(&tokens),
                BUDGET - expected,
                "{observed:?} {used:?} {fails}"
            );
        }
    }
}

#[tokio::test]
async fn r10_who_keeps_the_context_keeps_the_reservation() {
    let (tokens, layer) = layer(&TestClock::new());
    let (kept, mut contexts) = tokio::sync::mpsc::unbounded_channel();
    let service = layer.layer(handler(move |context| {
        reserve(context, 4_000);
        kept.send(context.clone()).unwrap();
        body()
    }));
    // One of which the usage comes late, one that is observed late, one of which nothing comes.
    for (observed, used, expected) in [
        (None, Some(60), 60),
        (Some(30), None, 30),
        (None, None, 4_000),
    ] {
        tokens.reset(&acme());
        let response = service.clone().oneshot(from(tenant("acme"))).await.unwrap();
        response.into_body().collect().await.unwrap();
        assert_eq!(left(&tokens), BUDGET - 4_000, "somebody is still at work");
        let context = contexts.recv().await.unwrap();
        let task = tokio::spawn(async move {
            if let Some(units) = observed {
                context.budget().unwrap().observe(units);
            }
            if let Some(units) = used {
                report(&context, units);
            }
        });
        task.await.unwrap();
        assert_eq!(left(&tokens), BUDGET - expected);
    }
}

/// What is known is settled at the end, whoever still holds the context: as a log does.
#[tokio::test]
async fn r10_a_usage_that_is_known_does_not_wait_for_who_keeps_the_context() {
    let (tokens, layer) = layer(&TestClock::new());
    let kept = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&kept);
    let service = layer.layer(handler(move |context| {
        reserve(context, 4_000);
        report(context, 60);
        *keep.lock().unwrap() = Some(context.clone());
        body()
    }));
    let response = service.oneshot(from(tenant("acme"))).await.unwrap();
    assert_eq!(left(&tokens), BUDGET - 4_000);
    response.into_body().collect().await.unwrap();
    assert_eq!(left(&tokens), BUDGET - 60);
    let context = kept.lock().unwrap().take().unwrap();
    context.budget().unwrap().settle(9_000);
    drop(context);
    assert_eq!(left(&tokens), BUDGET - 60, "once");
}

#[tokio::test]
async fn r10_a_handler_that_reserves_nothing_is_charged_nothing() {
    let (tokens, layer) = layer(&TestClock::new());
    let service = layer.clone().layer(handler(|context| {
        report(context, 500);
        body()
    }));
    service.oneshot(from(tenant("acme"))).await.unwrap();
    assert_eq!(left(&tokens), BUDGET);
    // Nor is a request that does not come so far.
    layer.limiter().penalize(&acme(), None, u64::MAX);
    let refused = layer.layer(hello()).oneshot(from(tenant("acme"))).await;
    assert_eq!(refused.unwrap().status(), 429);
    assert_eq!(left(&tokens), BUDGET);
}
