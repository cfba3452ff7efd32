//! Which errors are alike.

use std::{fmt, sync::LazyLock};

use regex::Regex;
use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::text;

/// Bytes of a message that take part in grouping.
const MAX: usize = 4 * 1024;
/// Bytes of a word that are looked at together.
const WORD: usize = 256;

/// The name of a group: `v1:` and sixteen hex digits of SHA-256 over kind, type, place and the
/// normalised message. The version changes when the rules do, so that old names stay true.
///
/// ```
/// use spark_errors::Fingerprint;
///
/// let of = |message| Fingerprint::of("provider", Some("io::Error"), "src/a.rs:7", message);
/// assert_eq!(of("timeout after 31 ms"), of("timeout after 1.2 ms"));
/// assert_ne!(of("timeout after 31 ms"), of("refused"));
/// assert!(of("refused").to_string().starts_with("v1:"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// The name of the group of an error.
    ///
    /// ```
    /// # use spark_errors::Fingerprint;
    /// let one = Fingerprint::of("panic", None, "src/a.rs:7", "index 7 of 3");
    /// assert_eq!(one, Fingerprint::of("panic", None, "src/a.rs:7", "index 9 of 5"));
    /// ```
    pub fn of(kind: &str, type_name: Option<&str>, location: &str, message: &str) -> Self {
        Self::of_parts(&[kind, type_name.unwrap_or(""), location, &normalise(message)])
    }

    /// The name of a group that the program chose by itself.
    ///
    /// ```
    /// # use spark_errors::Fingerprint;
    /// assert_ne!(Fingerprint::chosen("billing"), Fingerprint::chosen("search"));
    /// ```
    pub fn chosen(name: &str) -> Self {
        Self::of_parts(&["chosen", name])
    }

    fn of_parts(parts: &[&str]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            // With its length before it, no part can pose as the end of another.
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        let digest = hash.finalize();
        let first = digest
            .iter()
            .take(8)
            .fold(0, |word, byte| (word << 8) | u64::from(*byte));
        Self(first)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v1:{:016x}", self.0)
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// `message` with what changes from one occurrence to the next replaced by what it is: numbers,
/// addresses, identifiers, dates, quoted text. Its first 4 KiB, in time linear in their length;
/// normalising twice changes nothing more.
///
/// ```
/// assert_eq!(
///     spark_errors::normalise("GET https://a.test/x?y=1 from 10.0.0.7: 503 after 1.5s"),
///     "GET <url> from <ip>: <num> after <dur>"
/// );
/// ```
pub fn normalise(message: &str) -> String {
    let mut text = text::head(message, MAX).to_owned();
    // What stands beside a replacement may match in its turn: twice is the rule, more is an attack.
    for _ in 0..4 {
        let next = pass(&text);
        if next == text {
            return text;
        }
        text = next;
    }
    // Without these no pattern matches anything.
    text.retain(|c| !c.is_ascii_digit() && !matches!(c, '@' | '"' | ':'));
    text
}

/// Word by word, and a word in pieces of 256 bytes: what the expression looks ahead is bounded, so
/// that no text makes it read the same bytes over and over.
fn pass(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let quoted = if first == '"' {
            rest[1..].find('"')
        } else {
            None
        };
        let taken = match quoted {
            Some(end) => {
                out.push_str("\"<str>\"");
                end + 2
            }
            None if first == '"' || first.is_whitespace() => {
                out.push(first);
                first.len_utf8()
            }
            None => {
                let word = rest.find(|c: char| c == '"' || c.is_whitespace());
                let word = text::head(&rest[..word.unwrap_or(rest.len())], WORD);
                replace(word, &mut out);
                word.len()
            }
        };
        rest = &rest[taken..];
    }
    out.truncate(text::head(&out, MAX).len());
    out
}

fn replace(word: &str, out: &mut String) {
    let mut from = 0;
    for found in PATTERN.find_iter(word) {
        out.push_str(&word[from..found.start()]);
        out.push_str(class(found.as_str()).unwrap_or(found.as_str()));
        from = found.end();
    }
    out.push_str(&word[from..]);
}

/// One expression for all, so that the text is read once. What was found is told apart by
/// looking at it again.
static PATTERN: LazyLock<Regex> = LazyLock::new(|| {
    let parts = [
        r#"[A-Za-z][A-Za-z0-9+.-]*://[^\s<>"']+"#, // url
        r"[A-Za-z0-9_.+%-]+@[A-Za-z0-9.-]+",       // e-mail
        r"(?-u:\b)[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}(?-u:\b)", // uuid
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:T[0-9:.,]+(?:Z|[+-][0-9:]+)?)?", // date
        r"[0-9]{1,2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?", // time of day
        r"(?-u:\b)[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?:%[A-Za-z0-9]+)?", // IPv6
        r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?::[0-9]+)?", // IPv4
        r"(?-u:\b)0[xX][0-9A-Fa-f]+(?-u:\b)",      // hex, marked
        r"(?-u:\b)[0-9A-Fa-f]{8,}(?-u:\b)",        // hex, long
        r"[+-]?[0-9]+(?:\.[0-9]+)?(?:ns|us|µs|ms|s|min|h)(?-u:\b)", // duration
        r"[+-]?[0-9]+(?:[.,][0-9]+)*",             // number
    ];
    #[expect(clippy::expect_used, reason = "a constant; every test compiles it")]
    Regex::new(&parts.join("|")).expect("the pattern is an expression")
});

/// What was found; `None` leaves it as it is.
fn class(found: &str) -> Option<&'static str> {
    let bytes = found.as_bytes();
    let digits = bytes.iter().filter(|b| b.is_ascii_digit()).count();
    let count = |byte| bytes.iter().filter(|b| **b == byte).count();
    if found.contains("://") {
        return Some("<url>");
    }
    if count(b'@') > 0 {
        return Some("<email>");
    }
    if digits == 0 {
        // A path such as `de::be`, a word such as `deadbeef`.
        return None;
    }
    let dashed = |at: usize| bytes.get(at) == Some(&b'-');
    if bytes.len() == 36 && dashed(8) && dashed(13) {
        Some("<uuid>")
    } else if (dashed(4) && dashed(7)) || (count(b':') == 2 && is_time_of_day(bytes)) {
        Some("<date>")
    } else if count(b':') >= 2 || count(b'.') == 3 {
        Some("<ip>")
    } else if bytes
        .iter()
        .all(|b| b.is_ascii_digit() || b"+-.,".contains(b))
    {
        Some("<num>")
    } else if bytes.len() >= 8 && bytes.iter().all(u8::is_ascii_hexdigit)
        || matches!(bytes.get(1), Some(b'x' | b'X'))
    {
        Some("<hex>")
    } else {
        Some("<dur>")
    }
}

fn is_time_of_day(bytes: &[u8]) -> bool {
    bytes
        .iter()
        .all(|b| b.is_ascii_digit() || matches!(b, b':' | b'.'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_changes_is_replaced_by_what_it_is() {
        for (message, expected) in [
            ("order 17 of 1,204.50", "order <num> of <num>"),
            (
                "id 6f9619ff-8b86-d011-b42d-00cf4fc964ff gone",
                "id <uuid> gone",
            ),
            ("at 2026-01-02T03:04:05.678Z", "at <date>"),
            ("at 03:04:05", "at <date>"),
            ("from 10.0.0.1:8080", "from <ip>"),
            ("from 2001:db8::7", "from <ip>"),
            ("to a.b+c@mail.example.com now", "to <email> now"),
            ("see https://x.test/a?b=c#d now", "see <url> now"),
            ("ptr 0xdeadBEEF", "ptr <hex>"),
            ("commit 0123456789abcdef", "commit <hex>"),
            ("after 1.5s, 30ms, 2 min", "after <dur>, <dur>, <num> min"),
            (r#"an odd " stays"#, r#"an odd " stays"#),
            (
                r#"missing field "model" at line 3"#,
                r#"missing field "<str>" at line <num>"#,
            ),
            (
                "serde::de::Error in deadbeef",
                "serde::de::Error in deadbeef",
            ),
            ("plain words stay", "plain words stay"),
        ] {
            assert_eq!(normalise(message), expected);
        }
    }

    #[test]
    fn the_name_is_the_same_in_every_build() {
        let of = |message| Fingerprint::of("panic", Some("T"), "src/a.rs:1", message).to_string();
        assert_eq!(of("index 1"), of("index 22"));
        assert_eq!(of("x"), "v1:7d4009e7d1e3f7f6");
    }

    #[test]
    fn another_type_kind_or_place_is_another_group() {
        let one = Fingerprint::of("a", Some("T"), "f:1", "m");
        assert_ne!(one, Fingerprint::of("b", Some("T"), "f:1", "m"));
        assert_ne!(one, Fingerprint::of("a", Some("U"), "f:1", "m"));
        assert_ne!(one, Fingerprint::of("a", Some("T"), "f:2", "m"));
        assert_ne!(one, Fingerprint::of("aT", Some(""), "f:1", "m"));
    }

    #[test]
    fn long_hostile_messages_end() {
        for unit in [
            "1 ",
            "a@",
            "\"",
            "::",
            "1:",
            "deadbeef1",
            "1.2.3.4",
            "x://",
            "-",
            "é1",
        ] {
            let long = unit.repeat(64 * 1024 / unit.len());
            let once = normalise(&long);
            assert!(once.len() <= MAX);
            assert_eq!(normalise(&once), once, "{unit}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn twice_is_once(message in r#"(?s)(?:[a-f0-9:.\-@"/ <>TZx_sm+%]|://|\PC){0,80}"#) {
            let once = normalise(&message);
            prop_assert_eq!(normalise(&once), once);
        }
    }
}
