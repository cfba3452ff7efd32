//! What is counted, and with which labels.
#![cfg(feature = "metrics")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use common::{MINUTE, from_ip, limiter, policy};
use http::{Request, Response};
use metrics::{Counter, Gauge, Histogram, KeyName, Metadata, Recorder, SharedString};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use spark_core::Context;
use spark_core::testing::TestClock;
use spark_ratelimit::{
    Concurrency, ConcurrencyLimiter, Key, KeyBy, Limiter, Policy, Quota, RateLimitLayer, Unit,
    Unknown,
};
use tower::{Layer, ServiceExt, service_fn};

/// Sends requests that are allowed, refused, exempt and repeated; gives `name{labels}` and values.
fn series() -> BTreeMap<String, f64> {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    metrics::with_local_recorder(&recorder, || {
        spark_ratelimit::metrics::describe();
        runtime.block_on(async {
            let policy = Policy::new("requests", Quota::new(2, Duration::from_secs(60)).unwrap());
            let limiter = Limiter::builder()
                .clock(TestClock::new().clock())
                .policy(policy.unwrap())
                .capacity(800)
                .build()
                .unwrap();
            let layer = RateLimitLayer::new(limiter)
                .scope("ip")
                .key(KeyBy::from_fn(|_| {
                    Some(spark_ratelimit::Key::of("secret-tenant"))
                }))
                .exempt("health", |head| head.uri.path() == "/livez");
            let hello = || {
                service_fn(|_: Request<()>| async {
                    Ok::<_, Infallible>(Response::new(String::new()))
                })
            };
            let service = layer.layer(hello());
            for path in ["/", "/", "/", "/livez"] {
                let request = Request::get(path).body(()).unwrap();
                service.clone().oneshot(request).await.unwrap();
            }
            let twice = layer.clone().layer(layer.layer(hello()));
            layer
                .limiter()
                .reset(&spark_ratelimit::Key::of("secret-tenant"));
            twice.oneshot(Request::new(())).await.unwrap();
        });
    });
    let mut series = BTreeMap::new();
    for (key, _, description, value) in snapshotter.snapshot().into_vec() {
        let key = key.key();
        if key.name().starts_with("spark_ratelimit_") {
            assert!(description.is_some(), "{} is not described", key.name());
        }
        let labels: Vec<_> = key
            .labels()
            .map(|l| format!("{}={}", l.key(), l.value()))
            .collect();
        let value = match value {
            DebugValue::Counter(n) => n as f64,
            DebugValue::Gauge(n) => n.into_inner(),
            DebugValue::Histogram(_) => unreachable!("none is used"),
        };
        series.insert(format!("{}{{{}}}", key.name(), labels.join(",")), value);
    }
    series
}

#[test]
fn r14_every_series_is_described_bounded_and_without_a_key() {
    let series = series();
    let expect = [
        (
            "spark_ratelimit_decisions_total{scope=ip,decision=allowed}",
            3.0,
        ),
        (
            "spark_ratelimit_decisions_total{scope=ip,decision=denied}",
            1.0,
        ),
        (
            "spark_ratelimit_decisions_total{scope=ip,decision=exempt}",
            1.0,
        ),
        (
            "spark_ratelimit_decisions_total{scope=ip,decision=repeated}",
            1.0,
        ),
        (
            "spark_ratelimit_decisions_total{scope=ip,decision=unknown}",
            0.0,
        ),
        ("spark_ratelimit_near_limit_total{scope=ip}", 1.0),
        (
            "spark_ratelimit_violations_total{scope=ip,policy=requests}",
            1.0,
        ),
        (
            "spark_ratelimit_exempt_total{scope=ip,exemption=health}",
            1.0,
        ),
        (
            "spark_ratelimit_table_slots{scope=ip,policy=requests}",
            800.0,
        ),
        (
            "spark_ratelimit_table_occupied_slots{scope=ip,policy=requests}",
            1.0,
        ),
        (
            "spark_ratelimit_table_evicted_live_total{scope=ip,policy=requests}",
            0.0,
        ),
    ];
    for (name, value) in expect {
        assert_eq!(series.get(name), Some(&value), "{name} in {series:#?}");
    }
    let ours = series
        .keys()
        .filter(|name| name.starts_with("spark_ratelimit"));
    assert_eq!(ours.count(), expect.len());
    assert!(series.keys().all(|name| !name.contains("secret")));
}

/// Runs `work` under a recorder; gives `name{labels}` and values of this crate's series.
fn recorded(work: impl AsyncFnOnce()) -> BTreeMap<String, f64> {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.build().unwrap();
    metrics::with_local_recorder(&recorder, || {
        spark_ratelimit::metrics::describe();
        runtime.block_on(work());
    });
    let mut series = BTreeMap::new();
    for (key, _, description, value) in snapshotter.snapshot().into_vec() {
        let key = key.key();
        if !key.name().starts_with("spark_ratelimit_") {
            continue;
        }
        assert!(description.is_some(), "{} is not described", key.name());
        let labels = key
            .labels()
            .map(|it| format!("{}={}", it.key(), it.value()));
        let labels: Vec<_> = labels.collect();
        let value = match value {
            DebugValue::Counter(n) => n as f64,
            DebugValue::Gauge(n) => n.into_inner(),
            DebugValue::Histogram(_) => unreachable!("none is used"),
        };
        let name = key.name().trim_start_matches("spark_ratelimit_");
        series.insert(format!("{name}{{{}}}", labels.join(",")), value);
    }
    series
}

/// A thousand callers, of every kind of answer: what is counted, and that there are no more series
/// than there are policies and answers.
#[test]
fn r14_shadows_near_limits_concurrency_budgets_and_the_unknown() {
    let clock = TestClock::new();
    let limiter = limiter(
        &clock,
        [
            policy("now", 10, MINUTE),
            policy("tomorrow", 5, MINUTE).shadow(),
        ],
    );
    let tokens = limiter_of_tokens(&clock);
    let streams = ConcurrencyLimiter::new(Concurrency::new("streams", 1).unwrap());
    let layer = RateLimitLayer::new(limiter)
        .key(KeyBy::client_ip().unknown(Unknown::Refuse))
        .concurrency(streams)
        .budget(tokens);
    let service = layer.layer(service_fn(async |request: Request<()>| {
        let context = Context::of(request.extensions()).unwrap();
        // One can be reserved, two cannot.
        let budget = context.budget().unwrap();
        let _ = [budget.reserve(60), budget.reserve(60)];
        Ok::<_, Infallible>(Response::new("answer".to_owned()))
    }));
    let caller = |n: usize| format!("2001:db8:{n:x}::1");
    let series = recorded(async || {
        let send = |request| service.clone().oneshot(request);
        for n in 0..500 {
            let held = send(from_ip(&caller(n))).await.unwrap();
            assert_eq!(held.status(), 200);
            // One too many, while the first is not read.
            assert_eq!(send(from_ip(&caller(n))).await.unwrap().status(), 429);
        }
        for _ in 0..15 {
            let _ = send(from_ip("192.0.2.77")).await.unwrap();
        }
        for _ in 0..3 {
            assert_eq!(send(Request::new(())).await.unwrap().status(), 503);
        }
    });
    let expect = [
        ("decisions_total{scope=default,decision=allowed}", 510.0),
        ("decisions_total{scope=default,decision=denied}", 505.0),
        ("decisions_total{scope=default,decision=exempt}", 0.0),
        ("decisions_total{scope=default,decision=repeated}", 0.0),
        ("decisions_total{scope=default,decision=unknown}", 3.0),
        ("violations_total{scope=default,policy=streams}", 500.0),
        ("violations_total{scope=default,policy=now}", 5.0),
        // The tokens of one request, then none: of 500 callers once, of one 19 times.
        ("violations_total{scope=default,policy=tokens}", 519.0),
        // Of the last caller, from the sixth on, whether it is refused by another or not.
        (
            "shadow_violations_total{scope=default,policy=tomorrow}",
            10.0,
        ),
        // The last caller has less than two left of ten.
        ("near_limit_total{scope=default}", 2.0),
        ("reservations_total{scope=default,decision=allowed}", 501.0),
        ("reservations_total{scope=default,decision=denied}", 519.0),
        ("table_slots{scope=default,policy=now}", 256.0),
        ("table_slots{scope=default,policy=tomorrow}", 256.0),
        ("table_occupied_slots{scope=default,policy=now}", 1.0),
        ("table_occupied_slots{scope=default,policy=tomorrow}", 1.0),
        ("table_evicted_live_total{scope=default,policy=now}", 0.0),
        ("table_slots{scope=default,policy=tokens}", 256.0),
        ("table_occupied_slots{scope=default,policy=tokens}", 0.0),
        ("table_evicted_live_total{scope=default,policy=tokens}", 0.0),
        (
            "table_evicted_live_total{scope=default,policy=tomorrow}",
            0.0,
        ),
    ];
    for (name, value) in expect {
        assert_eq!(series.get(name), Some(&value), "{name} in {series:#?}");
    }
    assert_eq!(series.len(), expect.len(), "bounded: {series:#?}");
    assert!(
        series
            .keys()
            .all(|name| !name.contains("192.0.2") && !name.contains("2001:"))
    );
}

/// The tables are looked at again after five seconds, and a table that was too small says so.
#[test]
fn r1_evictions_are_counted_and_renewed() {
    let clock = TestClock::new();
    let limiter = Limiter::builder()
        .clock(clock.clock())
        .policy(policy("p", 9, MINUTE))
        .capacity(8)
        .build()
        .unwrap();
    let layer = RateLimitLayer::new(limiter).key(KeyBy::client_ip());
    let series = recorded(async || {
        let service = layer.layer(common::hello());
        for n in 0..20 {
            let address = format!("2001:db8:{n:x}::1");
            service.clone().oneshot(from_ip(&address)).await.unwrap();
        }
        clock.advance(Duration::from_secs(5));
        service.clone().oneshot(from_ip("192.0.2.1")).await.unwrap();
    });
    assert_eq!(
        series["table_evicted_live_total{scope=default,policy=p}"],
        13.0
    );
    assert_eq!(series["table_occupied_slots{scope=default,policy=p}"], 8.0);
}

/// Asks a limiter of its own about each violation.
struct Asks(Limiter);

impl Recorder for Asks {
    fn describe_counter(&self, _: KeyName, _: Option<metrics::Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<metrics::Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<metrics::Unit>, _: SharedString) {}

    fn register_counter(&self, key: &metrics::Key, _: &Metadata<'_>) -> Counter {
        if key.name() == spark_ratelimit::metrics::VIOLATIONS_TOTAL {
            self.0.check(&Key::shared(), None, 1);
        }
        Counter::noop()
    }

    fn register_gauge(&self, _: &metrics::Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &metrics::Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[test]
fn a_recorder_may_ask_a_limiter() {
    let clock = TestClock::new();
    let its_own = limiter(&clock, [policy("its-own", 9, MINUTE)]);
    let layer = RateLimitLayer::new(limiter(&clock, [policy("p", 1, MINUTE)]));
    let service = layer.key(KeyBy::client_ip()).layer(common::hello());
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.build().unwrap();
    metrics::with_local_recorder(&Asks(its_own.clone()), || {
        let send = || runtime.block_on(service.clone().oneshot(from_ip("192.0.2.1")));
        assert_eq!(send().unwrap().status(), 200);
        assert_eq!(send().unwrap().status(), 429);
    });
    assert!(common::remaining(&its_own, Key::shared(), None) < 9);
}

fn limiter_of_tokens(clock: &TestClock) -> Limiter {
    limiter(clock, [policy("tokens", 100, MINUTE).unit(Unit::Tokens)])
}
