//! `cargo bench -p spark-benches --bench headers`: ten headers on every response.
#![allow(clippy::unwrap_used, reason = "a bench stops where its claim is wrong")]

use std::convert::Infallible;
use std::future::{Ready, ready};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::Full;
use spark_benches::{Races, call};
use spark_headers::{Https, SecurityHeaders, SecurityHeadersLayer};
use tower::{Layer, Service, ServiceBuilder, service_fn};
use tower_http::set_header::SetResponseHeaderLayer;

const TEN: [(&str, &str); 10] = [
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-embedder-policy", "require-corp"),
    (
        "permissions-policy",
        "camera=(), geolocation=(), microphone=()",
    ),
    ("x-permitted-cross-domain-policies", "none"),
    ("x-dns-prefetch-control", "off"),
    ("cache-control", "no-store, max-age=0"),
];

fn main() {
    let races = Races::from_args();
    as_called(&races);
    as_axum_does(&races);
}

/// One service, called again and again.
fn as_called(races: &Races) {
    races.race("ten headers, one service", |race| {
        let (mut ten, mut api) = (SecurityHeadersLayer::new(ten()).layer(service()), whole());
        let (mut peer, mut bare) = (peer(), service());

        let ours = headers(&mut ten);
        assert_eq!(
            ours,
            headers(&mut peer),
            "the same headers, with the same values"
        );
        assert_eq!(ours.len(), TEN.len() + 2, "and the handler's own");
        assert_eq!(headers(&mut api).len(), 12 + 2);

        race.base("no-op service", move || headers(&mut bare))
            .side("spark SecurityHeadersLayer, the ten", move || {
                headers(&mut ten)
            })
            .side("tower-http SetResponseHeader x10", move || {
                headers(&mut peer)
            })
    });
    races.race("the whole API set (12 sent, 87 taken off)", |race| {
        let (mut api, mut peer, mut bare) = (whole(), peer(), service());
        race.base("no-op service", move || headers(&mut bare))
            .side("spark SecurityHeaders::api", move || headers(&mut api))
            .side("tower-http SetResponseHeader x10", move || {
                headers(&mut peer)
            })
    });
}

/// A clone for each request, as a router makes them.
fn as_axum_does(races: &Races) {
    races.race("ten headers, a clone for each request", |race| {
        let ten = SecurityHeadersLayer::new(ten()).layer(service());
        let (peer, bare) = (peer(), service());
        race.base("no-op service", move || headers(&mut bare.clone()))
            .side("spark SecurityHeadersLayer, the ten", move || {
                headers(&mut ten.clone())
            })
            .side("tower-http SetResponseHeader x10", move || {
                headers(&mut peer.clone())
            })
    });
}

fn ten() -> SecurityHeaders {
    let none = SecurityHeaders::none();
    TEN.iter()
        .fold(none, |set, (name, value)| set.set(name, value).unwrap())
}

fn whole() -> impl Ask {
    SecurityHeadersLayer::new(SecurityHeaders::api().https(Https::Always)).layer(service())
}

fn peer() -> impl Ask {
    let [a, b, c, d, e, f, g, h, i, j] = TEN.map(|(name, value)| {
        SetResponseHeaderLayer::if_not_present(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    });
    let head = ServiceBuilder::new()
        .layer(a)
        .layer(b)
        .layer(c)
        .layer(d)
        .layer(e);
    head.layer(f)
        .layer(g)
        .layer(h)
        .layer(i)
        .layer(j)
        .service(service())
}

fn service() -> impl Ask {
    service_fn(answer)
}

fn answer(_: Request<()>) -> Ready<Result<Response<Full<Bytes>>, Infallible>> {
    let mut response = Response::new(Full::new(Bytes::from_static(b"{}")));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from_static("2"));
    ready(Ok(response))
}

fn headers(service: &mut impl Ask) -> HeaderMap {
    call(service, Request::new(()))
        .unwrap()
        .into_parts()
        .0
        .headers
}

trait Ask:
    Service<Request<()>, Response = Response<Full<Bytes>>, Error = Infallible> + Clone + 'static
{
}

impl<S> Ask for S where
    S: Service<Request<()>, Response = Response<Full<Bytes>>, Error = Infallible> + Clone + 'static
{
}
