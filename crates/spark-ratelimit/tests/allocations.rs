//! What is allocated, counted. (One file of its own: the counter replaces the allocator.)
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use allocation_counter::measure;
use common::{MINUTE, SECOND, acme, quota, tenant};
use http::{HeaderMap, Request, Response};
use spark_core::testing::TestClock;
use spark_ratelimit::{
    Charge, Concurrency, ConcurrencyLimiter, Headers, Key, KeyBy, Limiter, LimiterBuilder, Policy,
    RateLimitLayer, Unit,
};
use tower::{Layer, Service, service_fn};

fn limiter(n: u64) -> Limiter {
    of((0..2).map(|at| policy(at, n)))
}

fn policy(at: u64, n: u64) -> Policy {
    let (quota, name) = (quota(n, MINUTE, n), ["requests", "more", "third", "fourth"]);
    let name = name[at as usize];
    Policy::new(name, quota).unwrap().tier("pro", quota)
}

fn of(policies: impl IntoIterator<Item = Policy>) -> Limiter {
    let builder = Limiter::builder().clock(TestClock::new().clock());
    let policies = policies.into_iter();
    policies
        .fold(builder, LimiterBuilder::policy)
        .build()
        .unwrap()
}

#[test]
fn the_core_allocates_nothing() {
    for policies in [1, 2, 4] {
        let limiter = of((0..policies).map(|at| policy(at, 50)));
        limiter.check(&Key::shared(), None, 1);
        let mut answers = [0; 2];
        let counted = measure(|| {
            for n in 0..1_000 {
                answers[usize::from(limiter.check(&Key::of(&n), Some("pro"), 1).allowed())] += 1;
                answers[usize::from(limiter.check(&Key::shared(), None, 1).allowed())] += 1;
                answers[usize::from(limiter.check(&Key::shared(), None, 51).allowed())] += 1;
                limiter.peek(&Key::shared(), None, 1);
                limiter.penalize(&Key::of("mallory"), None, n);
                limiter.reset(&Key::of("mallory"));
            }
        });
        assert_eq!(answers, [1_951, 1_049], "allowed and refused alike");
        assert_eq!(counted.count_total, 0, "by {policies} policies");
    }
}

#[test]
fn nor_with_a_key_and_a_cost_for_each_policy_nor_with_quotas_of_single_keys_and_shadows() {
    let own = policy(0, 50).key(acme(), quota(500, MINUTE, 500));
    let limiter = of([own, policy(1, 50).shadow(), policy(2, 1_000_000)]);
    limiter.check(&Key::shared(), None, 1);
    let acme = acme();
    let charge = |policy: &str| Charge::new(acme, u64::from(policy != "third") + 1);
    let counted = measure(|| {
        for _ in 0..1_000 {
            let _ = limiter.check_each(Some("pro"), charge).allowed();
            let _ = limiter.peek_each(None, charge).retry_after();
        }
    });
    assert_eq!(counted.count_total, 0);
}

/// Ten times as many callers as there is room for, by several policies and by permits: the
/// memory is that of the start, and who was exhausted still is.
#[test]
fn r1_a_flood_takes_no_memory_and_frees_nobody() {
    const SLOTS: usize = 4_096;
    let clock = TestClock::new();
    let slow = |name: &str| {
        let quota = quota(10, SECOND * 600, 10);
        Policy::new(name, quota).unwrap().tier("pro", quota)
    };
    let limiter = Limiter::builder()
        .clock(clock.clock())
        .policy(slow("a"))
        .policy(slow("b"))
        .capacity(SLOTS)
        .build()
        .unwrap();
    let abusers: Vec<Key> = (0..50).map(|n| Key::of(&("abuser", n))).collect();
    for key in &abusers {
        assert!(limiter.check(key, None, 10).allowed());
    }
    let flood = measure(|| {
        for fresh in 0..10 * SLOTS {
            let tier = (fresh % 2 == 0).then_some("pro");
            assert!(limiter.check(&Key::of(&fresh), tier, 1).allowed());
            clock.advance(SECOND / 10_000);
        }
    });
    assert_eq!((flood.count_total, flood.bytes_max), (0, 0));
    let permits = measure(|| {
        for fresh in 0..SLOTS {
            let permit = limiter
                .acquire(&Key::of(&("permit", fresh)), None, 2)
                .unwrap();
            permit.settle(1);
        }
    });
    assert!(permits.bytes_max < 64 * 1_024, "{permits:?}");
    for key in &abusers {
        assert!(!limiter.check(key, None, 1).allowed());
        assert!(!limiter.check(key, Some("pro"), 1).allowed());
    }
    for table in limiter.stats() {
        assert_eq!(table.capacity, SLOTS);
        assert!(table.occupied > SLOTS * 9 / 10, "{table:?}");
        assert!(table.evicted_live > 8 * SLOTS as u64, "{table:?}");
    }
}

/// Keys that have something under way are as many as there is work under way.
#[test]
fn r1_nothing_stays_of_what_was_under_way() {
    let at_once = ConcurrencyLimiter::new(Concurrency::new("c", 1).unwrap());
    let flood = measure(|| {
        for fresh in 0..100_000 {
            drop(at_once.acquire(&Key::of(&fresh), None));
        }
    });
    assert_eq!(at_once.keys(), 0);
    assert!(flood.bytes_max < 64 * 1_024, "{flood:?}");
}

fn inner(_: Request<()>) -> Ready<Result<Response<()>, Infallible>> {
    let mut response = Response::new(());
    // Room for our fields, as a response with a few of its own has.
    *response.headers_mut() = HeaderMap::with_capacity(16);
    ready(Ok(response))
}

fn request() -> Request<()> {
    common::from(tenant("acme"))
}

/// The status, and how much a call allocates.
fn count<S>(service: &mut S) -> (u16, u64)
where
    S: Service<Request<()>, Error = Infallible, Response: Status>,
{
    let request = request();
    let mut status = 0;
    let counted = measure(|| {
        let future = pin!(service.call(request));
        let Poll::Ready(Ok(response)) = future.poll(&mut Context::from_waker(Waker::noop())) else {
            return;
        };
        status = response.status();
    });
    (status, counted.count_total)
}

trait Status {
    fn status(&self) -> u16;
}

impl<B> Status for Response<B> {
    fn status(&self) -> u16 {
        Self::status(self).as_u16()
    }
}

/// What a layer adds to a request: of the second and all that follow.
fn adds(layer: &RateLimitLayer) -> (u16, u64) {
    let (_, without) = count(&mut service_fn(inner));
    let mut limited = layer.layer(service_fn(inner));
    count(&mut limited);
    let (status, with) = count(&mut limited);
    assert_eq!(count(&mut limited), (status, with), "always as much");
    (status, with - without)
}

#[test]
fn the_layer_allocates_the_field_and_nothing_else() {
    let roomy = || RateLimitLayer::new(limiter(1_000));
    assert_eq!(adds(&roomy()), (200, 1), "the value of RateLimit");
    assert_eq!(adds(&roomy().headers(Headers::OnRefusal)), (200, 0));
    let counter = u64::from(cfg!(feature = "metrics"));
    assert_eq!(adds(&roomy().exempt("all", |_| true)), (200, counter));
}

#[test]
fn what_only_some_layers_do_costs_what_it_costs() {
    let roomy = || RateLimitLayer::new(limiter(1_000));
    let streams = ConcurrencyLimiter::new(Concurrency::new("c", 9).unwrap());
    let tokens = of([policy(0, 1_000).unit(Unit::Tokens)]);
    let site = KeyBy::client_ip().v6_prefix(48);
    for (layer, most, what) in [
        (roomy().concurrency(streams), 6, "concurrency"),
        (roomy().budget(tokens.clone()), 6, "a budget"),
        (roomy().key_for("more", site), 2, "a key for a policy"),
        (roomy().x_ratelimit(), 5, "x_ratelimit"),
        (roomy().openai_headers(), 5, "openai_headers"),
        (roomy().openai_headers().budget(tokens), 12, "with tokens"),
    ] {
        let (status, count) = adds(&layer);
        assert_eq!(status, 200);
        assert!(count <= most, "{what}: {count}");
    }
}

#[test]
fn a_refusal_allocates_its_body_and_its_fields() {
    let exhausted = || {
        let limiter = limiter(10);
        limiter.penalize(&acme(), None, 20);
        RateLimitLayer::new(limiter)
    };
    assert_eq!(adds(&exhausted()), (429, 9));
    assert_eq!(adds(&exhausted().headers(Headers::Never)), (429, 8));
    // One too many under way.
    let streams = ConcurrencyLimiter::new(Concurrency::new("c", 1).unwrap());
    let _held = streams.acquire(&acme(), None);
    let layer = RateLimitLayer::new(limiter(1_000)).concurrency(streams);
    assert_eq!(adds(&layer), (429, 11));
}
