//! Under a real router, since what matters is what it makes of a path.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::{any, get, post};
use http::{Method, Request, StatusCode, Uri};
use tower::util::MapRequestLayer;
use tower::{Layer, ServiceExt};

use crate::subject::Missed;
use crate::{Head, Key, KeyBy, Limiter, Policy, Quota, RateLimitLayer};

type Seen = Arc<Mutex<Vec<(Key, Option<Missed>)>>>;

/// Notes the key of every request that passes.
fn note(
    key_by: KeyBy,
) -> (
    Seen,
    MapRequestLayer<impl Fn(Request<Body>) -> Request<Body> + Clone>,
) {
    let seen = Seen::default();
    let notes = Arc::clone(&seen);
    let layer = MapRequestLayer::new(move |request: Request<Body>| {
        let found = key_by.find(&Head::of(&request));
        notes
            .lock()
            .unwrap()
            .push((found.subject.key, found.missed));
        request
    });
    (seen, layer)
}

fn routes() -> Router {
    let items = Router::new().route("/items/{id}", get(|| async {}));
    Router::new()
        .route("/export", post(|| async {}).get(|| async {}))
        .route("/anything", any(|| async {}))
        .route("/users/{id}", get(|| async {}))
        .nest("/api", items.clone())
        .nest_service("/mounted", items)
}

fn request(method: &str, path: &str) -> Request<Body> {
    let mut request = Request::new(Body::empty());
    *request.method_mut() = Method::from_bytes(method.as_bytes()).unwrap();
    *request.uri_mut() = path.parse().unwrap();
    request
        .headers_mut()
        .insert("x-http-method-override", "PUT".parse().unwrap());
    request
}

#[tokio::test]
async fn r20_no_way_to_write_a_path_gets_a_fresh_bucket() {
    let (seen, layer) = note(KeyBy::route());
    let app = routes().layer(layer);
    for (method, path, route) in [
        ("POST", "/export", Some("/export")),
        ("GET", "/export", Some("/export")),
        ("HEAD", "/export", Some("/export")),
        ("DELETE", "/export", Some("/export")),
        ("OPTIONS", "/export", Some("/export")),
        ("MADEUP", "/export", Some("/export")),
        ("MADEUP", "/anything", Some("/anything")),
        ("POST", "/export?a=1", Some("/export")),
        ("POST", "/export?", Some("/export")),
        ("POST", "http://other.example/export", Some("/export")),
        ("POST", "/EXPORT", None),
        ("POST", "/Export", None),
        ("POST", "/export/", None),
        ("POST", "//export", None),
        ("POST", "/%65xport", None),
        ("POST", "/export%2F", None),
        ("POST", "/export;a=1", None),
        ("POST", "/./export", None),
        ("POST", "/api/../export", None),
        ("GET", "/users/1", Some("/users/{id}")),
        ("GET", "/users/2", Some("/users/{id}")),
        ("GET", "/users/%31", Some("/users/{id}")),
        ("GET", "/users/a%2Fb", Some("/users/{id}")),
        ("GET", "/users/", None),
        ("GET", "/users/1/2", None),
        ("GET", "/api/items/1", Some("/api/items/{id}")),
        ("GET", "/api/nothing", None),
        ("GET", "/mounted/items/1", None),
        ("GET", "/nothing", None),
        ("OPTIONS", "*", None),
    ] {
        let response = app.clone().oneshot(request(method, path)).await.unwrap();
        let (key, missed) = seen.lock().unwrap().pop().unwrap();
        assert_eq!((key, missed), (Key::route(route), None), "{method} {path}");
        let reached = response.status() != StatusCode::NOT_FOUND;
        let expected = route.is_some() || path.starts_with("/mounted");
        assert_eq!(reached, expected, "{method} {path}");
    }
}

#[tokio::test]
async fn r20_nor_where_paths_and_methods_are_rewritten_outside() {
    let (seen, layer) = note(KeyBy::route());
    let rewrite = MapRequestLayer::new(|mut request: Request<Body>| {
        let path = request.uri().path().to_lowercase();
        *request.uri_mut() = path.trim_end_matches('/').parse::<Uri>().unwrap();
        let method = request.headers()["x-http-method-override"].as_bytes();
        *request.method_mut() = Method::from_bytes(method).unwrap();
        request
    });
    let app = rewrite.layer(routes().layer(layer));
    for path in ["/export", "/EXPORT", "/Export/", "/export///"] {
        app.clone().oneshot(request("POST", path)).await.unwrap();
        let (key, _) = seen.lock().unwrap().pop().unwrap();
        assert_eq!(key, Key::route(Some("/export")), "{path}");
    }
}

#[tokio::test]
async fn the_fallback_is_one_bucket_and_a_layer_outside_the_router_is_mis_wired() {
    let (seen, layer) = note(KeyBy::route());
    let app = routes().fallback(|| async {}).layer(layer.clone());
    for path in ["/a", "/b"] {
        app.clone().oneshot(request("GET", path)).await.unwrap();
        let noted = seen.lock().unwrap().pop();
        assert_eq!(noted, Some((Key::route(None), None)), "{path}");
    }
    let app = layer.layer(routes());
    app.oneshot(request("GET", "/export")).await.unwrap();
    let noted = seen.lock().unwrap().pop();
    assert_eq!(noted, Some((Key::shared(), Some(Missed::Route))));
}

#[tokio::test]
async fn r20_a_route_is_limited_however_it_is_asked_for() -> Result<(), Infallible> {
    let quota = Quota::new(2, Duration::from_secs(3_600)).unwrap();
    let policy = Policy::new("route", quota).unwrap();
    let limiter = Limiter::builder().policy(policy).build().unwrap();
    let layer = RateLimitLayer::new(limiter).key(KeyBy::route());
    let app = routes().layer(layer);
    let mut statuses = Vec::new();
    for (method, path) in [
        ("GET", "/users/1"),
        ("HEAD", "/users/2"),
        ("GET", "/users/3"),
        ("GET", "/users/3?fresh"),
        ("MADEUP", "/users/%33"),
        ("GET", "/export"),
    ] {
        let response = app.clone().oneshot(request(method, path)).await?;
        statuses.push(response.status().as_u16());
    }
    assert_eq!(statuses, [200, 200, 429, 429, 429, 200]);
    Ok(())
}
