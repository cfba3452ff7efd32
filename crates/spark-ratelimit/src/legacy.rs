//! Header fields of no standard that clients know all the same: written by option, beside those of
//! the draft, and about one policy, since they have no room for a name.

use std::time::Duration;

use http::{HeaderMap, HeaderName};

use crate::Unit;
use crate::text::{NUMBER, Text};

const X_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

const REQUESTS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-requests"),
    HeaderName::from_static("x-ratelimit-remaining-requests"),
    HeaderName::from_static("x-ratelimit-reset-requests"),
];
const TOKENS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-tokens"),
    HeaderName::from_static("x-ratelimit-remaining-tokens"),
    HeaderName::from_static("x-ratelimit-reset-tokens"),
];

const MILLISECOND: u64 = 1_000_000;
/// Three numbers and a unit after each; the last number comes with a fraction.
const DURATION: usize = 4 * NUMBER;

/// How somebody stands with one policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Figures {
    /// What the policy counts.
    pub(crate) unit: Unit,
    /// What may be used at once by who was idle: the burst. Clients reckon with the share
    /// `remaining / limit`, which is one for nobody where this is a larger quota.
    pub(crate) limit: u64,
    /// What may be used now.
    pub(crate) remaining: u64,
    /// Nanoseconds until all of `limit` may be used again: the reset, which of these fields is the
    /// moment at which all is as in the beginning, not that at which there is one unit more.
    pub(crate) full_in: u64,
}

/// `X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset`.
///
/// The reset is a **moment, in seconds since 1970**, rounded up, as GitHub and `express-rate-limit`
/// send it and as clients that fall back on these fields read it. Other servers send seconds from
/// now, and nothing in the field says which it is; clients that know both tell them apart by size.
/// Who wants a time from now has `Retry-After` and the `t` of `RateLimit`, which are nothing else.
///
/// They have no room for a unit either: meant for a policy that counts requests.
pub(crate) fn write_x_ratelimit(headers: &mut HeaderMap, figures: &Figures, unix_time: Duration) {
    let reset = unix_time.saturating_add(Duration::from_nanos(figures.full_in));
    let begun = u64::from(reset.subsec_nanos() > 0);
    let reset = reset.as_secs().saturating_add(begun);
    for (name, number) in [
        (X_LIMIT, figures.limit),
        (X_REMAINING, figures.remaining),
        (X_RESET, reset),
    ] {
        headers.insert(name, number_text(number).value());
    }
}

/// OpenAI's `x-ratelimit-limit-requests`, `-remaining-requests` and `-reset-requests`, or the same
/// of `-tokens`, as the unit says; of other units nothing. Call it once for each of two policies.
///
/// The reset is a time from now in the form of Go's `Duration`, such as `17ms`, `8.64s`, `6m0s`,
/// in milliseconds, rounded up.
pub(crate) fn write_openai(headers: &mut HeaderMap, figures: &Figures) {
    let [limit, remaining, reset] = match figures.unit {
        Unit::Requests => REQUESTS,
        Unit::Tokens => TOKENS,
        _ => return,
    };
    headers.insert(limit, number_text(figures.limit).value());
    headers.insert(remaining, number_text(figures.remaining).value());
    headers.insert(reset, go_duration(figures.full_in).value());
}

fn number_text(number: u64) -> Text<NUMBER> {
    let mut text = Text::new();
    text.push_number(number);
    text
}

/// As Go's `Duration.String` writes it: units that are zero in front are left out, those behind are
/// not, and only the seconds have a fraction.
fn go_duration(nanos: u64) -> Text<DURATION> {
    let millis = nanos.div_ceil(MILLISECOND);
    let mut text = Text::new();
    if (1..1_000).contains(&millis) {
        text.push_number(millis);
        text.push(b"ms");
        return text;
    }
    let (seconds, millis) = (millis / 1_000, millis % 1_000);
    if seconds >= 3_600 {
        text.push_number(seconds / 3_600);
        text.push(b"h");
    }
    if seconds >= 60 {
        text.push_number(seconds / 60 % 60);
        text.push(b"m");
    }
    text.push_number(seconds % 60);
    let digits = [millis / 100, millis / 10 % 10, millis % 10].map(|digit| b'0' + digit as u8);
    let used = digits.iter().rposition(|digit| *digit != b'0');
    if let Some(last) = used {
        text.push(b".");
        text.push(&digits[..=last]);
    }
    text.push(b"s");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FIGURES: Figures = Figures {
        unit: Unit::Requests,
        limit: 60,
        remaining: 41,
        full_in: 18_500_000_000,
    };

    fn sorted(headers: &HeaderMap) -> Vec<(&str, &str)> {
        let mut fields: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        fields.sort_unstable();
        fields
    }

    #[test]
    fn the_reset_is_a_moment_never_too_early() {
        let mut headers = HeaderMap::new();
        let now = Duration::from_millis(1_700_000_000_600);
        write_x_ratelimit(&mut headers, &FIGURES, now);
        assert_eq!(
            sorted(&headers),
            [
                ("x-ratelimit-limit", "60"),
                ("x-ratelimit-remaining", "41"),
                ("x-ratelimit-reset", "1700000020"),
            ]
        );
        write_x_ratelimit(&mut headers, &FIGURES, Duration::MAX);
        assert_eq!(headers.len(), 3, "written over, not added");
    }

    #[test]
    fn openai_has_fields_for_requests_and_for_tokens() {
        let mut headers = HeaderMap::new();
        write_openai(&mut headers, &FIGURES);
        let tokens = Figures {
            unit: Unit::Tokens,
            limit: 90_000,
            remaining: 89_984,
            full_in: 10_666_667,
        };
        write_openai(&mut headers, &tokens);
        for unit in [Unit::ContentBytes, Unit::ConcurrentRequests] {
            write_openai(&mut headers, &Figures { unit, ..FIGURES });
        }
        assert_eq!(
            sorted(&headers),
            [
                ("x-ratelimit-limit-requests", "60"),
                ("x-ratelimit-limit-tokens", "90000"),
                ("x-ratelimit-remaining-requests", "41"),
                ("x-ratelimit-remaining-tokens", "89984"),
                ("x-ratelimit-reset-requests", "18.5s"),
                ("x-ratelimit-reset-tokens", "11ms"),
            ]
        );
    }

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (nanos, written) in [
            (0, "0s"),
            (1, "1ms"),
            (17_000_000, "17ms"),
            (999_000_000, "999ms"),
            (999_000_001, "1s"),
            (8_640_000_000, "8.64s"),
            (14_981_000_000, "14.981s"),
            (59_999_999_999, "1m0s"),
            (172_800_000_000, "2m52.8s"),
            (360_000_000_000, "6m0s"),
            (3_600_000_000_000, "1h0m0s"),
            (5_011_005_000_000, "1h23m31.005s"),
            (u64::MAX, "5124095h34m33.71s"),
        ] {
            assert_eq!(go_duration(nanos).value(), written, "{nanos}");
        }
    }

    proptest! {
        #[test]
        fn a_duration_is_never_shorter_than_meant(nanos: u64, shift in 0u32..64) {
            let nanos = nanos >> shift;
            let written = go_duration(nanos).value();
            let mut rest = written.to_str().unwrap();
            let mut millis = 0.0;
            while !rest.is_empty() {
                let number = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
                let unit = number.trim_start_matches(|c: char| c.is_ascii_alphabetic());
                let factor = match &number[..number.len() - unit.len()] {
                    "h" => 3_600_000.0,
                    "m" => 60_000.0,
                    "s" => 1_000.0,
                    "ms" => 1.0,
                    other => panic!("{other} in {written:?}"),
                };
                millis += rest[..rest.len() - number.len()].parse::<f64>().unwrap() * factor;
                rest = unit;
            }
            prop_assert_eq!(millis.round() as u64, nanos.div_ceil(MILLISECOND));
        }
    }
}
