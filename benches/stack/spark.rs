//! All the layers, in the order that they are meant for.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse;
use axum::routing::post;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use spark_auth::{AuthLayer, Authenticator, MemoryStore, NewKey, Pepper, RequireLayer};
use spark_breaker::{Breaker, Bulkhead, BulkheadLayer, Config};
use spark_cache::{Cache, CacheLayer, LlmPolicy};
use spark_core::{Clock, ContextLayer, Name, TrustedProxies};
use spark_errors::{ErrorTracker, ErrorsLayer};
use spark_headers::{Https, SecurityHeaders, SecurityHeadersLayer};
use spark_metrics::{HttpMetricsLayer, MatchedPathLayer};
use spark_ratelimit::{Headers, KeyBy, Limiter, Policy, Quota, RateLimitLayer};
use spark_sanitize::{BodyLimitLayer, Fields, SanitizeLayer, Sanitizer};
use tower::{Service, ServiceBuilder};

use crate::bare;

pub(crate) struct Key {
    pub(crate) auth: Authenticator,
    pub(crate) text: String,
}

pub(crate) fn key() -> Key {
    let auth = Authenticator::builder()
        .pepper(Pepper::generate().unwrap())
        .store(MemoryStore::new())
        .build()
        .unwrap();
    let issued = auth.issue(NewKey::new(Name::new("acme").unwrap())).unwrap();
    let text = issued.key.expose().to_owned();
    Key { auth, text }
}

pub(crate) fn service(
    auth: Authenticator,
    metrics: HttpMetricsLayer,
    cached: bool,
    sanitized: bool,
) -> impl Service<
    Request<Body>,
    Response = Response<impl http_body::Body<Data = Bytes, Error: std::fmt::Debug>>,
    Error = Infallible,
> {
    let cache = Cache::builder().max_bytes(16 << 20).build().unwrap();
    let policy = LlmPolicy::builder().path("/api/generate").build().unwrap();
    let sanitizer = Sanitizer::builder().build().unwrap();
    let fields = Fields::new(["prompt"]).unwrap();

    let sanitize = SanitizeLayer::new(sanitizer, fields);
    let cache = CacheLayer::new(cache, policy);

    let known = ServiceBuilder::new()
        .layer(AuthLayer::required(auth))
        .layer(RequireLayer::user())
        .layer(RateLimitLayer::new(limiter("requests")).scope("tenant"));
    let router = match (sanitized, cached) {
        (true, true) => routes().layer(known.layer(sanitize).layer(cache)),
        (true, false) => routes().layer(known.layer(sanitize)),
        (false, true) => routes().layer(known.layer(cache)),
        (false, false) => routes().layer(known),
    };

    let errors = ErrorTracker::builder().log(false).build().unwrap();
    let headers = SecurityHeaders::api().https(Https::Never);
    ServiceBuilder::new()
        .layer(ContextLayer::new(Clock::system(), TrustedProxies::none()))
        .layer(metrics)
        .layer(SecurityHeadersLayer::new(headers))
        .layer(ErrorsLayer::new(errors))
        .layer(BulkheadLayer::new(Bulkhead::new("server", 1_024).unwrap()))
        .layer(BodyLimitLayer::new(1 << 20))
        .layer(
            RateLimitLayer::new(limiter("addresses"))
                .scope("ip")
                .key(KeyBy::client_ip())
                .headers(Headers::OnRefusal),
        )
        .service(router.layer(MatchedPathLayer))
}

fn routes() -> Router {
    let breaker = Breaker::new("provider", Config::llm(), Clock::system()).unwrap();
    Router::new().route(
        "/api/generate",
        post(move |body: Bytes| {
            let breaker = breaker.clone();
            async move {
                let Some(question) = bare::parse(&body) else {
                    return StatusCode::BAD_REQUEST.into_response();
                };
                let (model, tokens) = question.head();
                match breaker.call(|| bare::provider(question)).await {
                    Ok(output) => bare::json(bare::write(&model, &output, tokens)),
                    Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
                }
            }
        }),
    )
}

fn limiter(name: &str) -> Limiter {
    let quota = Quota::new(1_000, Duration::from_secs(1)).unwrap();
    let quota = quota.burst(4_000_000_000).unwrap();
    let policy = Policy::new(name, quota).unwrap();
    Limiter::builder().policy(policy).build().unwrap()
}
