//! `retry_after`: any header, at any time of day, is a bounded time or none.

#![no_main]

use std::time::Duration;

use arbitrary::Arbitrary;
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use spark_breaker::retry_after;

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    now: Duration,
    lines: Vec<&'a [u8]>,
}

const DAY: Duration = Duration::from_secs(86_400);

fuzz_target!(|input: Input<'_>| {
    let values: Vec<HeaderValue> = input
        .lines
        .iter()
        .take(64)
        .flat_map(|line| HeaderValue::from_bytes(line))
        .collect();
    let read = |values: &[HeaderValue]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(RETRY_AFTER, value.clone());
        }
        retry_after(&headers, input.now)
    };
    let all = read(&values);
    assert!(all.is_none_or(|wait| wait <= DAY));
    // Each line counts for itself, and the longest wins.
    let each = values
        .iter()
        .filter_map(|value| read(std::slice::from_ref(value)));
    assert_eq!(all, each.max());

    if let [value] = &values[..]
        && let Ok(seconds) = value.to_str().unwrap_or_default().parse::<u32>()
        && !value.as_bytes().starts_with(b"+")
    {
        // `parse` takes a sign that the header may not have; leading zeros are both's.
        let expected = Duration::from_secs(seconds.into()).min(DAY);
        assert!(value.len() > 64 || all == Some(expected));
    }
});
