//! The layers in an axum router, and in bare hyper over a real socket.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod common;

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use common::{house, name};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use spark_auth::{AuthLayer, NewKey, RequireLayer};
use spark_core::{Clock, Context, ContextLayer, Name, TrustedProxies};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower::{ServiceBuilder, ServiceExt, service_fn};

#[tokio::test]
async fn in_an_axum_router() {
    use axum::{Router, body::Body, routing::get};
    let house = house();
    let user = house.issue().key;
    let reader = house
        .auth
        .issue(NewKey::new(name("ops")).scopes([name("metrics:read")]))
        .unwrap();
    let metrics = RequireLayer::scope(name("metrics:read"));
    let app: Router = Router::new()
        .route(
            "/generate",
            get(|| async { "text" }).layer(RequireLayer::user()),
        )
        .route(
            "/keys",
            get(|| async { "keys" }).layer(RequireLayer::master()),
        )
        .route("/metrics", get(|| async { "metrics" }).layer(metrics))
        .layer(AuthLayer::required(house.auth.clone()))
        .layer(ContextLayer::new(Clock::system(), TrustedProxies::none()));
    for (path, key, expected) in [
        ("/generate", None, 401),
        ("/generate", Some(user.expose()), 200),
        ("/generate", Some(house.master.expose()), 403),
        ("/keys", Some(user.expose()), 403),
        ("/keys", Some(house.master.expose()), 200),
        ("/metrics", Some(user.expose()), 403),
        ("/metrics", Some(reader.key.expose()), 200),
        ("/nowhere", None, 401),
        ("/nowhere", Some(user.expose()), 404),
    ] {
        let mut request = Request::get(path);
        if let Some(key) = key {
            request = request.header("x-api-key", key);
        }
        let response = app
            .clone()
            .oneshot(request.body(Body::empty()).unwrap())
            .await
            .unwrap();
        assert_eq!(response.status(), expected, "{path} with {key:?}");
    }
}

#[cfg(feature = "axum")]
#[tokio::test]
async fn extractors_guard_their_handlers() {
    use axum::{Router, body::Body, routing::get};
    use spark_auth::{Caller, MasterCaller, UserCaller};
    let house = house();
    let user = house.issue().key;
    let routes = Router::new()
        .route("/any", get(|_: Caller| async { "any" }))
        .route(
            "/user",
            get(|UserCaller(user): UserCaller| async move { user.tenant.to_string() }),
        )
        .route("/master", get(|_: MasterCaller| async { "master" }));
    let app = routes
        .clone()
        .layer(AuthLayer::optional(house.auth.clone()));
    for (app, key, expected) in [
        (&routes, "", [401, 401, 401]),
        (&app, "", [200, 401, 401]),
        (&app, user.expose(), [200, 200, 403]),
        (&app, house.master.expose(), [200, 403, 200]),
    ] {
        for (path, expected) in ["/any", "/user", "/master"].into_iter().zip(expected) {
            let mut request = Request::get(path);
            if !key.is_empty() {
                request = request.header("x-api-key", key);
            }
            let request = request.body(Body::empty()).unwrap();
            let response = app.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), expected, "{path}");
            let is_refused = response.headers().contains_key("www-authenticate");
            assert_eq!(is_refused, expected != 200);
        }
    }
}

async fn who(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    assert!(!request.headers().contains_key("authorization"));
    let caller = Context::of(request.extensions()).and_then(Context::principal);
    let tenant = caller
        .and_then(|it| it.tenant())
        .map_or("-", Name::as_str)
        .to_owned();
    Ok(Response::new(Full::from(tenant)))
}

#[tokio::test]
async fn in_bare_hyper_over_a_socket() {
    let house = house();
    let key = house.issue().key;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = ServiceBuilder::new()
        .layer(ContextLayer::new(Clock::system(), TrustedProxies::none()))
        .layer(AuthLayer::required(house.auth.clone()))
        .layer(RequireLayer::user())
        .service(service_fn(who));
    let server = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    });

    let ask = async |headers: &str| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer);
        tokio::time::timeout(Duration::from_secs(10), read)
            .await
            .unwrap()
            .unwrap();
        answer.to_lowercase()
    };
    let good = format!("Authorization: Bearer {}\r\n", key.expose());
    let answer = ask(&good).await;
    assert!(
        answer.starts_with("http/1.1 200") && answer.ends_with("acme"),
        "{answer}"
    );
    let answer = ask("").await;
    assert!(answer.starts_with("http/1.1 401"), "{answer}");
    assert!(
        answer.contains("www-authenticate: bearer realm=\"spark\"\r\n"),
        "{answer}"
    );
    let answer = ask("Authorization: Bearer guess\r\n").await;
    assert!(answer.contains("error=\"invalid_token\""), "{answer}");
    let answer = ask(&good.repeat(2)).await;
    assert!(
        answer.starts_with(&format!("http/1.1 {}", StatusCode::BAD_REQUEST.as_u16())),
        "{answer}"
    );
    server.abort();
}
