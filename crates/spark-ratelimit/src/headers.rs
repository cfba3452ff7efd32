//! The fields of draft-ietf-httpapi-ratelimit-headers, as structured fields (RFC 9651).
//!
//! `RateLimit-Policy: "requests";q=60;w=60`: the quota `q` per window of `w` seconds.
//! `RateLimit: "requests";r=41;t=1`: `r` may be used now, and in `t` seconds there is more.

use http::{HeaderName, HeaderValue};

use crate::{Quota, Unit};

pub(crate) const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(crate) const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

const SECOND: u64 = 1_000_000_000;
/// A quoted name (66), `;r=` and `;t=` (6), two numbers (40).
const MAX_LIMIT_FIELD: usize = 128;

/// The `RateLimit-Policy` field for these quotas.
///
/// The draft wants whole seconds. A window that is none is written as the next whole second, with
/// the quota of that time, rounded down: 10 per 100 ms is `q=100;w=1`.
pub(crate) fn policy_field<'a>(
    policies: impl Iterator<Item = (&'a str, Unit, Quota)>,
) -> Option<HeaderValue> {
    let mut text = String::new();
    for (name, _unit, quota) in policies {
        let window = quota.per_nanos().div_ceil(SECOND);
        let units = u128::from(quota.limit()) * u128::from(window) * u128::from(SECOND)
            / u128::from(quota.per_nanos());
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(&format!(
            "\"{name}\";q={};w={window}",
            units.min(999_999_999_999_999)
        ));
    }
    (!text.is_empty()).then(|| printable(text.as_bytes()))
}

/// The beginning of the `RateLimit` field, up to the first number.
pub(crate) fn limit_field_start(name: &str) -> Box<[u8]> {
    format!("\"{name}\";r=").into_bytes().into_boxed_slice()
}

/// The `RateLimit` field. Seconds are rounded up: never earlier than the units are there.
pub(crate) fn limit_field(start: &[u8], remaining: u64, next_in_nanos: u64) -> HeaderValue {
    let mut field = Field::default();
    field.push(start);
    field.push_number(remaining);
    if next_in_nanos > 0 {
        field.push(b";t=");
        field.push_number(next_in_nanos.div_ceil(SECOND));
    }
    printable(field.as_bytes())
}

/// A value of the characters that we write: names are checked, the rest is ours.
fn printable(bytes: &[u8]) -> HeaderValue {
    HeaderValue::from_bytes(bytes).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Text of bounded length on the stack.
struct Field {
    bytes: [u8; MAX_LIMIT_FIELD],
    len: usize,
}

impl Default for Field {
    fn default() -> Self {
        Self {
            bytes: [0; MAX_LIMIT_FIELD],
            len: 0,
        }
    }
}

impl Field {
    fn push(&mut self, text: &[u8]) {
        let room = &mut self.bytes[self.len..];
        let len = text.len().min(room.len());
        room[..len].copy_from_slice(&text[..len]);
        self.len += len;
    }

    fn push_number(&mut self, mut number: u64) {
        let mut digits = [0; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        self.push(&digits[at..]);
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

#[cfg(all(test, not(spark_loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn policy(n: u64, millis: u64) -> String {
        let quota = Quota::new(n, Duration::from_millis(millis)).unwrap();
        let field = policy_field([("a", Unit::Requests, quota)].into_iter()).unwrap();
        field.to_str().unwrap().to_owned()
    }

    #[test]
    fn windows_are_whole_seconds() {
        assert_eq!(policy(60, 60_000), r#""a";q=60;w=60"#);
        assert_eq!(policy(10, 100), r#""a";q=100;w=1"#);
        assert_eq!(policy(10, 1_500), r#""a";q=13;w=2"#);
    }

    #[test]
    fn several_policies_are_a_list() {
        let quota = |n, secs| Quota::new(n, Duration::from_secs(secs)).unwrap();
        let field = policy_field(
            [
                ("s", Unit::Requests, quota(10, 1)),
                ("day", Unit::Requests, quota(9, 86_400)),
            ]
            .into_iter(),
        )
        .unwrap();
        assert_eq!(field, r#""s";q=10;w=1, "day";q=9;w=86400"#);
    }

    #[test]
    fn the_longest_field_fits() {
        let name = "n".repeat(64);
        let field = limit_field(&limit_field_start(&name), u64::MAX, u64::MAX);
        let expected = format!("\"{name}\";r={};t={}", u64::MAX, u64::MAX.div_ceil(SECOND));
        assert_eq!(field, expected.as_str());
    }

    proptest! {
        #[test]
        fn numbers_are_written_as_they_are(remaining: u64, next_in: u64) {
            let field = limit_field(&limit_field_start("x"), remaining, next_in.max(1));
            let expected = format!("\"x\";r={remaining};t={}", next_in.max(1).div_ceil(SECOND));
            prop_assert_eq!(field, expected.as_str());
        }
    }
}
