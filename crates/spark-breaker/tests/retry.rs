//! Twice, or more often, to the same provider.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use common::{
    Answer, Log, Paced, answered, ask, broken, millis, now, paced, post, secs, status, wait,
};
use http::{HeaderValue, Request, Response, StatusCode};
use proptest::prelude::*;
use spark_breaker::{
    Backoff, Breaker, BreakerLayer, Bulkhead, BulkheadLayer, Config, Deadline, Failover, Hop, Mode,
    RetryBudget, RetryLayer, TimeoutLayer, Timeouts,
};
use spark_core::testing::{TestBody, TestClock, contract};
use spark_core::{Clock, Refusal};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

fn retry(share: f64, reserve: u32) -> RetryLayer {
    RetryLayer::new(RetryBudget::new(share, reserve).unwrap())
}

#[tokio::test]
async fn contract_retry() {
    let at_once = Backoff::new(Duration::ZERO, Duration::ZERO);
    let layer = retry(1.0, 100).backoff(at_once);
    contract::check(layer.clone(), || Request::new(TestBody::frames(["a"]))).await;
    contract::check(layer.attempts(1), || Request::new(TestBody::frames(["a"]))).await;
}

#[tokio::test(start_paused = true)]
async fn one_more_attempt_where_it_may_help() {
    let log = Log::default();
    let helped: [fn() -> Answer; 10] = [
        broken,
        status::<408>,
        status::<425>,
        status::<500>,
        status::<502>,
        status::<503>,
        status::<504>,
        status::<529>,
        wait::<503, 2>,
        wait::<429, 2>,
    ];
    for answer in helped {
        let service = retry(0.1, 10).layer(log.client("a", answer));
        let _ = service.oneshot(ask()).await;
        assert_eq!(log.taken(), ["a:prompt", "a:prompt"]);
    }
    let not: [fn() -> Answer; 9] = [
        status::<200>,
        status::<400>,
        status::<401>,
        status::<402>,
        status::<404>,
        status::<429>,
        status::<501>,
        wait::<429, 3>,
        wait::<503, 3>,
    ];
    for answer in not {
        let service = retry(0.1, 10).layer(log.client("a", answer));
        let _ = service.oneshot(ask()).await;
        assert_eq!(log.taken(), ["a:prompt"]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_second_attempt_brings_is_the_answer() {
    let log = Log::default();
    let client = log.answering("a", |before| match before {
        0 => status::<503>(),
        _ => status::<200>(),
    });
    let response = retry(0.1, 10).layer(client).oneshot(ask()).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(common::text(response).await, "body");
}

#[tokio::test(start_paused = true)]
async fn as_many_attempts_as_were_allowed() {
    let log = Log::default();
    for attempts in [0, 1, 2, 5] {
        let layer = retry(1.0, 100).attempts(attempts);
        let service = layer.layer(log.client("a", status::<500>));
        let response = service.oneshot(ask()).await.unwrap();
        assert_eq!(response.status(), 500);
        assert_eq!(log.taken().len(), attempts.max(1) as usize);
    }
}

#[tokio::test(start_paused = true)]
async fn only_what_may_be_repeated_is_sent_again() {
    let log = Log::default();
    let attempts = async |layer: RetryLayer, request| {
        let service = layer.layer(log.client("a", status::<500>));
        service.oneshot(request).await.unwrap();
        log.taken().len()
    };
    assert_eq!(attempts(retry(1.0, 10), post()).await, 1);
    assert_eq!(attempts(retry(1.0, 10).repeat_posts(), post()).await, 2);
    let mut known = post();
    let key = HeaderValue::from_static("7b1e");
    known.headers_mut().insert("idempotency-key", key);
    assert_eq!(attempts(retry(1.0, 10), known).await, 2);
    for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"] {
        let mut request = ask();
        *request.method_mut() = method.parse().unwrap();
        assert_eq!(attempts(retry(1.0, 10), request).await, 2, "{method}");
    }
    let never = retry(1.0, 10).repeat(|_| false);
    assert_eq!(attempts(never, ask()).await, 1);
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_waited_for() {
    let log = Log::default();
    let service = retry(1.0, 10).layer(log.client("a", wait::<429, 2>));
    let start = now();
    service.oneshot(ask()).await.unwrap();
    assert_eq!(log.taken().len(), 2);
    let took = now() - start;
    assert!((secs(2)..=millis(2_102)).contains(&took), "{took:?}");

    // A date, by the clock that was given.
    let clock = TestClock::new();
    clock.set_unix_time(secs(784_111_776));
    let dated = || {
        status::<503>().map(|mut response| {
            let date = HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT");
            response.headers_mut().insert("retry-after", date);
            response
        })
    };
    let layer = retry(1.0, 10).clock(clock.clock());
    let start = now();
    let service = layer.layer(log.client("a", dated));
    service.oneshot(ask()).await.unwrap();
    assert_eq!(log.taken().len(), 2);
    assert!(now() - start >= secs(1));
}

#[tokio::test(start_paused = true)]
async fn used_up_credit_is_no_reason_to_come_back() {
    let log = Log::default();
    let exhausted = || {
        wait::<429, 1>()
            .map(|response| response.map(|_| r#"{"error":{"code":"insufficient_quota"}}"#.into()))
    };
    let budget = RetryBudget::new(0.0, 1).unwrap();
    let service = RetryLayer::new(budget.clone()).layer(log.client("a", exhausted));
    let response = service.oneshot(ask()).await.unwrap();
    assert_eq!(response.status(), 429);
    let text = common::text(response).await;
    assert!(text.contains("insufficient_quota"), "{text}");
    assert_eq!(log.taken().len(), 1);
    assert!(budget.withdraw(), "it took nothing out of the budget");
}

#[tokio::test(start_paused = true)]
async fn no_attempt_begins_after_the_deadline() {
    let log = Log::default();
    let service = retry(0.0, 1).layer(log.client("a", wait::<503, 2>));
    for (left, attempts) in [(secs(2), 1), (secs(3), 2)] {
        let mut request = ask();
        request.extensions_mut().insert(Deadline::after(left));
        service.clone().oneshot(request).await.unwrap();
        assert_eq!(log.taken().len(), attempts);
    }
}

/// The pause would be over by then, but not the reading of the answer before.
#[tokio::test(start_paused = true)]
async fn nor_one_that_a_slow_answer_holds_up() {
    let log = Log::default();
    for (left, attempts) in [(millis(200), 1), (secs(1), 2)] {
        let slow = log.clone();
        let slow = service_fn(move |_: Request<Bytes>| {
            slow.write(String::from("slow"));
            let mut response = Response::new(paced(vec![(millis(400), Ok("x"))]));
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            async move { Ok::<_, std::io::Error>(response) }
        });
        let budget = RetryBudget::new(0.0, 1).unwrap();
        let mut request = ask();
        request.extensions_mut().insert(Deadline::after(left));
        let service = RetryLayer::new(budget.clone()).layer(slow);
        let response = service.oneshot(request).await.unwrap();
        assert_eq!(response.status(), 503);
        assert_eq!(common::text(response).await, "x");
        assert_eq!(log.taken().len(), attempts);
        assert_eq!(
            budget.withdraw(),
            attempts == 1,
            "what is not made is not paid"
        );
    }
}

/// It can be called once, and is never ready again.
#[derive(Clone, Default)]
struct Once(Arc<AtomicUsize>);

impl Service<Request<Bytes>> for Once {
    type Response = Response<TestBody>;
    type Error = std::io::Error;
    type Future = std::future::Ready<Result<Response<TestBody>, std::io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), std::io::Error>> {
        Poll::Ready(match self.0.load(Ordering::Relaxed) {
            0 => Ok(()),
            _ => Err(std::io::Error::other("closed")),
        })
    }

    fn call(&mut self, _: Request<Bytes>) -> Self::Future {
        self.0.fetch_add(1, Ordering::Relaxed);
        let response = Response::builder().status(503);
        std::future::ready(Ok(response.body(TestBody::frames(["x"])).unwrap()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_not_ready_again_does_not_hide_what_it_answered() {
    let budget = RetryBudget::new(0.0, 1).unwrap();
    let service = RetryLayer::new(budget.clone()).layer(Once::default());
    let response = service.oneshot(ask()).await.unwrap();
    assert_eq!(response.status(), 503);
    assert!(budget.withdraw());
}

#[tokio::test(start_paused = true)]
async fn b14_attempts_that_the_breaker_refuses_take_nothing_out_of_the_budget() {
    let log = Log::default();
    let budget = RetryBudget::new(0.0, 1).unwrap();
    let breaker = Breaker::new("a", Config::llm().consecutive(1), Clock::system()).unwrap();
    let inner = BreakerLayer::new(breaker).layer(log.client("a", status::<502>));
    let service = RetryLayer::new(budget.clone()).layer(inner);
    service.oneshot(ask()).await.unwrap();
    assert_eq!(log.taken().len(), 1);
    assert!(budget.withdraw());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn all_attempts_begin_within_the_bounds_of_their_pauses(
        base in 0_u64..1_000,
        most in 0_u64..5_000,
        attempts in 1_u32..8,
        seed: u64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let took = runtime.block_on(async {
            let backoff = Backoff::new(millis(base), millis(most)).seed(seed);
            let layer = retry(1.0, 100).attempts(attempts).backoff(backoff);
            let start = now();
            let service = layer.layer(Log::default().client("a", broken));
            service.oneshot(ask()).await.unwrap_err();
            now() - start
        });
        let bounds = (0..attempts - 1).map(|n| (base << n).min(most) + 1);
        prop_assert!(took <= millis(bounds.sum()), "{:?}", took);
    }
}

#[tokio::test(start_paused = true)]
async fn b14_the_budget_bounds_the_attempts() {
    let log = Log::default();
    let service = retry(0.1, 5)
        .attempts(4)
        .layer(log.client("a", status::<500>));
    for _ in 0..100 {
        service.clone().oneshot(ask()).await.unwrap();
    }
    let attempts = log.taken().len();
    assert!((110..=115).contains(&attempts), "{attempts}");
}

/// The first attempt opens the breaker, so that there is no second: the provider's own answer is what
/// the next hop goes by, and what is told when there is none.
#[tokio::test(start_paused = true)]
async fn b14_a_second_attempt_that_is_refused_does_not_hide_the_first() {
    let log = Log::default();
    let hop = |name: &'static str| {
        let breaker = Breaker::new(name, Config::llm().consecutive(1), Clock::system()).unwrap();
        let inner = BreakerLayer::new(breaker).layer(log.client(name, status::<502>));
        Hop::new(name, retry(1.0, 10).layer(inner))
    };
    let failover = Failover::new(vec![hop("a"), hop("b"), hop("c")]).max_hops(2);
    let response = failover.oneshot(ask()).await.unwrap();
    assert_eq!(response.status(), 502);
    assert_eq!(answered(&response), (String::from("b"), 2));
    assert!(response.extensions().get::<Refusal>().is_none());
    assert_eq!(common::text(response).await, "body");
    assert_eq!(log.taken(), ["a:prompt", "b:prompt"]);
}

#[tokio::test(start_paused = true)]
async fn neither_a_refusal_nor_a_background_call_is_tried_again() {
    let log = Log::default();
    let breaker = Breaker::new("a", Config::llm(), Clock::system()).unwrap();
    let inner = BreakerLayer::new(breaker.clone()).layer(log.client("a", status::<500>));
    let service = retry(1.0, 10).layer(inner);

    let mut refresh = ask();
    let context = spark_core::Context::new(Clock::system().now()).with_background(true);
    refresh.extensions_mut().insert(context);
    service.clone().oneshot(refresh).await.unwrap();
    assert_eq!(log.taken().len(), 1);

    service.clone().oneshot(ask()).await.unwrap();
    assert_eq!(log.taken().len(), 2);
    assert_eq!(breaker.snapshot().failures, 3, "every attempt is counted");

    breaker.set_mode(Mode::ForcedOpen);
    let start = now();
    let response = service.oneshot(ask()).await.unwrap();
    assert_eq!(response.status(), 503);
    assert!(log.taken().is_empty());
    assert_eq!(now(), start, "a refusal is answered at once");
}

#[tokio::test(start_paused = true)]
async fn a_timeout_of_ours_is_not_tried_again() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let hangs = service_fn(move |_: Request<Bytes>| {
        counted.fetch_add(1, Ordering::SeqCst);
        std::future::pending::<Answer>()
    });
    let service = ServiceBuilder::new()
        .layer(retry(1.0, 10))
        .layer(TimeoutLayer::new(Timeouts::llm()))
        .service(hangs);
    let response = service.oneshot(ask()).await.unwrap();
    assert_eq!(response.status(), 504);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

/// Answers 503 with that body.
fn unavailable(
    body: impl Fn() -> Paced + Clone + Send + Sync + 'static,
) -> impl Service<Request<Bytes>, Response = Response<Paced>, Error = std::io::Error, Future: Send> + Clone
{
    service_fn(move |_: Request<Bytes>| {
        let mut response = Response::new(body());
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        async move { Ok(response) }
    })
}

/// While the pause lasts, and whatever its body is like, the first answer holds nothing.
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_kept_holds_no_place_and_no_permit() {
    let bulkhead = Bulkhead::new("a", 1).unwrap();
    let breaker = Breaker::new("a", Config::llm().consecutive(9), Clock::system()).unwrap();
    let bodies: [fn() -> Paced; 4] = [
        || paced(vec![(millis(100), Ok("busy"))]),
        || paced(vec![(secs(3_600), Ok("busy"))]),
        || paced(vec![(millis(1), Err("reset"))]),
        || paced(vec![]),
    ];
    for body in bodies {
        let service = ServiceBuilder::new()
            .layer(retry(1.0, 10).max_retry_after(secs(60)))
            .layer(BreakerLayer::new(breaker.clone()))
            .layer(BulkheadLayer::new(bulkhead.clone()))
            .service(unavailable(body).map_response(|mut response: Response<_>| {
                let after = HeaderValue::from_static("30");
                response.headers_mut().insert("retry-after", after);
                response
            }));
        let call = tokio::spawn(service.oneshot(ask()));
        tokio::time::sleep(secs(1)).await;
        assert!(!call.is_finished());
        assert_eq!(bulkhead.in_flight(), 0);
        assert_eq!(breaker.snapshot().in_flight, 0);
        // The second attempt has a place, and its answer is handed on as it comes.
        breaker.reset();
        let response = call.await.unwrap().unwrap();
        assert_eq!(response.status(), 503);
        assert!(response.extensions().get::<Refusal>().is_none());
        assert_eq!(bulkhead.in_flight(), 1);
        drop(response);
        assert_eq!(bulkhead.in_flight(), 0);
        breaker.reset();
    }
}

#[tokio::test(start_paused = true)]
async fn cancelled_at_every_await_point_it_leaves_nothing_behind() {
    let bulkhead = Bulkhead::new("a", 9).unwrap();
    let breaker = Breaker::new("a", Config::llm().consecutive(99), Clock::system()).unwrap();
    let slow = unavailable(|| paced(vec![(millis(300), Ok("busy"))]));
    let service = ServiceBuilder::new()
        .layer(retry(1.0, 100).attempts(3))
        .layer(BreakerLayer::new(breaker.clone()))
        .layer(BulkheadLayer::new(bulkhead.clone()))
        .service(slow);
    for after in 0..100 {
        let call = service.clone().oneshot(ask());
        let cut = tokio::time::timeout(millis(10 * after), call).await;
        drop(cut);
        assert_eq!(bulkhead.in_flight(), 0, "after {after}");
        assert_eq!(breaker.snapshot().in_flight, 0, "after {after}");
    }
}

/// Each attempt carries what the request carried, so the breaker and the client see the same.
#[tokio::test(start_paused = true)]
async fn extensions_and_headers_go_with_each_attempt() {
    #[derive(Clone, PartialEq, Debug)]
    struct Model(&'static str);
    let log = Log::default();
    let seen = log.clone();
    let client = service_fn(move |request: Request<Bytes>| {
        let model = request.extensions().get::<Model>().unwrap().0;
        let header = request.headers()["x-request-id"].to_str().unwrap();
        seen.write(format!("{model} {header}"));
        async { status::<500>() }
    });
    let hop = |name: &'static str| Hop::new(name, retry(1.0, 10).layer(client.clone()));
    let mut request = ask();
    request.extensions_mut().insert(Model("small"));
    let id = HeaderValue::from_static("7");
    request.headers_mut().insert("x-request-id", id);
    let failover = Failover::new(vec![hop("a"), hop("b")]);
    failover.oneshot(request).await.unwrap();
    assert_eq!(log.taken(), ["small 7"; 4]);
}
