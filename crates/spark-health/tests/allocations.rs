//! What is allocated, counted. (One file of its own: the counter replaces the allocator.)
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use allocation_counter::measure;
use http::{Request, Response};
use spark_health::{Health, ProbesLayer};
use tower::{Layer, Service, service_fn};

fn inner(_: Request<()>) -> Ready<Result<Response<String>, Infallible>> {
    ready(Ok(Response::new(String::new())))
}

#[test]
fn a_request_that_is_no_probe_allocates_nothing() {
    let health = Health::builder().build().unwrap();
    let mut service = ProbesLayer::new(health).layer(service_fn(inner));
    let mut cx = Context::from_waker(Waker::noop());
    let request = Request::get("/v1/chat").body(()).unwrap();
    let cost = measure(|| {
        let Poll::Ready(Ok(response)) = pin!(service.call(request)).poll(&mut cx) else {
            panic!("it is ready")
        };
        assert_eq!(response.status(), 200);
    });
    assert_eq!(cost.count_total, 0, "{cost:?}");
}
