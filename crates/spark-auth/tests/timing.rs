//! Whether the time of an answer tells more than the answer: the method, run for a moment. What it
//! says of `verify` is reported and judged by people, since a busy machine must not fail a build:
//! `cargo run --release -p spark-auth --example timing`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(dead_code, reason = "the example's `main` is not called")]

#[path = "../examples/timing.rs"]
mod timing;

/// That each class is refused for its own reason is asserted in there.
#[test]
fn a1_the_method_tells_a_loop_that_stops_early_from_one_that_does_not() {
    let t = timing::report(4_000).unwrap().control;
    assert!(t > 4.5, "{t}");
}
