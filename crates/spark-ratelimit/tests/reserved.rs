//! Reservations that meet resets, evictions, other tiers and each other; and a clock that steps back.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::convert::Infallible;

use common::{MINUTE, SECOND, acme, field, from, hello, limiter, policy, quota, remaining, tenant};
use http::{Request, Response};
use spark_core::testing::TestClock;
use spark_core::{Context, Instant};
use spark_ratelimit::{Key, Limiter, Policy, RateLimitLayer};
use tower::{Layer, ServiceExt, service_fn};

const KEY: fn() -> Key = Key::shared;

/// 5 are left instead of 2: three of what was charged after the reset are given back.
#[test]
fn r11_after_a_reset_nothing_of_what_came_later_goes_back() {
    let limiter = limiter(&TestClock::new(), [policy("p", 10, MINUTE)]);
    let permit = limiter.acquire(&KEY(), None, 3).unwrap();
    limiter.reset(&KEY());
    assert!(limiter.check(&KEY(), None, 8).allowed());
    permit.settle(0);
    assert_eq!(remaining(&limiter, KEY(), None), 2);
}

/// 3 are left instead of 0.
#[test]
fn r11_after_an_eviction_nothing_of_what_came_later_goes_back() {
    let limiter = Limiter::builder()
        .clock(TestClock::new().clock())
        .policy(policy("p", 10, MINUTE))
        .capacity(8)
        .build()
        .unwrap();
    let permit = limiter.acquire(&KEY(), None, 3).unwrap();
    for other in 0..8 {
        assert!(limiter.check(&Key::of(&other), None, 9).allowed());
    }
    assert_eq!(remaining(&limiter, KEY(), None), 10, "forgotten");
    assert!(limiter.check(&KEY(), None, 10).allowed());
    permit.settle(0);
    assert_eq!(remaining(&limiter, KEY(), None), 0);
}

/// 9 are left instead of 0: to the faster tier and back, the entry has the permit's mark again, but
/// is another debt. Of a burst of 20, 29 pass at one moment.
#[test]
fn r11_after_two_changes_of_tier_nothing_goes_back() {
    let clock = TestClock::new();
    let slow = Policy::new("p", quota(1, SECOND, 20)).unwrap();
    let limiter = limiter(&clock, [slow.tier("pro", quota(10, SECOND, 100))]);
    let permit = limiter.acquire(&KEY(), None, 19).unwrap();
    assert!(limiter.check(&KEY(), Some("pro"), 1).allowed());
    clock.advance(SECOND * 10);
    assert_eq!(remaining(&limiter, KEY(), None), 20, "full by itself");
    assert!(limiter.check(&KEY(), None, 20).allowed());
    permit.settle(0);
    assert_eq!(remaining(&limiter, KEY(), None), 0);
}

/// Half of it was paid at the faster tier's speed. Without the permit, 10 were left.
#[test]
fn r11_what_another_tier_has_paid_does_not_go_back() {
    let clock = TestClock::new();
    let slow = Policy::new("p", quota(1, SECOND, 20)).unwrap();
    let limiter = limiter(&clock, [slow.tier("pro", quota(10, SECOND, 100))]);
    let permit = limiter.acquire(&KEY(), None, 19).unwrap();
    assert!(limiter.check(&KEY(), Some("pro"), 1).allowed());
    clock.advance(SECOND * 5);
    assert!(limiter.check(&KEY(), None, 10).allowed());
    permit.settle(0);
    assert!(remaining(&limiter, KEY(), None) <= 10);
}

/// A wait of 60 s instead of 120 s: the ceiling swallowed a part of the penalty, and the permit
/// gives back as if it had not.
#[test]
fn r11_what_a_ceiling_swallowed_is_not_given_back() {
    let limiter = limiter(&TestClock::new(), [policy("p", 10, MINUTE)]);
    let permit = limiter.acquire(&KEY(), None, 10).unwrap();
    limiter.penalize(&KEY(), None, u64::MAX);
    permit.settle(0);
    let wait = limiter.check(&KEY(), None, 10).retry_after();
    assert_eq!(wait, Some(MINUTE * 2));
}

/// 9,000 are left instead of 10,000: settled in the other order, all come back.
#[test]
fn r10_the_later_settled_first_does_not_cost_the_earlier_its_refund() {
    let limiter = limiter(&TestClock::new(), [policy("p", 10_000, MINUTE)]);
    let earlier = limiter.acquire(&KEY(), None, 1_000).unwrap();
    let later = limiter.acquire(&KEY(), None, 4_000).unwrap();
    later.settle(0);
    earlier.settle(0);
    assert_eq!(remaining(&limiter, KEY(), None), 10_000);
}

/// After the first settlement every reservation is allowed, and charged to nobody.
#[tokio::test]
async fn r10_what_is_reserved_after_the_settlement_is_not_free() {
    let clock = TestClock::new();
    let tokens = limiter(&clock, [policy("tokens", 1_000, MINUTE)]);
    let layer = RateLimitLayer::new(limiter(&clock, [policy("r", 9, MINUTE)])).budget(tokens);
    let service = layer.layer(service_fn(async |request: Request<()>| {
        let budget = Context::of(request.extensions()).unwrap().budget().unwrap();
        budget.reserve(10).unwrap();
        budget.settle(10);
        let allowed = (0..100).filter(|_| budget.reserve(900).is_ok());
        assert!(allowed.count() <= 1);
        Ok::<_, Infallible>(Response::new(String::new()))
    }));
    service.oneshot(from(tenant("acme"))).await.unwrap();
}

/// After an hour's step back: told to wait for 11 s, and after these told 11 s again, for an hour;
/// since a refusal writes nothing, the capped debt does not shrink.
#[test]
fn r7_whoever_waits_after_a_step_back_is_admitted() {
    let clock = TestClock::new();
    let limiter = limiter(&clock, [policy("p", 10, SECOND * 10)]);
    clock.set(Instant::from_nanos(3_600_000_000_000));
    assert!(limiter.check(&KEY(), None, 10).allowed());
    clock.set(Instant::from_nanos(0));
    clock.advance(limiter.check(&KEY(), None, 1).retry_after().unwrap());
    assert!(limiter.check(&KEY(), None, 1).allowed());
}

/// `x_ratelimit` says that its fields stand where those of the draft stand; on a refusal they do not.
#[tokio::test]
async fn x_ratelimit_and_openai_stand_on_refusals_too() {
    let limiter = limiter(&TestClock::new(), [policy("p", 1, MINUTE)]);
    limiter.check(&acme(), None, 1);
    let layer = RateLimitLayer::new(limiter).x_ratelimit().openai_headers();
    let refused = layer.layer(hello()).oneshot(from(tenant("acme"))).await;
    let refused = refused.unwrap();
    assert!(field(&refused, "ratelimit").is_some());
    assert_eq!(
        field(&refused, "x-ratelimit-remaining").as_deref(),
        Some("0")
    );
    assert_eq!(
        field(&refused, "x-ratelimit-remaining-requests").as_deref(),
        Some("0")
    );
}
