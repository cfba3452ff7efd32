//! The panic hook: one process, one hook, so one test.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    convert::Infallible,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use spark_errors::{ErrorTracker, ErrorsLayer};
use tower::{Layer, ServiceExt, service_fn};

#[tokio::test]
async fn the_panic_hook_records_places_and_calls_the_previous_hook() {
    let previous = Arc::new(AtomicU32::new(0));
    let seen = previous.clone();
    std::panic::set_hook(Box::new(move |_| {
        seen.fetch_add(1, Ordering::Relaxed);
    }));
    let tracker = ErrorTracker::builder().build().unwrap();
    tracker.install_panic_hook();

    // A thread, a task, a payload that is no text.
    let thread = std::thread::spawn(|| panic!("in a thread, password={}", "hunter2hunter2"));
    assert!(thread.join().is_err());
    assert!(tokio::spawn(async { panic!("in a task") }).await.is_err());
    assert!(
        std::thread::spawn(|| std::panic::panic_any(7))
            .join()
            .is_err()
    );
    let events = tracker.recent(9);
    assert_eq!(events[2].message, "in a thread, password=[redacted]");
    assert_eq!(events[1].message, "in a task");
    assert_eq!(events[0].message, "a panic without a message");
    assert!(
        events
            .iter()
            .all(|event| event.location.contains("tests/panics.rs:"))
    );
    assert_eq!(previous.load(Ordering::Relaxed), 3);

    // Under the layer: once, with the route and the place.
    let layer = ErrorsLayer::new(tracker.clone()).route(|_| Some("/x"));
    let service = service_fn(|_: Request<()>| async {
        if true {
            panic!("under the layer")
        }
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    });
    let response = layer
        .layer(service)
        .oneshot(Request::new(()))
        .await
        .unwrap();
    assert_eq!(response.status(), 500);
    assert_eq!(tracker.stats().captured, 4);
    let event = &tracker.recent(1)[0];
    assert_eq!(event.route.as_deref(), Some("/x"));
    assert!(
        event.location.contains("tests/panics.rs:"),
        "{}",
        event.location
    );
    assert_eq!(previous.load(Ordering::Relaxed), 4);

    // A panic while another unwinds, caught in its destructor.
    struct Careless;
    impl Drop for Careless {
        fn drop(&mut self) {
            let _ = std::panic::catch_unwind(|| panic!("nested"));
        }
    }
    let nested = std::thread::spawn(|| {
        let _careless = Careless;
        panic!("outer")
    });
    assert!(nested.join().is_err());
    let messages: Vec<_> = tracker
        .recent(2)
        .iter()
        .map(|event| event.message.clone())
        .collect();
    assert_eq!(messages, ["nested", "outer"]);

    // A panic while something is captured.
    struct Bad;
    impl fmt::Display for Bad {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            panic!("in display")
        }
    }
    let own = tracker.clone();
    let display = std::thread::spawn(move || own.event("x").message(Bad).send());
    assert!(display.join().is_err());
    tracker.event("x").message("still works").send();
    assert_eq!(tracker.recent(1)[0].message, "still works");
}
