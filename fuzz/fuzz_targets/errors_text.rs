//! `normalise` settles at once, and no secret comes through `Redactor::redact`.

#![no_main]

use std::sync::LazyLock;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use spark_errors::{Fingerprint, Redactor, normalise};

static REDACTOR: LazyLock<Redactor> = LazyLock::new(|| Redactor::new().emails(true));

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    before: &'a str,
    after: &'a str,
    which: u8,
}

/// Made for this file; none of them opens anything.
const SECRETS: [&str; 3] = [
    "spark_sk_test_0123456789abABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijkl",
    "sk-proj-0123456789abcdefghijklmnopqrstuvwxyzABCD",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P",
];

fuzz_target!(|input: Input<'_>| {
    let normal = normalise(input.before);
    assert_eq!(normalise(&normal), normal, "{:?}", input.before);
    let group = Fingerprint::of("fuzz", None, "here", input.before);
    assert_eq!(group, Fingerprint::of("fuzz", None, "here", input.before));

    let secret = SECRETS[usize::from(input.which) % SECRETS.len()];
    // Glued to other letters it is no secret's spelling: only where it stands alone it must go.
    if [input.before, input.after]
        .iter()
        .any(|text| text.contains(secret))
    {
        return;
    }
    let message = format!("{} {secret} {}", input.before, input.after);
    let redacted = REDACTOR.redact(&message);
    assert!(
        !redacted.contains(secret),
        "{message:?} became {redacted:?}"
    );
});
