//! The fields of draft-ietf-httpapi-ratelimit-headers-11, as structured fields (RFC 9651).
//!
//! `RateLimit-Policy: "requests";q=60;w=60`: the quota `q` per window of `w` seconds.
//! `RateLimit: "requests";r=41;t=1`: `r` may be used now, and no more than that for `t` seconds:
//! then there is more.

use std::fmt::Write;

use http::{HeaderName, HeaderValue};
use spark_core::{MAX_NAME_LEN, Name};

use crate::text::{MAX_INTEGER, NUMBER, Text};
use crate::{Quota, Unit};

pub(crate) const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(crate) const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

const SECOND: u64 = 1_000_000_000;

/// One item of `RateLimit-Policy`.
#[derive(Clone, Copy)]
pub(crate) struct PolicyItem<'a> {
    name: &'a Name,
    quota: u64,
    /// In seconds. A limit on concurrency has none.
    window: Option<u64>,
    unit: Unit,
}

impl<'a> PolicyItem<'a> {
    /// A quota per period.
    ///
    /// The draft wants whole seconds. A period that is none is written as the next whole second,
    /// with the quota of that time, rounded down: 10 per 100 ms is `q=100;w=1`.
    pub(crate) fn rate(name: &'a Name, quota: &Quota, unit: Unit) -> Self {
        let period = quota.period().as_nanos();
        let window = period.div_ceil(u128::from(SECOND));
        let units = u128::from(quota.limit()) * window * u128::from(SECOND) / period;
        Self {
            name,
            quota: u64::try_from(units).unwrap_or(MAX_INTEGER),
            window: Some(u64::try_from(window).unwrap_or(MAX_INTEGER)),
            unit,
        }
    }

    /// So many at the same time, such as requests under way.
    pub(crate) fn count(name: &'a Name, most: u64, unit: Unit) -> Self {
        Self {
            name,
            quota: most,
            window: None,
            unit,
        }
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let quota = self.quota.min(MAX_INTEGER);
        write!(text, "\"{}\";q={quota}", self.name)?;
        // The draft keeps `qu` to the units of its registry. Others go where it keeps comments.
        let registered = matches!(self.unit, Unit::ContentBytes | Unit::ConcurrentRequests);
        if registered {
            write!(text, ";qu=\"{}\"", self.unit.as_str())?;
        }
        if let Some(window) = self.window {
            write!(text, ";w={}", window.min(MAX_INTEGER))?;
        }
        if !registered && self.unit != Unit::Requests {
            write!(text, ";spark-unit=\"{}\"", self.unit.as_str())?;
        }
        Ok(())
    }
}

/// The `RateLimit-Policy` field of these items; of none there is no field.
pub(crate) fn policy_field<'a>(
    items: impl IntoIterator<Item = PolicyItem<'a>>,
) -> Option<HeaderValue> {
    let mut text = String::new();
    for item in items {
        if !text.is_empty() {
            text.push_str(", ");
        }
        item.write(&mut text).ok()?;
    }
    if text.is_empty() {
        return None;
    }
    HeaderValue::try_from(text).ok()
}

/// The beginning of a `RateLimit` field, up to the first number, with room for the rest: made when
/// the limiter is configured, so that a response costs two numbers and one allocation.
///
/// A quoted name, `;r=` and `;t=`, two numbers.
pub(crate) type LimitStart = Text<{ 2 + MAX_NAME_LEN + 3 + NUMBER + 3 + NUMBER }>;

/// The beginning of the `RateLimit` field of a policy.
pub(crate) fn limit_field_start(name: &Name) -> LimitStart {
    let mut text = LimitStart::new();
    text.push(b"\"");
    text.push(name.as_str().as_bytes());
    text.push(b"\";r=");
    text
}

/// The `RateLimit` field. Seconds are rounded up: never earlier than the units are there.
pub(crate) fn limit_field(start: &LimitStart, remaining: u64, next_in_nanos: u64) -> HeaderValue {
    let mut text = *start;
    text.push_number(remaining);
    if next_in_nanos > 0 {
        text.push(b";t=");
        text.push_number(next_in_nanos.div_ceil(SECOND));
    }
    text.value()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn quota(n: u64, millis: u64) -> Quota {
        Quota::new(n, Duration::from_millis(millis)).unwrap()
    }

    fn policy(n: u64, millis: u64) -> HeaderValue {
        let name = name("a");
        policy_field([PolicyItem::rate(&name, &quota(n, millis), Unit::Requests)]).unwrap()
    }

    #[test]
    fn windows_are_whole_seconds() {
        assert_eq!(policy(60, 60_000), r#""a";q=60;w=60"#);
        assert_eq!(policy(10, 100), r#""a";q=100;w=1"#);
        assert_eq!(policy(10, 1_500), r#""a";q=13;w=2"#);
    }

    #[test]
    fn several_policies_are_a_list() {
        let (s, day, inflight) = (name("s"), name("day"), name("in-flight"));
        let field = policy_field([
            PolicyItem::rate(&s, &quota(10, 1_000), Unit::Requests),
            PolicyItem::rate(&day, &quota(9, 86_400_000), Unit::Tokens),
            PolicyItem::rate(&day, &quota(9, 86_400_000), Unit::ContentBytes),
            PolicyItem::count(&inflight, 8, Unit::ConcurrentRequests),
        ]);
        assert_eq!(
            field.unwrap(),
            concat!(
                r#""s";q=10;w=1, "day";q=9;w=86400;spark-unit="tokens", "#,
                r#""day";q=9;qu="content-bytes";w=86400, "#,
                r#""in-flight";q=8;qu="concurrent-requests""#,
            )
        );
    }

    #[test]
    fn no_policy_is_no_field() {
        assert_eq!(policy_field([]), None, "a list in a field has a member");
    }

    #[test]
    fn no_number_is_beyond_a_structured_field() {
        let name = name("n");
        let field = policy_field([PolicyItem::count(&name, u64::MAX, Unit::Requests)]);
        assert_eq!(field.unwrap(), r#""n";q=999999999999999"#);
        let field = limit_field(&limit_field_start(&name), u64::MAX, 1);
        assert_eq!(field, r#""n";r=999999999999999;t=1"#);
    }

    #[test]
    fn the_longest_field_fits() {
        let name = "n".repeat(MAX_NAME_LEN);
        let start = limit_field_start(&Name::new(&name).unwrap());
        let field = limit_field(&start, u64::MAX, u64::MAX);
        let expected = format!("\"{name}\";r={MAX_INTEGER};t=18446744074");
        assert_eq!(field, expected.as_str());
    }

    proptest! {
        #[test]
        fn seconds_are_rounded_up(remaining in 0..=MAX_INTEGER, next_in: u64, shift in 0u32..64) {
            let next_in = (next_in >> shift).max(1);
            let field = limit_field(&limit_field_start(&name("x")), remaining, next_in);
            let expected = format!("\"x\";r={remaining};t={}", next_in.div_ceil(SECOND));
            prop_assert_eq!(field, expected.as_str());
        }

        /// The quota that is told, over its window, is never more than the real one, and less than
        /// one unit less.
        #[test]
        fn a_scaled_quota_is_the_quota(n in 1u64..1_000_000, per in 100_000_000u64..1 << 60) {
            let quota = Quota::new(n, Duration::from_nanos(per)).unwrap();
            let name = name("x");
            let item = PolicyItem::rate(&name, &quota, Unit::Requests);
            let window = u128::from(item.window.unwrap()) * u128::from(SECOND);
            prop_assert!(window >= u128::from(per) && window - u128::from(per) < u128::from(SECOND));
            let real = u128::from(n) * window;
            let told = u128::from(item.quota) * u128::from(per);
            prop_assert!(told <= real && real < told + u128::from(per));
        }
    }
}
