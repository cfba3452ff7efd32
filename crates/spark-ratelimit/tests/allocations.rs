//! What is allocated, counted. (One file of its own: the counter replaces the allocator.)
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use allocation_counter::measure;
use http::{HeaderMap, Request, Response};
use spark_core::testing::TestClock;
use spark_core::{Name, User};
use spark_ratelimit::{Key, Limiter, Policy, Quota, RateLimitLayer};
use tower::{Layer, Service, service_fn};

fn limiter(n: u64) -> Limiter {
    let minute = Duration::from_secs(60);
    let quota = Quota::new(n, minute).unwrap();
    Limiter::builder()
        .clock(TestClock::new().clock())
        .policy(Policy::new("requests", quota).unwrap().tier("pro", quota))
        .policy(Policy::new("more", quota).unwrap())
        .build()
        .unwrap()
}

#[test]
fn the_core_allocates_nothing() {
    let limiter = limiter(50);
    limiter.check(&Key::shared(), None, 1);
    let counted = measure(|| {
        for n in 0..1_000 {
            limiter.check(&Key::of(&n), Some("pro"), 1);
            limiter.check(&Key::shared(), None, 1);
            limiter.peek(&Key::shared(), None, 1);
        }
    });
    assert_eq!(counted.count_total, 0, "allowed and refused alike");
}

fn inner(_: Request<()>) -> Ready<Result<Response<()>, Infallible>> {
    let mut response = Response::new(());
    // Room for our fields, as a response with a few of its own has.
    *response.headers_mut() = HeaderMap::with_capacity(8);
    ready(Ok(response))
}

fn request() -> Request<()> {
    let mut request = Request::new(());
    let user = User::new(Name::new("k").unwrap(), Name::new("acme").unwrap());
    let context = spark_core::Context::new(Default::default()).with_principal(user.into());
    request.extensions_mut().insert(context);
    request
}

#[test]
fn the_layer_allocates_at_most_twice() {
    let mut cx = Context::from_waker(Waker::noop());
    let send = |service: &mut dyn FnMut(Request<()>) -> bool| {
        let request = request();
        measure(|| assert!(service(request))).count_total
    };
    let mut bare = service_fn(inner);
    let without = send(&mut |request| {
        let future = pin!(bare.call(request));
        matches!(
            future.poll(&mut Context::from_waker(Waker::noop())),
            Poll::Ready(Ok(_))
        )
    });
    let mut limited = RateLimitLayer::new(limiter(1_000)).layer(service_fn(inner));
    let mut call = |request: Request<()>| {
        let future = pin!(limited.call(request));
        matches!(future.poll(&mut cx), Poll::Ready(Ok(response)) if response.status() == 200)
    };
    send(&mut call);
    let with = send(&mut call);
    assert!(
        with - without <= 2,
        "{without} without, {with} with the layer"
    );
}
