//! A clock that steps back, and responses that say what they used when they are dropped.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use spark_core::testing::TestClock;
use spark_core::{Context, Instant, Usage, UsageReport};
use spark_ratelimit::{Key, KeyBy, Limiter, Policy, Quota, RateLimitLayer};
use tower::{Layer, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);

fn policy(name: &str, n: u64, seconds: u64) -> Policy {
    Policy::new(name, Quota::new(n, SECOND * seconds as u32).unwrap()).unwrap()
}

fn limiter(clock: &TestClock, policy: Policy) -> Limiter {
    let builder = Limiter::builder().clock(clock.clock()).capacity(64);
    builder.policy(policy).build().unwrap()
}

fn set(clock: &TestClock, seconds: u64) {
    clock.set(Instant::from_nanos(seconds * 1_000_000_000));
}

fn key() -> Key {
    Key::of("a")
}

#[test]
fn r7_a_caller_of_another_tier_is_not_locked_out_for_long() {
    let clock = TestClock::new();
    set(&clock, 100_000);
    let pro = Quota::new(70, SECOND * 10).unwrap().burst(35).unwrap();
    let limiter = limiter(&clock, policy("p", 10, 10).tier("pro", pro));
    assert!(limiter.check(&key(), None, 5).allowed());
    set(&clock, 1_000);
    for _ in 0..25 {
        let _ = limiter.check(&key(), Some("pro"), 1);
        clock.advance(SECOND);
    }
    assert!(limiter.check(&key(), Some("pro"), 1).allowed());
}

#[test]
fn r7_a_shadow_forgets_what_lies_too_far_ahead_too() {
    let clock = TestClock::new();
    set(&clock, 100_000);
    let limiter = limiter(&clock, policy("p", 10, 10).shadow());
    assert!(limiter.check(&key(), None, 5).allowed());
    set(&clock, 1_000);
    for _ in 0..25 {
        let _ = limiter.check(&key(), None, 1);
        clock.advance(SECOND);
    }
    assert_eq!(limiter.check(&key(), None, 1).shadow_violated().count(), 0);
}

#[test]
fn r11_nothing_of_what_was_cut_off_is_given_back() {
    let clock = TestClock::new();
    set(&clock, 100_000);
    let limiter = limiter(&clock, policy("p", 10, 10));
    let permit = limiter.acquire(&key(), None, 10).unwrap();
    // 30 s ahead, of which 20 s are kept.
    set(&clock, 99_980);
    assert!(!limiter.check(&key(), None, 1).allowed());
    for seconds in [99_995, 100_000] {
        set(&clock, seconds);
        assert!(limiter.check(&key(), None, 5).allowed());
    }
    permit.settle(0);
    let left = limiter.peek(&key(), None, 0).tightest().remaining;
    assert!(left <= 5, "{left}, and without a reservation it were 5");
}

#[test]
fn r11_nothing_of_what_was_paid_before_a_step_back_is_given_back() {
    let clock = TestClock::new();
    set(&clock, 100);
    let limiter = limiter(&clock, policy("p", 10, 10));
    let permit = limiter.acquire(&key(), None, 10).unwrap();
    set(&clock, 120);
    assert!(limiter.check(&key(), None, 5).allowed());
    set(&clock, 105);
    permit.settle(0);
    set(&clock, 115);
    let left = limiter.peek(&key(), None, 0).tightest().remaining;
    assert_eq!(left, 0, "as without a reservation");
}

/// Says what was used when it is dropped, as an adapter of a stream may.
struct LastWords {
    frame: Option<Bytes>,
    fails: bool,
    usage: Usage,
}

impl Drop for LastWords {
    fn drop(&mut self) {
        let report = UsageReport::new("demo", "small").with_tokens(10, 10);
        self.usage.record(report);
    }
}

impl Body for LastWords {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        if self.fails {
            return Poll::Ready(Some(Err(std::io::Error::other("gone"))));
        }
        Poll::Ready(self.frame.take().map(|frame| Ok(Frame::data(frame))))
    }

    fn is_end_stream(&self) -> bool {
        !self.fails && self.frame.is_none()
    }
}

#[tokio::test]
async fn r10_a_usage_that_is_told_when_the_body_is_dropped_settles() {
    for fails in [false, true] {
        let clock = TestClock::new();
        let tokens = limiter(&clock, policy("tokens", 1_000, 60));
        let layer = RateLimitLayer::new(limiter(&clock, policy("requests", 60, 60)))
            .key(KeyBy::from_fn(|_| Some(key())))
            .budget(tokens.clone());
        let service = layer.layer(service_fn(move |request: Request<()>| async move {
            let context = Context::of(request.extensions()).unwrap();
            context.budget().unwrap().reserve(600).unwrap();
            Ok::<_, Infallible>(Response::new(LastWords {
                frame: Some("x".into()),
                fails,
                usage: context.usage().clone(),
            }))
        }));
        let mut body = service.oneshot(Request::new(())).await.unwrap().into_body();
        assert_eq!(body.frame().await.unwrap().is_err(), fails);
        drop(body);
        let left = tokens.peek(&key(), None, 0).tightest().remaining;
        assert_eq!(left, 980, "{fails}");
    }
}
