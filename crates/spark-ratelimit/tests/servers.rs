//! The layer under real servers, over real connections: axum, bare hyper.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::convert::Infallible;
use std::net::SocketAddr;

use axum::Router;
use axum::routing::get;
use common::{MINUTE, SECOND, limiter, policy};
use http::{Request, Response};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use spark_core::PeerAddr;
use spark_core::testing::TestClock;
use spark_ratelimit::{KeyBy, RateLimitLayer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::{Layer, service_fn};

#[tokio::test]
async fn under_axum_with_connect_info() {
    let clock = TestClock::new();
    let layer =
        RateLimitLayer::new(limiter(&clock, [policy("ip", 2, MINUTE)])).key(KeyBy::client_ip());
    let app = Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/post", axum::routing::post(|body: String| async { body }))
        .layer(layer);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = app.into_make_service_with_connect_info::<SocketAddr>();
    let server = tokio::spawn(async move { axum::serve(listener, service).await });

    assert!(
        ask(address, "GET / HTTP/1.1")
            .await
            .starts_with("HTTP/1.1 200")
    );
    assert!(
        ask(address, "GET /missing HTTP/1.1")
            .await
            .starts_with("HTTP/1.1 404")
    );
    let refused = ask(address, "POST /post HTTP/1.1").await;
    assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
    assert!(refused.contains("retry-after: 30"));
    server.abort();
}

#[tokio::test]
async fn under_bare_hyper() {
    let clock = TestClock::new();
    let layer =
        RateLimitLayer::new(limiter(&clock, [policy("ip", 2, MINUTE)])).key(KeyBy::client_ip());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        loop {
            let (stream, peer) = listener.accept().await.unwrap();
            let service = layer.layer(service_fn(|_: Request<hyper::body::Incoming>| async {
                Ok::<_, Infallible>(Response::new(Full::new(bytes("hello"))))
            }));
            let service = tower::util::MapRequest::new(service, move |mut request: Request<_>| {
                request.extensions_mut().insert(PeerAddr(peer));
                request
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
            tokio::spawn(connection);
        }
    });

    for left in [1, 0] {
        let response = ask(address, "GET / HTTP/1.1").await;
        assert!(response.starts_with("HTTP/1.1 200"), "{response}");
        assert!(response.contains(&format!("ratelimit: \"ip\";r={left};t=30")));
        assert!(response.ends_with("hello"));
    }
    let refused = ask(address, "GET / HTTP/1.1").await;
    assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
    assert!(refused.contains("\"violated-policies\":[\"ip\"]"));
    server.abort();
}

fn bytes(text: &'static str) -> axum::body::Bytes {
    text.into()
}

async fn ask(address: SocketAddr, line: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("{line}\r\nhost: a\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(SECOND * 5, stream.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    answer
}
