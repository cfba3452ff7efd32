//! What one assembles from well-known crates for the same jobs.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum_prometheus::PrometheusMetricLayer;
use bytes::Bytes;
use dashmap::DashMap;
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue, StatusCode};
use moka::sync::Cache;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_governor::governor::GovernorConfigBuilder;
use tower_governor::key_extractor::KeyExtractor;
use tower_governor::{GovernorError, GovernorLayer};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::timeout::TimeoutLayer;
use tower_resilience_circuitbreaker::CircuitBreakerLayer;

use crate::bare;

const MINUTE: Duration = Duration::from_secs(60);

pub(crate) fn service(key: &str, metrics: PrometheusMetricLayer<'static>, cached: bool) -> Router {
    let keys = DashMap::new();
    keys.insert(hex(key.as_bytes()), "acme".to_owned());
    let governor = GovernorConfigBuilder::default()
        .period(Duration::from_millis(1))
        .burst_size(4_000_000_000)
        .key_extractor(ByKey)
        .use_headers()
        .finish()
        .unwrap();
    let [a, b, c, d, e, f, g, h, i, j] = [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-embedder-policy", "require-corp"),
        (
            "permissions-policy",
            "camera=(), geolocation=(), microphone=()",
        ),
        ("x-permitted-cross-domain-policies", "none"),
        ("x-dns-prefetch-control", "off"),
        ("cache-control", "no-store"),
    ]
    .map(|(name, value)| {
        SetResponseHeaderLayer::if_not_present(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    });
    // One `Router::layer` for all: one by one they cost far more.
    let headers = ServiceBuilder::new()
        .layer(a)
        .layer(b)
        .layer(c)
        .layer(d)
        .layer(e);
    let headers = headers.layer(f).layer(g).layer(h).layer(i).layer(j);
    let layers = headers
        .layer(metrics)
        .layer(GovernorLayer::new(governor))
        .layer(from_fn_with_state(Arc::new(keys), auth))
        .layer(CatchPanicLayer::new())
        .layer(TimeoutLayer::with_status_code(
            StatusCode::GATEWAY_TIMEOUT,
            MINUTE / 2,
        ))
        .layer(RequestBodyLimitLayer::new(1 << 20));
    routes(cached).layer(layers)
}

fn routes(cached: bool) -> Router {
    let cache: Option<Cache<String, Bytes>> = cached.then(|| {
        Cache::builder()
            .max_capacity(10_000)
            .time_to_live(10 * MINUTE)
            .build()
    });
    let breaker = CircuitBreakerLayer::standard()
        .name("provider")
        .build_with_handle();
    let provider = breaker.unwrap().0.layer(service_fn(bare::provider));
    Router::new().route(
        "/api/generate",
        post(move |body: Bytes| {
            let (cache, provider) = (cache.clone(), provider.clone());
            async move {
                let key = cache.as_ref().map(|_| hex(&body));
                if let (Some(cache), Some(key)) = (&cache, &key)
                    && let Some(answer) = cache.get(key)
                {
                    return bare::json(answer);
                }
                let Some(question) = bare::parse(&body) else {
                    return StatusCode::BAD_REQUEST.into_response();
                };
                let (model, tokens) = question.head();
                let Ok(output) = provider.oneshot(question).await else {
                    return StatusCode::SERVICE_UNAVAILABLE.into_response();
                };
                let answer = Bytes::from(bare::write(&model, &output, tokens));
                if let (Some(cache), Some(key)) = (cache, key) {
                    cache.insert(key, answer.clone());
                }
                bare::json(answer)
            }
        }),
    )
}

type Keys = Arc<DashMap<String, String>>;

async fn auth(State(keys): State<Keys>, mut request: Request, next: Next) -> Response {
    let Some(text) = bearer(&request) else {
        return StatusCode::UNAUTHORIZED.into_response();
    };
    let digest = hex(text.as_bytes());
    let found = keys.get(&digest).filter(|found| {
        let equal: bool = found.key().as_bytes().ct_eq(digest.as_bytes()).into();
        equal
    });
    let Some(tenant) = found.map(|found| Tenant(found.value().clone())) else {
        return StatusCode::UNAUTHORIZED.into_response();
    };
    request.extensions_mut().insert(tenant);
    next.run(request).await
}

#[derive(Clone)]
struct Tenant(#[expect(dead_code, reason = "it is there for handlers")] String);

#[derive(Clone, Copy)]
struct ByKey;

impl KeyExtractor for ByKey {
    type Key = String;

    fn extract<T>(&self, request: &http::Request<T>) -> Result<String, GovernorError> {
        let text = bearer(request).ok_or(GovernorError::UnableToExtractKey)?;
        Ok(text.to_owned())
    }
}

fn bearer<T>(request: &http::Request<T>) -> Option<&str> {
    let value = request.headers().get(AUTHORIZATION)?.to_str().ok()?;
    value.strip_prefix("Bearer ")
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}
