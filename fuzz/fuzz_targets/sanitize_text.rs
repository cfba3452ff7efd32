//! `Sanitizer::inspect`: what it hands on is a fixed point, and its places are places.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use spark_sanitize::{Origin, Preset, Sanitizer};

static SANITIZERS: LazyLock<Vec<Sanitizer>> = LazyLock::new(|| {
    let presets = [Preset::Monitor, Preset::Balanced, Preset::Strict];
    let both = presets
        .into_iter()
        .flat_map(|preset| [(preset, false), (preset, true)]);
    both.map(|(preset, normalize)| {
        Sanitizer::builder()
            .preset(preset)
            .normalize(normalize)
            .build()
            .unwrap()
    })
    .collect()
});

fuzz_target!(|text: &str| {
    for sanitizer in SANITIZERS.iter() {
        for origin in [
            Origin::User,
            Origin::ToolOutput,
            Origin::Retrieved,
            Origin::Trusted,
        ] {
            let report = sanitizer.inspect(text, origin);
            for finding in report.findings() {
                assert!(
                    text.get(finding.span.clone()).is_some(),
                    "{finding:?} is no place"
                );
                assert!(
                    finding.action <= report.action(),
                    "{finding:?} is stricter than all"
                );
            }
            if report.is_blocked() {
                continue;
            }
            let again = sanitizer.inspect(report.text(), origin);
            assert!(!again.is_blocked(), "what was handed on is blocked");
            assert_eq!(
                again.text(),
                report.text(),
                "what was handed on changes again"
            );
        }
    }
});
