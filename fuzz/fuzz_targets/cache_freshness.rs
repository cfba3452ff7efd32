//! `Freshness::of`: no line of `Cache-Control` hides what another one asks for.

#![no_main]

use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use spark_cache::Freshness;

fuzz_target!(|lines: Vec<&[u8]>| {
    let mut headers = HeaderMap::new();
    for line in lines.iter().take(64) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(CACHE_CONTROL, value);
        }
    }
    let before = Freshness::of(&headers);
    headers.append(
        CACHE_CONTROL,
        HeaderValue::from_static("no-store, No-Cache"),
    );
    let after = Freshness::of(&headers);
    assert!(after.no_store && after.no_cache);
    assert_eq!(
        (after.max_age, after.min_fresh),
        (before.max_age, before.min_fresh)
    );
});
