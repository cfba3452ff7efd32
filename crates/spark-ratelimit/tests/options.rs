//! What a layer can be told: shadows, a key for each policy, fields of other customs, strictness.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use common::{
    MINUTE, SECOND, acme, field, from, from_ip, hello, ip, limiter, policy, quota, remaining,
    tenant,
};
use http::{Request, Response};
use http_body_util::BodyExt;
use spark_core::testing::TestClock;
use spark_core::{Context, Principal, Refusal};
use spark_ratelimit::{
    Concurrency, ConcurrencyLimiter, Headers, Key, KeyBy, Limiter, Policy, RateLimitLayer, Unit,
    Unknown,
};
use tower::{Layer, ServiceExt, service_fn};

const FIELDS: [&str; 9] = [
    "ratelimit",
    "ratelimit-policy",
    "retry-after",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
];

fn told<B>(response: &Response<B>, fields: &[&str]) -> Vec<String> {
    let told = fields.iter().filter_map(|name| field(response, name));
    told.collect()
}

async fn send(layer: &RateLimitLayer) -> Response<impl http_body::Body + use<>> {
    let service = layer.layer(hello());
    service.oneshot(from(tenant("acme"))).await.unwrap()
}

#[tokio::test]
async fn a_shadow_never_refuses_and_stands_in_no_field() {
    let shadow = policy("tomorrow", 1, MINUTE).shadow();
    let today = policy("today", 5, MINUTE);
    shadowed(limiter(&TestClock::new(), [shadow.clone(), today.clone()])).await;
    shadowed(limiter(&TestClock::new(), [today, shadow])).await;
}

async fn shadowed(limiter: Limiter) {
    let layer = RateLimitLayer::new(limiter.clone())
        .x_ratelimit()
        .openai_headers();
    for left in (0..5).rev() {
        let response = send(&layer).await;
        assert_eq!(response.status(), 200);
        let expected = format!("\"today\";r={left};t=12");
        assert_eq!(field(&response, "ratelimit").unwrap(), expected);
        assert_eq!(
            field(&response, "ratelimit-policy").unwrap(),
            r#""today";q=5;w=60"#
        );
        assert_eq!(
            field(&response, "x-ratelimit-remaining").unwrap(),
            left.to_string()
        );
    }
    let refused = send(&layer).await;
    assert_eq!(refused.status(), 429);
    assert_eq!(
        field(&refused, "ratelimit-policy").unwrap(),
        r#""today";q=5;w=60"#
    );
    assert_eq!(
        field(&refused, "retry-after").unwrap(),
        "12",
        "not a minute"
    );
    let body = refused.into_body().collect().await;
    let body = body.map_err(drop).unwrap().to_bytes();
    assert!(!String::from_utf8_lossy(&body).contains("tomorrow"));
    let decision = limiter.peek(&acme(), None, 1);
    assert_eq!(decision.shadow_violated().collect::<Vec<_>>(), ["tomorrow"]);
}

#[tokio::test]
async fn where_all_are_shadows_nothing_is_told() {
    let policies = ["a", "b"].map(|name| policy(name, 1, MINUTE).shadow());
    let limiter = limiter(&TestClock::new(), policies);
    let layer = RateLimitLayer::new(limiter.clone())
        .x_ratelimit()
        .openai_headers();
    for _ in 0..10 {
        let response = send(&layer).await;
        assert_eq!(response.status(), 200);
        assert_eq!(told(&response, &FIELDS), [""; 0]);
    }
    let decision = limiter.peek(&acme(), None, 1);
    assert_eq!(decision.shadow_violated().count(), 2);
    assert!(decision.rate_limit_field().is_none());
    // A limit on what is under way is no shadow.
    let at_once = ConcurrencyLimiter::new(Concurrency::new("c", 1).unwrap());
    let response = send(&layer.concurrency(at_once)).await;
    let expected = r#""c";q=1;qu="concurrent-requests""#;
    assert_eq!(told(&response, &FIELDS), [expected]);
}

#[tokio::test]
async fn a_shadow_that_is_lifted_finds_the_debts_that_it_counted() {
    let limiter = limiter(&TestClock::new(), [policy("p", 3, MINUTE).shadow()]);
    let layer = RateLimitLayer::new(limiter.clone());
    for _ in 0..10 {
        assert_eq!(send(&layer).await.status(), 200);
    }
    limiter.reconfigure(vec![policy("p", 3, MINUTE)]).unwrap();
    assert_eq!(send(&layer).await.status(), 429);
}

/// 300 networks of one site, each by itself within its quota.
#[tokio::test]
async fn r2_many_networks_of_one_site_are_limited_together_all_or_nothing() {
    let limiter = limiter(
        &TestClock::new(),
        [policy("host", 2, MINUTE), policy("site", 100, MINUTE)],
    );
    let layer = RateLimitLayer::new(limiter.clone())
        .key(KeyBy::client_ip())
        .key_for("site", KeyBy::client_ip().v6_prefix(48))
        .key_for("not-there-yet", KeyBy::tenant());
    let service = layer.layer(hello());
    let address = |network: usize| format!("2001:db8:7:{network:x}::1");
    let mut statuses = Vec::new();
    for network in 0..300 {
        let response = service
            .clone()
            .oneshot(from_ip(&address(network)))
            .await
            .unwrap();
        statuses.push(response.status().as_u16());
        if network == 299 {
            let limit = field(&response, "ratelimit").unwrap();
            assert!(limit.starts_with(r#""site";r=0"#), "{limit}");
        }
    }
    assert_eq!(statuses[..100], [200; 100]);
    assert_eq!(statuses[100..], [429; 200]);
    // Who was refused for the site was not charged for the network.
    let network = |n: usize| Key::network(ip(&address(n)), 64);
    let left = |n| {
        limiter.peek_each(None, |policy| {
            let key = if policy == "host" {
                network(n)
            } else {
                Key::of("idle")
            };
            spark_ratelimit::Charge::new(key, 0)
        })
    };
    assert_eq!(left(99).tightest().remaining, 1);
    assert_eq!(left(100).tightest().remaining, 2);
    // The site next door is another.
    let response = service.clone().oneshot(from_ip("2001:db8:8::1")).await;
    assert_eq!(response.unwrap().status(), 200);
    // And the other way round: refused for the network, the site is not charged.
    for _ in 0..5 {
        let _ = service.clone().oneshot(from_ip("2001:db8:8::1")).await;
    }
    let site = Key::network(ip("2001:db8:8::1"), 48);
    let decision = limiter.peek_each(None, |policy| {
        let key = if policy == "site" {
            site
        } else {
            Key::of("idle")
        };
        spark_ratelimit::Charge::new(key, 99)
    });
    let refusing: Vec<_> = decision.violated().collect();
    assert_eq!(refusing, ["host", "site"]);
    let decision = limiter.peek_each(None, |policy| match policy {
        "site" => spark_ratelimit::Charge::new(site, 98),
        _ => spark_ratelimit::Charge::new(Key::of("idle"), 0),
    });
    assert!(decision.allowed());
}

#[tokio::test]
async fn a_key_of_one_policy_may_be_strict() {
    let limiter = limiter(
        &TestClock::new(),
        [policy("all", 9, MINUTE), policy("tenant", 9, MINUTE)],
    );
    let layer = RateLimitLayer::new(limiter.clone())
        .key(KeyBy::client_ip())
        .key_for("tenant", KeyBy::tenant().unknown(Unknown::Refuse));
    let service = layer.layer(hello());
    let refused = service
        .clone()
        .oneshot(from(Principal::Anonymous))
        .await
        .unwrap();
    assert_eq!(refused.status(), 503);
    assert!(
        limiter.stats().iter().all(|table| table.occupied == 0),
        "nobody is charged"
    );
    let passed = service.oneshot(from(tenant("acme"))).await.unwrap();
    assert_eq!(passed.status(), 200);
}

#[tokio::test]
async fn r4_unknown_callers_can_be_refused() {
    let limiter = limiter(&TestClock::new(), [policy("p", 9, MINUTE)]);
    let at_once = ConcurrencyLimiter::new(Concurrency::new("c", 1).unwrap());
    let layer = RateLimitLayer::new(limiter.clone())
        .key(KeyBy::client_ip().unknown(Unknown::Refuse))
        .concurrency(at_once.clone());
    let service = layer.layer(hello());
    for _ in 0..20 {
        let refused = service.clone().oneshot(Request::new(())).await.unwrap();
        assert_eq!(refused.status(), 503);
        assert_eq!(field(&refused, "ratelimit"), None);
        assert_eq!(field(&refused, "cache-control").unwrap(), "no-store");
        let refusal = refused.extensions().get::<Refusal>().unwrap();
        assert_eq!((refusal.by, refusal.code), ("ratelimit", "caller_unknown"));
        assert_eq!(at_once.keys(), 0);
    }
    let passed = service.oneshot(from_ip("192.0.2.1")).await.unwrap();
    assert_eq!(passed.status(), 200);
    assert_eq!(limiter.stats()[0].occupied, 1, "and not the shared bucket");
}

#[tokio::test]
async fn x_ratelimit_speaks_of_the_tightest_with_a_moment() {
    let clock = TestClock::new();
    clock.set_unix_time(Duration::from_millis(1_700_000_000_400));
    let limiter = limiter(
        &clock,
        [
            Policy::new("minute", quota(60, MINUTE, 5)).unwrap(),
            policy("day", 1_000, SECOND * 86_400),
        ],
    );
    let layer = RateLimitLayer::new(limiter);
    let fields = [
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
    ];
    assert_eq!(
        told(&send(&layer).await, &fields),
        [""; 0],
        "only when asked for"
    );
    let layer = layer.x_ratelimit();
    let response = send(&layer).await;
    // Two seconds until all five are there again.
    assert_eq!(told(&response, &fields), ["5", "3", "1700000003"]);
    assert!(field(&response, "ratelimit").is_some(), "beside the others");
    assert_eq!(
        told(
            &send(&layer.clone().headers(Headers::OnRefusal)).await,
            &fields
        ),
        [""; 0]
    );
}

#[tokio::test]
async fn x_ratelimits_moment_is_that_of_the_decision_however_long_the_answer_takes() {
    let clock = TestClock::new();
    clock.set_unix_time(Duration::from_secs(1_700_000_000));
    let layer = RateLimitLayer::new(limiter(&clock, [policy("p", 60, MINUTE)])).x_ratelimit();
    let service = layer.layer(service_fn(move |_: Request<()>| {
        clock.advance(SECOND * 30);
        async { Ok::<_, std::convert::Infallible>(Response::new(())) }
    }));
    let response = service.oneshot(from(tenant("acme"))).await.unwrap();
    assert_eq!(field(&response, "x-ratelimit-reset").unwrap(), "1700000001");
}

#[tokio::test]
async fn x_ratelimit_stands_where_the_draft_stands_and_an_inner_limiter_speaks() {
    let clock = TestClock::new();
    let outer = RateLimitLayer::new(limiter(&clock, [policy("outer", 10, MINUTE)])).x_ratelimit();
    let inner = RateLimitLayer::new(limiter(&clock, [policy("inner", 7, MINUTE)])).x_ratelimit();
    let service = outer.layer(inner.layer(hello()));
    let response = service.oneshot(from(tenant("acme"))).await.unwrap();
    assert_eq!(field(&response, "x-ratelimit-limit").unwrap(), "7");
    assert!(
        field(&response, "ratelimit")
            .unwrap()
            .starts_with("\"inner\"")
    );
}

#[tokio::test]
async fn openai_tells_requests_and_tokens_as_they_stand_when_the_response_begins() {
    let clock = TestClock::new();
    let requests = limiter(&clock, [policy("rpm", 60, MINUTE)]);
    let tokens = limiter(&clock, [policy("tpm", 6_000, MINUTE).unit(Unit::Tokens)]);
    let layer = RateLimitLayer::new(requests).openai_headers();
    let fields = [
        "x-ratelimit-limit-requests",
        "x-ratelimit-remaining-requests",
        "x-ratelimit-reset-requests",
        "x-ratelimit-limit-tokens",
        "x-ratelimit-remaining-tokens",
        "x-ratelimit-reset-tokens",
    ];
    assert_eq!(
        told(&send(&layer).await, &fields),
        ["60", "59", "1s"],
        "no budget, no tokens"
    );

    let layer = layer.budget(tokens.clone());
    assert_eq!(
        told(&send(&layer).await, &fields),
        ["60", "58", "2s", "6000", "6000", "0s"],
        "nothing reserved"
    );
    let service = layer.layer(service_fn(|request: Request<()>| async move {
        let context = Context::of(request.extensions()).unwrap();
        context.budget().unwrap().reserve(1_250).unwrap();
        Ok::<_, std::convert::Infallible>(Response::new(String::new()))
    }));
    let response = service.clone().oneshot(from(tenant("acme"))).await.unwrap();
    assert_eq!(
        told(&response, &fields),
        ["60", "57", "3s", "6000", "4750", "12.5s"],
        "after the handler's reserve"
    );
    assert_eq!(remaining(&tokens, acme(), None), 4_750);
}

#[tokio::test]
async fn openai_fields_of_another_tenant_are_its_own() {
    let clock = TestClock::new();
    let requests = limiter(&clock, [policy("rpm", 60, MINUTE)]);
    let tokens = limiter(&clock, [policy("tpm", 6_000, MINUTE).unit(Unit::Tokens)]);
    tokens.check(&acme(), None, 5_000);
    let layer = RateLimitLayer::new(requests)
        .openai_headers()
        .budget(tokens);
    for (name, left) in [("acme", "1000"), ("other", "6000")] {
        let response = layer
            .layer(hello())
            .oneshot(from(tenant(name)))
            .await
            .unwrap();
        assert_eq!(
            field(&response, "x-ratelimit-remaining-tokens").unwrap(),
            left
        );
    }
}

const OPENAI_LIMITS: [&str; 2] = ["x-ratelimit-limit-requests", "x-ratelimit-limit-tokens"];

#[tokio::test]
async fn openai_tells_the_budgets_tokens_where_a_policy_of_requests_counts_tokens_too() {
    let clock = TestClock::new();
    let tokens = |name, n| policy(name, n, MINUTE).unit(Unit::Tokens);
    let layer = RateLimitLayer::new(limiter(&clock, [tokens("each", 777)]))
        .budget(limiter(&clock, [tokens("tpm", 100)]))
        .openai_headers();
    let response = send(&layer).await;
    assert_eq!(told(&response, &OPENAI_LIMITS), ["100"]);
    assert_eq!(
        field(&response, "x-ratelimit-remaining-tokens").unwrap(),
        "100"
    );
}

#[tokio::test]
async fn openai_tells_the_budgets_tokens_where_all_policies_of_requests_are_shadows() {
    let clock = TestClock::new();
    let tokens = policy("tpm", 100, MINUTE).unit(Unit::Tokens);
    let requests = limiter(&clock, [policy("rpm", 777, MINUTE).shadow()]);
    let layer = RateLimitLayer::new(requests).openai_headers();
    let both = layer.clone().budget(limiter(&clock, [tokens.clone()]));
    assert_eq!(told(&send(&both).await, &OPENAI_LIMITS), ["100"]);
    let shadows = layer.budget(limiter(&clock, [tokens.shadow()]));
    assert_eq!(told(&send(&shadows).await, &OPENAI_LIMITS), [""; 0]);
}
