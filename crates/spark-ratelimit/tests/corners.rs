//! Corners in which something was wrong once.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::convert::Infallible;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use spark_core::testing::TestClock;
use spark_core::{ClientIp, Context, Instant, UsageReport};
use spark_ratelimit::*;
use tower::{Layer, Service, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn q(n: u64, per: Duration, burst: u64) -> Quota {
    Quota::new(n, per).unwrap().burst(burst).unwrap()
}
fn policy(name: &str, quota: Quota) -> Policy {
    Policy::new(name, quota).unwrap()
}
fn limiter_of(
    clock: &TestClock,
    capacity: usize,
    policies: impl IntoIterator<Item = Policy>,
) -> Limiter {
    let builder = Limiter::builder().clock(clock.clock()).capacity(capacity);
    policies
        .into_iter()
        .fold(builder, LimiterBuilder::policy)
        .build()
        .unwrap()
}
fn remaining(limiter: &Limiter, key: Key, tier: Option<&str>) -> u64 {
    limiter.peek(&key, tier, 0).tightest().remaining
}

// ---- permits

#[test]
fn r10_permits_settled_last_first_lose_no_refund() {
    let clock = TestClock::new();
    let l = limiter_of(&clock, 64, [policy("t", q(10, MINUTE, 10))]);
    let k = Key::of("a");
    let a = l.acquire(&k, None, 5).unwrap();
    let b = l.acquire(&k, None, 5).unwrap();
    b.settle(0);
    a.settle(0);
    assert_eq!(
        remaining(&l, k, None),
        10,
        "nothing was used, no time passed"
    );
}

#[test]
fn r10_all_of_the_refund_arrives_in_any_order() {
    let clock = TestClock::new();
    let l = limiter_of(&clock, 64, [policy("t", q(1_000, MINUTE, 1_000))]);
    let k = Key::of("a");
    let mut seed = 1u64;
    let mut total = 0;
    for _ in 0..100 {
        let mut permits: Vec<Permit> = (0..10).map(|_| l.acquire(&k, None, 100).unwrap()).collect();
        while !permits.is_empty() {
            seed = seed
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            let at = (seed >> 33) as usize % permits.len();
            permits.swap_remove(at).settle(10);
        }
        total += remaining(&l, k, None);
        l.reset(&k);
    }
    assert_eq!(
        total / 100,
        900,
        "ten of 100 estimated, 10 used: mean remaining"
    );
}

#[test]
fn r11_a_forgiven_reservation_is_not_given_back_again() {
    let clock = TestClock::new();
    let l = limiter_of(&clock, 64, [policy("t", q(10, MINUTE, 10))]);
    let k = Key::of("a");
    let permit = l.acquire(&k, None, 4).unwrap();
    l.reset(&k);
    assert!(l.check(&k, None, 10).allowed());
    permit.settle(4); // all that was reserved was used
    assert_eq!(remaining(&l, k, None), 0);
    let permit = {
        l.reset(&k);
        l.acquire(&k, None, 4).unwrap()
    };
    l.reset(&k);
    assert!(l.check(&k, None, 10).allowed());
    permit.settle(0);
    assert_eq!(
        remaining(&l, k, None),
        0,
        "10 of 10 were used since the pardon"
    );
}

#[test]
fn r11_a_forgotten_reservation_is_not_given_back() {
    let clock = TestClock::new();
    let l = limiter_of(&clock, 8, [policy("t", q(10, MINUTE, 10))]);
    let k = Key::of("a");
    let permit = l.acquire(&k, None, 4).unwrap();
    for n in 0..8 {
        assert!(l.check(&Key::of(&n), None, 5).allowed());
    }
    assert_eq!(l.stats()[0].evicted_live, 1);
    // Forgotten: a full burst, of which all is used.
    assert!(l.check(&k, None, 10).allowed());
    permit.settle(0);
    assert!(!l.check(&k, None, 4).allowed(), "14 passed in one instant");
}

#[test]
fn r11_after_a_change_of_tier_to_and_fro_nothing_is_given_back() {
    let clock = TestClock::new();
    let l = limiter_of(
        &clock,
        64,
        [policy("t", q(10, Duration::from_secs(10), 10)).tier("pro", q(100, SECOND, 100))],
    );
    let k = Key::of("a");
    let permit = l.acquire(&k, None, 5).unwrap();
    assert!(l.check(&k, Some("pro"), 1).allowed());
    clock.advance(SECOND);
    assert!(l.check(&k, None, 5).allowed());
    let before = remaining(&l, k, None);
    permit.settle(0);
    assert_eq!(
        remaining(&l, k, None),
        before,
        "docs: after a change of tier nothing is given back"
    );
}

#[test]
fn an_estimate_of_zero_is_settled_by_the_tiers_quota() {
    let clock = TestClock::new();
    let l = limiter_of(
        &clock,
        64,
        [policy("t", q(10, MINUTE, 10)).tier("pro", q(1_000, MINUTE, 1_000))],
    );
    let k = Key::of("a");
    l.acquire(&k, Some("pro"), 0).unwrap().settle(60);
    assert_eq!(remaining(&l, k, Some("pro")), 940);
}

#[test]
fn after_a_reset_what_is_missing_is_charged_by_the_tiers_quota() {
    let clock = TestClock::new();
    let l = limiter_of(
        &clock,
        64,
        [policy("t", q(10, MINUTE, 10)).tier("pro", q(1_000, MINUTE, 1_000))],
    );
    let k = Key::of("a");
    let permit = l.acquire(&k, Some("pro"), 10).unwrap();
    l.reset(&k);
    permit.settle(60);
    assert_eq!(remaining(&l, k, Some("pro")), 950);
}

#[test]
fn after_an_eviction_and_a_reload_too() {
    let clock = TestClock::new();
    let policies = || [policy("t", q(10, MINUTE, 10)).tier("pro", q(1_000, MINUTE, 1_000))];
    let l = limiter_of(&clock, 8, policies());
    let k = Key::of("a");
    let permit = l.acquire(&k, Some("pro"), 10).unwrap();
    for n in 0..8 {
        l.check(&Key::of(&n), None, 5);
    }
    l.reconfigure(policies().to_vec()).unwrap();
    permit.settle(60);
    assert_eq!(remaining(&l, k, Some("pro")), 950);
}

#[test]
fn what_a_penalty_charged_later_stays() {
    let clock = TestClock::new();
    let l = limiter_of(
        &clock,
        64,
        [policy("t", q(10, Duration::from_secs(10), 10))],
    );
    let k = Key::of("a");
    let permit = l.acquire(&k, None, 10).unwrap();
    l.penalize(&k, None, 20);
    permit.settle(0);
    let wait = l.check(&k, None, 10).retry_after().unwrap();
    assert_eq!(
        wait,
        Duration::from_secs(20),
        "the whole penalty of 20 units"
    );
}

// ---- plans, tally

#[test]
fn a_decision_after_two_reloads_names_no_other_policy() {
    let clock = TestClock::new();
    let l = limiter_of(&clock, 64, [policy("a", q(1, MINUTE, 1))]);
    let k = Key::of("a");
    l.check(&k, None, 1);
    let refused = l.check(&k, None, 1);
    for name in ["x", "innocent"] {
        l.reconfigure(vec![policy(name, q(1, MINUTE, 1))]).unwrap();
    }
    assert_eq!(refused.violated().collect::<Vec<_>>(), ["a"]);
}

#[test]
fn a_policy_inherits_no_evictions_with_its_table() {
    let clock = TestClock::new();
    let l = limiter_of(&clock, 8, [policy("a", q(10, MINUTE, 10))]);
    for n in 0..100 {
        l.check(&Key::of(&n), None, 1);
    }
    l.reconfigure(vec![policy("b", q(10, MINUTE, 10))]).unwrap();
    l.reconfigure(vec![policy("c", q(10, MINUTE, 10))]).unwrap();
    assert_eq!(l.stats()[0].evicted_live, 0, "c has forgotten nobody");
}

// ---- shell

fn from_ip(ip: &str) -> Request<()> {
    let mut request = Request::new(());
    let ip = ClientIp::new(ip.parse().unwrap());
    request
        .extensions_mut()
        .insert(Context::new(Instant::default()).with_client_ip(ip));
    request
}

#[tokio::test]
async fn a_budget_without_a_context_outside_is_settled() {
    let clock = TestClock::new();
    let tokens = limiter_of(
        &clock,
        64,
        [policy("tokens", q(1_000, MINUTE, 1_000)).unit(Unit::Tokens)],
    );
    let layer = RateLimitLayer::new(limiter_of(&clock, 64, [policy("r", q(60, MINUTE, 60))]))
        .key(KeyBy::from_fn(|_| Some(Key::of("k"))))
        .budget(tokens.clone());
    let service = layer.layer(service_fn(|r: Request<()>| async move {
        let c = Context::of(r.extensions()).unwrap();
        c.budget().unwrap().reserve(600).unwrap();
        c.usage()
            .record(UsageReport::new("p", "m").with_tokens(10, 10));
        Ok::<_, Infallible>(Response::new(Full::<bytes::Bytes>::from("x")))
    }));
    service
        .oneshot(Request::new(()))
        .await
        .unwrap()
        .into_body()
        .collect()
        .await
        .unwrap();
    assert_eq!(remaining(&tokens, Key::of("k"), None), 980);
}

#[tokio::test]
async fn two_reservations_of_one_request_are_both_given_back() {
    let clock = TestClock::new();
    let tokens = limiter_of(
        &clock,
        64,
        [policy("tokens", q(1_000, MINUTE, 1_000)).unit(Unit::Tokens)],
    );
    let layer = RateLimitLayer::new(limiter_of(&clock, 64, [policy("r", q(60, MINUTE, 60))]))
        .key(KeyBy::from_fn(|_| Some(Key::of("k"))))
        .budget(tokens.clone());
    let service = layer.layer(service_fn(|r: Request<()>| async move {
        let c = Context::of(r.extensions()).unwrap();
        c.budget().unwrap().reserve(600).unwrap();
        c.budget().unwrap().reserve(400).unwrap();
        c.usage()
            .record(UsageReport::new("p", "m").with_tokens(50, 50));
        Ok::<_, Infallible>(Response::new(Full::<bytes::Bytes>::from("x")))
    }));
    service
        .oneshot(from_ip("192.0.2.1"))
        .await
        .unwrap()
        .into_body()
        .collect()
        .await
        .unwrap();
    assert_eq!(remaining(&tokens, Key::of("k"), None), 900);
}

#[tokio::test]
async fn a_second_layer_of_one_limiter_still_limits_concurrency_and_gives_its_budget() {
    let clock = TestClock::new();
    let base = RateLimitLayer::new(limiter_of(&clock, 64, [policy("r", q(60, MINUTE, 60))]));
    let tokens = limiter_of(&clock, 64, [policy("tokens", q(1_000, MINUTE, 1_000))]);
    let streams = ConcurrencyLimiter::new(Concurrency::new("streams", 1).unwrap());
    // One route has more: streams and a budget.
    let route = base.clone().concurrency(streams.clone()).budget(tokens);
    let service = base.layer(route.layer(service_fn(|r: Request<()>| async move {
        let has = Context::of(r.extensions()).unwrap().budget().is_some();
        Ok::<_, Infallible>(Response::new(has.to_string()))
    })));
    let _first = service.clone().oneshot(from_ip("192.0.2.1")).await.unwrap();
    assert_eq!(
        streams.keys(),
        1,
        "its body is still there, so it is under way"
    );
    let second = service.clone().oneshot(from_ip("192.0.2.1")).await.unwrap();
    assert_eq!(second.status(), 429);
}

#[tokio::test]
async fn x_ratelimit_stands_where_the_fields_of_the_draft_stand() {
    let clock = TestClock::new();
    let layer = RateLimitLayer::new(limiter_of(&clock, 64, [policy("r", q(1, MINUTE, 1))]))
        .x_ratelimit()
        .openai_headers();
    let service = layer.layer(service_fn(|_: Request<()>| async {
        Ok::<_, Infallible>(Response::new(String::new()))
    }));
    let ok = service.clone().oneshot(from_ip("192.0.2.1")).await.unwrap();
    assert!(ok.headers().contains_key("x-ratelimit-reset"));
    let refused = service.oneshot(from_ip("192.0.2.1")).await.unwrap();
    assert_eq!(refused.status(), 429);
    assert!(refused.headers().contains_key("ratelimit"));
    assert!(
        refused.headers().contains_key("x-ratelimit-reset"),
        "the 429 has none"
    );
}

#[tokio::test]
async fn a_slot_is_let_go_after_an_error_and_after_the_last_byte() {
    let clock = TestClock::new();
    let streams = ConcurrencyLimiter::new(Concurrency::new("streams", 9).unwrap());
    let layer = RateLimitLayer::new(limiter_of(&clock, 64, [policy("r", q(60, MINUTE, 60))]))
        .concurrency(streams.clone());
    let mut failing = layer.layer(service_fn(|_: Request<()>| async {
        Err::<Response<String>, _>("broken")
    }));
    let mut future = std::pin::pin!(failing.call(from_ip("192.0.2.1")));
    assert!(future.as_mut().await.is_err());
    let after_error = streams.keys();
    let service = layer.layer(service_fn(|_: Request<()>| async {
        Ok::<_, Infallible>(Response::new(Full::<bytes::Bytes>::from("x")))
    }));
    let mut body = service
        .oneshot(from_ip("192.0.2.2"))
        .await
        .unwrap()
        .into_body();
    let _frame = body.frame().await.unwrap().unwrap();
    assert!(body.is_end_stream(), "the last byte has been read");
    assert_eq!(
        (
            after_error,
            streams.in_flight(&Key::network(
                ClientIp::new("192.0.2.2".parse().unwrap()),
                64
            ))
        ),
        (0, 0)
    );
}

#[tokio::test]
async fn debug_of_a_response_shows_no_body() {
    let clock = TestClock::new();
    let layer = RateLimitLayer::new(limiter_of(&clock, 64, [policy("r", q(60, MINUTE, 60))]));
    let service = layer.layer(service_fn(|_: Request<()>| async {
        Ok::<_, Infallible>(Response::new(Full::<bytes::Bytes>::from("a prompt")))
    }));
    let r = service.oneshot(from_ip("192.0.2.2")).await.unwrap();
    assert!(!format!("{r:?}").contains("a prompt"));
}

#[tokio::test]
async fn after_a_settlement_reservations_are_not_free() {
    let clock = TestClock::new();
    let tokens = limiter_of(&clock, 64, [policy("tokens", q(1_000, MINUTE, 1_000))]);
    let layer = RateLimitLayer::new(limiter_of(&clock, 64, [policy("r", q(60, MINUTE, 60))]))
        .key(KeyBy::from_fn(|_| Some(Key::of("k"))))
        .budget(tokens.clone());
    let service = layer.layer(service_fn(|r: Request<()>| async move {
        let b = Context::of(r.extensions())
            .unwrap()
            .budget()
            .unwrap()
            .clone();
        b.settle(0);
        Ok::<_, Infallible>(Response::new(b.reserve(1_000_000_000).is_ok().to_string()))
    }));
    let body = service
        .oneshot(from_ip("192.0.2.1"))
        .await
        .unwrap()
        .into_body()
        .collect()
        .await
        .unwrap()
        .to_bytes();
    assert_eq!(
        body, "false",
        "a thousand million of a budget of a thousand"
    );
}

#[tokio::test]
async fn r19_five_limiters_one_of_them_twice() {
    let clock = TestClock::new();
    let layers: Vec<_> = (0..5)
        .map(|n| {
            RateLimitLayer::new(limiter_of(
                &clock,
                64,
                [policy(&format!("p{n}"), q(60, MINUTE, 60))],
            ))
            .key(KeyBy::from_fn(|_| Some(Key::of("k"))))
        })
        .collect();
    let s =
        service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(String::new())) });
    let s = layers[4].layer(s);
    let s = layers[4].layer(s);
    let s = layers[3].layer(
        layers[2]
            .layer(
                layers[1]
                    .layer(
                        layers[0]
                            .layer(s.map_response(|_| Response::new(String::new())))
                            .map_response(|_| Response::new(String::new())),
                    )
                    .map_response(|_| Response::new(String::new())),
            )
            .map_response(|_| Response::new(String::new())),
    );
    s.oneshot(Request::new(())).await.unwrap();
    assert_eq!(remaining(layers[4].limiter(), Key::of("k"), None), 59);
}

#[cfg(feature = "metrics")]
#[test]
fn the_budgets_table_has_metrics() {
    use metrics_util::debugging::DebuggingRecorder;
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    ::metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            let clock = TestClock::new();
            let tokens = limiter_of(&clock, 8, [policy("tokens", q(1_000, MINUTE, 1_000))]);
            let layer =
                RateLimitLayer::new(limiter_of(&clock, 64, [policy("r", q(60, MINUTE, 60))]))
                    .budget(tokens);
            let s = layer.layer(service_fn(|_: Request<()>| async {
                Ok::<_, Infallible>(Response::new(String::new()))
            }));
            s.oneshot(from_ip("192.0.2.1")).await.unwrap();
        });
    });
    let told = snapshotter
        .snapshot()
        .into_vec()
        .into_iter()
        .any(|(key, ..)| {
            key.key().name() == "spark_ratelimit_table_evicted_live_total"
                && key.key().labels().any(|l| l.value() == "tokens")
        });
    assert!(
        told,
        "a token table that forgets fails open, and nobody hears of it"
    );
}

#[test]
fn r1_never_twice_the_burst_without_an_eviction() {
    let mut broken = 0;
    for salt in 0..200 {
        let clock = TestClock::new();
        let l = limiter_of(
            &clock,
            64,
            [policy("t", q(10, Duration::from_secs(10), 10))],
        );
        for n in 0..36 {
            l.penalize(&Key::of(&(salt, n)), None, 20);
        }
        let k = Key::of(&(salt, "probe"));
        assert!(l.check(&k, None, 1).allowed());
        clock.advance(SECOND * 2);
        let admitted = (0..3).filter(|_| l.check(&k, None, 10).allowed()).count();
        if l.stats()[0].evicted_live == 0 && admitted > 1 {
            broken += 1;
        }
    }
    assert_eq!(
        broken, 0,
        "of 200 callers, so many got 20 of 10 at once, none evicted"
    );
}
