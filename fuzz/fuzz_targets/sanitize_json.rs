//! `Sanitizer::inspect_json`: the body that is handed on is JSON whose texts are all clean, as any
//! parser behind it reads them.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use spark_sanitize::{Fields, JsonError, Limits, Origin, Sanitizer, check_json};

static SANITIZER: LazyLock<Sanitizer> = LazyLock::new(|| Sanitizer::builder().build().unwrap());
static FIELDS: LazyLock<Fields> = LazyLock::new(|| {
    Fields::new(["prompt", "messages[].content", "messages[].content[].text"]).unwrap()
});

fuzz_target!(|data: &[u8]| {
    let small = Limits {
        max_depth: 4,
        max_values: 16,
        max_string_bytes: 32,
        ..Limits::default()
    };
    for limits in [small, Limits::default()] {
        match check_json(data, &limits) {
            Ok(text) => assert_eq!(text.as_bytes(), data),
            Err(JsonError::Syntax { .. } | JsonError::NotUtf8 { .. }) => {
                assert!(
                    serde_json::from_slice::<Value>(data).is_err(),
                    "good JSON is refused"
                );
            }
            Err(_) => {}
        }
    }

    let Ok(report) = SANITIZER.inspect_json(data, &FIELDS) else {
        return;
    };
    if report.blocked_field().is_some() {
        assert!(report.body().is_empty(), "a blocked body is handed on");
        return;
    }
    let again = SANITIZER
        .inspect_json(report.body(), &FIELDS)
        .expect("what was handed on is JSON");
    assert_eq!(again.blocked_field(), None, "what was handed on is blocked");
    assert_eq!(
        again.body(),
        report.body(),
        "what was handed on changes again"
    );

    // Lone surrogates in other fields are none of the sanitizer's business, but no `Value`.
    let Ok(body) = serde_json::from_slice::<Value>(report.body()) else {
        return;
    };
    let mut texts: Vec<&Value> = vec![&body["prompt"]];
    for message in body["messages"].as_array().into_iter().flatten() {
        texts.push(&message["content"]);
        let parts = message["content"].as_array().into_iter().flatten();
        texts.extend(parts.map(|part| &part["text"]));
    }
    for text in texts.into_iter().filter_map(Value::as_str) {
        let seen = SANITIZER.inspect(text, Origin::User);
        assert!(!seen.is_blocked(), "{text:?} went past the sanitizer");
        assert_eq!(seen.text(), text, "a text went past uncleaned");
    }
});
