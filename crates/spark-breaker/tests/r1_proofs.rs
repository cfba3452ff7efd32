//! Proofs.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use spark_breaker::*;
use spark_core::testing::TestClock;

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn breaker(config: Config) -> (Breaker, TestClock) {
    let clock = TestClock::new();
    let breaker = Breaker::new("b", config, clock.clock()).unwrap();
    (breaker, clock)
}

fn fail(breaker: &Breaker, times: usize) {
    for _ in 0..times {
        breaker.try_acquire().unwrap().failure(FailKind::Other);
    }
}

#[test]
fn totals_after_many_generations() {
    let (breaker, _clock) = breaker(Config::standard().window(Window::Count(100)));
    for _ in 0..17_000 {
        breaker.set_mode(Mode::ForcedClosed);
        breaker.set_mode(Mode::Auto);
    }
    fail(&breaker, 3);
    let totals = breaker.snapshot().totals;
    assert_eq!((totals.successes, totals.failures), (0, 3));
}

#[test]
fn no_user_is_the_second_probe_while_they_are_kept_for_the_background() {
    let rules = Config::standard().jitter(0.0).background_grace(secs(5)).probes(2);
    let (breaker, clock) = breaker(rules);
    fail(&breaker, 5);
    clock.advance(secs(10));
    let probe = breaker.try_acquire_background().unwrap();
    let reason = breaker.try_acquire().map(|permit| permit.is_probe());
    assert!(reason.is_err(), "a user waits on a provider that may still be down");
    probe.success();
}

#[test]
fn a_constant_open_time_is_spread_too() {
    let times: std::collections::BTreeSet<_> = (0..50)
        .map(|_| {
            let (breaker, _clock) = breaker(Config::standard().jitter(0.5).max_open_for(secs(10)));
            fail(&breaker, 5);
            breaker.snapshot().retry_after.unwrap()
        })
        .collect();
    assert!(times.len() > 40, "{times:?}");
}

#[test]
fn watching_anew_it_says_again_that_it_would_open() {
    let (breaker, clock) = breaker(Config::standard());
    breaker.set_mode(Mode::MetricsOnly);
    breaker.exhaust(None);
    breaker.set_mode(Mode::Auto);
    clock.advance(secs(3_600));
    breaker.set_mode(Mode::MetricsOnly);
    fail(&breaker, 5);
    let would = breaker.snapshot().would_trip.unwrap();
    assert!(matches!(would.reason, Reason::Consecutive { .. }), "{would:?}");
}

#[test]
fn what_an_operator_opened_is_not_said_to_have_opened_by_itself() {
    let clock = TestClock::new();
    let registry = Registry::new(9, Config::standard().probes(1), clock.clock()).unwrap();
    let breaker = registry.get_or_create("b").unwrap();
    fail(&breaker, 5);
    clock.advance(secs(60));
    breaker.try_acquire().unwrap().success();
    clock.advance(secs(86_400));
    breaker.set_mode(Mode::ForcedOpen);
    breaker.set_mode(Mode::Auto);
    let line = registry.health().unwell[0].to_string();
    assert!(!line.contains("in a row"), "{line}");
}

struct Panics;

impl<E> Classify<E> for Panics {
    type Body = ToTheEnd;

    fn response(&self, _: &Head<'_>) -> Verdict<ToTheEnd> {
        panic!("of the classifier")
    }

    fn error(&self, _: &E) -> Outcome {
        Outcome::Success
    }
}

#[tokio::test]
async fn a_classifier_that_panics_over_a_late_head_is_not_the_callee() {
    use tower::{Layer, ServiceExt, service_fn};
    let (breaker, clock) = breaker(Config::llm());
    let layer = BreakerLayer::new(breaker.clone()).classify(Panics);
    let time = clock.clone();
    let service = layer.layer(service_fn(move |_: http::Request<()>| {
        time.advance(secs(31));
        async { Ok::<_, std::io::Error>(http::Response::new(String::new())) }
    }));
    let mut call = Box::pin(service.oneshot(http::Request::new(())));
    let caught = catch_unwind(AssertUnwindSafe(|| {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        std::future::Future::poll(call.as_mut(), &mut cx).is_ready()
    }));
    assert!(caught.is_err());
    let totals = breaker.snapshot().totals;
    assert_eq!((totals.failures, totals.cancelled), (0, 1));
}
