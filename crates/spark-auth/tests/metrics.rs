//! What is counted, and that every metric is described and no label is unbounded.
#![cfg(feature = "metrics")]
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod common;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use common::{house, name, user_key};
use http::{Request, Response};
use http_body_util::{Empty, Full};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use spark_auth::{AuditEvent, AuditQueue, AuditSink, AuthLayer, NewKey, RequireLayer};
use tower::{ServiceBuilder, ServiceExt, service_fn};

#[test]
fn lost_audit_events_are_counted() {
    /// Stops until the test lets it go on.
    #[derive(Debug)]
    struct Stuck(Arc<Mutex<()>>);
    impl AuditSink for Stuck {
        fn event(&self, _: &AuditEvent) {
            drop(self.0.lock());
        }
    }
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock().unwrap();
    let queue = AuditQueue::new(Stuck(Arc::clone(&gate)), 8).unwrap();
    metrics::with_local_recorder(&recorder, || {
        spark_auth::metrics::describe();
        for _ in 0..100 {
            queue.event(&AuditEvent::MasterUsed {
                previous: false,
                client_ip: None,
            });
        }
    });
    let lost = queue.dropped();
    // Eight wait, and the sink may have one in hand.
    assert!((91..=92).contains(&lost), "{lost}");
    drop(closed);
    let counted = snapshotter.snapshot().into_vec();
    let counted = counted
        .iter()
        .find(|(key, ..)| key.key().name() == spark_auth::metrics::AUDIT_DROPPED_TOTAL);
    let (_, _, described, value) = counted.unwrap();
    assert!(described.is_some());
    assert_eq!(*value, DebugValue::Counter(lost));
}

#[cfg(feature = "axum")]
#[test]
fn a_handler_without_an_auth_layer_is_counted_as_mis_wired() {
    use axum::{Router, body::Body, routing::get};
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    metrics::with_local_recorder(&recorder, || {
        let app = Router::new().route("/", get(|_: spark_auth::MasterCaller| async { "never" }));
        let response = runtime
            .block_on(app.oneshot(Request::new(Body::empty())))
            .unwrap();
        assert_eq!(response.status(), 401);
    });
    let counted = snapshotter.snapshot().into_vec();
    let (key, _, _, value) = &counted[0];
    assert_eq!(key.key().name(), spark_core::metrics::MISWIRED_TOTAL);
    let labels: Vec<_> = key.key().labels().map(|label| label.value()).collect();
    assert_eq!(labels, ["auth_extractor"]);
    assert_eq!(*value, DebugValue::Counter(1));
}

#[test]
fn decisions_and_changes_are_counted() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    metrics::with_local_recorder(&recorder, || {
        spark_core::metrics::describe();
        spark_auth::metrics::describe();
        let house = house();
        let user = house.issue();
        let gone = house.issue();
        house
            .auth
            .rotate(gone.record.id.as_str(), std::time::Duration::ZERO)
            .unwrap();
        let revoked = house.auth.issue(NewKey::new(name("acme"))).unwrap();
        house.auth.revoke(revoked.record.id.as_str()).unwrap();
        let service = ServiceBuilder::new()
            .layer(AuthLayer::required(house.auth.clone()).exempt(["/open"]))
            .layer(RequireLayer::master().or_anonymous())
            .service(service_fn(async |_: Request<Empty<Bytes>>| {
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
            }));
        for (path, credential) in [
            ("/", None),
            ("/open", None),
            ("/", Some(user.key.expose())),
            ("/", Some(house.master.expose())),
            ("/", Some(gone.key.expose())),
            ("/", Some(user_key().expose())),
            ("/", Some("junk")),
        ] {
            let mut request = Request::get(path);
            if let Some(credential) = credential {
                request = request.header("x-api-key", credential);
            }
            let request = request.body(Empty::new()).unwrap();
            runtime.block_on(service.clone().oneshot(request)).unwrap();
        }
    });

    let mut found = BTreeMap::new();
    for (key, _, described, value) in snapshotter.snapshot().into_vec() {
        assert!(described.is_some(), "{key:?} is not described");
        let labels: Vec<_> = key
            .key()
            .labels()
            .map(|label| label.value().to_owned())
            .collect();
        let value = match value {
            DebugValue::Counter(count) => count as f64,
            DebugValue::Gauge(gauge) => gauge.into_inner(),
            DebugValue::Histogram(_) => panic!("no histogram is emitted"),
        };
        // The requests of this test come without a context and without an address, on purpose.
        if value > 0.0 && key.key().name() != spark_core::metrics::MISWIRED_TOTAL {
            found.insert(format!("{} {}", key.key().name(), labels.join(" ")), value);
        }
    }
    let expected = [
        ("spark_auth_decisions_total anonymous accepted", 1.0),
        ("spark_auth_decisions_total anonymous missing", 1.0),
        ("spark_auth_decisions_total master accepted", 1.0),
        ("spark_auth_decisions_total unknown malformed", 1.0),
        ("spark_auth_decisions_total user accepted", 1.0),
        ("spark_auth_decisions_total user revoked", 1.0),
        ("spark_auth_decisions_total user unknown_key", 1.0),
        ("spark_auth_forbidden_total master user", 1.0),
        ("spark_auth_key_changes_total issued", 3.0),
        ("spark_auth_key_changes_total revoked", 1.0),
        ("spark_auth_key_changes_total rotated", 1.0),
        ("spark_auth_keys ", 4.0),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value));
    assert_eq!(found, BTreeMap::from(expected));
}
