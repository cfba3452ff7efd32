//! The layers of the edge that come from elsewhere, as this server wants them.

use std::any::Any;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use spark_core::{ContextLayer, ForwardedHeader, Shape, TrustedProxies};
use spark_headers::{Hsts, Https, SecurityHeaders};
use spark_metrics::{HttpMetricsLayer, RouteLabel};
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_http::request_id::{MakeRequestUuid, RequestId};
use tower_http::trace::{
    DefaultOnBodyChunk, DefaultOnEos, DefaultOnRequest, DefaultOnResponse, TraceLayer,
};

use crate::app::App;
use crate::config::ClientIpHeader;
use crate::routes::shown_path;

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub(crate) fn security_headers(app: &App, set: SecurityHeaders) -> Result<SecurityHeaders, String> {
    if app.config.server.https {
        return Ok(set
            .hsts(Hsts::years(2).include_subdomains())
            .https(Https::Always));
    }
    Ok(set.https(Https::Never))
}

pub(crate) fn context(app: &App) -> ContextLayer {
    let config = &app.config.server;
    let header = match config.client_ip_header {
        ClientIpHeader::XForwardedFor => ForwardedHeader::XForwardedFor,
        ClientIpHeader::Forwarded => ForwardedHeader::Forwarded,
    };
    let proxies = TrustedProxies::new(config.trusted_proxies.clone()).header(header);
    ContextLayer::new(app.clock.clone(), proxies).shape(shape)
}

/// Clients of OpenAI's API read its errors; all others read problem details.
fn shape(request: &Parts) -> Shape {
    match request.uri.path().starts_with("/v1/") {
        true => Shape::OPENAI,
        false => Shape::PROBLEM,
    }
}

pub(crate) fn trusted(app: &App) -> String {
    let proxies = app.config.server.trusted_proxies.len();
    format!("trusted proxies: {proxies}")
}

pub(crate) fn metrics(app: &App) -> HttpMetricsLayer {
    HttpMetricsLayer::new(app.clock.clone())
        .models(app.config.models())
        // The probes leave before the router, which knows all other routes.
        .route(RouteLabel::by(|_, uri, _| {
            let probes = ["/livez", "/readyz", "/startupz"];
            probes.into_iter().find(|probe| *probe == uri.path())
        }))
}

/// The fields that the tenant's limit writes beside those of the draft, each by its option.
const X_RATELIMIT: [&str; 3] = [
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
];
const OPENAI: [&str; 6] = [
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-tokens",
];

/// `None` where no origin is configured: then an OPTIONS request is one like any other.
pub(crate) fn cors(app: &App) -> Result<Option<CorsLayer>, String> {
    if app.config.cors.origins.is_empty() {
        return Ok(None);
    }
    let origins = app.config.cors.origins.iter().map(|origin| {
        HeaderValue::from_str(origin)
            .map_err(|_| format!("cors.origins: \"{origin}\" is no origin"))
    });
    let exposed = [
        "cache-status",
        "ratelimit",
        "ratelimit-policy",
        "retry-after",
        "x-request-id",
    ];
    let limits = &app.config.ratelimit;
    let x_ratelimit = X_RATELIMIT.into_iter().filter(|_| limits.x_ratelimit);
    let openai = OPENAI.into_iter().filter(|_| limits.openai_headers);
    let exposed = exposed.into_iter().chain(x_ratelimit).chain(openai);
    let layer = CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins.collect::<Result<Vec<_>, _>>()?))
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers(["authorization", "content-type", "x-api-key"].map(HeaderName::from_static))
        .expose_headers(exposed.map(HeaderName::from_static).collect::<Vec<_>>());
    Ok(Some(layer))
}

pub(crate) type Trace = TraceLayer<
    tower_http::classify::SharedClassifier<tower_http::classify::ServerErrorsAsFailures>,
    fn(&Request<spark_serve::Body>) -> tracing::Span,
    DefaultOnRequest,
    DefaultOnResponse,
    DefaultOnBodyChunk,
    DefaultOnEos,
    (),
>;

pub(crate) fn trace() -> Trace {
    fn span(request: &Request<spark_serve::Body>) -> tracing::Span {
        let id = request.extensions().get::<RequestId>();
        let id = id
            .and_then(|id| id.header_value().to_str().ok())
            .unwrap_or_default();
        let path = shown_path(request.uri());
        tracing::info_span!("request", method = %request.method(), path, id)
    }
    // Failures are in the metrics and in the error tracker; a line for each would be a flood.
    TraceLayer::new_for_http()
        .make_span_with(span as fn(&_) -> _)
        .on_failure(())
}

/// A client's id is kept when it can do no harm in a log or a header.
pub(crate) fn without_odd_request_id<B>(mut request: Request<B>) -> Request<B> {
    let plain = |value: &HeaderValue| {
        value.len() <= 64
            && !value.is_empty()
            && value
                .as_bytes()
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    if request
        .headers()
        .get(&REQUEST_ID)
        .is_some_and(|value| !plain(value))
    {
        request.headers_mut().remove(&REQUEST_ID);
    }
    request
}

/// What answers a panic that no layer caught.
#[derive(Clone)]
pub(crate) struct LastResort(http::HeaderMap);

impl LastResort {
    pub(crate) fn new(headers: &SecurityHeaders) -> Self {
        let mut prebuilt = http::HeaderMap::new();
        headers.apply(&mut prebuilt);
        prebuilt.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        prebuilt.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Self(prebuilt)
    }
}

impl tower_http::catch_panic::ResponseForPanic for LastResort {
    type ResponseBody = http_body_util::Full<Bytes>;

    fn response_for_panic(&mut self, _panic: Box<dyn Any + Send>) -> Response<Self::ResponseBody> {
        const BODY: &str = r#"{"type":"about:blank","title":"Internal Server Error","status":500,"code":"internal_error"}"#;
        let mut response = Response::new(Bytes::from_static(BODY.as_bytes()).into());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        *response.headers_mut() = self.0.clone();
        let mut maker = MakeRequestUuid;
        let made =
            tower_http::request_id::MakeRequestId::make_request_id(&mut maker, &Request::new(()));
        if let Some(id) = made {
            response
                .headers_mut()
                .insert(REQUEST_ID, id.into_header_value());
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use tower_http::catch_panic::ResponseForPanic;

    use super::*;

    #[test]
    fn the_last_resort_writes_the_headers_itself() {
        let mut last_resort = LastResort::new(&SecurityHeaders::api());
        let response = last_resort.response_for_panic(Box::new("a layer panics"));
        assert_eq!(response.status(), 500);
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        assert!(response.headers().contains_key("x-request-id"));
    }

    #[test]
    fn odd_request_ids_are_dropped() {
        for (id, kept) in [
            ("abc-1.2_3", true),
            ("<x>", false),
            ("a b", false),
            ("", false),
        ] {
            let request = Request::builder().header(REQUEST_ID, id).body(()).unwrap();
            let request = without_odd_request_id(request);
            assert_eq!(request.headers().contains_key(REQUEST_ID), kept, "{id}");
        }
        let request = Request::builder()
            .header(REQUEST_ID, "x".repeat(65))
            .body(())
            .unwrap();
        assert!(
            !without_odd_request_id(request)
                .headers()
                .contains_key(REQUEST_ID)
        );
    }
}
