//! `retry_after` and `reset_after`: any header, at any time of day, is a bounded time or none.

#![no_main]

use std::time::Duration;

use arbitrary::Arbitrary;
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use spark_breaker::{reset_after, retry_after};

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    now: Duration,
    /// Whether something remains of the limit.
    remaining: Option<&'a [u8]>,
    lines: Vec<&'a [u8]>,
}

const DAY: Duration = Duration::from_secs(86_400);

static RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset-tokens");
static REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining-tokens");

fuzz_target!(|input: Input<'_>| {
    let values: Vec<HeaderValue> = input
        .lines
        .iter()
        .take(64)
        .flat_map(|line| HeaderValue::from_bytes(line))
        .collect();
    let read = |values: &[HeaderValue]| {
        retry_after(&headers(&RETRY_AFTER, values), input.now)
    };
    let reset = |values: &[HeaderValue]| reset_after(&headers(&RESET, values), input.now);
    for read in [&read as &dyn Fn(&[HeaderValue]) -> Option<Duration>, &reset] {
        let all = read(&values);
        assert!(all.is_none_or(|wait| wait <= DAY));
        // Each line counts for itself, and the longest wins.
        let each = values
            .iter()
            .filter_map(|value| read(std::slice::from_ref(value)));
        assert_eq!(all, each.max());
    }

    if let Some(Ok(remaining)) = input.remaining.map(HeaderValue::from_bytes) {
        let mut headers = headers(&RESET, &values);
        headers.insert(&REMAINING, remaining);
        // All of it or nothing.
        let after = reset_after(&headers, input.now);
        assert!(after.is_none() || after == reset(&values));
    }

    if let [value] = &values[..]
        && let Ok(seconds) = value.to_str().unwrap_or_default().parse::<u32>()
        && !value.as_bytes().starts_with(b"+")
    {
        // `parse` takes a sign that the header may not have; leading zeros are both's.
        let expected = Duration::from_secs(seconds.into()).min(DAY);
        assert!(value.len() > 64 || read(&values) == Some(expected));
    }
});

fn headers(name: &HeaderName, values: &[HeaderValue]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(name, value.clone());
    }
    headers
}
