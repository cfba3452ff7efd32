//! The layer in the places where it stands: tower, axum, bare hyper.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashSet;
use std::convert::Infallible;

use axum::Router;
use axum::routing::{get, post};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use spark_core::PeerAddr;
use spark_core::testing::{Behaviour, Probe, TestBody, contract};
use spark_headers::{Csp, CspNonce, Https, SecurityHeaders, SecurityHeadersLayer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::{Layer, Service, ServiceExt, service_fn};

/// Every header of the API set over plain http, in one value each.
fn assert_api_set(headers: &HeaderMap) {
    for name in [
        "content-security-policy",
        "x-content-type-options",
        "x-frame-options",
        "referrer-policy",
        "cross-origin-resource-policy",
        "cross-origin-opener-policy",
        "cross-origin-embedder-policy",
        "permissions-policy",
        "cache-control",
        "x-permitted-cross-domain-policies",
        "x-dns-prefetch-control",
    ] {
        assert_eq!(headers.get_all(name).iter().count(), 1, "{name}");
    }
    assert!(!headers.contains_key("strict-transport-security"));
}

fn answering(
    make: impl Fn(&Request<()>) -> Response<String> + Clone + Send + 'static,
) -> impl Service<Request<()>, Response = Response<String>, Error = Infallible, Future: Send> + Clone
{
    service_fn(move |request| {
        let response = make(&request);
        async move { Ok(response) }
    })
}

fn csp(response: &Response<impl Sized>) -> &str {
    response.headers()["content-security-policy"]
        .to_str()
        .unwrap()
}

#[tokio::test]
async fn the_contract_of_tower() {
    for set in [
        SecurityHeaders::api(),
        SecurityHeaders::html(),
        SecurityHeaders::none(),
    ] {
        contract::check(SecurityHeadersLayer::new(set), || {
            Request::new(TestBody::frames(["hello"]))
        })
        .await;
    }
}

#[tokio::test]
async fn every_status_carries_the_set() {
    for status in [
        200, 204, 206, 301, 304, 400, 401, 403, 404, 405, 413, 429, 500, 502, 503, 504,
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        let inner = answering(move |_| {
            let mut response = Response::new(String::new());
            *response.status_mut() = status;
            response
        });
        let service = SecurityHeadersLayer::new(SecurityHeaders::api()).layer(inner);
        let response = service.oneshot(Request::new(())).await.unwrap();
        assert_api_set(response.headers());
    }
}

#[tokio::test]
async fn an_error_of_the_service_comes_through() {
    let probe = Probe::new();
    probe.behave(Behaviour::Fail);
    let service = SecurityHeadersLayer::new(SecurityHeaders::api()).layer(probe);
    assert!(
        service
            .oneshot(Request::new(TestBody::frames([])))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn hsts_is_sent_over_https_only() {
    let trusted = || Https::ForwardedProto(vec!["127.0.0.0/8".parse().unwrap()]);
    for (https, peer, proto, expected) in [
        (Https::Never, None, "https", false),
        (Https::Always, None, "http", true),
        (trusted(), Some("127.0.0.1:9"), "https", true),
        (trusted(), Some("127.0.0.1:9"), "http", false),
        (trusted(), Some("192.0.2.1:9"), "https", false),
        (trusted(), None, "https", false),
    ] {
        let set = SecurityHeaders::html().https(https.clone());
        let service =
            SecurityHeadersLayer::new(set).layer(answering(|_| Response::new(String::new())));
        let mut request = Request::new(());
        request
            .headers_mut()
            .insert("x-forwarded-proto", proto.parse().unwrap());
        if let Some(peer) = peer {
            request
                .extensions_mut()
                .insert(PeerAddr(peer.parse().unwrap()));
        }
        let response = service.oneshot(request).await.unwrap();
        let sent = response.headers().contains_key("strict-transport-security");
        assert_eq!(sent, expected, "{https:?} {peer:?} {proto}");
        assert_eq!(
            csp(&response).contains("upgrade-insecure-requests"),
            expected
        );
    }
}

#[tokio::test]
async fn a_nonce_is_used_once() {
    let inner = answering(|request| {
        Response::new(request.extensions().get::<CspNonce>().unwrap().to_string())
    });
    let service = SecurityHeadersLayer::new(SecurityHeaders::html()).layer(inner);
    let mut seen = HashSet::new();
    for _ in 0..1_000 {
        let response = service.clone().oneshot(Request::new(())).await.unwrap();
        let nonce = response.body().clone();
        assert!(nonce.len() >= 22, "128 bits in base64");
        assert_eq!(
            csp(&response).matches(&format!("'nonce-{nonce}'")).count(),
            2
        );
        assert!(seen.insert(nonce));
    }
}

#[tokio::test]
async fn a_304_leaves_the_nonce_of_the_stored_page() {
    let not_modified = answering(|_| {
        let mut response = Response::new(String::new());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    });
    let service = SecurityHeadersLayer::new(SecurityHeaders::html()).layer(not_modified);
    let response = service.oneshot(Request::new(())).await.unwrap();
    assert!(!response.headers().contains_key("content-security-policy"));
    assert!(response.headers().contains_key("x-content-type-options"));
}

#[tokio::test]
async fn the_innermost_set_stands() {
    let page = answering(|request| {
        assert!(request.extensions().get::<CspNonce>().is_some());
        Response::new(String::new())
    });
    let page = SecurityHeadersLayer::new(SecurityHeaders::html()).layer(page);
    let all = SecurityHeadersLayer::new(SecurityHeaders::api().https(Https::Always)).layer(page);
    let response = all.oneshot(Request::new(())).await.unwrap();
    assert!(csp(&response).contains("'nonce-"));
    assert!(
        !response
            .headers()
            .contains_key("cross-origin-embedder-policy")
    );
    assert!(!response.headers().contains_key("strict-transport-security"));
}

#[tokio::test]
async fn a_nonce_that_the_innermost_policy_does_not_name_is_not_given() {
    let data = answering(|request| {
        assert!(request.extensions().get::<CspNonce>().is_none());
        Response::new(String::new())
    });
    let data = SecurityHeadersLayer::new(SecurityHeaders::api()).layer(data);
    let all = SecurityHeadersLayer::new(SecurityHeaders::html()).layer(data);
    assert!(!csp(&all.oneshot(Request::new(())).await.unwrap()).contains("nonce"));
}

#[tokio::test]
async fn a_report_only_policy_stands_beside() {
    let trial = Csp::html().directive("img-src", ["'none'"]).unwrap();
    let set = SecurityHeaders::html().csp_report_only(trial);
    let service = SecurityHeadersLayer::new(set).layer(answering(|_| Response::new(String::new())));
    let response = service.oneshot(Request::new(())).await.unwrap();
    let only = response.headers()["content-security-policy-report-only"]
        .to_str()
        .unwrap();
    assert!(only.contains("img-src 'none'") && only.contains("'nonce-"));
    assert!(csp(&response).contains("img-src 'self' data:"));
}

#[tokio::test]
async fn under_axum_no_route_escapes() {
    let app = Router::new()
        .route("/", get(|| async { "pong" }))
        .route(
            "/own",
            get(|| async { ([("cache-control", "max-age=60")], "kept") }),
        )
        .route("/post", post(|| async { "posted" }))
        .route(
            "/server",
            get(|| async { ([("server", "axum"), ("x-powered-by", "me")], "") }),
        )
        .layer(SecurityHeadersLayer::new(SecurityHeaders::api()));
    for (method, path, status) in [
        (Method::GET, "/", 200),
        (Method::HEAD, "/", 200),
        (Method::GET, "/own", 200),
        (Method::GET, "/post", 405),
        (Method::OPTIONS, "/post", 405),
        (Method::GET, "/server", 200),
        (Method::GET, "/nowhere", 404),
    ] {
        let request = Request::builder().method(&method).uri(path);
        let request = request.body(axum::body::Body::empty()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), status, "{method} {path}");
        assert_api_set(response.headers());
        let cached = if path == "/own" {
            "max-age=60"
        } else {
            "no-store, max-age=0"
        };
        assert_eq!(response.headers()["cache-control"], cached);
        assert!(!response.headers().contains_key("server"));
        assert!(!response.headers().contains_key("x-powered-by"));
    }
}

#[cfg(feature = "axum")]
#[tokio::test]
async fn axum_extracts_the_nonce() {
    let with = |set| {
        let routes = Router::new()
            .route(
                "/needs",
                get(|nonce: CspNonce| async move { nonce.to_string() }),
            )
            .route(
                "/asks",
                get(|nonce: Option<CspNonce>| async move { nonce.is_some().to_string() }),
            );
        routes.layer(SecurityHeadersLayer::new(set))
    };
    let ask = async |app: Router, path: &str| {
        let request = Request::builder()
            .uri(path)
            .body(axum::body::Body::empty())
            .unwrap();
        let response = app.oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    };
    let (status, nonce) = ask(with(SecurityHeaders::html()), "/needs").await;
    assert_eq!((status, nonce.len()), (StatusCode::OK, 24));
    assert_eq!(ask(with(SecurityHeaders::html()), "/asks").await.1, "true");
    assert_eq!(ask(with(SecurityHeaders::api()), "/asks").await.1, "false");
    assert_eq!(ask(with(SecurityHeaders::api()), "/needs").await.0, 500);
}

#[tokio::test]
async fn under_bare_hyper_over_a_socket() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = SecurityHeadersLayer::new(SecurityHeaders::api()).layer(service_fn(
        |request: Request<hyper::body::Incoming>| async move {
            let echoed = request.into_body().collect().await.unwrap().to_bytes();
            Ok::<_, Infallible>(Response::new(http_body_util::Full::new(echoed)))
        },
    ));
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
    let request =
        "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 4\r\n\r\nping";
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    server.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(
        answer.contains("\r\nx-content-type-options: nosniff\r\n"),
        "{answer}"
    );
    assert!(answer.ends_with("\r\n\r\nping"), "{answer}");
    assert!(!answer.contains("\r\nserver:"), "{answer}");
}
