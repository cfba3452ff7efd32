//! The HTTP client: connections are pooled, nothing is retried, nothing followed.

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use spark_core::{Clock, Instant};

use crate::args::Secret;
use crate::outcome::Outcome;
use crate::workload::{Job, Kind};

/// Answers longer than this are cut off, and count as broken.
const MAX_ANSWER: usize = 4 << 20;

/// One request's fate.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) outcome: Outcome,
    /// When what its latency measures had come: a stream's first byte, an answer's last.
    pub(crate) felt: Instant,
    /// When nothing more came.
    pub(crate) ended: Instant,
    pub(crate) provider: Option<String>,
    pub(crate) status: Option<StatusCode>,
}

#[derive(Debug, Clone)]
pub(crate) struct Client {
    pool: Pool<HttpConnector, Full<Bytes>>,
    clock: Clock,
    timeout: Duration,
}

impl Client {
    pub(crate) fn new(clock: Clock, timeout: Duration, max_idle: usize) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(timeout.min(Duration::from_secs(5))));
        let pool = Pool::builder(TokioExecutor::new())
            .pool_max_idle_per_host(max_idle)
            .build(connector);
        Self {
            pool,
            clock,
            timeout,
        }
    }

    /// Asks for an answer and waits for its end.
    pub(crate) async fn generate(&self, uri: Uri, key: Option<HeaderValue>, job: Job) -> Exchange {
        let mut exchange = Exchange {
            outcome: Outcome::TimedOut,
            felt: self.clock.now(),
            ended: self.clock.now(),
            provider: None,
            status: None,
        };
        let asked = self.ask(uri, key, job, &mut exchange);
        let outcome = tokio::time::timeout(self.timeout, asked)
            .await
            .unwrap_or(Outcome::TimedOut);
        exchange.outcome = outcome;
        exchange.ended = self.clock.now();
        if outcome != Outcome::Streamed {
            exchange.felt = exchange.ended;
        }
        exchange
    }

    async fn ask(
        &self,
        uri: Uri,
        key: Option<HeaderValue>,
        job: Job,
        exchange: &mut Exchange,
    ) -> Outcome {
        let request = request(Method::POST, uri, key, job.body);
        let Ok(response) = self.pool.request(request).await else {
            return Outcome::NoAnswer;
        };
        let (head, body) = response.into_parts();
        exchange.status = Some(head.status);
        let decided = Outcome::of_head(head.status, &head.headers);

        let mut body = Limited::new(body, MAX_ANSWER);
        let mut whole = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                return decided.unwrap_or(Outcome::Broken);
            };
            let Some(data) = frame.data_ref().filter(|data| !data.is_empty()) else {
                continue;
            };
            if whole.is_empty() {
                exchange.felt = self.clock.now();
            }
            whole.extend_from_slice(data);
        }
        decided.unwrap_or_else(|| {
            if job.kind == Kind::Stream {
                return Outcome::of_stream(&whole);
            }
            let (outcome, provider) = Outcome::of_answer(&head.headers, &whole);
            exchange.provider = provider;
            outcome
        })
    }

    /// One request of the run's own housekeeping.
    pub(crate) async fn call(
        &self,
        method: Method,
        uri: Uri,
        key: Option<HeaderValue>,
        body: String,
    ) -> Result<(StatusCode, Bytes), String> {
        let shown = format!("{method} {uri}");
        let call = async {
            let response = self
                .pool
                .request(request(method, uri, key, body.into()))
                .await;
            let response = response.map_err(|error| format!("{shown}: {}", root(&error)))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER)
                .collect()
                .await;
            let body = body.map_err(|error| format!("{shown}: {error}"))?;
            Ok((status, body.to_bytes()))
        };
        tokio::time::timeout(self.timeout, call)
            .await
            .unwrap_or_else(|_| Err(format!("{shown}: no answer within {:?}", self.timeout)))
    }
}

fn request(
    method: Method,
    uri: Uri,
    key: Option<HeaderValue>,
    body: Bytes,
) -> Request<Full<Bytes>> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.extend(key.map(|key| (AUTHORIZATION, key)));
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    request
}

/// `Authorization: Bearer KEY`, marked so that nothing prints it.
pub(crate) fn bearer(key: &Secret) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", key.expose()))
        .map_err(|_| "the key holds characters that a header cannot")?;
    value.set_sensitive(true);
    Ok(value)
}

/// The innermost cause: "connection refused" rather than "client error".
fn root(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
