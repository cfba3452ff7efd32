//! `UserKey::parse`: what is read is what was written, and a typo is never a key.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use spark_auth::UserKey;

/// A key of nobody, made for this file.
const KEY: &str = include_str!("../seeds/auth_key/key");

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    text: &'a str,
    /// A place in [`KEY`], and what to write there.
    typo: (u8, u8),
}

fuzz_target!(|input: Input<'_>| {
    if let Ok(key) = UserKey::parse(input.text) {
        assert_eq!(key.expose(), input.text);
        assert!(input.text.is_ascii() && input.text.contains(key.id()));
        let shown = format!("{key:?}");
        let (_, body) = input.text.rsplit_once('_').unwrap();
        assert!(!shown.contains(&body[12..]), "the secret shows");
    }

    assert!(UserKey::parse(KEY).is_ok());
    let (place, byte) = input.typo;
    let mut typo = KEY.as_bytes().to_vec();
    let place = usize::from(place) % typo.len();
    typo[place] = byte & 0x7f;
    let typo = String::from_utf8(typo).unwrap();
    assert_eq!(UserKey::parse(&typo).is_ok(), typo == KEY, "{typo:?}");
});
