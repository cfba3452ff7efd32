//! A request that goes well allocates nothing in the layer.

use std::{
    convert::Infallible,
    future::Future,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use spark_errors::{BuildError, ErrorTracker, ErrorsLayer};
use tower::{Layer, Service, service_fn};

#[test]
fn a_request_that_goes_well_allocates_nothing() -> Result<(), BuildError> {
    let layer = ErrorsLayer::new(ErrorTracker::builder().build()?).route(|_| Some("/x"));
    let mut service = layer.layer(service_fn(|_: Request<()>| {
        std::future::ready(Ok::<_, Infallible>(Response::new(Full::new(
            Bytes::from_static(b"x"),
        ))))
    }));
    let request = Request::new(());
    let measured = allocation_counter::measure(|| {
        let mut context = Context::from_waker(Waker::noop());
        let mut future = std::pin::pin!(service.call(request));
        let Poll::Ready(Ok(response)) = future.as_mut().poll(&mut context) else {
            panic!("ready at once");
        };
        let mut body = std::pin::pin!(response.into_body());
        while let Poll::Ready(Some(_)) = body.as_mut().poll_frame(&mut context) {}
    });
    assert_eq!(measured.count_total, 0);
    Ok(())
}
