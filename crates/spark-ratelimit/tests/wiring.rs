//! Where the layer stands and what it is asked for: preflights, layers that stand twice, spellings
//! of a route.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use axum::Router;
use axum::routing::{get, post};
use common::{MINUTE, acme, field, from, hello, ip, limiter, policy, remaining, tenant};
use http::{Method, Request};
use spark_core::testing::TestClock;
use spark_core::{Context, Principal};
use spark_ratelimit::{Key, RateLimitLayer};
use tower::{Layer, ServiceExt};

/// What CORS asks beforehand, what health checks ask: not counted. What only looks like it: counted.
#[tokio::test]
async fn r18_what_is_exempt_is_not_counted_and_nothing_else_is() {
    let limiter = limiter(&TestClock::new(), [policy("p", 100, MINUTE)]);
    let layer = RateLimitLayer::new(limiter.clone()).exempt("health", |head| {
        matches!(head.uri.path(), "/livez" | "/readyz")
    });
    let service = layer.layer(hello());
    let method = "access-control-request-method";
    for (verb, path, headers, charged) in [
        ("OPTIONS", "/", &["origin", method][..], 0),
        (
            "OPTIONS",
            "/",
            &["origin", method, "access-control-request-headers"],
            0,
        ),
        ("OPTIONS", "/", &["origin"], 1),
        ("OPTIONS", "/", &[method], 1),
        ("OPTIONS", "*", &[], 1),
        ("GET", "/", &["origin", method], 1),
        ("POST", "/", &["origin", method], 1),
        ("options", "/", &["origin", method], 1),
        ("GET", "/livez", &[], 0),
        ("GET", "/livez?a", &[], 0),
        ("POST", "/readyz", &[], 0),
        ("GET", "/livez/", &[], 1),
        ("GET", "/LIVEZ", &[], 1),
        ("GET", "/livez%2f", &[], 1),
        ("GET", "//livez", &[], 1),
    ] {
        let before = remaining(&limiter, acme(), None);
        let mut request = from(tenant("acme"));
        *request.method_mut() = Method::from_bytes(verb.as_bytes()).unwrap();
        *request.uri_mut() = path.parse().unwrap();
        for name in headers {
            request.headers_mut().insert(*name, "POST".parse().unwrap());
        }
        let response = service.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let charge = before - remaining(&limiter, acme(), None);
        assert_eq!(charge, charged, "{verb} {path} {headers:?}");
        assert_eq!(field(&response, "ratelimit").is_some(), charged == 1);
    }
}

/// One limiter in several places of one application: a request is charged once.
#[tokio::test]
async fn r19_nested_in_axum_a_request_is_charged_once() {
    let limiter = limiter(&TestClock::new(), [policy("p", 10, MINUTE)]);
    let layer = RateLimitLayer::new(limiter.clone());
    let inner = Router::new()
        .route("/items/{id}", get(async || "item"))
        .layer(layer.clone());
    let app = Router::new()
        .nest("/api", inner.clone())
        .nest_service("/mounted", inner)
        .route("/export", post(async || "export").layer(layer.clone()))
        .route_layer(layer.clone())
        .layer(layer);
    let mut left = 10;
    for (method, path) in [
        ("GET", "/api/items/1"),
        ("GET", "/mounted/items/1"),
        ("POST", "/export"),
        ("GET", "/nothing"),
    ] {
        let mut request = from(tenant("acme")).map(|()| axum::body::Body::empty());
        *request.method_mut() = method.parse().unwrap();
        *request.uri_mut() = path.parse().unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        left -= 1;
        assert_eq!(remaining(&limiter, acme(), None), left, "{path}");
        let lines = response.headers().get_all("ratelimit").iter().count();
        assert_eq!(lines, 1, "{path}");
    }
}

/// Two limiters are two questions, each asked once, also when both stand twice.
#[tokio::test]
async fn r19_two_limiters_charge_each_once() {
    let clock = TestClock::new();
    let [a, b] = ["a", "b"].map(|name| limiter(&clock, [policy(name, 10, MINUTE)]));
    let (one, other) = (
        RateLimitLayer::new(a.clone()),
        RateLimitLayer::new(b.clone()),
    );
    let service = one.layer(other.layer(one.clone().scope("again").layer(other.layer(hello()))));
    for left in [9, 8, 7] {
        service.clone().oneshot(from(tenant("acme"))).await.unwrap();
        assert_eq!([&a, &b].map(|it| remaining(it, acme(), None)), [left; 2]);
    }
    // A client cannot bring the mark along, and no request inherits that of another.
    assert_eq!(
        remaining(
            &a,
            Key::tenant(&spark_core::Name::new("other").unwrap()),
            None
        ),
        10
    );
}

/// The caller is another one further in: that is another key, and charged.
#[tokio::test]
async fn r19_who_is_known_only_further_in_is_charged_there() {
    let limiter = limiter(&TestClock::new(), [policy("p", 10, MINUTE)]);
    let layer = RateLimitLayer::new(limiter.clone());
    let sign_in = tower::util::MapRequestLayer::new(|mut request: Request<()>| {
        let context = Context::of_mut(request.extensions_mut()).unwrap();
        context.set_principal(tenant("acme"));
        request
    });
    let service = layer.layer(sign_in.layer(layer.layer(hello())));
    service.oneshot(from(Principal::Anonymous)).await.unwrap();
    assert_eq!(remaining(&limiter, acme(), None), 9);
    assert_eq!(
        remaining(&limiter, Key::network(ip("192.0.2.1"), 64), None),
        9
    );
}

/// By route over HTTP, for each caller: no spelling of a path or method is a fresh bucket.
#[cfg(feature = "axum")]
#[tokio::test]
async fn r20_no_spelling_is_a_fresh_bucket_over_http() {
    use spark_ratelimit::KeyBy;

    let limiter = limiter(&TestClock::new(), [policy("route", 4, MINUTE * 60)]);
    let layer = RateLimitLayer::new(limiter).key(KeyBy::principal().and(KeyBy::route()));
    let app = Router::new()
        .route("/export/{id}", post(async || "done"))
        .layer(layer);
    let send = async |principal: Principal, method: &str, path: &str| {
        let mut request = from(principal).map(|()| axum::body::Body::empty());
        *request.method_mut() = Method::from_bytes(method.as_bytes()).unwrap();
        *request.uri_mut() = path.parse().unwrap();
        request
            .headers_mut()
            .insert("x-http-method-override", "PUT".parse().unwrap());
        app.clone()
            .oneshot(request)
            .await
            .unwrap()
            .status()
            .as_u16()
    };
    for (method, path, status) in [
        ("POST", "/export/1", 200),
        ("GET", "/export/1", 405),
        ("HEAD", "/export/2", 405),
        ("POST", "/export/%31", 200),
        ("POST", "/export/3", 429),
        ("POST", "/export/3?fresh=1", 429),
        ("PUT", "/export/3", 429),
        ("MADEUP", "/export/3", 429),
        ("POST", "http://other.example/export/4", 429),
        // What reaches nothing has one bucket too, so that it is no way to try out paths.
        ("POST", "/EXPORT/1", 404),
        ("POST", "/export/1/", 404),
        ("POST", "//export/1", 404),
        ("POST", "/%65xport", 404),
        ("POST", "/export", 429),
        ("POST", "/anything", 429),
    ] {
        assert_eq!(
            send(tenant("acme"), method, path).await,
            status,
            "{method} {path}"
        );
    }
    assert_eq!(send(tenant("other"), "POST", "/export/1").await, 200);
}
