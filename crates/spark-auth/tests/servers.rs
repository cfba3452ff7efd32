//! The layers in an axum router, and in bare hyper over a real socket.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod common;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use common::{House, house, name};
use http::{Request, Response};
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
        .route(
            "/usage",
            get(|| async { "usage" }).layer(RequireLayer::user().or_master()),
        )
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
        ("/metrics", Some(house.master.expose()), 403),
        ("/usage", Some(house.master.expose()), 200),
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

#[cfg(feature = "axum")]
#[tokio::test]
async fn what_quotas_are_charged_to_is_the_tenant_and_not_the_key() {
    use axum::{Router, body::Body, routing::get};
    use http_body_util::BodyExt;
    use spark_auth::{Caller, UserCaller};
    let house = house();
    let app = Router::new()
        .route(
            "/",
            get(
                |Caller(principal): Caller, UserCaller(user): UserCaller| async move {
                    assert_eq!(principal.tenant(), Some(&user.tenant));
                    format!("{} {}", user.tenant, user.key_id)
                },
            ),
        )
        .layer(AuthLayer::required(house.auth.clone()))
        .layer(ContextLayer::new(Clock::system(), TrustedProxies::none()));
    let ask = async |key: &str| {
        let request = Request::get("/").header("x-api-key", key);
        // Whatever a client says of itself.
        let request = request.header("x-spark-tenant", "somebody-else");
        let request = request.body(Body::empty()).unwrap();
        let body = app.clone().oneshot(request).await.unwrap().into_body();
        let text = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(text.to_vec()).unwrap();
        let (tenant, key) = text.split_once(' ').unwrap();
        (tenant.to_owned(), key.to_owned())
    };
    let (first, second) = (house.issue().key, house.issue().key);
    let other = house.auth.issue(NewKey::new(name("other"))).unwrap().key;
    let (one, two, three) = (
        ask(first.expose()).await,
        ask(second.expose()).await,
        ask(other.expose()).await,
    );
    assert_eq!((one.0.as_str(), two.0.as_str()), ("acme", "acme"));
    assert_ne!(one.1, two.1);
    assert_eq!(three.0, "other");
}

#[cfg(feature = "axum")]
#[tokio::test]
async fn a_handler_may_ask_for_the_address() {
    use axum::{Router, body::Body, extract::ConnectInfo, routing::get};
    use spark_core::ClientIp;
    let routes = Router::new().route("/", get(|ip: ClientIp| async move { ip.to_string() }));
    let app = routes
        .clone()
        .layer(ContextLayer::new(Clock::system(), TrustedProxies::none()));
    let peer = std::net::SocketAddr::from(([192, 0, 2, 7], 5000));
    for (app, with_peer, expected) in [(&app, true, 200), (&app, false, 500), (&routes, true, 500)]
    {
        let mut request = Request::new(Body::empty());
        if with_peer {
            request.extensions_mut().insert(ConnectInfo(peer));
        }
        let response = app.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), expected);
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

/// Requests over a socket, to bare hyper with the layers around `who`.
struct OverSocket {
    address: SocketAddr,
    server: tokio::task::JoinHandle<()>,
}

impl OverSocket {
    async fn start(house: &House) -> Self {
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
        Self { address, server }
    }

    /// The answer to a request with these bytes among its header lines, in small letters.
    async fn ask(&self, headers: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n";
        let request = [head, headers, b"\r\n"].concat();
        stream.write_all(&request).await.unwrap();
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        let read = tokio::time::timeout(Duration::from_secs(10), read).await;
        read.unwrap().unwrap();
        String::from_utf8_lossy(&answer).to_lowercase()
    }
}

impl Drop for OverSocket {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[tokio::test]
async fn in_bare_hyper_over_a_socket() {
    let house = house();
    let key = house.issue().key;
    let server = OverSocket::start(&house).await;
    let good = format!("Authorization: Bearer {}\r\n", key.expose());
    let answer = server.ask(good.as_bytes()).await;
    assert!(
        answer.starts_with("http/1.1 200") && answer.ends_with("acme"),
        "{answer}"
    );
    let answer = server.ask(b"").await;
    assert!(answer.starts_with("http/1.1 401"), "{answer}");
    assert!(
        answer.contains("www-authenticate: bearer realm=\"spark\"\r\n"),
        "{answer}"
    );
    let answer = server.ask(b"Authorization: Bearer guess\r\n").await;
    assert!(answer.contains("error=\"invalid_token\""), "{answer}");
}

#[tokio::test]
async fn a7_odd_credential_headers_end_to_end() {
    let house = house();
    let key = house.issue().key;
    let key = key.expose().as_bytes();
    let server = OverSocket::start(&house).await;
    let line = |name: &str, value: &[&[u8]]| {
        let value = value.concat();
        [name.as_bytes(), b": ", &value, b"\r\n"].concat()
    };
    let authorization = |value: &[&[u8]]| line("Authorization", value);
    let good = authorization(&[b"Bearer ", key]);
    let x_api_key = line("X-API-Key", &[key]);
    let long = [b'k'; 64 * 1024];
    let (ok, invalid, two_ways, other) = (
        "http/1.1 200",
        "error=\"invalid_token\"",
        "error=\"invalid_request\"",
        "bearer realm=\"spark\"\r\n",
    );
    // What is no header at all never reaches the layers.
    let no_http = "http/1.1 400";
    for (headers, expected) in [
        // Read as meant.
        (good.clone(), ok),
        (x_api_key.clone(), ok),
        (authorization(&[b"bearer ", key]), ok),
        (authorization(&[b"BEARER ", key]), ok),
        (authorization(&[b"  Bearer \t ", key, b" \t"]), ok),
        (line("authorization", &[b"Bearer ", key]), ok),
        (line("x-ApI-kEy", &[b" ", key]), ok),
        // Two credentials, or one that may be two.
        ([good.clone(), good.clone()].concat(), two_ways),
        ([x_api_key.clone(), x_api_key.clone()].concat(), two_ways),
        ([good.clone(), x_api_key.clone()].concat(), two_ways),
        (authorization(&[b"Bearer ", key, b",", key]), two_ways),
        (
            authorization(&[b"Bearer ", key, b", Bearer ", key]),
            two_ways,
        ),
        (authorization(&[b"Bearer ", key, b" ", key]), two_ways),
        (line("X-API-Key", &[b"Bearer ", key]), two_ways),
        // Nothing, or what is no text.
        (authorization(&[b""]), two_ways),
        (authorization(&[b"Bearer"]), two_ways),
        (authorization(&[b"Bearer  "]), two_ways),
        (line("X-API-Key", &[b" "]), two_ways),
        (authorization(&[b"Bearer \xff\xfe"]), two_ways),
        (authorization(&["Bearer schlüssel".as_bytes()]), two_ways),
        (authorization(&[b"Bearer ", key, b"\xc2\xa0"]), two_ways),
        // No key.
        (authorization(&[b"Bearer ", &key[1..]]), invalid),
        (authorization(&[b"Bearer ", key, b"0"]), invalid),
        (authorization(&[b"Bearer ", &long]), invalid),
        (line("X-API-Key", &[&long]), invalid),
        (
            authorization(&[b"Bearer", &[b' '; 64 * 1024], key]),
            invalid,
        ),
        // Another scheme, or none.
        (authorization(&[b"Basic dTpw"]), other),
        (authorization(&[b"Negotiate ", &long]), other),
        (authorization(&[b"Bearer", key]), other),
        (authorization(&[key]), other),
        // Bytes that no header holds.
        (authorization(&[b"Bearer ", key, b"\0"]), no_http),
        (authorization(&[b"Bear\0er ", key]), no_http),
        (authorization(&[b"Bearer ", key, b"\x7f"]), no_http),
        (authorization(&[b"Bearer \n", key]), no_http),
        (line("Authorization ", &[b"Bearer ", key]), no_http),
    ] {
        let answer = server.ask(&headers).await;
        let shown = String::from_utf8_lossy(&headers[..headers.len().min(120)]);
        assert!(answer.contains(expected), "{shown}: {answer}");
        let is_in = answer.ends_with("acme");
        assert_eq!(is_in, expected == ok, "{shown}: {answer}");
    }
}
