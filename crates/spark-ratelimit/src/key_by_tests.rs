use super::*;
use crate::subject::Missed;
use http::{HeaderValue, Request};
use spark_core::{ClientIp, Instant, Name, PeerAddr, Principal, User};
use std::collections::HashSet;
use std::net::SocketAddr;

fn request(context: Context) -> Request<()> {
    let mut request = Request::new(());
    request.extensions_mut().insert(context);
    request
}

fn find(key_by: &KeyBy, request: &Request<()>) -> (Key, Option<String>, Option<Missed>) {
    let found = key_by.find(&Head::of(request));
    assert!(!found.refuse, "nobody asked for that");
    let tier = found.subject.tier.map(str::to_owned);
    (found.subject.key, tier, found.missed)
}

fn key(key_by: &KeyBy, request: &Request<()>) -> Key {
    find(key_by, request).0
}

fn ip(text: &str) -> ClientIp {
    ClientIp::new(text.parse().unwrap())
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn context() -> Context {
    Context::new(Instant::default())
}

fn user(tenant: &str, tier: Option<&str>) -> Principal {
    let user = User::new(name("key-1"), name(tenant));
    user.with_tier(tier.map(name)).into()
}

fn with_header(values: &[&'static str]) -> Request<()> {
    let mut request = request(context().with_client_ip(ip("192.0.2.1")));
    for value in values {
        let value = HeaderValue::from_static(value);
        request.headers_mut().append("x-app", value);
    }
    request
}

fn x_app() -> KeyBy {
    KeyBy::header(HeaderName::from_static("x-app"))
}

#[test]
fn keys_of_one_tenant_share_a_quota_and_its_tier() {
    for by in [KeyBy::principal(), KeyBy::tenant()] {
        let user = |key, tier: Option<Name>| {
            let user = User::new(name(key), name("acme")).with_tier(tier);
            find(&by, &request(context().with_principal(user.into())))
        };
        let tenant = Key::tenant(&name("acme"));
        assert_eq!(user("k1", None), (tenant, None, None));
        assert_eq!(
            user("k2", Some(name("pro"))),
            (tenant, Some("pro".into()), None)
        );
    }
}

#[test]
fn the_master_is_alone_and_the_anonymous_go_by_network() {
    let context = context().with_client_ip(ip("2001:db8::1"));
    let master = request(context.clone().with_principal(Principal::Master));
    let anonymous = request(context.with_principal(Principal::Anonymous));
    for by in [KeyBy::principal(), KeyBy::tenant()] {
        assert_eq!(find(&by, &master), (Key::master(), None, None));
    }
    let network = Key::network(ip("2001:db8::9"), 64);
    assert_eq!(find(&KeyBy::principal(), &anonymous), (network, None, None));
    // Among tenants, the anonymous are nobody, which is no mistake of the wiring.
    assert_eq!(
        find(&KeyBy::tenant(), &anonymous),
        (Key::shared(), None, None)
    );
}

#[test]
fn r4_whoever_nothing_is_known_of_shares_a_bucket_and_that_is_said() {
    let bare = Request::new(());
    let nothing = |by: KeyBy| {
        let (key, tier, missed) = find(&by, &bare);
        assert_eq!((key, tier), (Key::shared(), None), "{by:?}");
        missed.unwrap()
    };
    assert_eq!(nothing(KeyBy::principal()), Missed::Address);
    assert_eq!(nothing(KeyBy::client_ip()), Missed::Address);
    assert_eq!(nothing(KeyBy::tenant()), Missed::Principal);
    assert_eq!(nothing(x_app()), Missed::Header);
    assert_eq!(nothing(KeyBy::from_fn(|_| None)), Missed::Custom);
    assert_eq!(nothing(KeyBy::tenant().and(x_app())), Missed::Principal);
    assert_eq!(nothing(KeyBy::client_ip().or(x_app())), Missed::Header);

    let no_auth = request(context().with_client_ip(ip("192.0.2.1")));
    let network = Key::network(ip("192.0.2.1"), 64);
    let expected = (network, None, Some(Missed::Principal));
    assert_eq!(find(&KeyBy::principal(), &no_auth), expected);
}

#[test]
fn r4_or_it_is_refused_where_that_was_asked_for() {
    let refused = |by: &KeyBy, request: &Request<()>| {
        let found = by.find(&Head::of(request));
        assert!(!found.refuse || found.subject == Key::shared().into());
        found.refuse
    };
    let bare = Request::new(());
    let known = with_header(&["app-7"]);
    let strict = || x_app().unknown(Unknown::Refuse);
    let address = KeyBy::client_ip;
    for (by, unless_known) in [
        (strict(), true),
        (strict().and(address()), true),
        (address().and(strict()), true),
        (strict().or(address()), true),
        (address().or(strict()), true),
        (x_app().and(address()).unknown(Unknown::Refuse), true),
        (
            strict().and(address()).unknown(Unknown::SharedBucket),
            false,
        ),
        (x_app(), false),
    ] {
        assert_eq!(refused(&by, &bare), unless_known, "{by:?}");
        assert!(!refused(&by, &known), "{by:?}");
    }
    let anonymous = request(context().with_principal(Principal::Anonymous));
    assert!(refused(
        &KeyBy::tenant().unknown(Unknown::Refuse),
        &anonymous
    ));
}

#[test]
fn without_our_edge_the_peer_is_the_client() {
    let mut request = Request::new(());
    let peer: SocketAddr = "[2001:db8::1]:4711".parse().unwrap();
    request.extensions_mut().insert(PeerAddr(peer));
    let by = KeyBy::client_ip();
    assert_eq!(key(&by, &request), Key::network(ip("2001:db8::2"), 64));
    let by = by.v6_prefix(32);
    assert_eq!(key(&by, &request), Key::network(ip("2001:db8:ffff::"), 32));
}

#[test]
fn r2_prefixes_reach_into_what_is_put_together() {
    let [a, b] = ["2001:db8:1:2::", "2001:db8:1:3::"].map(|addr| {
        request(
            context()
                .with_client_ip(ip(addr))
                .with_principal(Principal::Anonymous),
        )
    });
    let custom = || KeyBy::from_fn(|_| Some(Key::of("all")));
    for (prefix, together) in [
        (64, false),
        (56, true),
        (48, true),
        (128, false),
        (255, false),
    ] {
        for by in [
            KeyBy::client_ip(),
            KeyBy::principal(),
            custom().and(KeyBy::tenant().or(KeyBy::client_ip())),
            x_app().or(KeyBy::client_ip().and(custom())),
        ] {
            let by = by.v6_prefix(prefix);
            assert_eq!(key(&by, &a) == key(&by, &b), together, "{by:?}");
        }
    }
    // What is added later keeps its own.
    let by = KeyBy::tenant().v6_prefix(48).or(KeyBy::client_ip());
    assert_eq!(format!("{by:?}"), "tenant, else network/64");
}

#[test]
fn a_header_counts_when_it_is_there_once_and_says_something() {
    let network = Key::network(ip("192.0.2.1"), 64);
    let by = x_app().or(KeyBy::client_ip());
    let one = key(&by, &with_header(&["one"]));
    assert_ne!(one, network);
    assert_eq!(one, key(&x_app(), &with_header(&["one"])));
    assert_ne!(one, key(&by, &with_header(&["two"])));
    assert_ne!(one, key(&by, &with_header(&["One"])), "byte for byte");
    for values in [
        &[][..],
        &[""],
        &["one", "one"],
        &["forged", "one"],
        &["one", ""],
    ] {
        let found = find(&by, &with_header(values));
        assert_eq!(found, (network, None, None), "{values:?}");
    }
    // The same value of another header is another.
    let mut other = with_header(&[]);
    let value = HeaderValue::from_static("one");
    other.headers_mut().insert("x-other", value);
    let by_other = KeyBy::header(HeaderName::from_static("x-other"));
    assert_ne!(key(&by_other, &other), one);
}

#[test]
fn both_together_are_a_bucket_for_each_pair_with_the_first_tier() {
    let by = KeyBy::tenant().and(x_app());
    let keys: HashSet<Key> = ["acme", "apex"]
        .into_iter()
        .flat_map(|tenant| ["one", "two"].map(|app| (tenant, app)))
        .map(|(tenant, app)| {
            let mut request = with_header(&[app]);
            let principal = user(tenant, Some("pro"));
            Context::of_mut(request.extensions_mut())
                .unwrap()
                .set_principal(principal);
            let (pair, tier, missed) = find(&by, &request);
            assert_eq!((tier.as_deref(), missed), (Some("pro"), None));
            assert_eq!(
                pair,
                key(&KeyBy::tenant(), &request).and(key(&x_app(), &request))
            );
            pair
        })
        .collect();
    assert_eq!(keys.len(), 4);

    struct Tiered(&'static str);
    impl ChooseKey for Tiered {
        fn choose<'a>(&self, _: &Head<'a>) -> Option<Subject<'a>> {
            let tier = Some(self.0);
            Some(Subject {
                key: Key::of(self.0),
                tier,
            })
        }
    }
    let tier = |by: KeyBy| find(&by, &with_header(&["one"])).1.unwrap();
    let (gold, lead) = (
        || KeyBy::custom(Tiered("gold")),
        || KeyBy::custom(Tiered("lead")),
    );
    assert_eq!(tier(gold().and(lead())), "gold");
    assert_eq!(tier(x_app().and(lead()).and(gold())), "lead");
    assert_eq!(tier(gold().or(lead())), "gold");
}

#[test]
fn the_second_is_not_asked_when_the_first_has_decided() {
    let never = || KeyBy::from_fn(|_| panic!("asked"));
    let unknown = || KeyBy::from_fn(|_| None);
    let bare = Request::new(());
    find(
        &KeyBy::from_fn(|_| Some(Key::of("known"))).or(never()),
        &bare,
    );
    find(&unknown().and(never()), &bare);
}

#[test]
fn debug_tells_what_is_tried_in_which_order() {
    let by = KeyBy::principal()
        .and(x_app().or(KeyBy::from_fn(|_| None)))
        .unknown(Unknown::Refuse);
    let text = "(tenant, else network/64) and (header x-app, else custom), else refused";
    assert_eq!(format!("{by:?}"), text);
}

#[tokio::test]
async fn r4_a_refusal_is_503_and_the_service_never_hears_of_it() {
    use crate::{Limiter, Policy, Quota, RateLimitLayer};
    use spark_core::Refusal;
    use tower::{Layer, ServiceExt, service_fn};

    let quota = Quota::new(1, std::time::Duration::from_secs(1)).unwrap();
    let policy = Policy::new("requests", quota).unwrap();
    let limiter = Limiter::builder().policy(policy).build().unwrap();
    let layer = RateLimitLayer::new(limiter).key(KeyBy::principal().unknown(Unknown::Refuse));
    let reached = service_fn(|_: Request<()>| async {
        panic!("reached");
        #[allow(unreachable_code, reason = "for the types")]
        Ok::<_, std::convert::Infallible>(http::Response::new(String::new()))
    });
    for _ in 0..3 {
        let service = layer.layer(reached);
        let response = service.oneshot(Request::new(())).await.unwrap();
        assert_eq!(response.status(), 503);
        let refusal: &Refusal = response.extensions().get().unwrap();
        assert_eq!(refusal.by, "ratelimit");
    }
}
