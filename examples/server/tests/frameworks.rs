//! All inbound layers together, under axum, bare hyper and tonic.
#![allow(missing_docs, reason = "a test")]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use bytes::{Buf, BufMut, Bytes};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use spark_auth::{AuthLayer, Authenticator, MemoryStore, NewKey, Pepper, RequireLayer};
use spark_breaker::{Bulkhead, BulkheadLayer};
use spark_cache::{Cache, CacheLayer, LlmPolicy};
use spark_core::{Clock, ContextLayer, Name, TrustedProxies};
use spark_errors::{ErrorTracker, ErrorsLayer};
use spark_headers::{SecurityHeaders, SecurityHeadersLayer};
use spark_health::{Health, ProbesLayer};
use spark_metrics::HttpMetricsLayer;
use spark_ratelimit::{Limiter, Policy, Quota, RateLimitLayer};
use spark_sanitize::{BodyLimitLayer, Fields, SanitizeLayer, Sanitizer};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tower::layer::util::{Identity, Stack};
use tower::{Service, ServiceBuilder, service_fn};

type Push<L, Outer> = Stack<L, Outer>;
type Layers = ServiceBuilder<
    Push<
        CacheLayer<LlmPolicy>,
        Push<
            SanitizeLayer,
            Push<
                RateLimitLayer,
                Push<
                    RequireLayer,
                    Push<
                        AuthLayer,
                        Push<
                            BodyLimitLayer,
                            Push<
                                BulkheadLayer,
                                Push<
                                    ProbesLayer,
                                    Push<
                                        ErrorsLayer,
                                        Push<
                                            SecurityHeadersLayer,
                                            Push<HttpMetricsLayer, Push<ContextLayer, Identity>>,
                                        >,
                                    >,
                                >,
                            >,
                        >,
                    >,
                >,
            >,
        >,
    >,
>;

/// Every inbound layer, in the order of the house, and a key that passes; three requests pass.
fn hardened() -> (Layers, String) {
    let auth = Authenticator::builder()
        .pepper(Pepper::generate().unwrap())
        .store(MemoryStore::new())
        .build()
        .unwrap();
    let issued = auth.issue(NewKey::new(Name::new("acme").unwrap())).unwrap();
    let quota = Quota::new(3, Duration::from_secs(3_600)).unwrap();
    let limiter = Limiter::builder().policy(Policy::new("requests", quota).unwrap());
    let health = Health::builder().build().unwrap();
    health.started();
    let fields = Fields::new(["prompt"]).unwrap();
    let sanitizer = Sanitizer::builder().build().unwrap();
    let policy = LlmPolicy::builder().path("/generate").build().unwrap();
    let layers = ServiceBuilder::new()
        .layer(ContextLayer::new(Clock::system(), TrustedProxies::none()))
        .layer(HttpMetricsLayer::new(Clock::system()))
        .layer(SecurityHeadersLayer::new(SecurityHeaders::api()))
        .layer(ErrorsLayer::new(ErrorTracker::builder().build().unwrap()))
        .layer(ProbesLayer::new(health))
        .layer(BulkheadLayer::new(Bulkhead::new("server", 100).unwrap()))
        .layer(BodyLimitLayer::new(1 << 20))
        .layer(AuthLayer::required(auth))
        .layer(RequireLayer::user())
        .layer(RateLimitLayer::new(limiter.build().unwrap()))
        .layer(SanitizeLayer::new(sanitizer, fields).pass_other_types(true))
        .layer(CacheLayer::new(Cache::builder().build().unwrap(), policy));
    (layers, issued.key.expose().to_owned())
}

async fn post_json(address: SocketAddr, key: Option<&str>) -> (u16, HeaderMap, Bytes) {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let mut request = Request::post(format!("http://{address}/generate"))
        .header("content-type", "application/json");
    if let Some(key) = key {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    let request = request.body(Full::from(r#"{"prompt":"hello"}"#)).unwrap();
    let (parts, body) = client.request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (parts.status.as_u16(), parts.headers, body)
}

/// Refused without a key, answered with one, refused when the quota is used up.
async fn check_http(address: SocketAddr, key: &str) {
    let (status, headers, _) = post_json(address, None).await;
    assert_eq!(status, 401);
    assert_eq!(headers["content-type"], "application/problem+json");
    assert_eq!(headers["x-content-type-options"], "nosniff");
    for _ in 0..3 {
        let (status, headers, body) = post_json(address, Some(key)).await;
        assert_eq!((status, &body[..]), (200, &br#"{"prompt":"hello"}"#[..]));
        assert!(headers.contains_key("ratelimit") && headers.contains_key("cache-status"));
    }
    let (status, headers, _) = post_json(address, Some(key)).await;
    assert_eq!(status, 429);
    assert!(headers.contains_key("retry-after"));
}

#[tokio::test]
async fn under_axum() {
    let (layers, key) = hardened();
    let echo = async |body: Bytes| body;
    let app: Router = Router::new().route("/generate", post(echo)).layer(layers);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    let server = tokio::spawn(axum::serve(listener, app).into_future());
    check_http(address, &key).await;
    server.abort();
}

#[tokio::test]
async fn under_bare_hyper() {
    let (layers, key) = hardened();
    let service = layers.service(service_fn(echo));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = TowerToHyperService::new(service.clone());
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection);
        }
    });
    check_http(address, &key).await;
    server.abort();
}

async fn echo<B>(request: Request<B>) -> Result<Response<Full<Bytes>>, Infallible>
where
    B: http_body::Body<Data = Bytes>,
{
    let collected = request.into_body().collect().await;
    let bytes = collected.map(|body| body.to_bytes()).unwrap_or_default();
    Ok(Response::new(Full::new(bytes)))
}

#[tokio::test]
async fn under_tonic() {
    let (layers, key) = hardened();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let routes = tonic::service::Routes::new(Echo);
    let server = tonic::transport::Server::builder()
        .layer(layers)
        .serve_with_incoming(routes, incoming);
    let server = tokio::spawn(server);

    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    let channel = endpoint.connect().await.unwrap();
    let ask = async |key: Option<&str>| {
        let mut client = tonic::client::Grpc::new(channel.clone());
        client.ready().await.unwrap();
        let mut request = tonic::Request::new("hello".to_owned());
        if let Some(key) = key {
            let value = format!("Bearer {key}").parse().unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        let path = http::uri::PathAndQuery::from_static("/test.Echo/Echo");
        client.unary(request, path, Text).await
    };
    let refused = ask(None).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated, "{refused}");
    for _ in 0..3 {
        let answer = ask(Some(&key)).await.unwrap();
        assert_eq!(answer.get_ref(), "hello");
        assert!(answer.metadata().contains_key("ratelimit"));
    }
    let refused = ask(Some(&key)).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused}");
    assert!(!refused.message().is_empty());
    server.abort();
}

/// A gRPC service by hand, so that no compiler of protocol buffers is needed.
#[derive(Clone, Debug)]
struct Echo;

impl tonic::server::NamedService for Echo {
    const NAME: &'static str = "test.Echo";
}

impl Service<Request<tonic::body::Body>> for Echo {
    type Response = Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Task<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        Box::pin(async move {
            let method = EchoMethod;
            Ok(tonic::server::Grpc::new(Text).unary(method, request).await)
        })
    }
}

struct EchoMethod;

impl tonic::server::UnaryService<String> for EchoMethod {
    type Response = String;
    type Future = std::future::Ready<Result<tonic::Response<String>, tonic::Status>>;

    fn call(&mut self, request: tonic::Request<String>) -> Self::Future {
        std::future::ready(Ok(tonic::Response::new(request.into_inner())))
    }
}

/// Messages are texts as they are.
#[derive(Clone, Copy, Debug)]
struct Text;

impl Codec for Text {
    type Encode = String;
    type Decode = String;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Text {
    type Item = String;
    type Error = tonic::Status;

    fn encode(&mut self, text: String, to: &mut EncodeBuf<'_>) -> Result<(), tonic::Status> {
        to.put_slice(text.as_bytes());
        Ok(())
    }
}

impl Decoder for Text {
    type Item = String;
    type Error = tonic::Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<String>, tonic::Status> {
        let bytes = from.copy_to_bytes(from.remaining());
        String::from_utf8(bytes.to_vec())
            .map(Some)
            .map_err(|_| tonic::Status::invalid_argument("not UTF-8"))
    }
}
