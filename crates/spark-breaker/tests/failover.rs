//! From provider to provider, and twice to the same.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use common::{
    Answer, Log, answered, ask, broken, hanging, millis, now, post, secs, status, streaming, text,
    wait,
};
use http::{Request, Response};
use http_body_util::BodyExt;
use spark_breaker::{
    Answered, Breaker, BreakerLayer, Bulkhead, BulkheadLayer, Config, Deadline, Failover, Hop,
    Mode, Order, RetryBudget, RetryLayer, TimeoutLayer, Timeouts,
};
use spark_core::testing::{Behaviour, Probe, ProbeError, TestBody, TestClock};
use spark_core::{Clock, Refusal, Shape};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};

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
    let answers: [fn() -> Answer; 4] = [status::<200>, status::<400>, status::<404>, status::<422>];
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
async fn an_error_comes_through_where_no_provider_answered() {
    let log = Log::default();
    let failover = Failover::new(vec![
        Hop::new("a", log.client("a", status::<401>)),
        Hop::new("b", log.client("b", broken)),
    ]);
    let error = failover.oneshot(ask()).await.unwrap_err();
    assert_eq!(error.to_string(), "connection refused");
}

#[tokio::test(start_paused = true)]
async fn neither_an_error_nor_a_timeout_hides_what_a_provider_answered() {
    let log = Log::default();
    for after in [log.client("b", broken), hanging()] {
        let hop = |name, client| Hop::new(name, TimeoutLayer::new(Timeouts::llm()).layer(client));
        let failover = Failover::new(vec![
            hop("a", log.client("a", wait::<429, 5>)),
            hop("b", after),
        ]);
        let response = failover.oneshot(ask()).await.unwrap();
        assert_eq!(answered(&response).0, "a");
        assert_eq!(
            (
                response.status().as_u16(),
                &response.headers()["retry-after"]
            ),
            (429, &"5".parse().unwrap())
        );
        assert_eq!(text(response).await, "body");
    }
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

#[tokio::test]
async fn our_own_credential_is_our_own_affair() {
    let log = Log::default();
    let refused: [fn() -> Answer; 3] = [status::<401>, status::<402>, status::<403>];
    for refused in refused {
        let hops = |last: fn() -> Answer| {
            vec![
                Hop::new("a", log.client("a", refused)),
                Hop::new("b", log.client("b", last)),
            ]
        };
        let response = Failover::new(hops(status::<200>)).oneshot(ask()).await;
        assert_eq!(answered(&response.unwrap()), (String::from("b"), 2));

        // Nobody else can answer: it is not the caller's 401.
        let response = Failover::new(hops(refused)).oneshot(ask()).await.unwrap();
        assert_eq!(response.status(), 502);
        assert_eq!(answered(&response), (String::from("b"), 2));
        let refusal = response.extensions().get::<Refusal>().unwrap();
        let named = (refusal.by, refusal.code);
        assert_eq!(named, ("failover", "provider_credential"));
        assert!(text(response).await.starts_with(r#"{"type""#));

        // Whatever else was said tells the caller more.
        let response = Failover::new(hops(status::<500>)).oneshot(ask()).await;
        assert_eq!(response.unwrap().status(), 500);
        let mut hops = hops(status::<500>);
        hops.reverse();
        let response = Failover::new(hops).oneshot(ask()).await;
        assert_eq!(response.unwrap().status(), 500);
        log.taken();
    }
}

/// Nobody but the breaker is told what a provider says of our credential.
#[tokio::test]
async fn a_credential_that_is_out_of_credit_is_so_for_its_breaker_too() {
    let log = Log::default();
    let used_up = || {
        let body = r#"{"error":{"type":"billing_error"}}"#;
        status::<402>().map(|response| response.map(|_| body.into()))
    };
    let breaker = |name| Breaker::new(name, Config::llm(), Clock::system()).unwrap();
    for last in [status::<200>, status::<500>, used_up] {
        let breakers = [breaker("a"), breaker("b")];
        let layers = breakers.clone().map(BreakerLayer::new);
        let [a, b] = [used_up, last].map(|answer| log.client("ab", answer));
        let hops = vec![
            Hop::new("a", layers[0].layer(a)),
            Hop::new("b", layers[1].layer(b)),
        ];
        let response = Failover::new(hops).oneshot(ask()).await.unwrap();
        assert!(!text(response).await.contains("billing"));
        let exhausted = breakers.map(|breaker| breaker.snapshot().exhausted);
        assert_eq!(
            exhausted,
            [true, std::ptr::fn_addr_eq(last, used_up as fn() -> Answer)]
        );
    }
}

#[tokio::test]
async fn a_callers_credential_is_answered_for_to_the_caller() {
    let log = Log::default();
    let failover = Failover::new(vec![
        Hop::new("a", log.client("a", status::<401>)),
        Hop::new("b", log.client("b", status::<200>)),
    ]);
    let response = failover.callers_keys(true).oneshot(ask()).await.unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!(text(response).await, "body");
    assert_eq!(log.taken(), ["a:prompt"]);
}

/// 1,000 requests, three providers that are dead, two attempts at each: without a bound, 6,000 calls.
#[tokio::test(start_paused = true)]
async fn b14_one_budget_bounds_hops_and_attempts_together() {
    let log = Log::default();
    let budget = RetryBudget::new(0.1, 20).unwrap();
    let hop = |name: &'static str, answer: fn() -> Answer| {
        let retry = RetryLayer::new(budget.clone()).attempts(3);
        Hop::new(name, retry.layer(log.client(name, answer)))
    };
    let hops = vec![
        hop("a", status::<500>),
        hop("b", broken),
        hop("c", status::<503>),
    ];
    let failover = Failover::new(hops).budget(budget.clone());
    for _ in 0..1_000 {
        let _ = failover.clone().oneshot(ask()).await;
    }
    let calls = log.taken().len();
    assert!((1_100..=1_120).contains(&calls), "{calls}");
}

/// The same with a budget for each provider: each gets its requests and a share of them.
#[tokio::test(start_paused = true)]
async fn b14_budgets_of_their_own_bound_the_attempts_at_each() {
    let log = Log::default();
    let hop =
        |name: &'static str| Hop::new(name, retry(0.1, 20).layer(log.client(name, status::<500>)));
    let failover = Failover::new(vec![hop("a"), hop("b"), hop("c")]).max_hops(2);
    for _ in 0..1_000 {
        failover.clone().oneshot(ask()).await.unwrap();
    }
    let asked = log.taken();
    for (name, least, most) in [("a", 1_100, 1_120), ("b", 1_100, 1_120), ("c", 0, 0)] {
        let calls = asked.iter().filter(|line| line.starts_with(name)).count();
        assert!((least..=most).contains(&calls), "{name}: {calls}");
    }
}

/// A refusal costs nothing, so the hop that answers for a dead one is always asked.
#[tokio::test]
async fn hops_that_refuse_take_nothing_out_of_the_budget() {
    let log = Log::default();
    let open = || {
        let breaker = Breaker::new("open", Config::llm(), Clock::system()).unwrap();
        breaker.set_mode(Mode::ForcedOpen);
        breaker
    };
    let closed = Breaker::new("closed", Config::llm(), Clock::system()).unwrap();
    let hop = |name: &'static str, breaker, answer: fn() -> Answer| {
        Hop::new(
            name,
            BreakerLayer::new(breaker).layer(log.client(name, answer)),
        )
    };
    let budget = RetryBudget::new(0.0, 1).unwrap();
    let failover = Failover::new(vec![
        hop("a", open(), status::<200>),
        hop("b", closed.clone(), status::<500>),
        hop("c", open(), status::<200>),
        hop("d", closed, status::<200>),
    ]);
    let failover = failover.budget(budget.clone());
    let response = failover.oneshot(ask()).await.unwrap();
    assert_eq!(answered(&response), (String::from("d"), 4));
    assert!(!budget.withdraw(), "the second that was asked took it");
}

#[tokio::test]
async fn what_may_not_be_done_twice_moves_on_only_where_nothing_was_done() {
    let log = Log::default();
    let walk = async |answer: fn() -> Answer| {
        let failover = Failover::new(vec![
            Hop::new("a", log.client("a", answer)),
            Hop::new("b", log.client("b", status::<200>)),
        ]);
        let _ = failover
            .repeat(|request| request.method.is_idempotent())
            .oneshot(post())
            .await;
        log.taken().len()
    };
    for answer in [broken, status::<500>, status::<408>, status::<504>] as [fn() -> Answer; 4] {
        assert_eq!(walk(answer).await, 1);
    }
    for answer in [status::<429>, status::<401>] as [fn() -> Answer; 2] {
        assert_eq!(walk(answer).await, 2);
    }
}

/// What the first hop answered is read before the second is asked.
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_kept_holds_no_place_while_the_next_is_asked() {
    for first in [millis(100), secs(3_600)] {
        let bulkhead = Bulkhead::new("a", 1).unwrap();
        let busy = streaming(vec![(first, Ok("busy"))]).map_response(|mut response| {
            *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
            response
        });
        let busy = BulkheadLayer::new(bulkhead.clone()).layer(busy);
        let hangs = service_fn(|_: Request<Bytes>| std::future::pending());
        let hangs = BulkheadLayer::new(Bulkhead::new("b", 1).unwrap()).layer(hangs);
        let failover = Failover::new(vec![
            Hop::new("a", tower::util::BoxCloneSyncService::new(busy)),
            Hop::new("b", tower::util::BoxCloneSyncService::new(hangs)),
        ]);
        let call = tokio::spawn(failover.deadline(secs(60)).oneshot(ask()));
        tokio::time::sleep(secs(1)).await;
        assert_eq!(bulkhead.in_flight(), 0);
        let start = now();
        let response = call.await.unwrap().unwrap();
        assert_eq!(now() - start, secs(59));
        assert_eq!(response.status(), 503);
        assert_eq!(answered(&response), (String::from("a"), 1));
        assert!(response.extensions().get::<Refusal>().is_none());
        let told = text(response).await;
        assert_eq!(told == "busy", first < secs(1), "{told}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_answer_is_handed_on_as_it_comes() {
    let busy = streaming(vec![(secs(9), Ok("late"))]).map_response(|mut response| {
        *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
        response
    });
    let start = now();
    let response = Failover::new(vec![Hop::new("a", busy)])
        .oneshot(ask())
        .await;
    assert_eq!(now(), start);
    assert_eq!(text(response.unwrap()).await, "late");
}

type Frames = Vec<(Duration, Result<&'static str, &'static str>)>;

/// Two providers that stream, behind their time limits; how many were asked, and what came.
async fn streamed(until_first_byte: bool, first: Frames) -> (usize, Result<String, String>) {
    let hop = |name: &'static str, frames: Frames| {
        let breaker = Breaker::new(name, Config::llm(), Clock::system()).unwrap();
        let service = ServiceBuilder::new()
            .layer(BreakerLayer::new(breaker))
            .layer(TimeoutLayer::new(Timeouts::llm()))
            .service(streaming(frames));
        Hop::new(name, service)
    };
    let second = vec![(secs(1), Ok("data: second\n\n"))];
    let failover = Failover::new(vec![hop("a", first), hop("b", second)]);
    let failover = failover.until_first_byte(until_first_byte).max_hops(2);
    let response = failover.oneshot(ask()).await.unwrap();
    let hops = answered(&response).1;
    let body = response.into_body().collect().await;
    let body = body.map(|body| String::from_utf8(body.to_bytes().to_vec()).unwrap());
    (hops, body.map_err(|error| error.to_string()))
}

#[tokio::test(start_paused = true)]
async fn until_the_first_byte_the_next_hop_may_answer() {
    let ping = ": ping\n\n";
    let fail: [Frames; 5] = [
        vec![(secs(1), Err("reset"))],
        vec![(secs(40), Ok("data: late\n\n"))],
        vec![(secs(1), Ok(ping)), (secs(1), Err("reset"))],
        vec![(secs(1), Ok(ping))],
        vec![(secs(1), Ok("event: error\ndata: {}\n\n"))],
    ];
    for frames in fail {
        let second = Ok(String::from("data: second\n\n"));
        assert_eq!(streamed(true, frames.clone()).await, (2, second));
        // Otherwise the head is the choice, as it is told.
        assert_eq!(streamed(false, frames).await.0, 1);
    }
}

/// As it does with a `content-length` of zero.
#[tokio::test]
async fn a_stream_that_is_known_to_be_empty_has_no_first_byte_but_a_plain_body_may_be_empty() {
    for (kind, status) in [("text/event-stream", 502), ("text/plain", 200)] {
        let empty = service_fn(move |_: Request<Bytes>| async move {
            let response = Response::builder().header("content-type", kind);
            Ok::<_, std::io::Error>(response.body(TestBody::default()).unwrap())
        });
        let failover = Failover::new(vec![Hop::new("a", empty)]).until_first_byte(true);
        let response = failover.clone().oneshot(ask()).await.unwrap();
        assert_eq!(response.status(), status);
        let mut head = ask();
        *head.method_mut() = http::Method::HEAD;
        assert_eq!(failover.oneshot(head).await.unwrap().status(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn b14_after_the_first_byte_there_is_no_other_hop() {
    let frames: Frames = vec![
        (secs(1), Ok(": ping\n\n")),
        (secs(1), Ok("data: fir")),
        (secs(1), Ok("st\n\n")),
    ];
    let whole = String::from(": ping\n\ndata: first\n\n");
    assert_eq!(streamed(true, frames.clone()).await, (1, Ok(whole)));
    for (wait, last) in [(secs(1), Err("reset")), (secs(60), Ok("data: x\n\n"))] {
        let mut frames = frames.clone();
        frames.push((wait, last));
        let (hops, body) = streamed(true, frames).await;
        assert_eq!(hops, 1);
        assert!(body.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn when_no_stream_begins_the_caller_is_told_so_in_the_head() {
    let failover = |frames: Frames| {
        let service = TimeoutLayer::new(Timeouts::llm()).layer(streaming(frames));
        Failover::new(vec![Hop::new("a", service)]).until_first_byte(true)
    };
    let broken = failover(vec![(secs(1), Err("reset"))]);
    let response = broken.oneshot(ask()).await.unwrap();
    assert_eq!(response.status(), 502);
    let refusal = response.extensions().get::<Refusal>().unwrap();
    assert_eq!((refusal.by, refusal.code), ("failover", "no_first_byte"));

    let late = failover(vec![(secs(99), Ok("data: x\n\n"))]);
    let response = late.clone().oneshot(ask()).await.unwrap();
    assert_eq!(response.status(), 504);
    let refusal = response.extensions().get::<Refusal>().unwrap();
    assert_eq!((refusal.by, refusal.code), ("timeout", "upstream_timeout"));

    let start = now();
    let response = late.deadline(secs(7)).oneshot(ask()).await.unwrap();
    assert_eq!((response.status().as_u16(), now() - start), (504, secs(7)));
    let refusal = response.extensions().get::<Refusal>().unwrap();
    assert_eq!(refusal.code, "deadline_exceeded");
}

#[tokio::test(start_paused = true)]
async fn the_deadline_that_came_with_the_request_counts_when_it_is_earlier() {
    for (ours, theirs, expected) in [(9, Some(4), 4), (4, Some(9), 4), (6, None, 6)] {
        let failover = Failover::new(vec![Hop::new("a", hanging())]).deadline(secs(ours));
        let mut request = ask();
        if let Some(theirs) = theirs {
            let deadline = Deadline::after(secs(theirs));
            request.extensions_mut().insert(deadline);
        }
        let start = now();
        let response = failover.oneshot(request).await.unwrap();
        assert_eq!(response.status(), 504);
        assert_eq!(now() - start, secs(expected));
    }
}

/// The hops know until when an answer is of use.
#[tokio::test(start_paused = true)]
async fn no_attempt_and_no_hop_begins_after_the_deadline() {
    let log = Log::default();
    let service = retry(1.0, 10).layer(log.client("a", wait::<503, 2>));
    let hops = vec![Hop::new("a", service.clone()), Hop::new("b", service)];
    let failover = Failover::new(hops).deadline(secs(2));
    let start = now();
    failover.oneshot(ask()).await.unwrap();
    assert_eq!(log.taken(), ["a:prompt", "a:prompt"], "each hop, once");
    assert_eq!(now(), start);
}

#[tokio::test]
async fn weights_spread_the_first_hop_and_the_rest_follow() {
    let log = Log::default();
    let failover = |seed| {
        let hop = |name: &'static str, weight| {
            Hop::new(name, log.client(name, status::<500>)).weight(weight)
        };
        Failover::new(vec![hop("a", 1), hop("b", 3), hop("spare", 0)])
            .order(Order::Weighted)
            .seed(seed)
    };
    let walks = async |seed| {
        let failover = failover(seed);
        let mut walks = Vec::new();
        for _ in 0..1_000 {
            failover.clone().oneshot(ask()).await.unwrap();
            walks.push(log.taken());
        }
        walks
    };
    let seen = walks(1).await;
    let first_b = seen.iter().filter(|walk| walk[0] == "b:prompt").count();
    assert!((700..=800).contains(&first_b), "{first_b}");
    for walk in &seen {
        assert_eq!((walk.len(), &*walk[2]), (3, "spare:prompt"), "{walk:?}");
        assert_ne!(walk[0], walk[1], "no hop twice");
    }
    assert_eq!(walks(1).await, seen);
    assert_ne!(walks(2).await, seen);
}

/// A failover is a hop of another: what it cannot answer, the next hop does.
#[tokio::test]
async fn one_inside_of_another_counts_as_one_hop() {
    let log = Log::default();
    let inner = |names: [&'static str; 2], answer: fn() -> Answer| {
        let hops = names.map(|name| Hop::new(name, log.client(name, answer)));
        Failover::new(hops.into())
    };
    let none = inner(["x", "y"], status::<200>).eligible(|_, _| false);
    let outer = Failover::new(vec![
        Hop::new("first", none),
        Hop::new("second", inner(["a", "b"], status::<500>)),
        Hop::new("third", inner(["c", "d"], status::<200>)),
    ]);
    let response = outer.max_hops(2).oneshot(ask()).await.unwrap();
    assert_eq!(answered(&response), (String::from("third"), 3));
    assert_eq!(log.taken(), ["a:prompt", "b:prompt", "c:prompt"]);
}

/// From the request's context to the half-open breaker, through all that stands between.
#[tokio::test(start_paused = true)]
async fn a_background_call_is_the_probe_whatever_stands_around_the_breaker() {
    let clock = TestClock::new();
    clock.advance(secs(1_000));
    let rules = Config::llm().jitter(0.0).background_grace(secs(60));
    let breaker = Breaker::new("b", rules.consecutive(1), clock.clock()).unwrap();
    let log = Log::default();
    let guarded = BreakerLayer::new(breaker.clone()).layer(log.client("b", status::<200>));
    let dead = Breaker::new("a", Config::llm(), clock.clock()).unwrap();
    let dead = BreakerLayer::new(dead).layer(log.client("a", status::<500>));
    let failover = Failover::new(vec![
        Hop::new("a", retry(1.0, 10).layer(dead)),
        Hop::new("b", retry(1.0, 10).layer(guarded)),
    ]);
    breaker
        .try_acquire()
        .unwrap()
        .failure(spark_breaker::FailKind::Transport);
    clock.advance(secs(11));
    let response = failover.clone().oneshot(ask()).await.unwrap();
    assert_eq!(
        response.status(),
        500,
        "the first probe is kept for a while"
    );
    let mut refresh = ask();
    let context = spark_core::Context::new(clock.clock().now()).with_background(true);
    refresh.extensions_mut().insert(context);
    let response = failover.oneshot(refresh).await.unwrap();
    assert_eq!(answered(&response), (String::from("b"), 2));
}

#[tokio::test(start_paused = true)]
async fn cancelled_at_every_await_point_it_leaves_nothing_behind() {
    let bulkhead = Bulkhead::new("a", 9).unwrap();
    let breaker = Breaker::new("a", Config::llm().consecutive(99), Clock::system()).unwrap();
    let hop = |name: &'static str, status: u16| {
        let client = streaming(vec![
            (millis(200), Ok(": ping\n\n")),
            (millis(200), Err("reset")),
        ]);
        let service = ServiceBuilder::new()
            .layer(retry(1.0, 100))
            .layer(BreakerLayer::new(breaker.clone()))
            .layer(BulkheadLayer::new(bulkhead.clone()))
            .service(client.map_response(move |mut response| {
                *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
                response
            }));
        Hop::new(name, service)
    };
    let failover = Failover::new(vec![hop("a", 503), hop("b", 200), hop("c", 503)]);
    let failover = failover.until_first_byte(true);
    let mut finished = 0;
    for after in 0..300 {
        let call = failover.clone().oneshot(ask());
        let cut = tokio::time::timeout(millis(10 * after), call).await;
        finished += usize::from(cut.is_ok());
        drop(cut);
        assert_eq!(bulkhead.in_flight(), 0, "after {after}");
        assert_eq!(breaker.snapshot().in_flight, 0, "after {after}");
    }
    assert!((1..299).contains(&finished), "{finished}");
}

#[tokio::test]
async fn what_it_answers_itself_is_in_the_shape_of_the_request() {
    let log = Log::default();
    let failover = Failover::new(vec![Hop::new("a", log.client("a", status::<401>))]);
    let mut request = ask();
    let context = spark_core::Context::new(Clock::system().now()).with_shape(Shape::OPENAI);
    request.extensions_mut().insert(context);
    let response = failover.oneshot(request).await.unwrap();
    assert!(text(response).await.starts_with(r#"{"error""#));
}

#[tokio::test(start_paused = true)]
async fn at_the_deadline_what_was_answered_is_given_back_and_nobody_else_is_asked() {
    let asked = Arc::new(AtomicUsize::new(0));
    // A head that comes with the deadline, and a body that is being read when it passes.
    for (head, body) in [(secs(5), Duration::ZERO), (secs(4), secs(60))] {
        let hop = |name: &'static str| {
            let asked = Arc::clone(&asked);
            let client = service_fn(move |_: Request<Bytes>| {
                asked.fetch_add(1, Ordering::SeqCst);
                async move {
                    tokio::time::sleep(head).await;
                    let mut response = Response::new(common::paced(vec![(body, Ok("busy"))]));
                    *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
                    Ok::<_, std::io::Error>(response)
                }
            });
            Hop::new(name, client)
        };
        let deadline = secs(5).min(head + millis(100));
        let failover = Failover::new(vec![hop("a"), hop("b")]).deadline(deadline);
        let start = now();
        let response = failover.oneshot(ask()).await.unwrap();
        assert_eq!(now() - start, deadline);
        assert_eq!(response.status(), 503);
        assert_eq!(answered(&response), (String::from("a"), 1));
        assert_eq!(asked.swap(0, Ordering::SeqCst), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_that_comes_with_the_deadline_is_the_end() {
    let log = Log::default();
    let hop = |name: &'static str| {
        let log = log.clone();
        let client = service_fn(move |_: Request<Bytes>| {
            log.write(name.into());
            async {
                tokio::time::sleep(secs(5)).await;
                broken()
            }
        });
        Hop::new(name, client)
    };
    let failover = Failover::new(vec![hop("a"), hop("b")]).deadline(secs(5));
    failover.oneshot(ask()).await.unwrap_err();
    assert_eq!(log.taken(), ["a"]);
}
