//! From provider to provider, and twice to the same.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use spark_breaker::{
    Answered, Breaker, BreakerLayer, Config, Failover, Hop, Mode, RetryBudget, RetryLayer,
};
use spark_core::testing::{Behaviour, Probe, ProbeError, TestClock};
use spark_core::{Clock, Refusal};
use tower::util::BoxCloneSyncService;
use tower::{Layer, ServiceExt, service_fn};

type Answer = Result<Response<Full<Bytes>>, std::io::Error>;
type Client = BoxCloneSyncService<Request<Bytes>, Response<Full<Bytes>>, std::io::Error>;

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What the providers were asked, in order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn taken(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    fn client(&self, name: &'static str, answer: fn() -> Answer) -> Client {
        let log = self.clone();
        BoxCloneSyncService::new(service_fn(move |request: Request<Bytes>| {
            let body = String::from_utf8(request.into_body().to_vec()).unwrap();
            log.0.lock().unwrap().push(format!("{name}:{body}"));
            async move { answer() }
        }))
    }
}

fn status<const STATUS: u16>() -> Answer {
    let mut response = Response::new(Full::from("body"));
    *response.status_mut() = StatusCode::from_u16(STATUS).unwrap();
    Ok(response)
}

fn broken() -> Answer {
    Err(std::io::Error::other("connection refused"))
}

fn ask() -> Request<Bytes> {
    Request::new(Bytes::from_static(b"prompt"))
}

fn answered<B>(response: &Response<B>) -> (String, usize) {
    let answered = response.extensions().get::<Answered>().unwrap();
    (answered.hop.to_string(), answered.hops)
}

#[tokio::test]
async fn it_moves_on_where_it_should_and_sends_the_whole_request_again() {
    let log = Log::default();
    let bad: [fn() -> Answer; 6] = [
        broken,
        status::<408>,
        status::<429>,
        status::<500>,
        status::<503>,
        status::<529>,
    ];
    for bad in bad {
        let failover = Failover::new(vec![
            Hop::new("a", log.client("a", bad)),
            Hop::new("b", log.client("b", status::<200>)),
            Hop::new("c", log.client("c", status::<200>)),
        ]);
        let response = failover.oneshot(ask()).await.unwrap();
        assert_eq!(answered(&response), (String::from("b"), 2));
        assert_eq!(log.taken(), ["a:prompt", "b:prompt"]);
    }
}

#[tokio::test]
async fn it_stays_where_the_caller_is_to_blame() {
    let log = Log::default();
    let answers: [fn() -> Answer; 4] = [status::<200>, status::<400>, status::<401>, status::<404>];
    for answer in answers {
        let failover = Failover::new(vec![
            Hop::new("a", log.client("a", answer)),
            Hop::new("b", log.client("b", status::<200>)),
        ]);
        let response = failover.oneshot(ask()).await.unwrap();
        assert_eq!(answered(&response), (String::from("a"), 1));
        assert_eq!(log.taken(), ["a:prompt"]);
    }
}

#[tokio::test]
async fn b14_each_hop_once_and_no_more_than_allowed() {
    let log = Log::default();
    let hops = |n| {
        ["a", "b", "c", "d"]
            .into_iter()
            .take(n)
            .map(|name| Hop::new(name, log.client(name, status::<500>)))
            .collect()
    };
    let response = Failover::new(hops(4)).oneshot(ask()).await.unwrap();
    assert_eq!(response.status(), 500);
    assert_eq!(answered(&response), (String::from("d"), 4));
    assert_eq!(log.taken().len(), 4);

    let failover = Failover::new(hops(4)).max_hops(2);
    let response = failover.oneshot(ask()).await.unwrap();
    assert_eq!(answered(&response), (String::from("b"), 2));
    assert_eq!(log.taken().len(), 2);
}

#[tokio::test]
async fn only_eligible_hops_are_asked() {
    let log = Log::default();
    #[derive(Clone)]
    struct Model(&'static str);
    let failover = Failover::new(vec![
        Hop::new("a", log.client("a", status::<200>)),
        Hop::new("b", log.client("b", status::<200>)),
    ])
    .eligible(|parts, hop| parts.extensions.get::<Model>().is_some_and(|m| m.0 == hop));
    let mut request = ask();
    request.extensions_mut().insert(Model("b"));
    let response = failover.clone().oneshot(request).await.unwrap();
    assert_eq!(answered(&response), (String::from("b"), 1));

    let response = failover.oneshot(ask()).await.unwrap();
    assert_eq!(response.status(), 503);
    let refusal = response.extensions().get::<Refusal>().unwrap();
    assert_eq!((refusal.by, refusal.code), ("failover", "no_provider"));
    assert!(response.extensions().get::<Answered>().is_none());
    assert_eq!(log.taken(), ["b:prompt"]);
}

#[tokio::test]
async fn the_last_error_comes_through() {
    let log = Log::default();
    let failover = Failover::new(vec![
        Hop::new("a", log.client("a", status::<500>)),
        Hop::new("b", log.client("b", broken)),
    ]);
    let error = failover.oneshot(ask()).await.unwrap_err();
    assert_eq!(error.to_string(), "connection refused");
}

#[tokio::test]
async fn b16_when_all_refuse_the_one_that_ends_first_answers() {
    let clock = TestClock::new();
    let log = Log::default();
    let hop = |name: &'static str, open: Option<u64>, answer: fn() -> Answer| {
        let breaker = Breaker::new(name, Config::llm().jitter(0.0), clock.clock()).unwrap();
        if let Some(seconds) = open {
            breaker.throttle(secs(seconds));
        }
        let client = log.client(name, answer);
        Hop::new(name, BreakerLayer::new(breaker).layer(client))
    };
    let failover = Failover::new(vec![
        hop("a", Some(50), status::<200>),
        hop("b", Some(20), status::<200>),
        hop("c", Some(90), status::<200>),
    ]);
    let response = failover.oneshot(ask()).await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "20");
    assert_eq!(answered(&response).0, "b");
    assert!(log.taken().is_empty(), "no provider was asked");

    // A hop that refuses was not asked, so it does not use up the hops.
    let failover = Failover::new(vec![
        hop("a", Some(50), status::<200>),
        hop("b", Some(20), status::<200>),
        hop("c", None, status::<200>),
    ]);
    let response = failover.max_hops(1).oneshot(ask()).await.unwrap();
    assert_eq!(answered(&response), (String::from("c"), 3));
    assert_eq!(log.taken(), ["c:prompt"]);

    // What a provider said tells more than that another was not asked.
    let failover = Failover::new(vec![
        hop("a", None, status::<529>),
        hop("b", Some(20), status::<200>),
    ]);
    let response = failover.oneshot(ask()).await.unwrap();
    assert_eq!(response.status(), 529);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_ends_the_walk() {
    let hanging = || {
        BoxCloneSyncService::new(service_fn(async |_: Request<Bytes>| {
            std::future::pending::<Answer>().await
        }))
    };
    let failover = Failover::new(vec![Hop::new("a", hanging())]).deadline(secs(5));
    let response = failover.oneshot(ask()).await.unwrap();
    assert_eq!(response.status(), 504);
    let refusal = response.extensions().get::<Refusal>().unwrap();
    assert_eq!(
        (refusal.by, refusal.code),
        ("failover", "deadline_exceeded")
    );

    let log = Log::default();
    let failover = Failover::new(vec![
        Hop::new("a", log.client("a", status::<500>)),
        Hop::new("b", hanging()),
    ])
    .deadline(secs(5));
    let response = failover.oneshot(ask()).await.unwrap();
    assert_eq!(answered(&response), (String::from("a"), 1));
}

#[tokio::test]
async fn a_stream_that_breaks_is_not_asked_for_again() {
    use spark_core::testing::TestBody;
    let calls = Arc::new(AtomicUsize::new(0));
    let client = {
        let calls = Arc::clone(&calls);
        service_fn(move |_: Request<Bytes>| {
            calls.fetch_add(1, Ordering::SeqCst);
            async {
                let body = TestBody::frames(["half"]).with_error();
                Ok::<_, std::io::Error>(Response::new(body))
            }
        })
    };
    let hops = vec![Hop::new("a", client.clone()), Hop::new("b", client)];
    let response = Failover::new(hops).oneshot(ask()).await.unwrap();
    assert!(response.into_body().collect().await.is_err());
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn dropped_half_way_it_leaves_nothing_behind() {
    let breaker = Breaker::new("a", Config::llm(), Clock::system()).unwrap();
    let probe = Probe::new();
    probe.behave(Behaviour::Hang);
    let hop = Hop::new("a", BreakerLayer::new(breaker.clone()).layer(probe.clone()));
    let call = Failover::new(vec![hop]).oneshot(ask());
    assert!(
        tokio::time::timeout(Duration::from_millis(10), call)
            .await
            .is_err()
    );
    assert_eq!(probe.in_flight(), 0);
    assert_eq!(breaker.snapshot().in_flight, 0);
}

fn retry(share: f64, reserve: u32) -> RetryLayer {
    RetryLayer::new(RetryBudget::new(share, reserve).unwrap())
}

#[tokio::test(start_paused = true)]
async fn one_more_attempt_where_it_may_help() {
    let log = Log::default();
    let helped: [fn() -> Answer; 4] = [broken, status::<500>, status::<502>, status::<504>];
    for answer in helped {
        let service = retry(0.1, 10).layer(log.client("a", answer));
        let _ = service.oneshot(ask()).await;
        assert_eq!(log.taken(), ["a:prompt", "a:prompt"]);
    }
    let asked_to_wait = || {
        status::<503>().map(|mut response| {
            let wait = http::HeaderValue::from_static("5");
            response.headers_mut().insert("retry-after", wait);
            response
        })
    };
    let not: [fn() -> Answer; 5] = [
        status::<200>,
        status::<400>,
        status::<429>,
        status::<501>,
        asked_to_wait,
    ];
    for answer in not {
        let service = retry(0.1, 10).layer(log.client("a", answer));
        let _ = service.oneshot(ask()).await;
        assert_eq!(log.taken(), ["a:prompt"]);
    }
}

/// The probe panics when it is called without having been ready.
#[tokio::test(start_paused = true)]
async fn each_attempt_and_each_hop_is_made_ready_first() {
    fn is_a_good_service<T: Clone + std::fmt::Debug + Send + Sync + 'static>(_: &T) {}
    let probe = Probe::new();
    probe.behave(Behaviour::Fail);
    let service = retry(0.1, 10).layer(probe.clone());
    is_a_good_service(&service);
    let failover = Failover::new(vec![Hop::new("a", service.clone()), Hop::new("b", service)]);
    is_a_good_service(&failover);
    let _: ProbeError = failover.clone().oneshot(ask()).await.unwrap_err();
    assert_eq!((probe.calls(), probe.in_flight()), (4, 0));

    // A hop that is not ready is waited for, and woken by.
    probe.behave(Behaviour::Answer);
    probe.set_busy(true);
    let waiting = tokio::spawn(failover.oneshot(ask()));
    tokio::time::sleep(secs(1)).await;
    assert!(!waiting.is_finished());
    probe.set_busy(false);
    assert_eq!(waiting.await.unwrap().unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn b14_the_budget_bounds_the_attempts() {
    let log = Log::default();
    let service = retry(0.1, 5).layer(log.client("a", status::<500>));
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
    assert!(response.extensions().get::<Refusal>().is_none());
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
    let response = service.oneshot(ask()).await.unwrap();
    assert_eq!(response.status(), 503);
    assert!(log.taken().is_empty());
}
