//! What is allocated, counted. (One file of its own: the counter replaces the allocator.)
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use allocation_counter::measure;
use http::{HeaderMap, Request, Response};
use spark_headers::{SecurityHeaders, SecurityHeadersLayer};
use tower::{Layer, Service, service_fn};

/// A response with a few headers and an extension of its own, as most have.
fn inner(_: Request<()>) -> Ready<Result<Response<()>, Infallible>> {
    let mut response = Response::new(());
    let mut headers = HeaderMap::with_capacity(6);
    headers.insert("content-type", "text/plain".parse().unwrap());
    *response.headers_mut() = headers;
    response.extensions_mut().insert(7_u8);
    ready(Ok(response))
}

/// How many more there are with the layer than without.
fn allocations(set: SecurityHeaders) -> u64 {
    let mut cx = Context::from_waker(Waker::noop());
    let mut count = |service: &mut dyn FnMut(&mut Context<'_>, Request<()>) -> bool| {
        let mut request = Request::new(());
        request.extensions_mut().insert(7_u8);
        measure(|| assert!(service(&mut cx, request))).count_total
    };
    let mut bare = service_fn(inner);
    let without =
        count(&mut |cx, request| matches!(pin!(bare.call(request)).poll(cx), Poll::Ready(Ok(_))));
    let mut layered = SecurityHeadersLayer::new(set).layer(service_fn(inner));
    let mut with = || {
        count(&mut |cx, request| {
            matches!(
                pin!(layered.call(request)).poll(cx),
                Poll::Ready(Ok(response)) if response.headers()["content-type"] == "text/plain"
            )
        })
    };
    // The first response makes the values ones that can be shared.
    with();
    with() - without
}

#[test]
fn the_map_grows_once_and_a_nonce_costs_its_policy() {
    assert_eq!(allocations(SecurityHeaders::none()), 0);
    let growth = allocations(SecurityHeaders::api());
    assert!(growth <= 2, "{growth}");
    let with_nonce = allocations(SecurityHeaders::html());
    assert!(with_nonce <= growth + 2, "{with_nonce}");
}
