//! `credential`: one credential or an error; never one of two.

#![no_main]

use arbitrary::Arbitrary;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use spark_auth::credential;

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    authorization: Vec<&'a [u8]>,
    x_api_key: Vec<&'a [u8]>,
}

fuzz_target!(|input: Input<'_>| {
    let mut headers = HeaderMap::new();
    let named = |name: HeaderName, lines: &[&[u8]]| -> Vec<(HeaderName, HeaderValue)> {
        let values = lines
            .iter()
            .take(8)
            .flat_map(|line| HeaderValue::from_bytes(line));
        values.map(|value| (name.clone(), value)).collect()
    };
    let mut lines = named(AUTHORIZATION, &input.authorization);
    lines.extend(named(
        HeaderName::from_static("x-api-key"),
        &input.x_api_key,
    ));
    for (name, value) in &lines {
        headers.append(name, value.clone());
    }

    match credential(&headers) {
        Ok(None) => assert!(lines.is_empty()),
        Ok(Some(key)) => {
            assert_eq!(lines.len(), 1, "one of several was chosen");
            assert!(
                key.bytes()
                    .all(|byte| byte.is_ascii_graphic() && byte != b','),
                "{key:?}"
            );
            assert!(!key.is_empty());
            let value = lines[0].1.as_bytes();
            assert!(
                value
                    .windows(key.len())
                    .any(|window| window == key.as_bytes())
            );
        }
        Err(_) => assert!(!lines.is_empty()),
    }
});
