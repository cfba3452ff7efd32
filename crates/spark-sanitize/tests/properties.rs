//! Properties that hold for any input.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot be set up fails"
)]

use proptest::prelude::*;
use spark_sanitize::{Action, Fields, Limits, Origin, Preset, Sanitizer, check_json};
use std::sync::LazyLock;

static SANITIZERS: LazyLock<Vec<Sanitizer>> = LazyLock::new(|| {
    let build = |b: spark_sanitize::SanitizerBuilder| b.build().unwrap();
    vec![
        build(Sanitizer::builder()),
        build(Sanitizer::builder().preset(Preset::Monitor)),
        build(Sanitizer::builder().preset(Preset::Strict).normalize(true)),
        build(
            [
                "override",
                "extraction",
                "jailbreak",
                "control",
                "exfiltration",
                "secret",
                "hidden",
                "combined",
            ]
            .into_iter()
            .fold(Sanitizer::builder(), |b, family| {
                b.action(family, Action::Redact)
            }),
        ),
        build(Sanitizer::builder().action("unicode.variation", Action::Flag)),
    ]
});

const ORIGINS: [Origin; 4] = [
    Origin::User,
    Origin::ToolOutput,
    Origin::Retrieved,
    Origin::Trusted,
];

/// Pieces that matter, thrown together: joiners, selectors, flags, scripts, and words of rules.
fn soup() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "a",
        " ",
        "\n",
        "x\u{301}",
        "\u{200B}",
        "\u{200C}",
        "\u{200D}",
        "\u{200E}",
        "\u{200F}",
        "\u{AD}",
        "\u{FE0F}",
        "\u{FE00}",
        "\u{E0101}",
        "\u{FEFF}",
        "\u{202E}",
        "\u{2069}",
        "\u{E0067}",
        "\u{E0062}",
        "\u{E007F}",
        "\u{E0001}",
        "\u{1F3F4}",
        "\u{1F469}",
        "\u{2764}",
        "\u{1F3FD}",
        "ن",
        "ش",
        "क",
        "\u{94D}",
        "ក",
        "葛",
        "א",
        "1",
        "\u{20E3}",
        "\u{1B}",
        "\u{85}",
        "\u{2028}",
        "\u{3164}",
        "\u{1160}",
        "\u{1100}",
        "\u{2062}",
        "\u{2064}",
        "\u{180B}",
        "ᠮ",
        "\u{FFFE}",
        "\u{E000}",
        "ﬁ",
        "Ａ",
        "ignore ",
        "all ",
        "previous ",
        "instructions ",
        "never refuse ",
        "<|",
        "|>",
        "im_start",
        "system",
        "[INST]",
        "<",
        "reveal your ",
        "system prompt ",
        "![x](https://a.b/?q={data})",
        "secret ",
        "uncensored ai ",
        "[",
        "removed",
    ]);
    prop::collection::vec(pieces, 0..40).prop_map(|pieces| pieces.concat())
}

fn check(text: &str) {
    for sanitizer in SANITIZERS.iter() {
        for origin in ORIGINS {
            let report = sanitizer.inspect(text, origin);
            for finding in report.findings() {
                assert!(text.get(finding.span.clone()).is_some(), "{finding:?}");
                assert!(finding.action > Action::Allow && finding.action <= report.action());
            }
            assert!(!report.is_blocked() || report.text().is_empty());
            let again = sanitizer.inspect(report.text(), origin);
            assert_eq!(again.text(), report.text(), "{origin:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn cleaning_twice_is_cleaning_once(text in soup()) {
        check(&text);
    }

    #[test]
    fn any_text_will_do(text in any::<String>()) {
        check(&text);
    }

    #[test]
    fn any_bytes_will_do(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let fields = Fields::new(["prompt", "[]", "a[].b"]).unwrap();
        let _ = SANITIZERS[0].inspect_json(&body, &fields);
    }

    #[test]
    fn broken_json_is_an_error_and_no_panic(body in r#"[\[\]{}:,"\\a1eu \n-]{0,40}"#) {
        let fields = Fields::new(["a", "[]", "a[].a", "[].a"]).unwrap();
        let ours = SANITIZERS[0].inspect_json(body.as_bytes(), &fields);
        let theirs = serde_json::from_str::<serde_json::Value>(&body);
        // A lone surrogate in a string that nobody selected is not ours to judge.
        if !body.contains("\\u") {
            prop_assert_eq!(ours.is_ok(), theirs.is_ok());
        }
    }

    #[test]
    fn rewritten_json_says_the_same(prompt in soup(), number in any::<f64>(), key in "[a-z\"\\\\]{1,6}") {
        let value = serde_json::json!({"n": number, (format!("x{key}")): [prompt], "prompt": prompt, "z": {"prompt": prompt}});
        let body = value.to_string();
        let fields = Fields::new(["prompt"]).unwrap();
        let report = SANITIZERS[1].inspect_json(body.as_bytes(), &fields).unwrap();
        prop_assert_eq!(report.body(), body.as_bytes(), "the monitor changes nothing");
        let report = SANITIZERS[0].inspect_json(body.as_bytes(), &fields).unwrap();
        let cleaned = SANITIZERS[0].inspect(&prompt, Origin::User);
        if report.action() < Action::Block {
            // Parsed as it would be anyway, since parsing may round the number.
            let mut expected: serde_json::Value = serde_json::from_str(&body).unwrap();
            expected["prompt"] = cleaned.text().into();
            let written: serde_json::Value = serde_json::from_slice(report.body()).unwrap();
            prop_assert_eq!(written, expected);
        } else {
            prop_assert!(report.body().is_empty());
            prop_assert_eq!(report.blocked_field(), Some("prompt"));
        }
    }
}

#[test]
fn deep_and_wide_bodies_are_refused() {
    let limits = Limits::default();
    for open in ["[", "{\"a\":", "[[{\"x\":"] {
        let error = check_json(open.repeat(100_000).as_bytes(), &limits).unwrap_err();
        assert_eq!(error.code(), "json_too_deep");
    }
    let wide = format!("[{}1]", "1,".repeat(1_000_000));
    assert_eq!(
        check_json(wide.as_bytes(), &limits).unwrap_err().code(),
        "json_too_many_values"
    );
    let long = format!("\"{}\"", "x".repeat(2 << 20));
    assert_eq!(
        check_json(long.as_bytes(), &limits).unwrap_err().code(),
        "json_string_too_long"
    );
}
