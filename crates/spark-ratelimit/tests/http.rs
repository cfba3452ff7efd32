//! What the layer does with requests, and what it tells.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::convert::Infallible;
use std::time::Duration;

use common::{MINUTE, SECOND, acme, from, from_ip, hello};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use spark_core::testing::TestClock;
use spark_core::{ClientIp, Context, Instant, Name, Principal, Refusal, Shape, User};
use spark_ratelimit::{
    Concurrency, ConcurrencyLimiter, Headers, Key, KeyBy, Limiter, Policy, Quota, RateLimitLayer,
};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

fn limiter(clock: &TestClock, name: &str, n: u64, per: Duration) -> Limiter {
    common::limiter(clock, [common::policy(name, n, per)])
}

fn tenant(key: &str, tenant: &str) -> Principal {
    User::new(Name::new(key).unwrap(), Name::new(tenant).unwrap()).into()
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap())
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

/// Reloads while a request is under way, and then goes on with others.
fn reloading(
    limiter: Limiter,
    reloads: Vec<Vec<Policy>>,
) -> impl Service<Request<()>, Response = Response<String>, Error = Infallible, Future: Send> + Clone
{
    service_fn(move |_: Request<()>| {
        for policies in &reloads {
            limiter.reconfigure(policies.clone()).unwrap();
        }
        limiter.check(&Key::of("other"), None, 1);
        async { Ok(Response::new(String::new())) }
    })
}

#[tokio::test]
async fn a_request_under_way_hears_of_its_own_policies_after_a_reload_and_of_none_after_two() {
    let clock = TestClock::new();
    let at_once = ConcurrencyLimiter::new(Concurrency::new("streams", 9).unwrap());
    let next = vec![
        common::policy("today", 5, MINUTE).shadow(),
        common::policy("secret", 1_000, MINUTE),
    ];
    for reloads in [1, 2, 3] {
        let limiter = limiter(&clock, "today", 5, MINUTE);
        let layer = RateLimitLayer::new(limiter.clone())
            .x_ratelimit()
            .openai_headers();
        let inner = reloading(limiter.clone(), vec![next.clone(); reloads]);
        let response = layer.layer(inner).oneshot(from(Principal::Master)).await;
        let response = response.unwrap();
        let headers = response.headers();
        if reloads == 1 {
            assert_eq!(header(headers, "ratelimit"), Some(r#""today";r=4;t=12"#));
            let policy = header(headers, "ratelimit-policy");
            assert_eq!(policy, Some(r#""today";q=5;w=60"#));
            assert_eq!(header(headers, "x-ratelimit-remaining"), Some("4"));
        } else {
            assert!(headers.is_empty(), "{headers:?}");
        }
    }

    // Other limits are told as ever.
    let budget = limiter(&clock, "tokens", 9, MINUTE);
    let limiter = limiter(&clock, "today", 5, MINUTE);
    let layer = RateLimitLayer::new(limiter.clone()).budget(budget);
    let layer = layer.concurrency(at_once);
    let inner = reloading(limiter, vec![next; 2]);
    let response = layer.layer(inner).oneshot(from(Principal::Master)).await;
    let response = response.unwrap();
    assert_eq!(
        header(response.headers(), "ratelimit-policy"),
        Some(r#""streams";q=9;qu="concurrent-requests", "tokens";q=9;w=60"#)
    );
    assert_eq!(
        header(response.headers(), "ratelimit"),
        Some(r#""tokens";r=9"#)
    );
}

#[tokio::test]
async fn a_request_under_way_hears_of_no_other_tier_than_its_own() {
    let clock = TestClock::new();
    let policy = || {
        let policy = common::policy("p", 5, MINUTE).tier("mid", common::quota(10, MINUTE, 10));
        policy.tier("top", common::quota(100, MINUTE, 100))
    };
    // Sorted by name, it comes first, and "top" is where "mid" was.
    let next = policy().tier("a-new-one", common::quota(1, MINUTE, 1));
    let limiter = common::limiter(&clock, [policy()]);
    let layer = RateLimitLayer::new(limiter.clone());
    let service = layer.layer(reloading(limiter, vec![vec![next]; 2]));
    let user = User::new(Name::new("k").unwrap(), Name::new("acme").unwrap())
        .with_tier(Name::new("mid").unwrap());
    let response = service.oneshot(from(user.into())).await.unwrap();
    assert_eq!(header(response.headers(), "ratelimit-policy"), None);
}

#[tokio::test]
async fn quotas_of_a_single_key_are_told_by_the_first_policys_key() {
    let clock = TestClock::new();
    let own = |name| common::policy(name, 5, MINUTE).key(acme(), common::quota(9, MINUTE, 9));
    let send = async |layer: RateLimitLayer| {
        let service = layer.key(KeyBy::tenant()).layer(hello());
        let response = service.oneshot(from(tenant("k", "acme"))).await.unwrap();
        common::field(&response, "ratelimit-policy").unwrap()
    };
    let one = RateLimitLayer::new(common::limiter(&clock, [own("p")]));
    assert_eq!(send(one).await, r#""p";q=9;w=60"#);

    let two = || RateLimitLayer::new(common::limiter(&clock, [own("a"), own("b")]));
    let by_ip = two().key_for("a", KeyBy::client_ip());
    assert_eq!(send(by_ip).await, r#""a";q=5;w=60, "b";q=5;w=60"#);
    let by_ip = two().key_for("b", KeyBy::client_ip());
    assert_eq!(send(by_ip).await, r#""a";q=9;w=60, "b";q=9;w=60"#);
}

/// A value of a stranger's, which asks a limiter when it is dropped.
struct AsksAtItsEnd(Limiter);

impl AsRef<[u8]> for AsksAtItsEnd {
    fn as_ref(&self) -> &[u8] {
        b"mine"
    }
}

impl Drop for AsksAtItsEnd {
    fn drop(&mut self) {
        self.0.check(&Key::shared(), None, 1);
    }
}

#[tokio::test]
async fn what_a_field_replaces_may_ask_a_limiter() {
    let clock = TestClock::new();
    let other = limiter(&clock, "other", 9, MINUTE);
    let asked = other.clone();
    let layer = RateLimitLayer::new(limiter(&clock, "p", 9, MINUTE));
    let service = layer.layer(service_fn(move |_: Request<()>| {
        let value = bytes::Bytes::from_owner(AsksAtItsEnd(asked.clone()));
        let value = HeaderValue::from_maybe_shared(value).unwrap();
        let mut response = Response::new(());
        response.headers_mut().insert("ratelimit-policy", value);
        async { Ok::<_, Infallible>(response) }
    }));
    let response = service.oneshot(from(Principal::Master)).await.unwrap();
    assert_eq!(
        header(response.headers(), "ratelimit-policy"),
        Some(r#""p";q=9;w=60"#)
    );
    assert_eq!(common::remaining(&other, Key::shared(), None), 8);
}
