//! What is counted, and with which labels.
#![cfg(feature = "metrics")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use http::{Request, Response};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use spark_core::testing::TestClock;
use spark_ratelimit::{KeyBy, Limiter, Policy, Quota, RateLimitLayer};
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
