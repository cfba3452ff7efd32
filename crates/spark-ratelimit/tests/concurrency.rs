//! Requests under way at once, through the layer: from the first byte to the last.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Bytes;
use common::{MINUTE, SECOND, acme, field, from, limiter, policy, quota, remaining, tenant};
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use spark_core::testing::{Behaviour, Probe, TestBody, TestClock};
use spark_core::{Name, PeerAddr, ResponseBody, User};
use spark_ratelimit::{
    Concurrency, ConcurrencyLimiter, Headers, HeldBody, Key, KeyBy, Limiter, Policy, RateLimit,
    RateLimitLayer,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::{Layer, Service, ServiceExt, service_fn};

fn at_once(most: u32) -> ConcurrencyLimiter {
    ConcurrencyLimiter::new(Concurrency::new("streams", most).unwrap())
}

/// A hundred requests a minute, and so many at once.
fn limits(most: u32) -> (Limiter, ConcurrencyLimiter, RateLimitLayer) {
    let limiter = limiter(&TestClock::new(), [policy("requests", 100, MINUTE)]);
    let streams = at_once(most);
    let layer = RateLimitLayer::new(limiter.clone()).concurrency(streams.clone());
    (limiter, streams, layer)
}

/// A probe that answers with this body, behind the limits.
fn service(layer: &RateLimitLayer, body: TestBody) -> RateLimit<Probe> {
    let probe = Probe::new();
    probe.behave(Behaviour::Body(body));
    layer.layer(probe)
}

fn stream() -> TestBody {
    TestBody::frames(["one ", "two ", "three"])
}

/// What a body becomes that passes.
type Held = ResponseBody<HeldBody<TestBody>>;

async fn send(service: &RateLimit<Probe>) -> Response<Held> {
    service.clone().oneshot(from(tenant("acme"))).await.unwrap()
}

#[tokio::test]
async fn a_place_is_held_until_the_last_byte() {
    let (_, streams, layer) = limits(1);
    let service = service(&layer, stream());
    let mut body = send(&service).await.into_body();
    for _ in 0..3 {
        assert_eq!(streams.in_flight(&acme()), 1);
        assert_eq!(send(&service).await.status(), 429);
        body.frame().await.unwrap().unwrap();
    }
    assert!(body.frame().await.is_none());
    assert_eq!(streams.keys(), 0, "though the body is still there");
    assert_eq!(send(&service).await.status(), 200);
    assert_eq!(streams.keys(), 0);
}

#[tokio::test]
async fn a_place_is_given_back_however_a_body_ends() {
    let (_, streams, layer) = limits(1);
    // By its trailers.
    let service_ = service(&layer, TestBody::frames(["a"]).with_trailers());
    let mut body = send(&service_).await.into_body();
    body.frame().await.unwrap().unwrap();
    assert_eq!(streams.keys(), 1);
    assert!(body.frame().await.unwrap().unwrap().is_trailers());
    assert_eq!(streams.keys(), 0, "nothing comes after trailers");
    // By an error.
    let service_ = service(&layer, TestBody::frames(["a"]).with_error());
    let mut body = send(&service_).await.into_body();
    body.frame().await.unwrap().unwrap();
    assert!(body.frame().await.unwrap().is_err());
    assert_eq!(streams.keys(), 0);
    // Dropped half-way, unread, and with its response.
    let service_ = service(&layer, stream());
    let mut body = send(&service_).await.into_body();
    body.frame().await.unwrap().unwrap();
    drop(body);
    assert_eq!(streams.keys(), 0);
    drop(send(&service_).await);
    assert_eq!(streams.keys(), 0);
}

#[tokio::test]
async fn a_place_is_given_back_when_there_is_no_response() {
    let (limiter, streams, layer) = limits(1);
    let probe = Probe::new();
    let service = layer.layer(probe.clone());
    // A probe is ready as soon as it is asked.
    let request = || {
        let mut service = service.clone();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let ready = Service::<Request<()>>::poll_ready(&mut service, &mut cx);
        assert!(ready.is_ready());
        service.call(from(tenant("acme")))
    };
    probe.behave(Behaviour::Fail);
    let failing = request();
    assert_eq!(streams.keys(), 1);
    failing.await.unwrap_err();
    assert_eq!(streams.keys(), 0);
    // Never polled; cancelled half-way; a panic.
    drop(request());
    assert_eq!(streams.keys(), 0);
    probe.behave(Behaviour::Hang);
    let mut hangs = Box::pin(request());
    let waker = std::task::Waker::noop();
    let mut cx = Context::from_waker(waker);
    assert!(hangs.as_mut().poll(&mut cx).is_pending());
    assert_eq!(streams.keys(), 1);
    drop(hangs);
    assert_eq!(streams.keys(), 0);
    probe.behave(Behaviour::Panic);
    let panics = request();
    assert!(tokio::spawn(panics).await.unwrap_err().is_panic());
    assert_eq!(streams.keys(), 0);
    assert_eq!(
        remaining(&limiter, acme(), None),
        96,
        "they were charged for all that"
    );
}

#[tokio::test]
async fn one_too_many_is_told_so_and_charged_to_no_policy() {
    let (limiter, streams, layer) = limits(1);
    let service_ = service(&layer, stream());
    let held = send(&service_).await;
    assert_eq!(field(&held, "ratelimit").unwrap(), r#""requests";r=99;t=1"#);
    assert_eq!(
        field(&held, "ratelimit-policy").unwrap(),
        r#""requests";q=100;w=60, "streams";q=1;qu="concurrent-requests""#
    );
    for _ in 0..3 {
        let refused = send(&service_).await;
        assert_eq!(refused.status(), 429);
        assert_eq!(field(&refused, "retry-after").unwrap(), "1");
        assert_eq!(field(&refused, "ratelimit").unwrap(), r#""streams";r=0"#);
        assert_eq!(
            field(&refused, "ratelimit-policy").unwrap(),
            r#""streams";q=1;qu="concurrent-requests""#,
            "no w: there is no window"
        );
        let refusal = refused.extensions().get::<spark_core::Refusal>().unwrap();
        assert_eq!(
            (refusal.by, refusal.code),
            ("ratelimit", "too_many_at_once")
        );
        let body = refused.into_body().collect().await.unwrap().to_bytes();
        let body = body.as_ref().to_vec();
        let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(problem["code"], "too_many_at_once");
        assert_eq!(problem["violated-policies"], serde_json::json!(["streams"]));
    }
    assert_eq!(remaining(&limiter, acme(), None), 99, "one was charged");
    // Others are not in its way.
    let other = service_
        .clone()
        .oneshot(from(tenant("other")))
        .await
        .unwrap();
    assert_eq!((other.status().as_u16(), streams.keys()), (200, 2));
}

#[tokio::test]
async fn headers_can_be_left_out_here_too() {
    let (_, streams, layer) = limits(1);
    let layer = layer.headers(Headers::Never);
    let _held = streams.acquire(&acme(), None);
    let refused = send(&service(&layer, stream())).await;
    assert_eq!(refused.status(), 429);
    assert_eq!(field(&refused, "retry-after").unwrap(), "1");
    assert_eq!(field(&refused, "ratelimit"), None);
    assert_eq!(field(&refused, "ratelimit-policy"), None);
}

#[tokio::test]
async fn who_is_refused_by_rate_or_by_the_budget_gives_the_place_back() {
    let (limiter, streams, layer) = limits(1);
    limiter.penalize(&acme(), None, 100);
    let service_ = service(&layer, stream());
    for _ in 0..3 {
        let refused = send(&service_).await;
        let refusal = refused.extensions().get::<spark_core::Refusal>().unwrap();
        assert_eq!(refusal.code, "rate_limited");
        assert_eq!(streams.keys(), 0, "though the refusal is not read yet");
    }
}

#[tokio::test]
async fn exempt_requests_take_no_place() {
    let (_, streams, layer) = limits(1);
    let layer = layer.exempt("all", |head| head.uri.path() == "/livez");
    let service_ = service(&layer, stream());
    let _held = streams.acquire(&acme(), None);
    let mut request = from(tenant("acme"));
    *request.uri_mut() = "/livez".parse().unwrap();
    assert_eq!(service_.oneshot(request).await.unwrap().status(), 200);
}

#[tokio::test]
async fn tiers_have_their_own_number_and_a_reload_is_seen() {
    let limiter = limiter(&TestClock::new(), [policy("requests", 100, MINUTE)]);
    let limit = Concurrency::new("streams", 1)
        .unwrap()
        .tier("pro", 2)
        .unwrap();
    let streams = ConcurrencyLimiter::new(limit);
    let layer = RateLimitLayer::new(limiter).concurrency(streams.clone());
    let service_ = service(&layer, stream());
    let pro = || {
        let user = User::new(Name::new("k").unwrap(), Name::new("acme").unwrap());
        from(user.with_tier(Name::new("pro").unwrap()).into())
    };
    let mut held = Vec::new();
    for status in [200, 200, 429] {
        let response = service_.clone().oneshot(pro()).await.unwrap();
        assert_eq!(response.status(), status);
        held.push(response);
    }
    streams.reconfigure(Concurrency::new("streams", 3).unwrap());
    let response = service_.clone().oneshot(pro()).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(
        field(&response, "ratelimit-policy")
            .unwrap()
            .contains(r#""streams";q=3;qu="#),
        "as it is now"
    );
}

#[tokio::test]
async fn two_layers_with_one_limiter_take_one_place() {
    let (_, streams, layer) = limits(1);
    let probe = Probe::new();
    probe.behave(Behaviour::Body(stream()));
    let service = layer.layer(layer.layer(probe));
    let response = service.oneshot(from(tenant("acme"))).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), streams.in_flight(&acme())),
        (200, 1)
    );
}

/// Over a real connection: a stream that is being read, one that is cut off, and HEAD.
#[tokio::test]
async fn over_a_socket() {
    let limiter = limiter(
        &TestClock::new(),
        [Policy::new("p", quota(1_000, SECOND, 1_000)).unwrap()],
    );
    let streams = at_once(1);
    let layer = RateLimitLayer::new(limiter)
        .key(KeyBy::from_fn(|_| Some(Key::shared())))
        .concurrency(streams.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (chunks, more) = tokio::sync::watch::channel(());
    let server = tokio::spawn(serve(listener, layer, more));

    // A stream of which one chunk has come.
    let mut stream = ask(address, "GET /stream").await;
    read_until(&mut stream, "chunk").await;
    assert_eq!(streams.in_flight(&Key::shared()), 1);
    let mut refused = ask(address, "GET /").await;
    read_until(&mut refused, "too_many_at_once").await;
    // The client leaves: the server learns of it with what it writes next.
    drop(stream);
    let gone = async {
        while streams.keys() > 0 {
            chunks.send_replace(());
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SECOND * 5, gone).await.unwrap();

    // HEAD has no body that anybody reads.
    for request in ["HEAD /stream", "HEAD /", "GET /"] {
        let mut answer = ask(address, request).await;
        read_until(&mut answer, "200 OK").await;
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(SECOND * 5, answer.read_to_end(&mut rest));
        ended.await.unwrap().unwrap();
        assert_eq!(streams.keys(), 0, "{request}");
    }
    server.abort();
}

async fn serve(listener: tokio::net::TcpListener, layer: RateLimitLayer, more: More) {
    loop {
        let (socket, peer) = listener.accept().await.unwrap();
        let more = more.clone();
        let service = layer.layer(service_fn(
            move |mut request: Request<hyper::body::Incoming>| {
                request.extensions_mut().insert(PeerAddr(peer));
                let endless = request.uri().path() == "/stream";
                let body = Chunks {
                    first: true,
                    endless,
                    more: Box::pin(next(more.clone())),
                };
                async move { Ok::<_, Infallible>(Response::new(body)) }
            },
        ));
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(socket), TowerToHyperService::new(service));
        tokio::spawn(connection);
    }
}

type More = tokio::sync::watch::Receiver<()>;

async fn next(mut more: More) -> More {
    let _ = more.changed().await;
    more
}

/// A chunk at once, and one more whenever it is told.
struct Chunks {
    first: bool,
    endless: bool,
    more: Pin<Box<dyn Future<Output = More> + Send>>,
}

impl http_body::Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        if !std::mem::take(&mut self.first) {
            if !self.endless {
                return Poll::Ready(None);
            }
            let more = ready!(self.more.as_mut().poll(cx));
            self.more = Box::pin(next(more));
        }
        Poll::Ready(Some(Ok(http_body::Frame::data("chunk".into()))))
    }
}

async fn ask(address: SocketAddr, line: &str) -> tokio::net::TcpStream {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("{line} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

async fn read_until(stream: &mut tokio::net::TcpStream, text: &str) {
    let mut seen = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&seen).contains(text) {
            assert!(stream.read_buf(&mut seen).await.unwrap() > 0, "{seen:?}");
        }
    };
    tokio::time::timeout(SECOND * 5, reading).await.unwrap();
}
