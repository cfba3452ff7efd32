//! All layers together, in the order of the manual: failover, retry, breaker, bulkhead, time limits.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use bytes::Bytes;
use common::{
    Log, Paced, answered, ask, hanging, millis, now, paced, post, secs, status, text, wait,
};
use http::{Request, Response};
use spark_breaker::{
    Breaker, BreakerLayer, Bulkhead, BulkheadLayer, Config, Deadline, Failover, Hop, Reason,
    RetryBudget, RetryLayer, TimeoutLayer, Timeouts,
};
use spark_core::{Clock, Refusal};
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, spark_core::BoxError>;
type Client = BoxCloneSyncService<Request<Bytes>, Response<Body>, std::io::Error>;

struct Provider {
    breaker: Breaker,
    bulkhead: Bulkhead,
    hop: Hop<Client>,
}

/// A provider behind all of its layers.
fn provider<C, B>(name: &'static str, budget: &RetryBudget, client: C) -> Provider
where
    C: Service<Request<Bytes>, Response = Response<B>, Error = std::io::Error>
        + Clone
        + Send
        + Sync
        + 'static,
    C::Future: Send,
    B: http_body::Body<Data = Bytes, Error: Into<spark_core::BoxError>> + Send + 'static,
{
    let breaker = Breaker::new(name, Config::llm(), Clock::system()).unwrap();
    let bulkhead = Bulkhead::new(name, 1).unwrap();
    let service = ServiceBuilder::new()
        .map_response(|response: Response<_>| response.map(boxed))
        .layer(RetryLayer::new(budget.clone()).repeat_posts())
        .layer(BreakerLayer::new(breaker.clone()))
        .layer(BulkheadLayer::new(bulkhead.clone()))
        .layer(TimeoutLayer::new(Timeouts::llm()))
        .service(client);
    Provider {
        breaker,
        bulkhead,
        hop: Hop::new(name, BoxCloneSyncService::new(service)),
    }
}

fn boxed<B>(body: B) -> Body
where
    B: http_body::Body<Data = Bytes, Error: Into<spark_core::BoxError>> + Send + 'static,
{
    use http_body_util::BodyExt;
    body.map_err(Into::into).boxed_unsync()
}

fn budget() -> RetryBudget {
    RetryBudget::new(0.0, 10).unwrap()
}

/// Waiting does not help: no second attempt, the next provider at once, and no further call.
#[tokio::test(start_paused = true)]
async fn used_up_credit_costs_one_call_and_no_time() {
    let log = Log::default();
    let used_up = || {
        let body = r#"{"error":{"type":"insufficient_quota","code":"insufficient_quota"}}"#;
        wait::<429, 1>().map(|response| response.map(|_| body.into()))
    };
    let a = provider("a", &budget(), log.client("a", used_up));
    let b = provider("b", &budget(), log.client("b", status::<200>));
    let failover = Failover::new(vec![a.hop, b.hop]).until_first_byte(true);
    let start = now();
    for calls in [&["a:prompt", "b:prompt"][..], &["b:prompt"], &["b:prompt"]] {
        let response = failover.clone().oneshot(post()).await.unwrap();
        assert_eq!(text(response).await, "body");
        assert_eq!(log.taken(), calls);
        assert_eq!(now(), start);
    }
    let trip = a.breaker.snapshot().last_trip.unwrap();
    let retry_after = Some(secs(1));
    assert_eq!(trip.reason, Reason::Exhausted { retry_after });
    assert_eq!(
        (a.bulkhead.in_flight(), a.breaker.snapshot().in_flight),
        (0, 0)
    );
}

/// Each is let go before the next is asked, counted once, and paid for once.
#[tokio::test(start_paused = true)]
async fn a_first_event_that_is_an_error_is_counted_and_holds_nothing() {
    let client = service_fn(async |_: Request<Bytes>| {
        let error = "event: error\ndata: {\"error\":{\"type\":\"overloaded_error\"}}\n\n";
        let frames = vec![
            (secs(1), Ok(": ping\n\n")),
            (secs(1), Ok(error)),
            (secs(9), Ok(": nobody waits for this\n\n")),
        ];
        let response = Response::builder().header("content-type", "text/event-stream");
        Ok(response.body(paced(frames)).unwrap())
    });
    let log = Log::default();
    let a = provider("a", &budget(), client);
    let (breaker, bulkhead) = (a.breaker.clone(), a.bulkhead.clone());
    let seen = service_fn(move |_: Request<Bytes>| {
        assert_eq!((bulkhead.in_flight(), breaker.snapshot().in_flight), (0, 0));
        std::future::ready(status::<200>())
    });
    let b = provider("b", &budget(), seen);
    let failover = Failover::new(vec![a.hop, b.hop]).until_first_byte(true);
    let start = now();
    let response = failover.oneshot(ask()).await.unwrap();
    assert_eq!(
        (answered(&response).0.as_str(), now() - start),
        ("b", secs(2))
    );
    let totals = a.breaker.snapshot().totals;
    assert_eq!(
        (totals.failures, totals.cancelled, totals.successes),
        (1, 0, 0)
    );
    assert!(log.taken().is_empty());
}

/// Every provider hangs: each is asked once, and the caller is told in time.
#[tokio::test(start_paused = true)]
async fn providers_that_hang_cost_one_call_each_and_no_longer_than_the_deadline() {
    let [a, b, c] = ["a", "b", "c"].map(|name| provider(name, &budget(), hanging()));
    let breakers = [a.breaker, b.breaker, c.breaker];
    let bulkheads = [a.bulkhead, b.bulkhead, c.bulkhead];
    let failover = Failover::new(vec![a.hop, b.hop, c.hop]);
    let mut request = post();
    request.extensions_mut().insert(Deadline::after(secs(70)));
    let start = now();
    let response = failover.oneshot(request).await.unwrap();
    assert_eq!((response.status().as_u16(), now() - start), (504, secs(70)));
    assert_eq!(
        response.extensions().get::<Refusal>().unwrap().by,
        "timeout"
    );
    drop(response);
    let failures = breakers.map(|breaker| breaker.snapshot().totals.failures);
    assert_eq!(failures[..2], [1, 1]);
    assert_eq!(bulkheads.map(|bulkhead| bulkhead.in_flight()), [0, 0, 0]);
}

fn endless()
-> impl Service<Request<Bytes>, Response = Response<Paced>, Error = std::io::Error, Future: Send>
+ Clone
+ Send
+ Sync
+ 'static {
    service_fn(async |_: Request<Bytes>| {
        let mut response = Response::new(paced(vec![(secs(1_000), Ok("x"))]));
        *response.status_mut() = http::StatusCode::TOO_MANY_REQUESTS;
        Ok(response)
    })
}

/// It is kept for half a second, and frees its place.
#[tokio::test(start_paused = true)]
async fn a_bad_answer_that_never_ends_holds_up_nobody() {
    let a = provider("a", &budget(), endless());
    let b = provider("b", &budget(), Log::default().client("b", status::<200>));
    let start = now();
    let failover = Failover::new(vec![a.hop, b.hop]);
    let response = failover.oneshot(ask()).await.unwrap();
    let took = now() - start;
    assert_eq!((response.status().as_u16(), took), (200, millis(500)));
    let snapshot = a.breaker.snapshot();
    assert_eq!((snapshot.totals.throttled, snapshot.in_flight), (1, 0));
    assert_eq!(a.bulkhead.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_the_deadline_keeps_from_being_asked_is_not_paid_for() {
    let log = Log::default();
    let a = provider("a", &budget(), endless());
    let b = provider("b", &budget(), log.client("b", status::<200>));
    let tokens = RetryBudget::new(0.0, 1).unwrap();
    let failover = Failover::new(vec![a.hop, b.hop]).budget(tokens.clone());
    let response = failover.deadline(millis(200)).oneshot(ask()).await.unwrap();
    assert_eq!(response.status(), 429);
    assert!(log.taken().is_empty());
    assert!(tokens.withdraw());
}
