//! When no provider is fit to be asked.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{Answer, Log, answered, ask, millis, now, secs, status, text, wait};
use http::{Request, Response};
use http_body_util::Full;
use spark_breaker::{Failover, Hop, LastResort, RetryBudget};
use spark_core::{Clock, Problem, Refusal, ResponseBody, Shape};
use tower::util::BoxCloneSyncService;
use tower::{ServiceExt, service_fn};

type Client =
    BoxCloneSyncService<Request<Bytes>, Response<ResponseBody<Full<Bytes>>>, std::io::Error>;

/// A provider whose breaker is open for so long from now, by tokio's clock, and which then answers.
fn opening(log: &Log, name: &'static str, open: Duration, then: fn() -> Answer) -> Hop<Client> {
    let until = now() + open;
    let log = log.clone();
    let client = service_fn(move |_: Request<Bytes>| {
        let left = until.saturating_duration_since(now());
        let answer = if left.is_zero() {
            log.write(name.into());
            then().map(|response| response.map(ResponseBody::inner))
        } else {
            let problem = Problem::new(
                http::StatusCode::SERVICE_UNAVAILABLE,
                "breaker",
                "breaker_open",
            );
            Ok(problem.retry_after(left).into_response(Shape::PROBLEM))
        };
        async move { answer }
    });
    Hop::new(name, BoxCloneSyncService::new(client))
}

fn three(log: &Log) -> Failover<Client> {
    Failover::new(vec![
        opening(log, "a", secs(50), status::<200>),
        opening(log, "b", secs(3), status::<200>),
        opening(log, "c", secs(90), status::<200>),
    ])
}

#[tokio::test(start_paused = true)]
async fn b16_the_earliest_is_waited_for() {
    let log = Log::default();
    let failover = three(&log).last_resort(LastResort::wait_for_earliest(secs(5), 9));
    let start = now();
    let response = failover.oneshot(ask()).await.unwrap();
    assert_eq!(answered(&response), (String::from("b"), 4));
    assert_eq!(response.status(), 200);
    assert_eq!(log.taken(), ["b"]);
    let took = now() - start;
    assert!((secs(3)..=millis(3_602)).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn b16_it_is_refused_at_once_with_the_least_retry_after_when_waiting_is_of_no_use() {
    let log = Log::default();
    let wait = LastResort::wait_for_earliest;
    let mut background = ask();
    let context = spark_core::Context::new(Clock::system().now()).with_background(true);
    background.extensions_mut().insert(context);
    for (failover, request) in [
        (three(&log), ask()),
        (three(&log).last_resort(wait(secs(2), 9)), ask()),
        (three(&log).last_resort(wait(secs(5), 0)), ask()),
        (three(&log).last_resort(wait(secs(5), 9)), background),
        // It would come back when nobody waits for it any more.
        (
            three(&log).last_resort(wait(secs(5), 9)).deadline(secs(3)),
            ask(),
        ),
    ] {
        let start = now();
        let response = failover.oneshot(request).await.unwrap();
        assert_eq!(now(), start);
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["retry-after"], "3");
        assert_eq!(answered(&response).0, "b");
        assert!(log.taken().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn b16_no_wait_outlasts_the_deadline() {
    let log = Log::default();
    for deadline in (100..6_000).step_by(100).map(millis) {
        let wait = LastResort::wait_for_earliest(secs(9), 9);
        let failover = three(&log).last_resort(wait).deadline(deadline);
        let start = now();
        let response = failover.oneshot(ask()).await.unwrap();
        assert!(now() - start <= deadline);
        let in_time = response.status() == 200;
        assert_eq!(
            in_time,
            now() > start,
            "it waits only when it can be in time"
        );
        assert!(in_time || deadline <= millis(3_602));
    }
}

#[tokio::test(start_paused = true)]
async fn b16_not_more_wait_than_may_and_they_do_not_return_as_one() {
    let log = Log::default();
    let failover = three(&log).last_resort(LastResort::wait_for_earliest(secs(5), 10));
    let start = now();
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let call = failover.clone().oneshot(ask());
            tokio::spawn(async { (call.await.unwrap().status().as_u16(), now()) })
        })
        .collect();
    let mut returned = Vec::new();
    let mut refused = 0;
    for call in calls {
        let (status, at) = call.await.unwrap();
        match status {
            200 => returned.push(at),
            _ => {
                assert_eq!((status, at), (503, start), "at once");
                refused += 1;
            }
        }
    }
    assert_eq!((returned.len(), refused), (10, 40));
    returned.sort();
    returned.dedup();
    assert!(returned.len() > 5, "{returned:?}");
    // The room is empty again, also after those who left.
    let hops = three(&log).last_resort(LastResort::wait_for_earliest(secs(5), 1));
    for _ in 0..3 {
        let call = hops.clone().oneshot(ask());
        assert!(tokio::time::timeout(millis(10), call).await.is_err());
    }
    assert_eq!(hops.oneshot(ask()).await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn b16_it_is_waited_for_once() {
    let log = Log::default();
    let wait = LastResort::wait_for_earliest(secs(5), 9);
    let hop = |name| opening(&log, name, secs(3), wait_a_second);
    let failover = Failover::new(vec![hop("a"), hop("b")]).last_resort(wait);
    let start = now();
    let response = failover.oneshot(ask()).await.unwrap();
    assert_eq!(response.status(), 429);
    assert_eq!(log.taken(), ["a"]);
    assert!(now() - start < secs(4));
}

fn wait_a_second() -> Answer {
    wait::<429, 1>()
}

/// The wait for a provider that was asked already is one call more, and so has to be allowed.
#[tokio::test(start_paused = true)]
async fn b16_a_provider_that_was_asked_is_asked_again_only_where_that_is_allowed() {
    let log = Log::default();
    let failover = || {
        let hop = |name| Hop::new(name, log.client(name, wait_a_second));
        let wait = LastResort::wait_for_earliest(secs(5), 9);
        Failover::new(vec![hop("a"), hop("b")]).last_resort(wait)
    };
    let asked = async |failover: Failover<common::Client>| {
        failover.oneshot(ask()).await.unwrap();
        log.taken().len()
    };
    assert_eq!(asked(failover()).await, 3);
    assert_eq!(asked(failover().max_hops(2)).await, 2);
    let budget = RetryBudget::new(0.0, 1).unwrap();
    assert_eq!(asked(failover().budget(budget)).await, 2);
}

#[tokio::test]
async fn b16_the_answer_that_is_given_back_has_the_least_retry_after_of_all() {
    let log = Log::default();
    let failover = Failover::new(vec![
        Hop::new("a", log.client("a", wait::<429, 60>)),
        Hop::new("b", log.client("b", wait::<503, 7>)),
        Hop::new("c", log.client("c", wait::<429, 30>)),
    ]);
    let response = failover.oneshot(ask()).await.unwrap();
    assert_eq!(answered(&response).0, "c");
    assert_eq!(response.headers()["retry-after"], "7");
    assert!(response.extensions().get::<Refusal>().is_none());
    assert_eq!(text(response).await, "body");
}

#[tokio::test(start_paused = true)]
async fn used_up_credit_is_not_waited_for() {
    let log = Log::default();
    let exhausted = || {
        let used_up = r#"{"error":{"code":"insufficient_quota"}}"#;
        wait::<429, 1>().map(|response| response.map(|_| used_up.into()))
    };
    let orders: [[fn() -> Answer; 2]; 2] =
        [[wait::<429, 60>, exhausted], [exhausted, wait::<429, 60>]];
    for (order, told) in orders.into_iter().zip(["1", "60"]) {
        let [a, b] = order;
        let hops = vec![
            Hop::new("a", log.client("a", a)),
            Hop::new("b", log.client("b", b)),
        ];
        let wait = LastResort::wait_for_earliest(secs(5), 9);
        let failover = Failover::new(hops).last_resort(wait);
        let response = failover.oneshot(ask()).await.unwrap();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["retry-after"], told, "as it said itself");
        assert_eq!(log.taken(), ["a:prompt", "b:prompt"]);
    }
}

fn used_up() -> Answer {
    let body = r#"{"error":{"code":"insufficient_quota"}}"#;
    wait::<429, 1>().map(|response| response.map(|_| body.into()))
}

#[tokio::test(start_paused = true)]
async fn used_up_credit_does_not_hide_who_can_be_waited_for() {
    let log = Log::default();
    let failover = Failover::new(vec![
        Hop::new("a", log.client("a", wait::<429, 3>)),
        Hop::new("b", log.client("b", used_up)),
    ]);
    let one_seat = LastResort::wait_for_earliest(secs(5), 1);
    failover.last_resort(one_seat).oneshot(ask()).await.unwrap();
    assert_eq!(log.taken(), ["a:prompt", "b:prompt", "a:prompt"]);
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_given_up_costs_nothing() {
    let log = Log::default();
    let budget = RetryBudget::new(0.0, 1).unwrap();
    Failover::new(vec![Hop::new("a", log.client("a", used_up))])
        .budget(budget.clone())
        .last_resort(LastResort::wait_for_earliest(secs(5), 1))
        .oneshot(ask())
        .await
        .unwrap();
    assert_eq!(log.taken(), ["a:prompt"]);
    assert!(budget.withdraw());
}

/// And the last word of each hop counts, not its first.
#[tokio::test(start_paused = true)]
async fn b16_an_answer_that_does_not_say_when_is_told_with_the_least_retry_after_of_all() {
    let log = Log::default();
    for (status, told) in [
        (status::<429> as fn() -> Answer, Some("60")),
        (status::<503>, Some("60")),
        (status::<500>, None),
    ] {
        let failover = Failover::new(vec![
            Hop::new("a", log.client("a", wait::<429, 60>)),
            Hop::new("b", log.client("b", status)),
        ]);
        let response = failover.oneshot(ask()).await.unwrap();
        let after = response.headers().get("retry-after");
        assert_eq!(after.map(|after| after.to_str().unwrap()), told);
    }
    let longer = |calls| {
        if calls == 0 {
            wait::<429, 1>()
        } else {
            wait::<429, 9>()
        }
    };
    let failover = Failover::new(vec![Hop::new("a", log.answering("a", longer))])
        .last_resort(LastResort::wait_for_earliest(secs(5), 1));
    let response = failover.oneshot(ask()).await.unwrap();
    assert_eq!(response.headers()["retry-after"], "9");
}
