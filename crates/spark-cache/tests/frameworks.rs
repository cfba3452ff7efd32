//! The layer under axum, and under bare hyper over a real socket.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::{Extension, Router, body::Body, routing};
use common::{CHAT, STREAM, json};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use spark_cache::{Cache, CacheLayer, LlmPolicy};
use spark_core::{Clock, Context, Principal, RequestBody, User};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};

fn layer() -> CacheLayer<LlmPolicy> {
    let cache = Cache::builder().build().unwrap();
    CacheLayer::new(
        cache,
        LlmPolicy::builder()
            .path("/v1/chat/completions")
            .build()
            .unwrap(),
    )
}

fn acme() -> Context {
    let user = User::new("key".parse().unwrap(), "acme".parse().unwrap());
    Context::new(Clock::system().now()).with_principal(Principal::from(user))
}

#[tokio::test]
async fn under_axum() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let handler = move |body: String| async move {
        counted.fetch_add(1, Ordering::SeqCst);
        assert!(body.contains("temperature"));
        ([("content-type", "application/json")], CHAT)
    };
    let app = Router::new()
        .route("/v1/chat/completions", routing::post(handler))
        .route("/livez", routing::get(|| async { "ok" }))
        .layer(layer())
        .layer(Extension(acme()));
    for how in ["spark; fwd=miss", "spark; hit; ttl="] {
        let request = Request::post("/v1/chat/completions")
            .header("content-type", "application/json")
            .body(Body::from(r#"{"temperature":0}"#))
            .unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        assert!(common::cache_status(response.headers()).starts_with(how));
        let body = axum::body::to_bytes(response.into_body(), 1 << 20)
            .await
            .unwrap();
        assert_eq!(body, CHAT);
    }
    let request = Request::get("/livez").body(Body::empty()).unwrap();
    let response = app.oneshot(request).await.unwrap();
    assert!(!response.headers().contains_key("cache-status"));
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

async fn send(address: std::net::SocketAddr, body: &str) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = socket.read_to_string(&mut answer);
    tokio::time::timeout(Duration::from_secs(10), read)
        .await
        .unwrap()
        .unwrap();
    answer
}

#[tokio::test]
async fn under_bare_hyper() {
    let handler = service_fn(|request: Request<RequestBody<Incoming>>| async move {
        let body = request.into_body();
        let asked = body.as_whole().cloned().unwrap_or_default();
        let response: Response<common::ResBody> = if asked.windows(6).any(|w| w == b"stream") {
            common::events(
                common::stream(),
                Duration::from_millis(1),
                common::Ending::Clean,
            )
        } else {
            json(CHAT)
        };
        Ok::<_, Infallible>(response)
    });
    let service = ServiceBuilder::new()
        .map_request(|mut request: Request<Incoming>| {
            request.extensions_mut().insert(acme());
            request
        })
        .service(layer().layer(handler));
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

    let first = send(address, r#"{"temperature":0}"#).await;
    assert!(
        first.contains("cache-status: spark; fwd=miss\r\n") && first.ends_with(CHAT),
        "{first}"
    );
    let length = format!("content-length: {}\r\n", CHAT.len());
    assert!(first.contains(&length), "{first}");
    let again = send(address, r#"{ "temperature": 0.0 }"#).await;
    assert!(
        again.contains("cache-status: spark; hit") && again.ends_with(CHAT),
        "{again}"
    );
    assert!(again.contains(&length), "{again}");

    let streamed = send(address, r#"{"temperature":0,"stream":true}"#).await;
    assert!(
        streamed.contains("transfer-encoding: chunked"),
        "{streamed}"
    );
    let again = send(address, r#"{"temperature":0,"stream":true}"#).await;
    assert!(
        again.contains("spark; hit") && again.ends_with(&STREAM.concat()),
        "{again}"
    );
    let sampled = send(address, r#"{"temperature":1}"#).await;
    assert!(
        sampled.contains("detail=not_deterministic") && sampled.ends_with(CHAT),
        "{sampled}"
    );
    server.abort();
}
