//! The layer with breakers by key.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{Request, Response};
use http_body_util::BodyExt;
use spark_breaker::{BreakerLayer, Config, Mode, OVERFLOW, ProviderKey, Registry, State, Totals};
use spark_core::testing::{Probe, TestBody, TestClock, contract};
use spark_core::{Context, Principal, User};
use tower::{Layer, Service, ServiceExt, service_fn};

#[derive(Clone)]
struct Model(Arc<str>);

fn registry(capacity: usize) -> (Registry, TestClock) {
    let clock = TestClock::new();
    clock.advance(Duration::from_secs(1_000));
    let rules = Config::llm().jitter(0.0);
    let registry = Registry::new(capacity, rules, clock.clock()).unwrap();
    (registry, clock)
}

/// By the model in the extensions; the credential is the key of the tenant who calls.
fn key(head: &Parts) -> Option<ProviderKey> {
    let Model(model) = head.extensions.get()?;
    let key = ProviderKey::new("openai").model(Arc::clone(model));
    let principal = Context::of(&head.extensions).and_then(Context::principal);
    Some(match principal {
        Some(Principal::User(user)) => key.credential(user.tenant.as_str()),
        _ => key,
    })
}

fn request(model: &str) -> Request<TestBody> {
    let mut request = Request::new(TestBody::frames(["hello"]));
    request.extensions_mut().insert(Model(model.into()));
    request
}

fn from(tenant: &str, clock: &TestClock) -> Request<TestBody> {
    let mut request = request("gpt-x");
    let user = User::new("k".parse().unwrap(), tenant.parse().unwrap());
    let context = Context::new(clock.clock().now()).with_principal(Principal::User(user.into()));
    request.extensions_mut().insert(context);
    request
}

/// Refuses the credential of `bad`, and fails for models that are `down`.
fn provider()
-> impl Service<Request<TestBody>, Response = Response<String>, Error = Infallible, Future: Send> + Clone
{
    service_fn(|request: Request<TestBody>| async move {
        let context = Context::of(request.extensions());
        let tenant = context
            .and_then(Context::principal)
            .and_then(Principal::tenant);
        let status = match (tenant, request.extensions().get::<Model>()) {
            (Some(tenant), _) if tenant.as_str() == "bad" => 401,
            (_, Some(Model(model))) if model.starts_with("down") => 500,
            _ => 200,
        };
        let response = Response::builder().status(status);
        Ok(response.body(String::from("body")).unwrap())
    })
}

async fn status<S, B>(service: &S, request: Request<TestBody>) -> u16
where
    S: Service<Request<TestBody>, Response = Response<B>, Error = Infallible> + Clone,
    B: http_body::Body<Error: std::fmt::Debug>,
{
    let response = service.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    response.into_body().collect().await.unwrap();
    status
}

#[tokio::test]
async fn contract_keyed() {
    let (registry, _clock) = registry(9);
    let layer = BreakerLayer::keyed(registry.clone(), key);
    contract::check(layer, || request("gpt-x")).await;
    for snapshot in registry.snapshots() {
        assert_eq!(snapshot.in_flight, 0);
    }
    assert_eq!(registry.iter().count(), 2);
}

#[tokio::test]
async fn b13_a_thousand_401s_of_one_tenants_key_leave_the_provider_to_the_others() {
    let (registry, clock) = registry(9);
    let service = BreakerLayer::keyed(registry.clone(), key).layer(provider());
    let mut asked = 0;
    for _ in 0..1_000 {
        asked += u32::from(status(&service, from("bad", &clock)).await == 401);
        assert_eq!(status(&service, from("good", &clock)).await, 200);
    }
    assert_eq!(asked, 5);
    let response = service.oneshot(from("bad", &clock)).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(body.to_vec()).unwrap();
    assert!(text.contains(r#""breaker":"openai#bad""#), "{text}");
}

#[tokio::test]
async fn b12_models_that_clients_make_up_do_no_harm_to_real_ones() {
    let (registry, _clock) = registry(4);
    let service = BreakerLayer::keyed(registry.clone(), key).layer(provider());
    assert_eq!(status(&service, request("down-real")).await, 500);
    for n in 0..1_000 {
        let junk = status(&service, request(&format!("down-{n}"))).await;
        assert!(matches!(junk, 500 | 503));
        assert_eq!(status(&service, request("real")).await, 200);
    }
    let real = registry.get("openai/down-real").unwrap().snapshot();
    assert_eq!(real.failures, 1, "trouble is remembered");
    assert_eq!(registry.get("openai").unwrap().snapshot().failures, 0);
    let shared = registry.get("other/other").unwrap().snapshot();
    assert_eq!(shared.state, State::Open);
    assert_eq!(registry.iter().count(), 1 + 4 + 1);
    // A real model that comes too late shares it, until there is room.
    assert_eq!(status(&service, request("late")).await, 503);
}

#[tokio::test]
async fn a_request_without_a_key_goes_by_the_shared_breaker() {
    let (registry, _clock) = registry(9);
    let service = BreakerLayer::keyed(registry.clone(), key).layer(provider());
    let keyless = || Request::new(TestBody::frames([]));
    assert_eq!(status(&service, keyless()).await, 200);
    let shared = registry.get(OVERFLOW).unwrap();
    assert_eq!(shared.snapshot().totals.successes, 1);
    shared.set_mode(Mode::ForcedOpen);
    assert_eq!(status(&service, keyless()).await, 503);
    assert_eq!(status(&service, request("gpt-x")).await, 200);
}

#[tokio::test]
async fn a_model_that_cannot_be_a_name_goes_by_the_provider_and_the_models_shared_breaker() {
    let (registry, _clock) = registry(9);
    let service = BreakerLayer::keyed(registry.clone(), key).layer(provider());
    let long = "m".repeat(1_000);
    for model in ["", "two words", "é", "\u{0}\n", &long] {
        assert_eq!(status(&service, request(model)).await, 200);
    }
    let successes = |name| registry.get(name).unwrap().snapshot().totals.successes;
    assert_eq!((successes("openai"), successes("other/other")), (5, 5));
    let others = registry.get(OVERFLOW).unwrap().snapshot();
    assert_eq!(others.totals, Totals::default());
}

#[tokio::test]
async fn layered_twice_by_axum_they_are_the_same_breakers() {
    use axum::Router;
    use axum::routing::get;
    let (registry, _clock) = registry(9);
    let down = || async { http::StatusCode::BAD_GATEWAY };
    let layer = BreakerLayer::keyed(registry.clone(), |_| Some(ProviderKey::new("app")));
    let app: Router = Router::new()
        .route("/a", get(down))
        .route("/b", get(down))
        .layer(layer);
    let mut statuses = Vec::new();
    for path in ["/a", "/b", "/a", "/b", "/a", "/b"] {
        let request = Request::get(path).body(axum::body::Body::empty()).unwrap();
        statuses.push(
            app.clone()
                .oneshot(request)
                .await
                .unwrap()
                .status()
                .as_u16(),
        );
    }
    assert_eq!(statuses, [502, 502, 502, 502, 502, 503]);
}

#[tokio::test]
async fn by_key_the_inner_service_must_be_ready_first() {
    let (registry, _clock) = registry(9);
    registry
        .get_or_create("openai")
        .unwrap()
        .set_mode(Mode::ForcedOpen);
    let probe = Probe::new();
    let mut service = BreakerLayer::keyed(registry, key).layer(probe.clone());
    ServiceExt::<Request<TestBody>>::ready(&mut service)
        .await
        .unwrap();
    assert_eq!(service.call(request("gpt-x")).await.unwrap().status(), 503);
    assert_eq!((probe.readied(), probe.calls()), (1, 0));
}

#[tokio::test]
async fn by_key_a_background_call_may_probe_before_users() {
    let clock = TestClock::new();
    clock.advance(Duration::from_secs(1_000));
    let rules = Config::llm().background_grace(Duration::from_secs(60));
    let registry = Registry::new(9, rules.jitter(0.0), clock.clock()).unwrap();
    let model = registry.get_or_create("openai/gpt-x").unwrap();
    model.throttle(Duration::from_secs(5));
    clock.advance(Duration::from_secs(6));
    let service = BreakerLayer::keyed(registry, key).layer(provider());
    assert_eq!(status(&service, request("gpt-x")).await, 503);
    let mut refresh = request("gpt-x");
    let context = Context::new(clock.clock().now()).with_background(true);
    refresh.extensions_mut().insert(context);
    assert_eq!(status(&service, refresh).await, 200);
}
