//! A request on a known route allocates nothing in the layer.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "helpers of tests")]

use std::{convert::Infallible, future::Future, task::Context};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use spark_metrics::{Metrics, Route};
use tower::{Layer, Service, service_fn};

#[test]
fn a_request_on_a_known_route_allocates_nothing() {
    let metrics = Metrics::builder().build().unwrap();
    let service = service_fn(|_: Request<()>| {
        std::future::ready(Ok::<_, Infallible>(Response::new(Full::new(
            Bytes::from_static(b"x"),
        ))))
    });
    let mut service = metrics.http_layer().layer(service);
    let mut send = || {
        let mut request = Request::new(());
        request.extensions_mut().insert(Route("/known"));
        // The request's own allocations are not the layer's.
        let measured = allocation_counter::measure(|| {
            let mut context = Context::from_waker(std::task::Waker::noop());
            let mut future = std::pin::pin!(service.call(request));
            let std::task::Poll::Ready(Ok(response)) = future.as_mut().poll(&mut context) else {
                panic!("ready at once");
            };
            let mut body = std::pin::pin!(response.into_body());
            while let std::task::Poll::Ready(Some(_)) =
                http_body::Body::poll_frame(body.as_mut(), &mut context)
            {}
        });
        measured.count_total
    };
    send();
    // A histogram takes a block of memory for every few hundred samples: some calls see one.
    let counts: Vec<_> = (0..400).map(|_| send()).collect();
    assert!(
        counts.iter().filter(|count| **count == 0).count() >= 380,
        "{counts:?}"
    );
}
