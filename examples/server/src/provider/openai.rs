//! Any provider with an OpenAI-compatible API over HTTP or HTTPS.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, USER_AGENT};
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use spark_breaker::ConnectTimeout;
use tower::Service;

use super::{ProviderBody, ProviderError, check_base_url};
use crate::config::Provider;
use zeroize::Zeroizing;

use crate::secrets::from_environment;

type HttpClient = Client<ConnectTimeout<HttpsConnector<HttpConnector>>, Full<Bytes>>;

/// One provider: its client, its address, its key.
#[derive(Clone)]
pub(crate) struct OpenAi(Arc<Inner>);

struct Inner {
    client: HttpClient,
    chat_url: Uri,
    authorization: Option<HeaderValue>,
}

impl OpenAi {
    /// # Errors
    /// The mend, when the base URL or the key is no good.
    pub(crate) fn new(
        config: &Provider,
        variables: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        let base = config.base_url.as_deref().unwrap_or_default();
        let field = |mend: &str| format!("providers.{}.base_url: {mend}", config.name);
        check_base_url(base).map_err(field)?;
        let chat_url: Uri = format!("{}/chat/completions", base.trim_end_matches('/'))
            .parse()
            .map_err(|_| field("write a URL, as \"https://api.example/v1\""))?;
        Ok(Self(Arc::new(Inner {
            client: client(config),
            chat_url,
            authorization: authorization(config, variables)?,
        })))
    }
}

fn authorization(
    config: &Provider,
    variables: impl Fn(&str) -> Option<String>,
) -> Result<Option<HeaderValue>, String> {
    let Some(variable) = &config.api_key_env else {
        return Ok(None);
    };
    let field = format!("providers.{}.api_key_env", config.name);
    let key = from_environment(variable, variables)
        .map_err(|e| format!("{field}: {e}"))?
        .ok_or_else(|| {
            format!("{field}: neither {variable} nor {variable}_FILE is set in the environment")
        })?;
    let text = Zeroizing::new(format!("Bearer {}", key.trim()));
    let mut value = HeaderValue::from_str(&text).map_err(|_| {
        format!("the environment variable {variable} holds characters that no header may have")
    })?;
    value.set_sensitive(true);
    Ok(Some(value))
}

fn client(config: &Provider) -> HttpClient {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    let connector = HttpsConnectorBuilder::new()
        .with_webpki_roots()
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector);
    // Outermost, so that name, TCP and TLS have one limit together.
    let connector = config.timeouts.limits().connector(connector);
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_max_idle_per_host(config.max_in_flight)
        .build(connector)
}

impl Service<Request<Bytes>> for OpenAi {
    type Response = Response<ProviderBody>;
    type Error = ProviderError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ProviderError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), ProviderError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            let response = inner.client.request(inner.outgoing(request)).await;
            let response = response.map_err(|e| ProviderError::Unreachable(e.into()))?;
            Ok(incoming(response))
        })
    }
}

impl Inner {
    /// A request of its own: only the body is the caller's.
    fn outgoing(&self, request: Request<Bytes>) -> Request<Full<Bytes>> {
        let mut outgoing = Request::new(Full::new(request.into_body()));
        *outgoing.method_mut() = http::Method::POST;
        *outgoing.uri_mut() = self.chat_url.clone();
        let headers = outgoing.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(
            ACCEPT,
            HeaderValue::from_static("application/json, text/event-stream"),
        );
        headers.insert(
            USER_AGENT,
            HeaderValue::from_static(concat!("spark-server/", env!("CARGO_PKG_VERSION"))),
        );
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        outgoing
    }
}

/// Of the provider's headers only those that mean something to us.
fn incoming(response: Response<Incoming>) -> Response<ProviderBody> {
    let (parts, body) = response.into_parts();
    let mut response = Response::new(body.map_err(Into::into).boxed_unsync());
    *response.status_mut() = parts.status;
    for (name, value) in &parts.headers {
        if is_heeded(name) {
            response.headers_mut().append(name, value.clone());
        }
    }
    response
}

/// What the body is, and what the breaker reads of limits. None of it goes on to a client.
fn is_heeded(name: &HeaderName) -> bool {
    let limits = [
        "retry-after",
        "ratelimit-",
        "x-ratelimit-",
        "anthropic-ratelimit-",
    ];
    let is_limit = limits.iter().any(|limit| name.as_str().starts_with(limit));
    is_limit || *name == CONTENT_TYPE
}

impl fmt::Debug for OpenAi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenAi")
            .field("host", &self.0.chat_url.host())
            .finish_non_exhaustive()
    }
}
