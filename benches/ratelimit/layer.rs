//! Whole layers around a service that does nothing, by address, telling the client what is left.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::body::Body;
use axum::extract::ConnectInfo;
use http::{Request, Response};
use spark_benches::{Races, call, drain};
use spark_core::{ClientIp, Context};
use spark_ratelimit::{Headers, KeyBy, RateLimitLayer};
use tower::{Layer, Service, service_fn};
use tower_governor::governor::GovernorConfigBuilder;

use crate::rule::{ONCE, PLENTY_FOR_ONE, Rule};

pub(crate) const ALLOWED: &str = "layer by address, with headers";
pub(crate) const REFUSED: &str = "layer by address, refused with 429";
pub(crate) const SPARK: &str = "spark RateLimitLayer";
pub(crate) const TOWER_GOVERNOR: &str = "tower_governor, use_headers";
const AXUM_GOVERNOR: &str = "axum-governor, its headers";

/// Their types have no short names.
macro_rules! tower_governor {
    ($rule:expr) => {
        tower_governor::GovernorLayer::new(
            GovernorConfigBuilder::default()
                .period($rule.unit)
                .burst_size($rule.burst)
                .use_headers()
                .finish()
                .unwrap(),
        )
        .layer(service_fn(no_op))
    };
}
macro_rules! axum_governor {
    ($rule:expr) => {
        axum_governor::GovernorLayer::new(
            axum_governor::GovernorConfigBuilder::default()
                .with_extractor(axum_governor::extractor::PeerIp::ipv6_prefix(64))
                .expect_connect_info()
                .quota_default($rule.governor_quota().into())
                .body_preset(axum_governor::BodyPreset::ProblemJson)
                .finish()
                .unwrap(),
        )
        .layer(service_fn(no_op))
    };
}

pub(crate) fn all(races: &Races) {
    races.race(ALLOWED, |race| {
        let mut bare = service_fn(no_op);
        let mut spark = spark(PLENTY_FOR_ONE).layer(service_fn(no_op));
        let mut tower = tower_governor!(PLENTY_FOR_ONE);
        let mut axum = axum_governor!(PLENTY_FOR_ONE);
        told(&mut spark, 200, &["ratelimit", "ratelimit-policy"]);
        told(
            &mut tower,
            200,
            &["x-ratelimit-limit", "x-ratelimit-remaining"],
        );
        told(
            &mut axum,
            200,
            &["ratelimit", "ratelimit-policy", "x-ratelimit-limit"],
        );

        race.base("no-op service", move || answered(&mut bare, 200))
            .side(SPARK, move || answered(&mut spark, 200))
            .side(TOWER_GOVERNOR, move || answered(&mut tower, 200))
            .side(AXUM_GOVERNOR, move || answered(&mut axum, 200))
    });
    races.race(REFUSED, |race| {
        let mut spark_ok = spark(PLENTY_FOR_ONE).layer(service_fn(no_op));
        let mut spark = spark(ONCE).layer(service_fn(no_op));
        let mut tower = tower_governor!(ONCE);
        let mut axum = axum_governor!(ONCE);
        answered(&mut spark, 200);
        answered(&mut tower, 200);
        answered(&mut axum, 200);
        told(
            &mut spark,
            429,
            &[
                "ratelimit",
                "ratelimit-policy",
                "retry-after",
                "content-type",
            ],
        );
        told(
            &mut tower,
            429,
            &["x-ratelimit-limit", "x-ratelimit-remaining", "retry-after"],
        );
        told(
            &mut axum,
            429,
            &[
                "ratelimit",
                "ratelimit-policy",
                "retry-after",
                "content-type",
            ],
        );

        race.side(SPARK, move || answered(&mut spark, 429))
            .side(TOWER_GOVERNOR, move || answered(&mut tower, 429))
            .side(AXUM_GOVERNOR, move || answered(&mut axum, 429))
            .side("spark RateLimitLayer, 200", move || {
                answered(&mut spark_ok, 200)
            })
    });
}

fn spark(rule: Rule) -> RateLimitLayer {
    RateLimitLayer::new(rule.spark(500_000))
        .key(KeyBy::client_ip())
        .headers(Headers::Always)
}

/// Makes a request, and reads the answer to its end. What is written where is dropped in here too.
fn answered<S, B>(service: &mut S, status: u16) -> usize
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
    B: http_body::Body,
{
    let answer = call(service, request()).unwrap();
    assert_eq!(answer.status(), status);
    let headers = answer.headers().len();
    headers + drain(answer.into_body())
}

/// The claim, before it is timed: these headers, and a body when it is a refusal.
fn told<S, B>(service: &mut S, status: u16, names: &[&str])
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
    B: http_body::Body,
{
    let answer = call(service, request()).unwrap();
    assert_eq!(answer.status(), status);
    for name in names {
        assert!(
            answer.headers().contains_key(*name),
            "{name}: {:?}",
            answer.headers()
        );
    }
    assert_eq!(drain(answer.into_body()), usize::from(status == 429));
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
