//! `cargo bench -p spark-benches --bench ratelimit`: who may ask again?
#![allow(clippy::unwrap_used, reason = "a bench stops where its claim is wrong")]

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use governor::{DefaultKeyedRateLimiter, RateLimiter};
use http::{Request, Response};
use spark_benches::{Races, call};
use spark_core::{ClientIp, Context};
use spark_ratelimit::{Headers, Key, KeyBy, Limiter, Policy, Quota, RateLimitLayer};
use tower::{Layer, Service, service_fn};
use tower_governor::GovernorLayer;
use tower_governor::governor::GovernorConfigBuilder;

const KEYS: u32 = 100_000;
/// So much at once that nobody ever runs out, while a debt stays a debt: a unit takes a millisecond.
const BURST: u32 = 4_000_000_000;
const HOUR: Duration = Duration::from_secs(3_600);

/// Its type has no short name.
macro_rules! peer_layer {
    ($period:expr, $burst:expr) => {
        GovernorLayer::new(
            GovernorConfigBuilder::default()
                .period($period)
                .burst_size($burst)
                .use_headers()
                .finish()
                .unwrap(),
        )
    };
}

fn main() {
    let races = Races::from_args();

    let ips: Vec<IpAddr> = shuffled()
        .map(|n| Ipv4Addr::from(0x0a00_0000 + n).into())
        .collect();
    let names: Vec<String> = shuffled()
        .map(|n| format!("customer-{n:08}-live"))
        .collect();
    assert_eq!(names[0].len(), 22);
    let of_ip = |ip: &IpAddr| Key::network(ClientIp::new(*ip), 64);
    let of_name = |name: &String| Key::of(name.as_str());

    allowed(&races, "check, address, 1 key", &ips[..1], of_ip);
    allowed(&races, "check, address, 100k keys", &ips, of_ip);
    allowed(&races, "check, 22-byte string, 1 key", &names[..1], of_name);
    allowed(&races, "check, 22-byte string, 100k keys", &names, of_name);
    refused(&races, "refused check, address, 1 key", &ips[..1], of_ip);
    refused(
        &races,
        "refused check, 22-byte string, 100k keys",
        &names,
        of_name,
    );
    layer(&races);
    refusing_layer(&races);
}

/// Each side takes the next key, turns it into what it looks up, and decides.
fn allowed<K>(races: &Races, name: &str, keys: &[K], key: fn(&K) -> Key)
where
    K: std::hash::Hash + Eq + Clone,
{
    races.race(name, |race| {
        let spark = limiter(plenty());
        let quota = governor::Quota::with_period(Duration::from_millis(1)).unwrap();
        let peer: DefaultKeyedRateLimiter<K> =
            RateLimiter::keyed(quota.allow_burst(NonZeroU32::new(BURST).unwrap()));
        for it in keys {
            assert!(spark.check(&key(it), None, 1).allowed());
            assert!(peer.check_key(it).is_ok());
        }
        assert_eq!(peer.len(), keys.len());
        let (mut ours, mut theirs) = (keys.iter().cycle(), keys.iter().cycle());
        race.side("spark Limiter::check", move || {
            let decision = spark.check(&key(ours.next().unwrap()), None, 1);
            assert!(decision.allowed());
        })
        .side("governor check_key", move || {
            let decision = peer.check_key(theirs.next().unwrap());
            assert!(decision.is_ok());
            decision
        })
    });
}

fn refused<K>(races: &Races, name: &str, keys: &[K], key: fn(&K) -> Key)
where
    K: std::hash::Hash + Eq + Clone,
{
    races.race(name, |race| {
        let spark = limiter(Quota::new(1, HOUR).unwrap());
        let quota = governor::Quota::with_period(HOUR).unwrap();
        let peer: DefaultKeyedRateLimiter<K> = RateLimiter::keyed(quota);
        for it in keys {
            assert!(spark.check(&key(it), None, 1).allowed());
            assert!(peer.check_key(it).is_ok());
        }
        // Ours is a table that does not grow: where nine debts meet in a set of eight slots, one is
        // forgotten, and its owner let through once more.
        let refused = keys
            .iter()
            .filter(|it| !spark.check(&key(it), None, 1).allowed())
            .count();
        assert!(
            refused * 100 >= keys.len() * 99,
            "{refused} of {}: {:?}",
            keys.len(),
            spark.stats()
        );
        let (mut ours, mut theirs) = (keys.iter().cycle(), keys.iter().cycle());
        race.side("spark Limiter::check", move || {
            spark.check(&key(ours.next().unwrap()), None, 1).allowed()
        })
        .side("governor check_key", move || {
            let decision = peer.check_key(theirs.next().unwrap());
            assert!(decision.is_err());
            decision
        })
    });
}

/// Both tell the client what is left, in headers.
fn layer(races: &Races) {
    races.race("layer by address, with headers", |race| {
        let quota = plenty();
        let mut spark = spark_layer(quota).layer(service_fn(no_op));
        let mut peer = peer_layer!(Duration::from_millis(1), BURST).layer(service_fn(no_op));
        let mut bare = service_fn(no_op);

        let answer = call(&mut spark, request()).unwrap();
        assert!(answer.headers().contains_key("ratelimit"));
        let answer = call(&mut peer, request()).unwrap();
        assert!(answer.headers().contains_key("x-ratelimit-remaining"));

        race.base("no-op service", move || call(&mut bare, request()))
            .side("spark RateLimitLayer", move || {
                let answer = call(&mut spark, request()).unwrap();
                assert_eq!(answer.status(), 200);
                answer
            })
            .side("tower_governor, use_headers", move || {
                let answer = call(&mut peer, request()).unwrap();
                assert_eq!(answer.status(), 200);
                answer
            })
    });
}

fn refusing_layer(races: &Races) {
    races.race("layer by address, refused with 429", |race| {
        let quota = Quota::new(1, HOUR).unwrap();
        let mut spark = spark_layer(quota).layer(service_fn(no_op));
        let mut peer = peer_layer!(HOUR, 1).layer(service_fn(no_op));
        let mut accepting = spark_layer(plenty()).layer(service_fn(no_op));
        assert_eq!(call(&mut spark, request()).unwrap().status(), 200);
        assert_eq!(call(&mut peer, request()).unwrap().status(), 200);

        race.side("spark RateLimitLayer, 429", move || refusal(&mut spark))
            .side("tower_governor, 429", move || refusal(&mut peer))
            .side("spark RateLimitLayer, 200", move || {
                let answer = call(&mut accepting, request()).unwrap();
                assert_eq!(answer.status(), 200);
                answer
            })
    });
}

fn refusal<S, B>(service: &mut S) -> Response<B>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
{
    let answer = call(service, request()).unwrap();
    assert_eq!(answer.status(), 429);
    assert!(answer.headers().contains_key("retry-after"));
    answer
}

fn plenty() -> Quota {
    let quota = Quota::new(1_000, Duration::from_secs(1)).unwrap();
    quota.burst(BURST.into()).unwrap()
}

fn limiter(quota: Quota) -> Limiter {
    let policy = Policy::new("requests", quota).unwrap();
    // 8.5 MB: about what the peer takes for so many keys.
    let builder = Limiter::builder()
        .policy(policy)
        .capacity(5 * KEYS as usize);
    builder.build().unwrap()
}

fn spark_layer(quota: Quota) -> RateLimitLayer {
    RateLimitLayer::new(limiter(quota))
        .key(KeyBy::client_ip())
        .headers(Headers::Always)
}

/// Knows the caller in the form of either side.
fn request() -> Request<Body> {
    const IP: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
    let mut request = Request::new(Body::empty());
    let extensions = request.extensions_mut();
    extensions.insert(ConnectInfo(SocketAddr::new(IP, 4_711)));
    extensions.insert(Context::new(Default::default()).with_client_ip(ClientIp::new(IP)));
    request
}

fn no_op(_: Request<Body>) -> Ready<Result<Response<Body>, Infallible>> {
    ready(Ok(Response::new(Body::empty())))
}

/// All numbers below [`KEYS`], in an order that no cache line likes.
fn shuffled() -> impl Iterator<Item = u32> {
    (0..KEYS).map(|n| (u64::from(n) * 61_813 % u64::from(KEYS)) as u32)
}
