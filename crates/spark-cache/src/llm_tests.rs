use http::{HeaderValue, Request, Response};
use proptest::prelude::*;
use spark_core::{Clock, User};

use super::*;

fn policy() -> LlmPolicy {
    LlmPolicy::builder()
        .path("/v1")
        .public_path("/demo")
        .build()
        .unwrap()
}

fn post(path: &str) -> request::Builder {
    Request::post(path).header("content-type", "application/json")
}

fn parts(builder: request::Builder) -> request::Parts {
    builder.body(()).unwrap().into_parts().0
}

fn as_principal(principal: Option<Principal>) -> Context {
    let context = Context::new(Clock::system().now());
    match principal {
        Some(principal) => context.with_principal(principal),
        None => context,
    }
}

fn user(tenant: &str) -> Context {
    let user = User::new("key".parse().unwrap(), tenant.parse().unwrap());
    as_principal(Some(Principal::from(user)))
}

fn key(policy: &LlmPolicy, parts: &request::Parts, body: &str, context: &Context) -> CacheKey {
    match policy.request(
        parts,
        &Bytes::copy_from_slice(body.as_bytes()),
        Some(context),
    ) {
        Lookup::Use { key, .. } => key,
        Lookup::Bypass(reason) => panic!("bypass: {reason}"),
    }
}

#[test]
fn what_is_not_opted_in_is_let_be() {
    let (policy, user) = (policy(), user("acme"));
    for builder in [Request::get("/v1"), post("/v2"), post("/v1/"), post("/")] {
        assert_eq!(policy.route(&parts(builder), Some(&user)), Route::Ignore);
    }
    assert_eq!(
        policy.route(&parts(post("/v1?a=b")), Some(&user)),
        Route::Read
    );
}

#[test]
fn what_could_have_been_cached_says_why_not() {
    let (policy, user) = (policy(), user("acme"));
    for (reason, builder) in [
        ("content_type", Request::post("/v1")),
        (
            "content_type",
            Request::post("/v1").header("content-type", "text/plain"),
        ),
        ("encoded", post("/v1").header("content-encoding", "gzip")),
        (
            "no_store",
            post("/v1").header("cache-control", "max-age=1, no-store"),
        ),
    ] {
        assert_eq!(
            policy.route(&parts(builder), Some(&user)),
            Route::Bypass(reason)
        );
    }
    policy.set_when(When::Never);
    assert_eq!(
        policy.route(&parts(post("/v1")), Some(&user)),
        Route::Bypass("never")
    );
}

#[test]
fn only_those_who_are_known_are_cached_for() {
    let policy = policy();
    let (private, public) = (parts(post("/v1")), parts(post("/demo")));
    let anonymous = as_principal(Some(Principal::Anonymous));
    let (unknown, master) = (as_principal(None), as_principal(Some(Principal::Master)));
    assert_eq!(
        policy.route(&private, Some(&anonymous)),
        Route::Bypass("anonymous")
    );
    assert_eq!(
        policy.route(&private, Some(&unknown)),
        Route::Bypass("no_principal")
    );
    assert_eq!(policy.route(&private, None), Route::Bypass("no_principal"));
    for context in [&master, &user("a")] {
        assert_eq!(policy.route(&private, Some(context)), Route::Read);
    }
    for context in [
        None,
        Some(&unknown),
        Some(&anonymous),
        Some(&master),
        Some(&user("a")),
    ] {
        assert_eq!(policy.route(&public, context), Route::Read);
    }
    let body = r#"{"temperature":0}"#;
    let of = |context: &Context| key(&policy, &public, body, context);
    assert_eq!(of(&anonymous), of(&unknown));
    assert_ne!(
        of(&anonymous),
        of(&user("a")),
        "who has a key keeps to their own"
    );
    assert_ne!(of(&anonymous), of(&master));
    assert_ne!(of(&user("a")), of(&user("b")));
    assert_ne!(of(&user("master")), of(&master));
}

#[test]
fn only_what_is_deterministic_is_cached_unless_told_otherwise() {
    let (policy, user) = (policy(), user("acme"));
    let parts = parts(post("/v1"));
    let bypass = |body: &str| match policy.request(
        &parts,
        &Bytes::copy_from_slice(body.as_bytes()),
        Some(&user),
    ) {
        Lookup::Bypass(reason) => Some(reason),
        Lookup::Use { .. } => None,
    };
    for body in [
        r#"{"temperature":0}"#,
        r#"{"temperature":0.0}"#,
        r#"{"temperature":-0e5}"#,
        r#"{"seed":7}"#,
        r#"{"seed":18446744073709551615}"#,
        r#"{"temperature":1,"seed":0}"#,
    ] {
        assert_eq!(bypass(body), None, "{body}");
    }
    let doubtful = [
        "{}",
        r#"{"temperature":0.1}"#,
        r#"{"temperature":"0"}"#,
        r#"{"temperature":null}"#,
        r#"{"seed":null}"#,
        r#"{"temperature":0,"temperature":1}"#,
        r#"[{"temperature":0}]"#,
        r#"{"x":{"temperature":0}}"#,
    ];
    for body in doubtful {
        assert_eq!(bypass(body), Some("not_deterministic"), "{body}");
    }
    for body in ["", "{", "\u{feff}{}"] {
        assert_eq!(bypass(body), Some("not_json"), "{body}");
    }
    policy.set_when(When::Always);
    for body in doubtful {
        assert_eq!(bypass(body), None, "{body}");
    }
}

#[test]
fn whatever_chooses_an_answer_is_in_the_key() {
    let plain = policy();
    let named = LlmPolicy::builder()
        .path("/v1")
        .path("/v2")
        .namespace("2")
        .build()
        .unwrap();
    let user = user("acme");
    let base = r#"{"temperature":0,"model":"m","stream":false,"provider":"p","messages":[]}"#;
    let mut keys = vec![
        key(&plain, &parts(post("/v1")), base, &user),
        key(&named, &parts(post("/v1")), base, &user),
        key(&named, &parts(post("/v2")), base, &user),
        key(&plain, &parts(post("/v1?api-version=2")), base, &user),
    ];
    for (from, to) in [
        ("\"m\"", "\"n\""),
        ("false", "true"),
        ("\"p\"", "\"q\""),
        ("[]", "[{\"role\":\"user\",\"content\":\"hi\"}]"),
        ("}", ",\"tools\":[]}"),
        ("}", ",\"a_parameter_of_tomorrow\":1}"),
    ] {
        keys.push(key(
            &plain,
            &parts(post("/v1")),
            &base.replacen(from, to, 1),
            &user,
        ));
    }
    for header in [
        "accept",
        "accept-language",
        "anthropic-version",
        "openai-beta",
        "openai-project",
    ] {
        keys.push(key(
            &plain,
            &parts(post("/v1").header(header, "x")),
            base,
            &user,
        ));
    }
    let unique: std::collections::HashSet<_> = keys.iter().collect();
    assert_eq!(unique.len(), keys.len());

    let respelled =
        r#" {"stream":false, "messages":[], "provider":"p", "model":"m", "temperature":0.0}"#;
    let with_request_id = parts(
        post("/v1")
            .header("x-request-id", "7")
            .header("user-agent", "x"),
    );
    assert_eq!(key(&plain, &with_request_id, respelled, &user), keys[0]);
}

fn head(status: u16, headers: &[(&'static str, &'static str)]) -> response::Parts {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in headers {
        let value = HeaderValue::from_static(value);
        response
            .headers_mut()
            .append(HeaderName::from_static(name), value);
    }
    response.into_parts().0
}

#[test]
fn an_answer_is_judged_by_its_head() {
    let policy = policy();
    let json = ("content-type", "application/json; charset=utf-8");
    let store = |seconds| Verdict::Store { ttl: seconds };
    for (headers, verdict) in [
        (vec![json], store(None)),
        (vec![("content-type", "Text/Event-Stream")], store(None)),
        (
            vec![json, ("cache-control", "max-age=5")],
            store(Some(Duration::from_secs(5))),
        ),
        (
            vec![json, ("cache-control", "max-age=5, s-maxage=7")],
            store(Some(Duration::from_secs(7))),
        ),
        (
            vec![
                json,
                ("cache-control", "max-age=9, max-age=5"),
                ("age", "2"),
            ],
            store(Some(Duration::from_secs(3))),
        ),
        (
            vec![json, ("cache-control", "max-age=5"), ("age", "5")],
            Verdict::Alone("no_cache"),
        ),
        (
            vec![
                json,
                ("cache-control", "max-age=0"),
                ("cache-control", "max-age=5"),
            ],
            Verdict::Alone("no_cache"),
        ),
        (vec![json, ("vary", "Accept, accept-encoding")], store(None)),
        (vec![], Verdict::Alone("content_type")),
        (
            vec![("content-type", "text/html")],
            Verdict::Alone("content_type"),
        ),
        (
            vec![json, ("cache-control", "No-Store")],
            Verdict::Alone("no_store"),
        ),
        (
            vec![json, ("cache-control", "private=\"x\"")],
            Verdict::Alone("private"),
        ),
        (
            vec![json, ("cache-control", "max-age=0")],
            Verdict::Alone("no_cache"),
        ),
        (
            vec![json, ("set-cookie", "a=b")],
            Verdict::Alone("set_cookie"),
        ),
        (
            vec![json, ("content-encoding", "gzip")],
            Verdict::Alone("encoded"),
        ),
        (vec![json, ("vary", "*")], Verdict::Alone("vary")),
        (
            vec![json, ("vary", "accept"), ("vary", "cookie")],
            Verdict::Alone("vary"),
        ),
    ] {
        assert_eq!(
            policy.response(&head(200, &headers)),
            verdict,
            "{headers:?}"
        );
    }
    let mut unreadable = head(200, &[json]);
    let value = HeaderValue::from_bytes(b"x=\xff, no-store").unwrap();
    unreadable.headers.insert(header::CACHE_CONTROL, value);
    assert_eq!(
        policy.response(&unreadable),
        Verdict::Alone("cache_control")
    );
    for status in [201, 204, 206, 301, 304, 400, 401, 403, 404, 413, 422] {
        assert_eq!(
            policy.response(&head(status, &[json])),
            Verdict::Alone("status")
        );
    }
    for status in [429, 500, 502, 503, 504, 529] {
        assert_eq!(
            policy.response(&head(status, &[json])),
            Verdict::Share("status")
        );
    }
}

#[test]
fn every_wrong_setting_is_named() {
    let message = |builder: LlmPolicyBuilder| builder.build().unwrap_err().to_string();
    assert!(message(LlmPolicy::builder()).contains("`path`"));
    assert!(message(LlmPolicy::builder().path("/a?b")).contains("`path`"));
    assert!(message(LlmPolicy::builder().path("/a").max_request_bytes(0)).contains("`max_request"));
    let cookie = LlmPolicy::builder()
        .path("/a")
        .keep_header(header::SET_COOKIE);
    assert!(message(cookie).contains("set-cookie"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]
    #[test]
    fn two_tenants_never_share(
        a in "[a-c]{1,3}", b in "[a-c]{1,3}",
        left in "\\{\"temperature\":0,\"[ab]\":[0-3]\\}", right in "\\{\"temperature\":0,\"[ab]\":[0-3]\\}",
        accept in prop::sample::select(vec!["", "x", "y"]),
    ) {
        let policy = LlmPolicy::builder().path("/v1").build().unwrap();
        let plain = parts(post("/v1"));
        let other = parts(if accept.is_empty() { post("/v1") } else { post("/v1").header("accept", accept) });
        let equal = a == b && left == right && accept.is_empty();
        let (one, two) = (key(&policy, &plain, &left, &user(&a)), key(&policy, &other, &right, &user(&b)));
        prop_assert_eq!(one == two, equal);
    }
}
