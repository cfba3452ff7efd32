//! The contract of tower, kept by the layer in every form that it takes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{MINUTE, SECOND, limiter, policy};
use http::Request;
use spark_core::testing::{TestBody, TestClock, contract};
use spark_ratelimit::{
    Concurrency, ConcurrencyLimiter, Headers, KeyBy, RateLimitLayer, Unit, Unknown,
};

const MANY: u64 = 1_000_000;

fn bare() -> RateLimitLayer {
    let clock = TestClock::new();
    let policies = ["a", "b"].map(|name| policy(name, MANY, MINUTE));
    RateLimitLayer::new(limiter(&clock, policies))
}

fn streams() -> ConcurrencyLimiter {
    ConcurrencyLimiter::new(Concurrency::new("streams", 100).unwrap())
}

fn tokens(layer: RateLimitLayer) -> RateLimitLayer {
    let tokens = policy("tokens", MANY, MINUTE).unit(Unit::Tokens);
    layer.budget(limiter(&TestClock::new(), [tokens]))
}

fn two_keys(layer: RateLimitLayer) -> RateLimitLayer {
    layer.key_for("b", KeyBy::client_ip().v6_prefix(48))
}

async fn check(layer: RateLimitLayer) {
    contract::check(layer, || Request::new(TestBody::frames(["hello"]))).await;
}

#[tokio::test]
async fn r17_bare_and_by_every_key() {
    check(bare()).await;
    check(bare().key(KeyBy::client_ip())).await;
    check(bare().key(KeyBy::tenant())).await;
    #[cfg(feature = "axum")]
    check(bare().key(KeyBy::route())).await;
    let known = KeyBy::from_fn(|head| Some(spark_ratelimit::Key::of(head.uri)));
    check(bare().key(known.unknown(Unknown::Refuse))).await;
}

#[tokio::test]
async fn r17_with_a_limit_on_what_is_under_way() {
    let streams = streams();
    check(bare().concurrency(streams.clone())).await;
    assert_eq!(streams.keys(), 0, "nothing is left behind");
}

#[tokio::test]
async fn r17_with_a_budget() {
    check(tokens(bare())).await;
}

#[tokio::test]
async fn r17_with_a_key_for_one_policy() {
    check(two_keys(bare())).await;
}

#[tokio::test]
async fn r17_with_everything_in_every_way_to_tell_it() {
    for headers in [Headers::Always, Headers::OnRefusal, Headers::Never] {
        let streams = streams();
        let layer = two_keys(tokens(bare().headers(headers)))
            .x_ratelimit()
            .openai_headers()
            .retry_jitter(SECOND)
            .scope("all")
            .exempt("health", |head| head.uri.path() == "/livez")
            .concurrency(streams.clone());
        check(layer.clone()).await;
        check(layer.without_exemptions()).await;
        assert_eq!(streams.keys(), 0);
    }
}

#[tokio::test]
async fn r17_exempt_requests_and_shadows() {
    check(bare().exempt("all", |_| true)).await;
    let shadow = policy("shadow", 1, MINUTE).shadow();
    check(RateLimitLayer::new(limiter(&TestClock::new(), [shadow]))).await;
}
