//! The probes in the places where they stand: tower, axum, bare hyper.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::convert::Infallible;

use axum::Router;
use axum::routing::get;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use spark_core::testing::{TestBody, contract};
use spark_health::{CheckResult, Gate, Health, ProbesLayer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::{Layer, ServiceExt, service_fn};

fn health() -> Health {
    let check = || CheckResult::fail("the internals");
    Health::builder()
        .check_fn("store", Gate::Ready, check)
        .build()
        .unwrap()
}

#[tokio::test]
async fn the_contract_of_tower() {
    contract::check(ProbesLayer::new(health()), || {
        Request::new(TestBody::frames(["hello"]))
    })
    .await;
}

#[tokio::test]
async fn under_axum_three_paths_are_answered_and_the_rest_passes() {
    let health = health();
    let inner = Router::new()
        .route("/", get(|| async { "pong" }))
        .fallback(|| async { "inner" });
    let app = inner.layer(ProbesLayer::new(health.clone()));
    let ask = async |method: Method, path: &str| {
        let request = Request::builder().method(method).uri(path);
        let request = request.body(axum::body::Body::empty()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (
            parts.status.as_u16(),
            String::from_utf8(body.to_vec()).unwrap(),
            parts.headers,
        )
    };
    let get = async |path: &str| {
        let (status, body, _) = ask(Method::GET, path).await;
        (status, body)
    };
    assert_eq!(get("/livez").await, (200, "alive".to_owned()));
    assert_eq!(get("/startupz").await, (503, "starting".to_owned()));
    assert_eq!(get("/readyz").await, (503, "starting".to_owned()));
    health.started();
    assert_eq!(get("/startupz").await, (200, "started".to_owned()));
    assert_eq!(get("/readyz?verbose=1").await, (503, "failing".to_owned()));
    health.begin_drain();
    assert_eq!(get("/livez").await, (200, "alive".to_owned()));
    assert_eq!(get("/readyz").await, (503, "draining".to_owned()));

    let (status, body, headers) = ask(Method::HEAD, "/readyz").await;
    assert_eq!((status, body.as_str()), (503, ""));
    assert_eq!(headers["content-length"], "8");
    assert_eq!(headers["content-type"], "text/plain; charset=utf-8");
    assert_eq!(headers["cache-control"], "no-store");

    for (method, path) in [
        (Method::POST, "/livez"),
        (Method::GET, "/livez/"),
        (Method::GET, "//livez"),
        (Method::GET, "/LIVEZ"),
        (Method::GET, "/livez%20"),
    ] {
        let (status, body, _) = ask(method, path).await;
        assert_eq!((status, body.as_str()), (200, "inner"), "{path}");
    }
    assert_eq!(get("/").await, (200, "pong".to_owned()));
}

#[tokio::test]
async fn a_report_is_an_axum_response() {
    let health = health();
    let app = Router::new().route(
        "/health",
        get(|| async move { health.report().await.public().into_response() }),
    );
    let request = Request::get("/health")
        .body(axum::body::Body::empty())
        .unwrap();
    let response = app.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        response.headers()["content-type"],
        "application/health+json"
    );
}

#[tokio::test]
async fn under_bare_hyper_over_a_socket() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let health = Health::builder().build().unwrap();
    health.started();
    let service =
        ProbesLayer::new(health).layer(service_fn(|_: Request<hyper::body::Incoming>| async {
            Ok::<_, Infallible>(Response::new(String::from("pong")))
        }));
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let service = hyper_util::service::TowerToHyperService::new(service);
        let io = hyper_util::rt::TokioIo::new(stream);
        hyper::server::conn::http1::Builder::new()
            .serve_connection(io, service)
            .await
            .unwrap();
    });
    let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
    for (request, expected) in [
        ("HEAD /readyz", "content-length: 5"),
        ("GET /readyz", "ready"),
        ("GET /", "pong"),
    ] {
        let head = format!("{request} HTTP/1.1\r\nhost: a\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        let mut buffer = [0; 1024];
        let count = client.read(&mut buffer).await.unwrap();
        let answer = std::str::from_utf8(&buffer[..count]).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains(expected), "{answer}");
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        assert_eq!(body.is_empty(), request.starts_with("HEAD"), "{answer}");
    }
    drop(client);
    server.await.unwrap();
}
