//! The layer under axum and under bare hyper, over real sockets.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::{convert::Infallible, future::Future, time::Duration};

use axum::{Router, routing::get};
use bytes::Bytes;
use common::page;
use http::{Request, Response};
use http_body_util::Full;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use spark_metrics::Metrics;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tower::{Layer, service_fn};

async fn ask(address: std::net::SocketAddr, path: &str) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn soon<F: Future<Output = ()>>(what: F) {
    tokio::time::timeout(Duration::from_secs(10), what)
        .await
        .expect("in time");
}

fn sample(route: &str, status: &str, outcome: &str) -> String {
    let labels = format!(r#"method="GET",route="{route}",status="{status}",outcome="{outcome}""#);
    format!("spark_http_requests_total{{{labels}}}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bare_hyper() {
    let metrics = Metrics::builder().build().unwrap();
    let service =
        metrics
            .http_layer()
            .layer(service_fn(|_: Request<hyper::body::Incoming>| async {
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("hello"))))
            }));
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
    soon(async {
        for _ in 0..3 {
            assert!(ask(address, "/any").await.ends_with("hello"));
        }
    })
    .await;
    server.abort();
    let page = page(&metrics);
    assert_eq!(page.get(&sample("unmatched", "200", "complete")), Some(3.0));
    assert_eq!(page.get("spark_http_requests_in_flight"), Some(0.0));
}

#[cfg(feature = "axum")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn axum_inside_and_around_a_router() {
    let app = || Router::new().route("/users/{id}", get(|| async { "user" }));
    for around in [false, true] {
        let metrics = Metrics::builder().build().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = if around {
            let inner = app().layer(spark_metrics::MatchedPathLayer);
            Router::new().fallback_service(metrics.http_layer().layer(inner))
        } else {
            app()
                .fallback(|| async { http::StatusCode::NOT_FOUND })
                .layer(metrics.http_layer())
        };
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        soon(async {
            assert!(ask(address, "/users/1").await.ends_with("user"));
            assert!(ask(address, "/users/2").await.ends_with("user"));
            ask(address, "/nothing/here").await;
        })
        .await;
        server.abort();
        let page = page(&metrics);
        assert_eq!(
            page.get(&sample("/users/{id}", "200", "complete")),
            Some(2.0)
        );
        assert_eq!(page.get(&sample("unmatched", "404", "complete")), Some(1.0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_mid_stream_is_cancelled() {
    let metrics = Metrics::builder().build().unwrap();
    let endless = || async { axum::body::Body::new(Endless) };
    let router = Router::new()
        .route("/", get(endless))
        .layer(metrics.http_layer());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    soon(async {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket
            .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        let mut some = [0; 1_024];
        socket.read_exact(&mut some).await.unwrap();
        drop(socket);
        loop {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let page = page(&metrics);
            let cancelled = page
                .samples
                .keys()
                .any(|sample| sample.contains(r#"outcome="cancelled""#));
            if cancelled && page.get("spark_http_requests_in_flight") == Some(0.0) {
                break;
            }
        }
    })
    .await;
    server.abort();
}

/// Always has one more frame.
struct Endless;

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        std::task::Poll::Ready(Some(Ok(http_body::Frame::data(Bytes::from_static(
            &[b'x'; 4_096],
        )))))
    }
}
