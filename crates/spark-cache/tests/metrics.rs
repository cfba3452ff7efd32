//! What is counted.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(feature = "metrics")]

mod common;

use std::collections::BTreeMap;

use common::*;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};

#[test]
fn every_result_is_counted_and_every_metric_described() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    metrics::with_local_recorder(&recorder, || {
        spark_cache::metrics::describe();
        runtime.block_on(async {
            let setup = setup_with(
                |builder| {
                    builder
                        .max_bytes(1_500)
                        .max_entry_bytes(1_500)
                        .max_flights(1)
                },
                |_| async {
                    tokio::task::yield_now().await;
                    Ok(json(CHAT))
                },
            );
            tokio::join!(
                setup.get(question("acme", "hi")),
                setup.get(question("acme", "hi")),
                setup.get(question("acme", "too many"))
            );
            setup.get(question("acme", "hi")).await;
            setup.get(with_body("acme", "{}")).await;
            for i in 0..5 {
                setup.get(question("acme", &i.to_string())).await;
            }
            let failing = setup_with(
                |builder| builder,
                |_| async {
                    let mut response = json(CHAT);
                    *response.status_mut() = http::StatusCode::BAD_GATEWAY;
                    Ok(response)
                },
            );
            failing.get(question("acme", "hi")).await;
        });
    });
    let mut counted = BTreeMap::new();
    for (key, _, description, value) in snapshotter.snapshot().into_vec() {
        assert!(description.is_some(), "{key:?} is not described");
        let labels: Vec<_> = key
            .key()
            .labels()
            .map(|label| label.value().to_owned())
            .collect();
        let value = match value {
            DebugValue::Counter(value) => value as f64,
            DebugValue::Gauge(value) => value.into_inner(),
            DebugValue::Histogram(_) => panic!("there is none"),
        };
        counted.insert(format!("{} {}", key.key().name(), labels.join(",")), value);
    }
    for (name, value) in [
        ("spark_cache_requests_total hit", 1.0),
        ("spark_cache_requests_total miss", 7.0),
        ("spark_cache_requests_total collapsed", 1.0),
        ("spark_cache_requests_total bypass", 2.0),
        ("spark_cache_overflows_total flights", 1.0),
        ("spark_cache_store_rejected_total status", 1.0),
        ("spark_cache_flights ", 0.0),
    ] {
        assert_eq!(counted.get(name), Some(&value), "{name} in {counted:?}");
    }
    assert!(
        counted["spark_cache_evictions_total "] >= 1.0,
        "{counted:?}"
    );
    assert!(
        (1.0..=3.0).contains(&counted["spark_cache_entries "]),
        "{counted:?}"
    );
    assert!(
        (1.0..=1_500.0).contains(&counted["spark_cache_bytes "]),
        "{counted:?}"
    );
}
