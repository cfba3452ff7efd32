//! Attacks and pitfalls that other limiters are known to fall for, by the rows of the threat model
//! (`r7` and so on). Others of its rows are in the files of what they are about.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::convert::Infallible;
use std::time::Duration;

use common::{
    MINUTE, SECOND, acme, from, from_ip, hello, ip, limiter, policy, quota, remaining, tenant,
};
use http::{Request, Response};
use proptest::prelude::*;
use spark_core::testing::TestClock;
use spark_core::{Context, Instant};
use spark_ratelimit::{
    Charge, Concurrency, ConcurrencyLimiter, Head, Key, KeyBy, Limiter, Policy, RateLimitLayer,
    Subject,
};
use tower::{Layer, Service, ServiceExt, service_fn};

/// By one address after another: a /64 has as many as one likes.
#[tokio::test]
async fn r1_a_flood_through_the_layer_frees_nobody() {
    const SLOTS: usize = 1_024;
    let clock = TestClock::new();
    let limiter = Limiter::builder()
        .clock(clock.clock())
        .policy(Policy::new("p", quota(5, SECOND * 600, 5)).unwrap())
        .capacity(SLOTS)
        .build()
        .unwrap();
    let layer = RateLimitLayer::new(limiter.clone()).key(KeyBy::client_ip());
    let service = layer.layer(hello());
    let send = async |address: String| {
        let response = service.clone().oneshot(from_ip(&address)).await;
        response.unwrap().status().as_u16()
    };
    let abusers = || (1..=20).map(|last| format!("192.0.2.{last}"));
    for abuser in abusers() {
        limiter.check(&Key::network(ip(&abuser), 64), None, 5);
    }
    for n in 0..10 * SLOTS {
        let fresh = format!("2001:db8:{:x}:{:x}::1", n >> 8, n & 255);
        assert_eq!(send(fresh).await, 200);
    }
    for abuser in abusers() {
        assert_eq!(send(abuser).await, 429);
    }
    assert_eq!(limiter.stats()[0].capacity, SLOTS);
}

#[derive(Clone, Copy, Debug)]
enum Jump {
    Ahead(u64),
    Back(u64),
    Ask(u64),
}

fn jump() -> impl Strategy<Value = Jump> {
    prop_oneof![
        2 => (0u64..5_000_000_000).prop_map(Jump::Ahead),
        1 => prop_oneof![0u64..5_000_000_000, Just(u64::MAX)].prop_map(Jump::Back),
        4 => (0u64..7).prop_map(Jump::Ask),
    ]
}

proptest! {
    /// A clock that steps about: no panic; no more than if the time that passed forwards had
    /// passed, and nothing had been taken back; no wait beyond two refills.
    #[test]
    fn r7_a_clock_that_steps_about_gives_nothing_away(
        start in prop_oneof![Just(0), 0..u64::MAX / 2],
        jumps in prop::collection::vec(jump(), 1..60),
    ) {
        let clock = TestClock::new();
        clock.set(Instant::from_nanos(start));
        let per = SECOND * 10;
        let limiter = limiter(&clock, [Policy::new("p", quota(10, per, 5)).unwrap()]);
        let (mut now, mut ahead, mut admitted) = (start, 0u64, 0);
        for jump in jumps {
            match jump {
                Jump::Ahead(by) => {
                    ahead += by.min(u64::MAX - now);
                    now = now.saturating_add(by);
                }
                Jump::Back(by) => now = now.saturating_sub(by),
                Jump::Ask(cost) => {
                    let decision = limiter.check(&Key::shared(), None, cost);
                    if decision.allowed() {
                        admitted += cost;
                    }
                    let wait = decision.retry_after().unwrap_or_default();
                    prop_assert!(wait <= per, "{:?}", wait);
                }
            }
            clock.set(Instant::from_nanos(now));
            // A unit a second and five at the start.
            prop_assert!(admitted <= 5 + ahead / 1_000_000_000, "{} in {} ns", admitted, ahead);
        }
    }
}

/// At the end of time, in 584 years, nothing wraps around and nothing panics.
#[test]
fn r7_the_end_of_time() {
    let clock = TestClock::new();
    let limiter = limiter(&clock, [policy("p", 10, SECOND)]);
    clock.set(Instant::from_nanos(u64::MAX));
    for _ in 0..3 {
        assert!(limiter.check(&Key::shared(), None, 10).allowed());
        limiter.penalize(&Key::shared(), None, u64::MAX);
        limiter
            .acquire(&Key::shared(), None, 1)
            .unwrap()
            .settle(u64::MAX);
    }
}

/// Byte for byte: what is refused leaves what is told of every policy as it was.
#[test]
fn r8_r9_what_is_refused_leaves_every_policy_as_it_was() {
    let clock = TestClock::new();
    let names = ["first", "second", "third"];
    for refusing in 0..3 {
        let policies = names.iter().enumerate().map(|(at, name)| {
            let burst = if at == refusing { 5 } else { 1_000 };
            Policy::new(name, quota(1_000, MINUTE, burst)).unwrap()
        });
        let limiter = limiter(&clock, policies);
        let states = || {
            names.map(|name| {
                let decision = limiter.peek_each(None, |policy| {
                    let mine = policy == name;
                    Charge::new(
                        if mine { acme() } else { Key::of("idle") },
                        u64::from(mine) * 2_000,
                    )
                });
                decision.tightest()
            })
        };
        assert!(limiter.check(&acme(), None, 5).allowed());
        let before = states();
        for cost in [1, 2, 6, 999, u64::MAX] {
            let refused = limiter.check(&acme(), None, cost);
            assert!(refused.violated().any(|name| name == names[refusing]));
            assert!(limiter.acquire(&acme(), None, cost).is_err());
            let each = limiter.check_each(None, |policy| {
                Charge::new(acme(), if policy == names[refusing] { cost } else { 1 })
            });
            assert!(!each.allowed());
            assert_eq!(
                states(),
                before,
                "{cost} units, {} refuses",
                names[refusing]
            );
        }
    }
}

/// Refused for what is last to be asked, over HTTP: nothing is charged anywhere.
#[tokio::test]
async fn r9_a_refusal_over_http_charges_no_policy() {
    let limiter = limiter(
        &TestClock::new(),
        [policy("wide", 100, MINUTE), policy("narrow", 1, MINUTE)],
    );
    let service = RateLimitLayer::new(limiter.clone()).layer(hello());
    for status in [200, 429, 429, 429] {
        let response = service.clone().oneshot(from(tenant("acme"))).await.unwrap();
        assert_eq!(response.status(), status);
    }
    limiter
        .reconfigure(vec![policy("wide", 100, MINUTE)])
        .unwrap();
    assert_eq!(remaining(&limiter, acme(), None), 99);
}

/// Keys of a structure that defeats hashes without a secret: none of them fills a set.
#[test]
fn r13_names_of_any_structure_spread_over_the_sets() {
    let shapes: [fn(u64) -> Key; 6] = [
        |n| Key::of(&n),
        |n| Key::of(&(n << 32)),
        |n| Key::of(&(n << 48)),
        |n| Key::of(&format!("{n:032b}")),
        |n| Key::network(ip(&format!("2001:db8:{n:x}::1")), 64),
        |n| Key::network(ip(&format!("10.{}.{}.1", n >> 8, n & 255)), 64),
    ];
    for (at, shape) in shapes.into_iter().enumerate() {
        let limiter = Limiter::builder()
            .clock(TestClock::new().clock())
            .policy(policy("p", 2, MINUTE))
            .capacity(4_096)
            .build()
            .unwrap();
        // As many as a quarter of the slots.
        let keys = || (0..1_024).map(shape);
        for key in keys() {
            assert!(limiter.check(&key, None, 2).allowed(), "two of one key");
        }
        assert_eq!(limiter.stats()[0].evicted_live, 0, "shape {at}");
        for key in keys() {
            assert!(!limiter.check(&key, None, 1).allowed());
        }
    }
}

/// No `Debug` of a public type says whose quota it is about.
#[test]
fn r14_debug_shows_no_identity() {
    const SECRET: &str = "secret-tenant";
    let key = Key::of(SECRET);
    let own = policy("p", 9, MINUTE).key(key, quota(5, MINUTE, 5));
    let limiter = limiter(&TestClock::new(), [own.clone()]);
    let at_once = ConcurrencyLimiter::new(Concurrency::new("c", 1).unwrap());
    let in_flight = at_once.acquire(&key, None).unwrap();
    let full = at_once.acquire(&key, None).unwrap_err();
    let permit = limiter.acquire(&key, None, 1).unwrap();
    let decision = limiter.check(&key, None, 1);
    let layer = RateLimitLayer::new(limiter.clone())
        .key(KeyBy::from_fn(|_| Some(Key::of(SECRET))))
        .concurrency(at_once.clone())
        .budget(limiter.clone());
    let request = Request::get("/a?key=secret-tenant")
        .header("authorization", "Bearer secret-tenant")
        .body(())
        .unwrap();
    let mut service = layer.layer(service_fn(async |request: Request<()>| {
        let context = Context::of(request.extensions()).unwrap();
        let text = format!("{:?}", context.budget().unwrap());
        assert!(!text.contains("secret"));
        Ok::<_, Infallible>(Response::new(String::new()))
    }));
    let future = service.call(from(tenant(SECRET)));
    // As a number it is a hash under a secret, but there is no need to show that either.
    let bits = format!("{key:?}");
    let shown = [
        format!("{key:?}"),
        format!("{:?}", Key::network(ip("192.0.2.77"), 64)),
        format!("{:?}", Charge::new(key, 1)),
        format!("{:?}", Subject { key, tier: None }),
        format!("{:?}", Head::of(&request)),
        format!("{own:?}"),
        format!("{limiter:?}"),
        format!("{:?}", Limiter::builder().policy(own)),
        format!("{at_once:?} {in_flight:?} {full:?} {full}"),
        format!("{permit:?}"),
        format!("{decision:?}"),
        format!("{layer:?}"),
        format!("{:?}", layer.layer(())),
        format!("{future:?}"),
        format!("{:?}", limiter.stats()),
        format!("{:?}", KeyBy::from_fn(|_| Some(Key::of(SECRET)))),
    ];
    for text in shown {
        assert!(
            !text.contains("secret") && !text.contains("192.0.2.77"),
            "{text}"
        );
    }
    assert!(!bits.contains("secret"));
}

/// From a unit a nanosecond to 36 in 36 years.
#[test]
fn r8_quotas_at_the_ends_of_what_is_possible() {
    for (n, per, burst) in [
        (1, Duration::from_nanos(1), 1),
        (1_000_000_000, SECOND, 1_000_000_000),
        (1, SECOND * 86_400 * 365, 36),
    ] {
        let clock = TestClock::new();
        let limiter = limiter(&clock, [Policy::new("p", quota(n, per, burst)).unwrap()]);
        assert!(limiter.check(&Key::shared(), None, burst).allowed());
        let wait = limiter
            .check(&Key::shared(), None, 1)
            .retry_after()
            .unwrap();
        assert!(!wait.is_zero());
        clock.advance(wait);
        assert!(limiter.check(&Key::shared(), None, 1).allowed());
        assert!(
            limiter
                .check(&Key::shared(), None, u64::MAX)
                .exceeds_capacity()
        );
    }
}
