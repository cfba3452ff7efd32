//! Whether a secret that an operator chose can be used.

use crate::error::{KeyError, MasterKeyError};
use crate::key::MAX_CREDENTIAL_LEN;

/// The shortest secret that an operator may choose.
pub const MIN_MASTER_SECRET_LEN: usize = 32;

/// Words of placeholders. None is shorter than six letters, so that a random secret of letters
/// and digits holds one less than once in 10^8 times.
const PLACEHOLDERS: [&str; 14] = [
    "changeme",
    "change-me",
    "change_me",
    "replaceme",
    "replace-me",
    "replace_me",
    "placeholder",
    "example",
    "password",
    "secret",
    "default",
    "masterkey",
    "master-key",
    "master_key",
];

/// Refuses what could be guessed, and what could not travel in a header.
pub(crate) fn check_free_text(text: &str, fault: KeyError) -> Result<(), MasterKeyError> {
    if ["_mk_live_", "_mk_test_", "_sk_live_", "_sk_test_"]
        .iter()
        .any(|marker| text.contains(marker))
    {
        return Err(MasterKeyError::Broken(fault));
    }
    if text.len() < MIN_MASTER_SECRET_LEN {
        return Err(MasterKeyError::Short { len: text.len() });
    }
    if text.len() > MAX_CREDENTIAL_LEN {
        return Err(MasterKeyError::Long { len: text.len() });
    }
    let cannot_travel = |byte: u8| !byte.is_ascii_graphic() || byte == b',';
    if let Some(at) = text.bytes().position(cannot_travel) {
        return Err(MasterKeyError::Character { at });
    }
    let lower = text.to_ascii_lowercase();
    if let Some(word) = PLACEHOLDERS.into_iter().find(|word| lower.contains(word)) {
        return Err(MasterKeyError::Placeholder { word });
    }
    match estimated_bits(text.as_bytes()) {
        bits @ 0..128 => Err(MasterKeyError::Weak { bits }),
        _ => Ok(()),
    }
}

/// A generous estimate for text that a person may have typed: repeated and counted-up stretches
/// are worth nothing, every other character as much as its alphabet allows.
fn estimated_bits(text: &[u8]) -> u32 {
    // A text that repeats itself is worth its first period.
    let period = (1..=text.len() / 2)
        .find(|&period| text[period..].iter().zip(text).all(|(a, b)| a == b))
        .unwrap_or(text.len());
    let unit = &text[..period];
    let run_steps = unit
        .windows(2)
        .filter(|pair| pair[0].abs_diff(pair[1]) <= 1)
        .count();
    // Random digits take such a step once in six characters. Whoever takes one more often than not
    // has counted, and then none of these steps is worth anything.
    let has_counted = run_steps > unit.len() * 6 / 10;
    let worth = unit.len() - if has_counted { run_steps } else { 0 };

    let has = |test: fn(&u8) -> bool| unit.iter().any(test);
    let hex = unit
        .iter()
        .all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'))
        || unit
            .iter()
            .all(|byte| byte.is_ascii_digit() || matches!(byte, b'A'..=b'F'));
    let alphabet: u32 = if hex && has(u8::is_ascii_alphabetic) {
        16
    } else {
        [
            (has(u8::is_ascii_digit), 10),
            (has(u8::is_ascii_lowercase), 26),
            (has(u8::is_ascii_uppercase), 26),
            (has(u8::is_ascii_punctuation), 32),
        ]
        .into_iter()
        .map(|(present, letters)| if present { letters } else { 0 })
        .sum()
    };
    let mut seen = unit.to_vec();
    seen.sort_unstable();
    seen.dedup();
    // Few different characters in a long text: the alphabet that was drawn from was a small one.
    let drawn_from = f64::from(alphabet).min(seen.len() as f64 * 2.0).max(1.0);
    // At most 256 characters of at most 7 bits: far from the limits of u32.
    (worth as f64 * drawn_from.log2()).round() as u32
}
