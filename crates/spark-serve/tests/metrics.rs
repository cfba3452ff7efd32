//! What a server counts. Alone in its process, since its connections run on threads of their own.
#![cfg(feature = "metrics")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use spark_serve::{Config, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Reading resets the counters, so they are added to what was read before.
fn snapshot(snapshotter: &Snapshotter, values: &mut BTreeMap<String, u64>) {
    for (key, _, help, value) in snapshotter.snapshot().into_vec() {
        let key = key.key();
        assert!(help.is_some(), "{} is described", key.name());
        let label = key.labels().next().map_or("", |label| label.value());
        let name = format!("{} {label}", key.name());
        match value {
            DebugValue::Counter(count) => *values.entry(name).or_default() += count,
            DebugValue::Gauge(level) => drop(values.insert(name, level.into_inner() as u64)),
            DebugValue::Histogram(_) => panic!("no histogram here"),
        }
    }
}

#[tokio::test]
async fn connections_are_counted_by_how_they_end() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().unwrap();
    spark_serve::metrics::describe();

    let config = Config::default()
        .header_read_timeout(Duration::from_millis(300))
        .drain_deadline(Duration::from_millis(100))
        .max_connections(4);
    let app = Router::new()
        .route("/", get(|| async { "pong" }))
        .route("/hang", get(std::future::pending::<&'static str>))
        .route(
            "/panic",
            get(|| async { panic!("on purpose") as &'static str }),
        );
    let server = Server::bind("127.0.0.1:0")
        .await
        .unwrap()
        .config(config)
        .unwrap();
    let address = server.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let ended = tokio::spawn(server.serve(app, async move { drop(stopped.await) }));
    let send = async |text: &str| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    };
    let closed = async |mut stream: TcpStream| {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    };

    closed(send("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await).await;
    closed(send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await).await; // then idle
    closed(send("GET / HTTP/1.1\r\nhost").await).await;
    closed(send("nonsense\r\n\r\n").await).await;
    closed(send("GET /panic HTTP/1.1\r\nhost: a\r\n\r\n").await).await;
    let mut hung = Vec::new();
    for _ in 0..4 {
        hung.push(send("GET /hang HTTP/1.1\r\nhost: a\r\n\r\n").await);
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    closed(send("").await).await; // one too many
    let mut counted = BTreeMap::new();
    snapshot(&snapshotter, &mut counted);
    assert_eq!(counted["spark_serve_connections "], 4);
    stop.send(()).unwrap();
    assert_eq!(ended.await.unwrap().aborted, 4);

    snapshot(&snapshotter, &mut counted);
    let count = |name: &str| counted.get(name).copied().unwrap_or_default();
    assert_eq!(count("spark_serve_connections "), 0);
    assert_eq!(count("spark_serve_connections_refused_total full"), 1);
    for (reason, expected) in [
        ("finished", 1),
        ("idle", 1),
        ("header_timeout", 1),
        ("bad_request", 1),
        ("panic", 1),
        ("aborted", 4),
    ] {
        let name = format!("spark_serve_connections_closed_total {reason}");
        assert_eq!(count(&name), expected, "{reason}: {counted:?}");
    }
}
