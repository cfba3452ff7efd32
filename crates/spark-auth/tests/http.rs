//! The layers, over HTTP requests: who is let in, and what the others are told.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{House, START, ThreeFailures, house, master_key, name, user_key, with_another_secret};
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use spark_auth::{AuditEvent, AuthLayer, MasterVerifier, NewKey, Rejected, RequireLayer};
use spark_core::testing::{TestBody, contract};
use spark_core::{ClientIp, Context, Principal, Refusal, Shape};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};

const ADDRESS: [u8; 4] = [192, 0, 2, 7];

type Body = Empty<Bytes>;

/// What came back, and what the inner service saw.
#[derive(Debug)]
struct Seen {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    refusal: Option<Refusal>,
}

impl Seen {
    fn challenge(&self) -> Option<&str> {
        self.headers
            .get(WWW_AUTHENTICATE)
            .map(|value| value.to_str().unwrap())
    }
}

fn request(path: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::get(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let context = Context::new(spark_core::Clock::system().now())
        .with_client_ip(ClientIp::new(ADDRESS.into()));
    request.extension(context).body(Body::new()).unwrap()
}

/// The inner service names its caller, and says which credential headers reached it.
async fn inner(request: Request<Body>) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    let who = match Context::of(request.extensions()).and_then(Context::principal) {
        None => "nobody".to_owned(),
        Some(Principal::Anonymous) => "anonymous".to_owned(),
        Some(Principal::User(user)) => format!("user {}", user.tenant),
        Some(Principal::Master) => "master".to_owned(),
        Some(_) => unreachable!(),
    };
    let mut response = Response::new(Full::from(who));
    for name in ["authorization", "x-api-key"] {
        if let Some(value) = request.headers().get(name) {
            assert!(value.is_sensitive());
            response.headers_mut().insert(name, value.clone());
        }
    }
    Ok(response)
}

async fn send<L, S, B>(layer: L, request: Request<Body>) -> Seen
where
    L: Layer<
            tower::util::BoxCloneService<
                Request<Body>,
                Response<Full<Bytes>>,
                std::convert::Infallible,
            >,
            Service = S,
        >,
    S: tower::Service<Request<Body>, Response = Response<B>, Error = std::convert::Infallible>,
    B: http_body::Body<Data = Bytes>,
    B::Error: std::fmt::Debug,
{
    let inner = tower::util::BoxCloneService::new(service_fn(inner));
    let response = layer.layer(inner).oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    Seen {
        status: parts.status,
        headers: parts.headers,
        body: body.collect().await.unwrap().to_bytes(),
        refusal: parts.extensions.get().copied(),
    }
}

fn bearer(key: &str) -> (&'static str, String) {
    ("authorization", format!("Bearer {key}"))
}

async fn send_bearer(layer: &AuthLayer, path: &str, key: &str) -> Seen {
    let (header, value) = bearer(key);
    send(layer.clone(), request(path, &[(header, &value)])).await
}

#[tokio::test]
async fn both_headers_open_the_door_and_neither_goes_further() {
    let house = house();
    let key = house.issue().key;
    let layer = AuthLayer::required(house.auth.clone());
    let value = format!("bEARER {}", key.expose());
    for header in [
        ("authorization", value.as_str()),
        ("x-api-key", key.expose()),
    ] {
        let seen = send(layer.clone(), request("/", &[header])).await;
        assert_eq!(
            (seen.status, &seen.body[..]),
            (StatusCode::OK, &b"user acme"[..])
        );
        assert!(seen.headers.get(AUTHORIZATION).is_none());
        assert!(seen.headers.get("x-api-key").is_none());

        let seen = send(layer.clone().keep_credentials(), request("/", &[header])).await;
        assert_eq!(seen.headers.get(header.0).unwrap(), header.1);
    }
    let seen = send_bearer(&layer, "/", house.master.expose()).await;
    assert_eq!(seen.body, "master");
}

#[tokio::test]
async fn a2_all_bad_credentials_get_one_identical_answer_in_every_mode() {
    let house = house();
    let (revoked, expired, early) = (house.issue(), house.issue(), house.issue());
    house.auth.revoke(revoked.record.id.as_str()).unwrap();
    house
        .auth
        .rotate(expired.record.id.as_str(), Duration::from_secs(1))
        .unwrap();
    let later = NewKey::new(name("acme")).not_before(START + Duration::from_secs(60));
    let not_yet = house.auth.issue(later).unwrap();
    house.clock.set_unix_time(START + Duration::from_secs(2));
    let bad = [
        "nonsense".to_owned(),
        "x".repeat(5_000),
        user_key().expose().to_owned(),
        master_key().expose().to_owned(),
        with_another_secret(&early.key).expose().to_owned(),
        revoked.key.expose().to_owned(),
        expired.key.expose().to_owned(),
        not_yet.key.expose().to_owned(),
    ];
    let mut answers = Vec::new();
    for layer in [
        AuthLayer::required(house.auth.clone()),
        AuthLayer::optional(house.auth.clone()),
        AuthLayer::required(house.auth.clone()).exempt(["/"]),
    ] {
        for credential in &bad {
            let seen = send_bearer(&layer, "/", credential).await;
            assert_eq!(seen.status, StatusCode::UNAUTHORIZED, "{credential}");
            assert_eq!(
                seen.challenge(),
                Some("Bearer realm=\"spark\", error=\"invalid_token\"")
            );
            assert_eq!(seen.headers[CACHE_CONTROL], "no-store");
            assert_eq!(seen.headers[CONTENT_TYPE], "application/problem+json");
            assert_eq!(seen.refusal.unwrap().code, "invalid_credential");
            assert_eq!(seen.refusal.unwrap().by, "auth");
            answers.push((seen.headers, seen.body));
        }
    }
    assert_eq!(answers.len(), 24);
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
    let reasons: Vec<_> = (house.events.take().into_iter())
        .filter_map(|event| match event {
            AuditEvent::Denied {
                reason, client_ip, ..
            } => {
                assert_eq!(client_ip, Some(ClientIp::new(ADDRESS.into())));
                Some(reason)
            }
            _ => None,
        })
        .take(8)
        .collect();
    use Rejected::*;
    assert_eq!(
        reasons,
        [
            Malformed,
            Malformed,
            UnknownKey,
            WrongMaster,
            WrongSecret,
            Revoked,
            Expired,
            NotYetValid
        ]
    );
}

/// The inner service's answer, or the refusal, in this shape.
async fn send_in(shape: Shape, layer: &AuthLayer, key: &str) -> Seen {
    let (header, value) = bearer(key);
    let mut request = request("/", &[(header, &value)]);
    let context = Context::of(request.extensions()).unwrap().clone();
    request.extensions_mut().insert(context.with_shape(shape));
    send(layer.clone(), request).await
}

#[tokio::test]
async fn a2_whoever_tries_keys_learns_nothing_from_the_answers_in_any_shape() {
    let house = house();
    let (known, revoked, expired) = (house.issue(), house.issue(), house.issue());
    let suspended = house.issue();
    house.auth.revoke(revoked.record.id.as_str()).unwrap();
    let overlap = Duration::from_secs(1);
    house
        .auth
        .rotate(expired.record.id.as_str(), overlap)
        .unwrap();
    house.clock.set_unix_time(START + Duration::from_secs(2));
    house.auth.suspend(suspended.record.id.as_str()).unwrap();
    let elsewhere = NewKey::new(name("acme")).ip_allow(["198.51.100.0/24".parse().unwrap()]);
    let outside = house.auth.issue(elsewhere).unwrap();
    let layer = AuthLayer::required(house.auth.clone());
    house.events.take();

    let wrong = with_another_secret(&known.key);
    let stranger = user_key();
    for (shape, status) in [
        (Shape::PROBLEM, 401),
        (Shape::OPENAI, 401),
        // gRPC tells the status in a header of its own.
        (Shape::GRPC, 200),
    ] {
        let mut answers = Vec::new();
        for key in [
            &stranger,
            &wrong,
            &revoked.key,
            &expired.key,
            &suspended.key,
            &outside.key,
        ] {
            let seen = send_in(shape, &layer, key.expose()).await;
            assert_eq!(seen.status, status);
            assert_eq!(seen.refusal.unwrap().code, "invalid_credential");
            answers.push((seen.headers, seen.body));
        }
        assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
        use Rejected::*;
        let reasons = house.events.take().into_iter().map(|event| match event {
            AuditEvent::Denied { reason, .. } => reason,
            other => panic!("{other:?}"),
        });
        let expected = [
            UnknownKey,
            WrongSecret,
            Revoked,
            Expired,
            Suspended,
            Address,
        ];
        assert_eq!(reasons.collect::<Vec<_>>(), expected);
        let accepted = send_in(shape, &layer, known.key.expose()).await;
        assert_eq!(accepted.body, "user acme");
    }
}

#[tokio::test]
async fn a9_a_client_cannot_name_itself_in_a_header() {
    let house = house();
    let key = house.issue().key;
    let names = service_fn(async |request: Request<Body>| {
        let names = request.headers().keys().map(http::HeaderName::as_str);
        let names = names.collect::<Vec<_>>().join(" ");
        Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from(names)))
    });
    for layer in [
        AuthLayer::required(house.auth.clone()),
        AuthLayer::optional(house.auth.clone()).keep_credentials(),
    ] {
        let mut request = Request::get("/")
            .header("X-Spark-Tenant", "somebody-else")
            .header("x-spark-tenant", "again")
            .header("x-spark-scopes", "*")
            .header("x-sparkle", "kept")
            .header("accept", "*/*");
        request = request.header("x-api-key", key.expose());
        let response = layer
            .layer(names)
            .oneshot(request.body(Body::new()).unwrap())
            .await
            .unwrap();
        let names = response.into_body().collect().await.unwrap().to_bytes();
        let names = std::str::from_utf8(&names).unwrap();
        assert!(!names.contains("x-spark-"), "{names}");
        assert!(
            names.contains("x-sparkle") && names.contains("accept"),
            "{names}"
        );
    }
}

#[tokio::test]
async fn a_missing_credential_is_401_where_it_is_required_and_anonymous_where_not() {
    let house = house();
    let required = AuthLayer::required(house.auth.clone())
        .realm(&name("acme"))
        .exempt(["/health", "no-slash"]);
    for path in ["/", "/health/", "/%68ealth", "/Health", "//health"] {
        let seen = send(required.clone(), request(path, &[])).await;
        assert_eq!(seen.status, StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(seen.challenge(), Some("Bearer realm=\"acme\""));
        assert_eq!(seen.refusal.unwrap().code, "missing_credential");
    }
    let optional = AuthLayer::optional(house.auth.clone());
    for (layer, path) in [
        (required.clone(), "/health"),
        (required, "/health?verbose=1"),
        (optional, "/"),
    ] {
        let seen = send(layer, request(path, &[])).await;
        assert_eq!(seen.body, "anonymous");
    }
}

#[tokio::test]
async fn an_exempt_path_still_knows_who_calls() {
    let house = house();
    let layer = AuthLayer::required(house.auth.clone()).exempt(["/health"]);
    let seen = send_bearer(&layer, "/health", house.master.expose()).await;
    assert_eq!(seen.body, "master");
}

#[tokio::test]
async fn a7_what_can_be_read_in_two_ways_is_400() {
    let house = house();
    let key = house.issue().key;
    let good = format!("Bearer {}", key.expose());
    let two = format!("Bearer {0},{0}", key.expose());
    for layer in [
        AuthLayer::required(house.auth.clone()),
        AuthLayer::optional(house.auth.clone()),
    ] {
        for headers in [
            &[("authorization", good.as_str()), ("authorization", &good)][..],
            &[("authorization", &good), ("x-api-key", key.expose())],
            &[("x-api-key", key.expose()), ("x-api-key", key.expose())],
            &[("authorization", &two)],
            &[("authorization", "Bearer")],
            &[("x-api-key", "")],
        ] {
            let seen = send(layer.clone(), request("/", headers)).await;
            assert_eq!(seen.status, StatusCode::BAD_REQUEST, "{headers:?}");
            assert_eq!(
                seen.challenge(),
                Some("Bearer realm=\"spark\", error=\"invalid_request\"")
            );
        }
        let seen = send(layer, request("/", &[("authorization", "Basic dTpw")])).await;
        assert_eq!(seen.status, StatusCode::UNAUTHORIZED);
        assert_eq!(seen.challenge(), Some("Bearer realm=\"spark\""));
    }
}

#[tokio::test]
async fn a3_guessing_is_throttled_per_address_and_only_where_a_credential_is_sent() {
    let house = house();
    let good = house.issue().key;
    let layer =
        AuthLayer::optional(house.auth.clone()).throttle(Arc::new(ThreeFailures::default()));
    for _ in 0..3 {
        let seen = send_bearer(&layer, "/", master_key().expose()).await;
        assert_eq!(seen.status, StatusCode::UNAUTHORIZED);
    }
    house.events.take();
    // The address waits; generated keys that work pass, and the use of the master's is audited.
    let working = send_bearer(&layer, "/", good.expose()).await;
    assert_eq!(working.body, "user acme");
    assert_eq!(house.events.take(), []);
    let working = send_bearer(&layer, "/", house.master.expose()).await;
    assert_eq!(working.body, "master");
    let used = AuditEvent::MasterUsed {
        previous: false,
        client_ip: Some(ClientIp::new(ADDRESS.into())),
    };
    assert_eq!(house.events.take(), [used]);
    let (strangers, long) = ((master_key(), user_key()), "x".repeat(5_000));
    for credential in [
        strangers.0.expose(),
        strangers.1.expose(),
        "nonsense",
        long.as_str(),
    ] {
        let seen = send_bearer(&layer, "/", credential).await;
        assert_eq!(seen.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(seen.headers[RETRY_AFTER], "30");
        assert_eq!(seen.refusal.unwrap().code, "too_many_failures");
    }
    assert_eq!(house.events.take(), []);
    assert_eq!(
        send(layer.clone(), request("/", &[])).await.body,
        "anonymous"
    );
}

/// The throttle counts by address and never by key: a guesser who knows an id locks out nobody, and
/// nothing that it is told says whether the id exists.
#[tokio::test]
async fn a15_who_guesses_at_an_id_locks_out_neither_its_owner_nor_a_neighbour() {
    let house = house();
    let good = house.issue().key;
    let layer =
        AuthLayer::required(house.auth.clone()).throttle(Arc::new(ThreeFailures::default()));
    let guess = with_another_secret(&good);
    let stranger = user_key();
    let mut answers = Vec::new();
    for _ in 0..6 {
        let known = send_bearer(&layer, "/", guess.expose()).await;
        let unknown = send_bearer(&layer, "/", stranger.expose()).await;
        answers.push((known.status, known.body, unknown.status, unknown.body));
    }
    let statuses: Vec<_> = answers
        .iter()
        .flat_map(|it| [it.0.as_u16(), it.2.as_u16()])
        .collect();
    assert_eq!(statuses[..3], [401; 3]);
    assert_eq!(statuses[3..], [429; 9]);
    assert_eq!(answers[0].1, answers[0].3, "known and unknown read alike");

    let owner_at_that_address = send_bearer(&layer, "/", good.expose()).await;
    assert_eq!(owner_at_that_address.body, "user acme");
    let (header, value) = bearer(good.expose());
    let mut elsewhere = request("/", &[(header, &value)]);
    let ip = ClientIp::new([198, 51, 100, 1].into());
    let context = Context::of(elsewhere.extensions())
        .unwrap()
        .clone()
        .with_client_ip(ip);
    elsewhere.extensions_mut().insert(context);
    assert_eq!(send(layer, elsewhere).await.body, "user acme");
}

#[tokio::test]
async fn routes_choose_their_callers() {
    let house = house();
    let user = house.issue().key;
    let scoped = house
        .auth
        .issue(NewKey::new(name("acme")).scopes([name("metrics:*")]))
        .unwrap();
    let scope = || RequireLayer::scope(name("metrics:read"));
    let anonymous = "";
    let keys = [
        anonymous,
        user.expose(),
        scoped.key.expose(),
        house.master.expose(),
    ];
    for (layer, expected) in [
        (RequireLayer::user(), [401, 200, 200, 403]),
        (RequireLayer::user().or_anonymous(), [200, 200, 200, 403]),
        (RequireLayer::user().or_master(), [401, 200, 200, 200]),
        (RequireLayer::master(), [401, 403, 403, 200]),
        (scope(), [401, 403, 200, 403]),
        (scope().or_anonymous(), [200, 403, 200, 403]),
        (scope().or_master(), [401, 403, 200, 200]),
    ] {
        for (key, expected) in keys.into_iter().zip(expected) {
            let auth = AuthLayer::optional(house.auth.clone());
            let (header, value) = bearer(key);
            let headers = [(header, value.as_str())];
            let headers = if key.is_empty() {
                &[][..]
            } else {
                &headers[..]
            };
            let stack = ServiceBuilder::new().layer(auth).layer(layer.clone());
            let seen = send(stack.into_inner(), request("/", headers)).await;
            assert_eq!(seen.status, expected, "{layer:?}");
            let challenge = seen.challenge();
            match expected {
                401 => assert_eq!(challenge, Some("Bearer realm=\"spark\"")),
                403 => assert!(challenge.unwrap().contains("error=\"insufficient_scope\"")),
                _ => assert_eq!(challenge, None),
            }
        }
    }
    let (header, value) = bearer(user.expose());
    let stack = ServiceBuilder::new()
        .layer(AuthLayer::required(house.auth.clone()))
        .layer(scope().realm(&name("acme")));
    let seen = send(stack.into_inner(), request("/", &[(header, &value)])).await;
    assert_eq!(
        seen.challenge(),
        Some("Bearer realm=\"acme\", error=\"insufficient_scope\", scope=\"metrics:read\"")
    );
}

#[tokio::test]
async fn forgetting_a_layer_closes_the_door_and_never_answers_500() {
    let house = house();
    let seen = send(RequireLayer::user().or_anonymous(), request("/", &[])).await;
    assert_eq!(seen.status, StatusCode::UNAUTHORIZED);

    let (header, value) = bearer(house.issue().key.expose());
    let mut bare = request("/", &[(header, &value)]);
    bare.extensions_mut().clear();
    let throttle = Arc::new(ThreeFailures::default());
    let layer = AuthLayer::required(house.auth.clone()).throttle(throttle);
    assert_eq!(send(layer, bare).await.body, "user acme");
}

#[tokio::test]
async fn an_inner_auth_layer_takes_over_what_the_outer_one_found() {
    let house = house();
    let (header, value) = bearer(house.issue().key.expose());
    let stack = |outer| {
        let inner = AuthLayer::required(house.auth.clone());
        ServiceBuilder::new().layer(outer).layer(inner).into_inner()
    };
    let outer = AuthLayer::optional(house.auth.clone());
    let seen = send(stack(outer.clone()), request("/", &[(header, &value)])).await;
    assert_eq!(seen.body, "user acme");
    let seen = send(stack(outer), request("/", &[])).await;
    assert_eq!(seen.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn refusals_take_the_shape_of_the_request() {
    let house = house();
    let layer = AuthLayer::required(house.auth.clone());
    let seen = send(
        layer.clone(),
        request("/", &[("content-type", "application/grpc")]),
    )
    .await;
    assert_eq!(seen.headers["grpc-status"], "16");

    let mut openai = request("/", &[]);
    let context = Context::of(openai.extensions())
        .unwrap()
        .clone()
        .with_shape(Shape::OPENAI);
    openai.extensions_mut().insert(context);
    let seen = send(layer, openai).await;
    let json: serde_json::Value = serde_json::from_slice(&seen.body).unwrap();
    assert_eq!(json["error"]["code"], "missing_credential");
}

#[tokio::test]
async fn the_tower_contract_is_kept() {
    let house: House = house();
    let key = house.issue().key;
    let with_key = || {
        let mut request = Request::new(TestBody::frames(["hello"]));
        let value = format!("Bearer {}", key.expose()).parse().unwrap();
        request.headers_mut().insert(AUTHORIZATION, value);
        request
    };
    contract::check(AuthLayer::required(house.auth.clone()), with_key).await;
    contract::check(AuthLayer::optional(house.auth.clone()), || {
        Request::new(TestBody::frames(["hello"]))
    })
    .await;
    let known = |principal: Principal| {
        move || {
            let context = Context::new(spark_core::Clock::system().now());
            let mut request = Request::new(TestBody::frames(["hello"]));
            request
                .extensions_mut()
                .insert(context.with_principal(principal.clone()));
            request
        }
    };
    contract::check(RequireLayer::master(), known(Principal::Master)).await;
    let anyone = RequireLayer::user().or_anonymous();
    contract::check(anyone, known(Principal::Anonymous)).await;
}

#[tokio::test]
async fn an_operators_own_master_secret_travels_in_both_headers() {
    let house = house();
    let secret = "8f2K-zR41-vQ9x-Lm3T-w7Yb-Hd6S-cJ0p";
    let auth = spark_auth::Authenticator::builder()
        .master(MasterVerifier::from_secret(&house.pepper, secret).unwrap())
        .pepper(house.pepper.clone())
        .store(house.store.clone())
        .audit(house.events.clone())
        .build()
        .unwrap();
    let layer = AuthLayer::required(auth);
    assert_eq!(send_bearer(&layer, "/", secret).await.body, "master");
    let seen = send(layer.clone(), request("/", &[("x-api-key", secret)])).await;
    assert_eq!(seen.body, "master");

    // Somebody chose it, so that it can be guessed: it waits with the address from which it was.
    let layer = layer.throttle(Arc::new(ThreeFailures::default()));
    house.events.take();
    for guess in ["9f2K-zR41-vQ9x-Lm3T-w7Yb-Hd6S-cJ0p", &secret[1..], "short"] {
        let seen = send_bearer(&layer, "/", guess).await;
        assert_eq!(seen.status, StatusCode::UNAUTHORIZED);
    }
    let reasons = house.events.take().into_iter().map(|event| match event {
        AuditEvent::Denied { reason, .. } => reason,
        other => panic!("{other:?}"),
    });
    use Rejected::{Malformed, WrongMaster};
    let expected = [WrongMaster, WrongMaster, Malformed];
    assert_eq!(reasons.collect::<Vec<_>>(), expected);
    let seen = send_bearer(&layer, "/", secret).await;
    assert_eq!(seen.status, StatusCode::TOO_MANY_REQUESTS);
}
