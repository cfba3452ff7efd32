//! Every metric that is emitted is described, with the labels that the manual names.
#![cfg(feature = "metrics")]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "helpers of tests")]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use spark_errors::{Delivery, ErrorTracker, Event, Fingerprint, Hook, HookError, MemoryHook};

struct Refuses;

impl Hook for Refuses {
    fn name(&self) -> &str {
        "refuses"
    }

    fn deliver(&self, _: Arc<Event>) -> Delivery<'_> {
        Box::pin(async { Err(HookError::Rejected("no".into())) })
    }
}

#[tokio::test]
async fn every_metric_is_described_and_labelled() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _guard = metrics::set_default_local_recorder(&recorder);
    spark_errors::describe();
    let tracker = ErrorTracker::builder()
        .log(false)
        .max_groups(2)
        .per_group(1, Duration::from_secs(60))
        .hook(MemoryHook::new(1))
        .hook(Refuses)
        .build()
        .unwrap();
    for group in ["a", "b", "c", "c"] {
        tracker
            .event("provider")
            .group(Fingerprint::chosen(group))
            .send();
    }
    assert_eq!(tracker.flush(Duration::from_secs(5)).await, 0);

    let mut seen = BTreeMap::new();
    for (key, _unit, description, value) in snapshotter.snapshot().into_vec() {
        let (_, key) = key.into_parts();
        assert!(description.is_some(), "{} has no description", key.name());
        let labels: Vec<_> = key
            .labels()
            .map(|l| format!("{}={}", l.key(), l.value()))
            .collect();
        let value = match value {
            DebugValue::Counter(count) => count as f64,
            DebugValue::Gauge(gauge) => gauge.into_inner(),
            DebugValue::Histogram(_) => panic!("none is emitted"),
        };
        seen.insert(format!("{}{{{}}}", key.name(), labels.join(",")), value);
    }
    let expected = [
        ("spark_errors_total{kind=provider}", 4.0),
        ("spark_errors_suppressed_total{}", 1.0),
        ("spark_errors_groups{}", 2.0),
        ("spark_errors_groups_evicted_total{}", 1.0),
        ("spark_errors_hook_delivered_total{hook=memory}", 3.0),
        (
            "spark_errors_hook_dropped_total{hook=refuses,reason=rejected}",
            3.0,
        ),
    ];
    assert_eq!(
        seen,
        expected
            .map(|(name, value)| (name.to_owned(), value))
            .into()
    );
}
