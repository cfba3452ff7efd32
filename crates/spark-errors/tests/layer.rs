//! The layer: panics, 5xx answers, refusals.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use spark_core::{
    BoxError, Problem, Refusal, Shape,
    testing::{TestBody, contract},
};
use spark_errors::{ErrorTracker, ErrorsLayer, EventId, Severity};
use tower::{Layer, ServiceExt, service_fn};

type Answer = Result<Response<Full<Bytes>>, Infallible>;

fn tracker() -> ErrorTracker {
    ErrorTracker::builder().log(false).build().unwrap()
}

async fn send<S, B>(
    layer: &ErrorsLayer,
    service: S,
) -> Response<impl Body<Data = Bytes, Error = BoxError>>
where
    S: tower::Service<Request<()>, Response = Response<B>, Error = Infallible>,
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    layer
        .layer(service)
        .oneshot(Request::new(()))
        .await
        .unwrap()
}

async fn json(response: Response<impl Body<Data = Bytes, Error = BoxError>>) -> serde_json::Value {
    serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
}

#[tokio::test]
async fn a_panic_becomes_a_problem_that_names_the_event_and_nothing_else() {
    let tracker = tracker();
    let layer = ErrorsLayer::new(tracker.clone()).route(|_| Some("/generate"));
    let response = send(
        &layer,
        service_fn(|_| async {
            let prompt = "né my private prompt";
            let _ = &prompt[..2]; // not a character's edge
            Answer::Ok(Response::default())
        }),
    )
    .await;
    assert_eq!(response.status(), 500);
    assert_eq!(
        response.headers()["content-type"],
        "application/problem+json"
    );
    assert_eq!(
        response.extensions().get::<Refusal>().unwrap().code,
        "internal_error"
    );
    let id = *response.extensions().get::<EventId>().unwrap();
    let problem = json(response).await;
    assert_eq!(problem["code"], "internal_error");
    assert_eq!(problem["instance"], format!("urn:spark:event:{id}"));
    assert!(!problem.to_string().contains("private"));

    let event = &tracker.recent(1)[0];
    assert_eq!(
        (event.id, event.kind, event.severity),
        (id, "panic", Severity::Critical)
    );
    assert_eq!(event.route.as_deref(), Some("/generate"));
    assert!(
        !serde_json::to_string(&**event).unwrap().contains("private"),
        "{event:?}"
    );
}

#[tokio::test]
async fn every_kind_of_panic_is_caught() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            if !std::thread::panicking() {
                panic!("planned, in drop");
            }
        }
    }
    struct PanicsAgain(Bomb);
    impl Future for PanicsAgain {
        type Output = Answer;
        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Answer> {
            let _ = &self.0;
            panic!("planned, before the drop")
        }
    }
    let tracker = tracker();
    let layer = ErrorsLayer::new(tracker.clone());
    let call = service_fn(|_| -> std::future::Ready<Answer> { panic!("planned, in call") });
    assert_eq!(send(&layer, call).await.status(), 500);
    let number = service_fn(|_| async {
        std::panic::panic_any(7_u8);
        #[expect(unreachable_code, reason = "it gives the future its type")]
        Answer::Ok(Response::default())
    });
    assert_eq!(send(&layer, number).await.status(), 500);
    let twice = service_fn(|_| PanicsAgain(Bomb));
    assert_eq!(send(&layer, twice).await.status(), 500);
    let messages: Vec<_> = tracker
        .recent(9)
        .iter()
        .map(|event| event.message.clone())
        .collect();
    assert_eq!(messages[0], "planned, before the drop");
    assert_eq!(messages[1], "a panic without a message");
    assert_eq!(messages[2], "planned, in call");
}

#[tokio::test]
async fn a_panic_of_the_body_ends_it_with_an_error() {
    struct Breaks(u8);
    impl Body for Breaks {
        type Data = Bytes;
        type Error = Infallible;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            self.0 += 1;
            assert!(self.0 < 2, "planned, in the body");
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"first")))))
        }
    }
    let tracker = tracker();
    let layer = ErrorsLayer::new(tracker.clone());
    let service = service_fn(|_| async { Ok::<_, Infallible>(Response::new(Breaks(0))) });
    let mut body = Box::pin(send(&layer, service).await.into_body());
    assert_eq!(
        body.frame().await.unwrap().unwrap().into_data().unwrap(),
        "first"
    );
    assert!(body.frame().await.unwrap().is_err());
    assert!(body.frame().await.is_none());
    assert_eq!(tracker.recent(9).len(), 1);
    assert_eq!(tracker.recent(1)[0].message, "planned, in the body");
}

#[tokio::test]
async fn server_errors_are_captured_once_and_refusals_are_not() {
    let tracker = tracker();
    let layer = ErrorsLayer::new(tracker.clone()).route(|_| Some("/x"));
    let fails = |status: u16| {
        service_fn(move |_| async move {
            Answer::Ok(
                Response::builder()
                    .status(status)
                    .body(Full::default())
                    .unwrap(),
            )
        })
    };
    for status in [200, 302, 404, 429] {
        send(&layer, fails(status)).await;
    }
    assert_eq!(tracker.stats().captured, 0);

    let response = send(&layer, fails(502)).await;
    assert!(response.extensions().get::<EventId>().is_some());
    let event = &tracker.recent(1)[0];
    assert_eq!((event.kind, &*event.message), ("response", "answered 502"));

    let refuses = || {
        service_fn(|_| async {
            let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "breaker", "circuit_open");
            Ok::<_, Infallible>(problem.into_response::<Full<Bytes>>(Shape::PROBLEM))
        })
    };
    send(&layer, refuses()).await;
    assert_eq!(tracker.stats().captured, 1);
    send(&layer.clone().refusals(true), refuses()).await;
    assert_eq!(tracker.recent(1)[0].kind, "refusal");

    // Captured by the handler, or by a layer inside: not again.
    let own = tracker.clone();
    let knows = service_fn(move |_| {
        let mut response = Response::<Full<Bytes>>::default();
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        response
            .extensions_mut()
            .insert(own.event("provider").message("refused").send());
        std::future::ready(Answer::Ok(response))
    });
    send(&layer, layer.layer(knows)).await;
    assert_eq!(tracker.stats().captured, 3);
    send(&layer, layer.layer(fails(500))).await;
    assert_eq!(tracker.stats().captured, 4);
}

#[tokio::test]
async fn an_error_of_the_service_is_captured_and_passed_on() {
    let tracker = tracker();
    let layer = ErrorsLayer::new(tracker.clone());
    let service = service_fn(|_: Request<()>| async { Err::<Response<Full<Bytes>>, _>("private") });
    assert_eq!(
        layer
            .layer(service)
            .oneshot(Request::new(()))
            .await
            .unwrap_err(),
        "private"
    );
    assert_eq!(tracker.recent(1)[0].kind, "service");
}

#[tokio::test]
async fn the_shape_of_the_answer_is_the_requests() {
    let layer = ErrorsLayer::new(tracker());
    let service = service_fn(|_: Request<()>| async {
        if true {
            panic!("planned")
        }
        Answer::Ok(Response::default())
    });
    let request = Request::builder()
        .header("content-type", "application/grpc")
        .body(())
        .unwrap();
    let response = layer.layer(service).oneshot(request).await.unwrap();
    assert_eq!(response.headers()["grpc-status"], "13");
}

#[tokio::test]
async fn the_tower_contract_is_kept() {
    let layer = ErrorsLayer::new(tracker());
    contract::check(layer, || Request::new(TestBody::frames(["x"]))).await;
}
