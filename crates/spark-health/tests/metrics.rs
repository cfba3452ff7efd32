//! What is measured: the gauges to alert on.
#![cfg(feature = "metrics")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use spark_health::{CheckResult, Gate, Health};

fn gauges(snapshotter: &Snapshotter) -> BTreeMap<String, f64> {
    let series = snapshotter.snapshot().into_vec();
    let read = series.into_iter().map(|(key, _, help, value)| {
        let key = key.key();
        assert!(help.is_some(), "{} is not described", key.name());
        let label = key.labels().next().map_or("", |label| label.value());
        let DebugValue::Gauge(value) = value else {
            panic!("{} is no gauge", key.name())
        };
        (format!("{} {label}", key.name()), value.into_inner())
    });
    read.collect()
}

#[test]
fn each_check_and_readiness_have_a_gauge() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    metrics::with_local_recorder(&recorder, || {
        spark_health::metrics::describe();
        let health = Health::builder()
            .check_fn("well", Gate::Ready, CheckResult::pass)
            .check_fn("so-so", Gate::Ready, || CheckResult::warn("a reason"))
            .check_fn("ill", Gate::Info, || CheckResult::fail("a secret reason"))
            .build()
            .unwrap();
        health.started();
        runtime.block_on(health.ready());
        runtime.block_on(health.report());
        let all = [
            ("spark_health_ready ", 1.0),
            ("spark_health_status ill", 0.0),
            ("spark_health_status so-so", 0.5),
            ("spark_health_status well", 1.0),
        ];
        let all = all.map(|(name, value)| (name.to_owned(), value));
        assert_eq!(gauges(&snapshotter), BTreeMap::from(all));
        // Looking sets the gauges to 0, so it is made 1 again first.
        runtime.block_on(health.ready());
        health.begin_drain();
        let ready = gauges(&snapshotter)["spark_health_ready "];
        assert_eq!(ready, 0.0, "at once, before anybody asks");
    });
}
