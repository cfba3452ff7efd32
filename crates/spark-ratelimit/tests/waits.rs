//! Clients that do as they are told: who sleeps for `Retry-After` is admitted.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use common::{MINUTE, SECOND, field, from_ip, hello, limiter, policy, quota, retry_after, told_t};
use proptest::prelude::*;
use spark_core::testing::TestClock;
use spark_ratelimit::{Concurrency, ConcurrencyLimiter, Key, KeyBy, Policy, Quota, RateLimitLayer};
use tower::{Layer, Service, ServiceExt};

fn a_quota() -> impl Strategy<Value = Quota> {
    let pers = prop::sample::select(vec![
        1_000_000,
        999_999_937,
        1_000_000_000,
        60_000_000_000,
        86_400_000_000_000,
    ]);
    (1u64..2_000, pers, 1u64..20)
        .prop_map(|(n, per, burst)| quota(n, Duration::from_nanos(per), burst))
}

fn policies(quotas: &[Quota]) -> impl Iterator<Item = Policy> {
    let named = quotas.iter().zip(["a", "b", "c"]);
    named.map(|(quota, name)| Policy::new(name, *quota).unwrap())
}

proptest! {
    /// R5: whole seconds, never 0, never before `t`; whoever sleeps so long is admitted, and by one
    /// second less than is told, nobody is: with one policy and with several.
    #[test]
    fn r5_who_sleeps_for_retry_after_is_admitted(
        quotas in prop::collection::vec(a_quota(), 1..=3),
        pauses in prop::collection::vec(0u64..3_000_000_000, 1..30),
        jitter in prop_oneof![Just(0), 1u64..5_000],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let clock = TestClock::new();
        let jitter = Duration::from_millis(jitter);
        let layer = RateLimitLayer::new(limiter(&clock, policies(&quotas)))
            .key(KeyBy::client_ip())
            .retry_jitter(jitter);
        let service = layer.layer(hello());
        let send = || runtime.block_on(service.clone().oneshot(from_ip("192.0.2.1"))).unwrap();
        for pause in pauses {
            clock.advance(Duration::from_nanos(pause));
            // As fast as it can, until it is refused.
            let refused = (0..25).map(|_| send()).find(|response| response.status() != 200);
            let Some(refused) = refused else { continue };
            prop_assert_eq!(refused.status(), 429);
            let (wait, t) = (retry_after(&refused), told_t(&refused));
            prop_assert!(wait >= 1 && wait >= t, "Retry-After {}, t {}", wait, t);
            if jitter.is_zero() && wait > 1 {
                clock.advance(Duration::from_secs(wait - 1));
                prop_assert_eq!(send().status(), 429, "the wait is not longer than it must be");
                clock.advance(SECOND);
            } else {
                clock.advance(Duration::from_secs(wait));
            }
            prop_assert_eq!(send().status(), 200, "after {} s", wait);
        }
    }
}

#[tokio::test]
async fn r5_refusals_meanwhile_do_not_make_the_wait_longer() {
    let clock = TestClock::new();
    let layer = RateLimitLayer::new(limiter(&clock, [policy("p", 2, MINUTE)]));
    let service = layer.key(KeyBy::client_ip()).layer(hello());
    let send = async || {
        let response = service.clone().oneshot(from_ip("192.0.2.1")).await;
        response.unwrap()
    };
    for _ in 0..2 {
        assert_eq!(send().await.status(), 200);
    }
    for left in (1..=30).rev() {
        let refused = send().await;
        assert_eq!((retry_after(&refused), told_t(&refused)), (left, left));
        clock.advance(SECOND);
    }
    assert_eq!(send().await.status(), 200);
}

#[tokio::test]
async fn r5_jitter_is_never_early_and_spreads_callers() {
    let clock = TestClock::new();
    let limiter = limiter(&clock, [policy("p", 1, MINUTE)]);
    let layer = RateLimitLayer::new(limiter.clone())
        .key(KeyBy::client_ip())
        .retry_jitter(SECOND * 10);
    let mut service = layer.layer(hello());
    let mut waits = [0; 11];
    for caller in 1..=200 {
        let ip = format!("192.0.2.{caller}");
        limiter.check(&Key::network(common::ip(&ip), 64), None, 1);
        let refused = service
            .ready()
            .await
            .unwrap()
            .call(from_ip(&ip))
            .await
            .unwrap();
        assert_eq!(told_t(&refused), 60, "it is not for the fields");
        waits[retry_after(&refused) as usize - 60] += 1;
    }
    assert_eq!(
        waits[0], 0,
        "to 60 s some part of a second is added, and that is rounded up"
    );
    assert!(waits[1..].iter().all(|callers| *callers > 2), "{waits:?}");
}

/// A cost that never passes has no time to come back at; one of concurrency has a second.
#[tokio::test]
async fn r5_the_other_refusals() {
    let clock = TestClock::new();
    let one = ConcurrencyLimiter::new(Concurrency::new("c", 1).unwrap());
    let held = one.acquire(&Key::network(common::ip("192.0.2.1"), 64), None);
    let layer = RateLimitLayer::new(limiter(&clock, [policy("p", 9, MINUTE)]));
    let layer = layer.key(KeyBy::client_ip()).concurrency(one);
    let refused = layer.layer(hello()).oneshot(from_ip("192.0.2.1")).await;
    let refused = refused.unwrap();
    assert_eq!((refused.status().as_u16(), retry_after(&refused)), (429, 1));
    assert_eq!(
        field(&refused, "ratelimit").unwrap(),
        r#""c";r=0"#,
        "nobody knows"
    );
    drop(held);
}
