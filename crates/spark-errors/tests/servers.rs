//! The layer under axum and under bare hyper, over real sockets.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "helpers of tests")]

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, routing::get};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use spark_errors::{Delivery, ErrorTracker, ErrorsLayer, Event, Hook};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tower::{Layer, service_fn};

async fn ask(address: SocketAddr, path: &str) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = socket.read_to_end(&mut answer);
    tokio::time::timeout(Duration::from_secs(10), read)
        .await
        .unwrap()
        .unwrap();
    String::from_utf8(answer).unwrap()
}

/// Never done.
struct Hangs;

impl Hook for Hangs {
    fn name(&self) -> &str {
        "hangs"
    }

    fn deliver(&self, _: Arc<Event>) -> Delivery<'_> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn axum_with_a_sink_that_hangs() {
    let tracker = ErrorTracker::builder()
        .log(false)
        .hook(Hangs)
        .hook_queue(4)
        .per_group(u32::MAX, Duration::from_secs(60))
        .build()
        .unwrap();
    let router = Router::new()
        .route(
            "/panic/{id}",
            get(|| async {
                if true {
                    panic!("planned")
                }
            }),
        )
        .route("/fine", get(|| async { "fine" }))
        .layer(ErrorsLayer::new(tracker.clone()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, router).await });

    let all = async {
        for n in 0..50 {
            let answer = ask(address, &format!("/panic/{n}")).await;
            assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
            assert!(answer.contains("application/problem+json"));
            assert!(answer.contains("urn:spark:event:"));
            assert!(!answer.contains("planned"));
        }
        assert!(ask(address, "/fine").await.ends_with("fine"));
    };
    // One delivery alone would take five seconds.
    tokio::time::timeout(Duration::from_secs(4), all)
        .await
        .expect("requests do not wait");
    let stats = tracker.stats();
    assert_eq!(stats.captured, 50);
    assert_eq!(stats.groups, 1);
    assert!(stats.hooks[0].dropped >= 45);
    let flush = tracker.flush(Duration::from_millis(100));
    assert!(
        tokio::time::timeout(Duration::from_secs(2), flush)
            .await
            .unwrap()
            > 0
    );
    if cfg!(feature = "axum") {
        assert_eq!(tracker.recent(1)[0].route.as_deref(), Some("/panic/{id}"));
    }
    server.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bare_hyper() {
    let tracker = ErrorTracker::builder().log(false).build().unwrap();
    let handler = service_fn(|request: Request<hyper::body::Incoming>| async move {
        assert!(request.uri().path() != "/panic", "planned");
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("fine"))))
    });
    let service = ErrorsLayer::new(tracker.clone()).layer(handler);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let service = TowerToHyperService::new(service.clone());
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service);
            tokio::spawn(connection);
        }
    });
    assert!(ask(address, "/panic").await.starts_with("HTTP/1.1 500"));
    assert!(ask(address, "/").await.ends_with("fine"));
    assert_eq!(tracker.recent(9).len(), 1);
    server.abort();
}
