//! The layer in the places where it stands: tower, axum, bare hyper.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use spark_core::testing::{TestBody, TestClock, contract};
use spark_core::{ClientIp, Context, Instant, Name, PeerAddr, Principal, Refusal, Shape, User};
use spark_ratelimit::{Headers, Key, KeyBy, Limiter, Policy, Quota, RateLimitLayer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn limiter(clock: &TestClock, name: &str, n: u64, per: Duration) -> Limiter {
    Limiter::builder()
        .clock(clock.clock())
        .policy(Policy::new(name, Quota::new(n, per).unwrap()).unwrap())
        .capacity(256)
        .build()
        .unwrap()
}

fn hello()
-> impl Service<Request<()>, Response = Response<String>, Error = Infallible, Future: Send> + Clone
{
    service_fn(|_: Request<()>| async { Ok(Response::new("hello".to_owned())) })
}

fn from_ip(ip: &str) -> Request<()> {
    let mut request = Request::new(());
    let ip = ClientIp::new(ip.parse().unwrap());
    request
        .extensions_mut()
        .insert(Context::new(Instant::default()).with_client_ip(ip));
    request
}

fn from(principal: Principal) -> Request<()> {
    let mut request = from_ip("192.0.2.1");
    Context::of_mut(request.extensions_mut())
        .unwrap()
        .set_principal(principal);
    request
}

fn tenant(key: &str, tenant: &str) -> Principal {
    User::new(Name::new(key).unwrap(), Name::new(tenant).unwrap()).into()
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn the_contract_of_tower() {
    let clock = TestClock::new();
    for key in [KeyBy::principal(), KeyBy::client_ip()] {
        let limiter = limiter(&clock, "p", 1_000_000, MINUTE);
        contract::check(RateLimitLayer::new(limiter).key(key), || {
            Request::new(TestBody::frames(["hello"]))
        })
        .await;
    }
}

#[tokio::test]
async fn a_refusal_says_everything_and_whoever_waits_is_admitted() {
    let clock = TestClock::new();
    let limiter = limiter(&clock, "requests", 2, MINUTE);
    let service = RateLimitLayer::new(limiter).layer(hello());
    let send = || service.clone().oneshot(from(tenant("k", "acme")));

    let first = send().await.unwrap();
    assert_eq!(
        header(first.headers(), "ratelimit-policy"),
        Some(r#""requests";q=2;w=60"#)
    );
    assert_eq!(
        header(first.headers(), "ratelimit"),
        Some(r#""requests";r=1;t=30"#)
    );
    assert_eq!(
        first.into_body().collect().await.unwrap().to_bytes(),
        "hello"
    );
    send().await.unwrap();

    clock.advance(Duration::from_millis(1_500));
    let refused = send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    let headers = refused.headers();
    assert_eq!(
        header(headers, "retry-after"),
        Some("29"),
        "28.5 s, rounded up"
    );
    assert_eq!(header(headers, "ratelimit"), Some(r#""requests";r=0;t=29"#));
    assert_eq!(
        header(headers, "ratelimit-policy"),
        Some(r#""requests";q=2;w=60"#)
    );
    assert_eq!(header(headers, "cache-control"), Some("no-store"));
    assert_eq!(
        header(headers, "content-type"),
        Some("application/problem+json")
    );
    let refusal = refused.extensions().get::<Refusal>().unwrap();
    assert_eq!((refusal.by, refusal.code), ("ratelimit", "rate_limited"));
    assert_eq!(refusal.retry_after, Some(Duration::from_millis(28_500)));
    let body = refused.into_body().collect().await.unwrap().to_bytes();
    let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        problem["type"],
        "https://iana.org/assignments/http-problem-types#quota-exceeded"
    );
    assert_eq!(problem["status"], 429);
    assert_eq!(problem["code"], "rate_limited");
    assert_eq!(
        problem["violated-policies"],
        serde_json::json!(["requests"])
    );

    clock.advance(SECOND * 29);
    assert_eq!(send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn r5_retry_after_is_never_zero_and_never_early() {
    for (n, per) in [(1_000, SECOND), (7, SECOND), (3, MINUTE), (1, SECOND * 90)] {
        let clock = TestClock::new();
        let limiter = limiter(&clock, "p", n, per);
        limiter.check(&Key::master(), None, n);
        let service = RateLimitLayer::new(limiter).layer(hello());
        let send = || service.clone().oneshot(from(Principal::Master));
        for _ in 0..20 {
            clock.advance(Duration::from_nanos(1));
            let response = send().await.unwrap();
            if response.status() == 200 {
                continue;
            }
            let wait: u64 = header(response.headers(), "retry-after")
                .unwrap()
                .parse()
                .unwrap();
            let field = header(response.headers(), "ratelimit").unwrap();
            let t: u64 = field.rsplit_once(";t=").unwrap().1.parse().unwrap();
            assert!(wait >= 1 && wait >= t, "{field}, Retry-After {wait}");
            clock.advance(Duration::from_secs(wait));
            assert_eq!(send().await.unwrap().status(), 200);
        }
    }
}

#[tokio::test]
async fn a_tenants_keys_share_and_others_do_not() {
    let clock = TestClock::new();
    let service = RateLimitLayer::new(limiter(&clock, "p", 2, MINUTE)).layer(hello());
    let mut statuses = Vec::new();
    for principal in [
        tenant("k1", "acme"),
        tenant("k2", "acme"),
        tenant("k3", "acme"),
        tenant("k4", "other"),
        Principal::Master,
        Principal::Anonymous,
        Principal::Anonymous,
        Principal::Anonymous,
    ] {
        let response = service.clone().oneshot(from(principal)).await.unwrap();
        statuses.push(response.status().as_u16());
    }
    assert_eq!(statuses, [200, 200, 429, 200, 200, 200, 200, 429]);
}

#[tokio::test]
async fn a_tier_is_the_principals() {
    let clock = TestClock::new();
    let quota = |n| Quota::new(n, MINUTE).unwrap();
    let policy = Policy::new("p", quota(1)).unwrap().tier("pro", quota(10));
    let limiter = Limiter::builder()
        .clock(clock.clock())
        .policy(policy)
        .build()
        .unwrap();
    let service = RateLimitLayer::new(limiter).layer(hello());
    let user = User::new(Name::new("k").unwrap(), Name::new("acme").unwrap())
        .with_tier(Name::new("pro").unwrap());
    let response = service.oneshot(from(user.into())).await.unwrap();
    assert_eq!(
        header(response.headers(), "ratelimit-policy"),
        Some(r#""p";q=10;w=60"#)
    );
    assert_eq!(
        header(response.headers(), "ratelimit"),
        Some(r#""p";r=9;t=6"#)
    );
}

#[tokio::test]
async fn r2_an_ipv6_network_is_one_caller_and_mapped_ipv4_addresses_are_many() {
    let clock = TestClock::new();
    let layer = RateLimitLayer::new(limiter(&clock, "ip", 3, MINUTE)).key(KeyBy::client_ip());
    let service = layer.layer(hello());
    let mut admitted = 0;
    for host in 0..1_000 {
        let request = from_ip(&format!("2001:db8:0:1::{host:x}"));
        admitted += u32::from(service.clone().oneshot(request).await.unwrap().status() == 200);
    }
    assert_eq!(admitted, 3);
    for last in 1..=4 {
        let request = from_ip(&format!("::ffff:192.0.2.{last}"));
        assert_eq!(
            service.clone().oneshot(request).await.unwrap().status(),
            200
        );
    }
}

#[tokio::test]
async fn r4_without_any_input_there_is_one_bucket_and_no_500() {
    let clock = TestClock::new();
    for key in [
        KeyBy::principal(),
        KeyBy::client_ip(),
        KeyBy::from_fn(|_| None),
    ] {
        let layer = RateLimitLayer::new(limiter(&clock, "p", 1, MINUTE)).key(key);
        let service = layer.layer(hello());
        let send = || service.clone().oneshot(Request::new(()));
        assert_eq!(send().await.unwrap().status(), 200);
        assert_eq!(send().await.unwrap().status(), 429);
    }
}

#[tokio::test]
async fn r18_only_true_preflights_are_exempt() {
    let clock = TestClock::new();
    let options = |headers: &[(&'static str, &'static str)]| {
        let mut request = from(Principal::Master);
        *request.method_mut() = Method::OPTIONS;
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        request
    };
    let true_one = || {
        options(&[
            ("origin", "https://app.example"),
            ("access-control-request-method", "POST"),
        ])
    };
    let layer = RateLimitLayer::new(limiter(&clock, "p", 1, MINUTE));
    let service = layer.clone().layer(hello());
    for _ in 0..3 {
        let response = service.clone().oneshot(true_one()).await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(!response.headers().contains_key("ratelimit"));
    }
    let bare = service.clone().oneshot(options(&[])).await.unwrap();
    assert_eq!(header(bare.headers(), "ratelimit"), Some(r#""p";r=0;t=60"#));
    let half = options(&[("origin", "https://app.example")]);
    assert_eq!(service.oneshot(half).await.unwrap().status(), 429);

    let strict = layer.without_exemptions().layer(hello());
    assert_eq!(strict.oneshot(true_one()).await.unwrap().status(), 429);
}

#[tokio::test]
async fn exemptions_are_named_and_free() {
    let clock = TestClock::new();
    let layer = RateLimitLayer::new(limiter(&clock, "p", 1, MINUTE))
        .exempt("health", |head| head.uri.path() == "/livez");
    let service = layer.clone().layer(hello());
    for _ in 0..3 {
        let mut request = from(Principal::Master);
        *request.uri_mut() = "/livez".parse().unwrap();
        assert_eq!(
            service.clone().oneshot(request).await.unwrap().status(),
            200
        );
    }
    assert_eq!(layer.limiter().stats()[0].occupied, 0);
    assert!(format!("{layer:?}").contains("health"));
}

#[tokio::test]
async fn r19_one_limiter_twice_charges_once_for_a_key() {
    let clock = TestClock::new();
    let layer = RateLimitLayer::new(limiter(&clock, "p", 10, MINUTE));
    let service = layer.clone().layer(layer.layer(hello()));
    let response = service.oneshot(from(Principal::Master)).await.unwrap();
    assert_eq!(
        header(response.headers(), "ratelimit"),
        Some(r#""p";r=9;t=6"#)
    );
    assert_eq!(response.headers().get_all("ratelimit").iter().count(), 1);
    assert_eq!(
        layer
            .limiter()
            .peek(&Key::master(), None, 0)
            .tightest()
            .remaining,
        9
    );

    // By two keys it is two questions.
    let by_ip = layer.clone().key(KeyBy::client_ip());
    let service = by_ip.layer(layer.layer(hello()));
    service.oneshot(from(Principal::Master)).await.unwrap();
    assert_eq!(
        layer
            .limiter()
            .peek(&Key::master(), None, 0)
            .tightest()
            .remaining,
        8
    );
    assert_eq!(layer.limiter().stats()[0].occupied, 2);
}

#[tokio::test]
async fn of_two_limiters_the_inner_writes_and_the_outer_only_when_it_refuses() {
    let clock = TestClock::new();
    let outer = RateLimitLayer::new(limiter(&clock, "ip", 2, MINUTE))
        .scope("ip")
        .key(KeyBy::client_ip());
    for headers in [Headers::OnRefusal, Headers::Always] {
        let inner = RateLimitLayer::new(limiter(&clock, "tenant", 10, MINUTE)).scope("tenant");
        let outer = outer.clone().headers(headers);
        outer
            .limiter()
            .reset(&Key::network(ClientIp::new([192, 0, 2, 1].into()), 64));
        let service = ServiceBuilder::new()
            .layer(outer)
            .layer(inner)
            .service(hello());
        let send = || service.clone().oneshot(from(tenant("k", "acme")));
        for left in [9, 8] {
            let response = send().await.unwrap();
            let expected = format!("\"tenant\";r={left};t=6");
            assert_eq!(
                header(response.headers(), "ratelimit"),
                Some(expected.as_str())
            );
        }
        let refused = send().await.unwrap();
        assert_eq!(refused.status(), 429);
        assert_eq!(
            header(refused.headers(), "ratelimit"),
            Some(r#""ip";r=0;t=30"#)
        );
        assert_eq!(
            header(refused.headers(), "ratelimit-policy"),
            Some(r#""ip";q=2;w=60"#)
        );
    }
}

#[tokio::test]
async fn fields_can_be_left_out_but_retry_after_stays() {
    let clock = TestClock::new();
    let layer = RateLimitLayer::new(limiter(&clock, "p", 1, MINUTE)).headers(Headers::Never);
    let service = layer.layer(hello());
    for status in [200, 429] {
        let response = service
            .clone()
            .oneshot(from(Principal::Master))
            .await
            .unwrap();
        assert_eq!(response.status(), status);
        assert!(!response.headers().contains_key("ratelimit"));
        assert_eq!(
            response.headers().contains_key("retry-after"),
            status == 429
        );
    }
}

#[tokio::test]
async fn a_refusal_has_the_shape_of_its_route() {
    let clock = TestClock::new();
    let limiter = limiter(&clock, "p", 1, MINUTE);
    limiter.check(&Key::master(), None, 1);
    let service = RateLimitLayer::new(limiter).layer(hello());

    let mut openai = Request::new(());
    let context = Context::new(Instant::default()).with_principal(Principal::Master);
    openai
        .extensions_mut()
        .insert(context.clone().with_shape(Shape::OPENAI));
    let response = service.clone().oneshot(openai).await.unwrap();
    assert_eq!(response.status(), 429);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["error"]["code"], "rate_limited");

    let mut grpc = Request::new(());
    grpc.extensions_mut().insert(context);
    grpc.headers_mut()
        .insert("content-type", "application/grpc".parse().unwrap());
    let response = service.oneshot(grpc).await.unwrap();
    assert_eq!(header(response.headers(), "grpc-status"), Some("8"));
}

#[tokio::test]
async fn a_reload_is_seen_by_the_next_request() {
    let clock = TestClock::new();
    let limiter = limiter(&clock, "p", 1, MINUTE);
    let service = RateLimitLayer::new(limiter.clone()).layer(hello());
    let send = || service.clone().oneshot(from(Principal::Master));
    let _ = send().await.unwrap();
    assert_eq!(send().await.unwrap().status(), 429);
    let roomier = Policy::new("p", Quota::new(6_000, MINUTE).unwrap()).unwrap();
    limiter.reconfigure(vec![roomier]).unwrap();
    assert_eq!(
        send().await.unwrap().status(),
        429,
        "what was used up is used up"
    );
    clock.advance(Duration::from_millis(10));
    let response = send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(
        header(response.headers(), "ratelimit-policy"),
        Some(r#""p";q=6000;w=60"#)
    );
}

#[tokio::test]
async fn under_axum_with_connect_info() {
    let clock = TestClock::new();
    let layer = RateLimitLayer::new(limiter(&clock, "ip", 2, MINUTE)).key(KeyBy::client_ip());
    let app = Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/post", axum::routing::post(|body: String| async { body }))
        .layer(layer);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = app.into_make_service_with_connect_info::<SocketAddr>();
    let server = tokio::spawn(async move { axum::serve(listener, service).await });

    assert!(
        ask(address, "GET / HTTP/1.1")
            .await
            .starts_with("HTTP/1.1 200")
    );
    assert!(
        ask(address, "GET /missing HTTP/1.1")
            .await
            .starts_with("HTTP/1.1 404")
    );
    let refused = ask(address, "POST /post HTTP/1.1").await;
    assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
    assert!(refused.contains("retry-after: 30"));
    server.abort();
}

#[tokio::test]
async fn under_bare_hyper() {
    let clock = TestClock::new();
    let layer = RateLimitLayer::new(limiter(&clock, "ip", 2, MINUTE)).key(KeyBy::client_ip());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        loop {
            let (stream, peer) = listener.accept().await.unwrap();
            let service = layer.layer(service_fn(|_: Request<hyper::body::Incoming>| async {
                Ok::<_, Infallible>(Response::new(Full::new(bytes("hello"))))
            }));
            let service = tower::util::MapRequest::new(service, move |mut request: Request<_>| {
                request.extensions_mut().insert(PeerAddr(peer));
                request
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
            tokio::spawn(connection);
        }
    });

    for left in [1, 0] {
        let response = ask(address, "GET / HTTP/1.1").await;
        assert!(response.starts_with("HTTP/1.1 200"), "{response}");
        assert!(response.contains(&format!("ratelimit: \"ip\";r={left};t=30")));
        assert!(response.ends_with("hello"));
    }
    let refused = ask(address, "GET / HTTP/1.1").await;
    assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
    assert!(refused.contains("\"violated-policies\":[\"ip\"]"));
    server.abort();
}

fn bytes(text: &'static str) -> axum::body::Bytes {
    text.into()
}

async fn ask(address: SocketAddr, line: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("{line}\r\nhost: a\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(SECOND * 5, stream.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    answer
}
