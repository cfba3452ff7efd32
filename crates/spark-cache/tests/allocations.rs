//! The body of a hit allocates nothing.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use common::*;
use http_body::Body;

#[tokio::test]
async fn the_body_of_a_hit_allocates_nothing() {
    let setup = setup(|_| async { Ok(events(stream(), Duration::ZERO, Ending::Clean)) });
    setup.get(question("acme", "hi")).await;
    let hit = setup.ask(question("acme", "hi")).await.unwrap();
    assert!(cache_status(hit.headers()).starts_with("spark; hit"));
    let mut frames = 0;
    let measured = allocation_counter::measure(|| {
        let mut body = pin!(hit.into_body());
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(frame)) = body.as_mut().poll_frame(&mut cx) {
            drop(frame);
            frames += 1;
        }
    });
    assert_eq!((frames, measured.count_total), (STREAM.len(), 0));
}
