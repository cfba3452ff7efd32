//! Whether a secret that an operator chose can be used.

use zeroize::Zeroizing;

use crate::base62::CHECKSUM_LEN;
use crate::error::{KeyError, MasterKeyError};
use crate::key::{ID_LEN, MAX_CREDENTIAL_LEN, SECRET_LEN};

/// The shortest secret that an operator may choose.
pub const MIN_MASTER_SECRET_LEN: usize = 32;

/// Words of placeholders, and rows of keyboards, in lower case.
///
/// A random secret of letters and digits holds a given word of six letters, in any case, at a given
/// place with a chance of (2/62)^6, about 10^-9: a good dozen of such words, at the 59 places of a
/// secret of 64, turn away less than one in a million. Longer words hardly add to that.
const PLACEHOLDERS: [&str; 38] = [
    "changeme",
    "change-me",
    "change_me",
    "change-this",
    "change_this",
    "changethis",
    "replaceme",
    "replace-me",
    "replace_me",
    "placeholder",
    "your-",
    "your_",
    "yourkey",
    "insert",
    "example",
    "sample",
    "password",
    "passw0rd",
    "passphrase",
    "letmein",
    "secret",
    "default",
    "masterkey",
    "master-key",
    "master_key",
    "12345678",
    "87654321",
    // Rows of keyboards, to and fro.
    "qwerty",
    "qwertz",
    "azerty",
    "asdfgh",
    "zxcvbn",
    "yxcvbn",
    "poiuyt",
    "lkjhgf",
    "mnbvcx",
    "1q2w3e",
    "qazwsx",
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
    let lower = Zeroizing::new(text.to_ascii_lowercase());
    if let Some(word) = PLACEHOLDERS.into_iter().find(|word| lower.contains(word)) {
        return Err(MasterKeyError::Placeholder { word });
    }
    match estimated_bits(text.as_bytes()) {
        bits @ 0..128 => Err(MasterKeyError::Weak { bits }),
        _ => Ok(()),
    }
}

/// Refuses the text of a key that somebody made up: its form and its checksum anybody can make.
pub(crate) fn check_key(text: &str) -> Result<(), MasterKeyError> {
    let random = text.len().saturating_sub(CHECKSUM_LEN);
    let whole = &text.as_bytes()[random.saturating_sub(ID_LEN + SECRET_LEN)..random];
    let secret = whole.get(ID_LEN..).unwrap_or_default();
    match estimated_bits(secret).min(estimated_bits(whole)) {
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
    // Random decimal digits take such a step in 28 of 100 pairs, and letters less often. Whoever takes
    // one in six of ten has counted, and then none of these steps is worth anything.
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
    let mut seen = Zeroizing::new(unit.to_vec());
    seen.sort_unstable();
    seen.dedup();
    // Few different characters in a long text: the alphabet that was drawn from was a small one.
    let drawn_from = f64::from(alphabet).min(seen.len() as f64 * 2.0).max(1.0);
    // At most 256 characters of at most 7 bits: far from the limits of u32.
    (worth as f64 * drawn_from.log2()).round() as u32
}
