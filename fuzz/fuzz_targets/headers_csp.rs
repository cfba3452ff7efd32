//! `Csp::parse`: a policy that was accepted reads back as itself and fits in a header.

#![no_main]

use http::HeaderValue;
use libfuzzer_sys::fuzz_target;
use spark_headers::Csp;

fuzz_target!(|text: &str| {
    let Ok(policy) = Csp::parse(text) else { return };
    let written = policy.to_string();
    assert!(
        HeaderValue::try_from(&written).is_ok(),
        "{written:?} is no header value"
    );
    let again = Csp::parse(&written).expect("what was written is readable");
    assert_eq!(again.to_string(), written);
    assert_eq!(again.uses_nonce(), policy.uses_nonce());
});
