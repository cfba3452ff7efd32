//! What is allocated, counted. (One file of its own: the counter replaces the allocator.)
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use allocation_counter::measure;
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::json;
use spark_core::{Context, Instant, Problem, Shape};

fn refuse(shape: Shape) {
    let header = HeaderValue::from_static;
    let response = Problem::new(StatusCode::TOO_MANY_REQUESTS, "ratelimit", "rate_limited")
        .type_uri("https://iana.org/assignments/http-problem-types#quota-exceeded")
        .title("Quota Exceeded")
        .detail("The quota is used up for now: try again after the time in Retry-After.")
        .retry_after(Duration::from_millis(1_500))
        .header(
            HeaderName::from_static("ratelimit"),
            header("\"a\";r=0;t=2"),
        )
        .header(
            HeaderName::from_static("ratelimit-policy"),
            header("\"a\";q=60;w=60"),
        )
        .member("violated-policies", json!(["requests"]))
        .into_response::<String>(shape);
    assert_eq!(response.headers()["retry-after"], "2");
}

/// The problem, the header map (two), the body, the extensions (three): seven. The value of the
/// member, a list of one string, is the caller's: two more.
#[test]
fn a_refusal_allocates_seven_times_beside_what_it_is_given() {
    for shape in [Shape::PROBLEM, Shape::OPENAI] {
        let cost = measure(|| refuse(shape));
        assert_eq!(cost.count_total, 7 + 2, "{cost:?}");
        assert_eq!(cost.count_current, 0, "{cost:?}");
    }
}

/// Its two headers more make the map grow, and its message is a header instead of a body.
#[test]
fn a_refusal_of_grpc_allocates_nine_times_beside_what_it_is_given() {
    let cost = measure(|| refuse(Shape::GRPC));
    assert_eq!(cost.count_total, 9 + 2, "{cost:?}");
}

#[test]
fn marks_allocate_nothing() {
    let mut context = Context::new(Instant::default());
    let cost = measure(|| {
        for mark in 0..10 {
            assert!(context.first_time(mark));
        }
    });
    assert_eq!(cost.count_total, 0, "{cost:?}");
}
