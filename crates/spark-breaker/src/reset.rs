//! When a provider's limits are full again.

use std::time::Duration;

use http::header::{HeaderMap, HeaderName};

use crate::retry_after::{LONGEST, texts, whole_number};

/// Each with what remains of the same limit.
static LIMITS: [[HeaderName; 2]; 8] = [
    // OpenAI and many others.
    [
        HeaderName::from_static("x-ratelimit-reset-requests"),
        HeaderName::from_static("x-ratelimit-remaining-requests"),
    ],
    [
        HeaderName::from_static("x-ratelimit-reset-tokens"),
        HeaderName::from_static("x-ratelimit-remaining-tokens"),
    ],
    [
        HeaderName::from_static("anthropic-ratelimit-requests-reset"),
        HeaderName::from_static("anthropic-ratelimit-requests-remaining"),
    ],
    [
        HeaderName::from_static("anthropic-ratelimit-tokens-reset"),
        HeaderName::from_static("anthropic-ratelimit-tokens-remaining"),
    ],
    [
        HeaderName::from_static("anthropic-ratelimit-input-tokens-reset"),
        HeaderName::from_static("anthropic-ratelimit-input-tokens-remaining"),
    ],
    [
        HeaderName::from_static("anthropic-ratelimit-output-tokens-reset"),
        HeaderName::from_static("anthropic-ratelimit-output-tokens-remaining"),
    ],
    [
        HeaderName::from_static("ratelimit-reset"),
        HeaderName::from_static("ratelimit-remaining"),
    ],
    [
        HeaderName::from_static("x-ratelimit-reset"),
        HeaderName::from_static("x-ratelimit-remaining"),
    ],
];

/// Reads in how long the limits that were reached are full again, from the headers by which model
/// providers say so; `unix_now` is from [`Clock::unix_time`](spark_core::Clock::unix_time). They are
/// on every answer, so ask only when it is a 429.
///
/// | header | value |
/// |---|---|
/// | `x-ratelimit-reset-requests`, `-tokens` | a duration in the manner of Go, as `6m0s`, `1.5s`, `20ms` |
/// | `anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-reset` | a time as in RFC 3339 |
/// | `ratelimit-reset`, `x-ratelimit-reset` | seconds, or a Unix time in seconds or milliseconds |
///
/// Each of these values is understood in each of these headers. A limit of which something remains
/// (`…-remaining…`) was not the one that was reached, and does not count; of the others, the longest
/// does. A time in the past is zero; garbage is nothing; more than a day is a day.
///
/// # Example
/// ```
/// use http::{HeaderMap, HeaderValue};
/// use std::time::Duration;
/// let mut headers = HeaderMap::new();
/// headers.insert("x-ratelimit-reset-tokens", HeaderValue::from_static("6m0s"));
/// headers.insert("x-ratelimit-reset-requests", HeaderValue::from_static("20ms"));
/// let now = Duration::from_secs(1_800_000_000);
/// assert_eq!(spark_breaker::reset_after(&headers, now), Some(Duration::from_secs(360)));
/// headers.insert("x-ratelimit-remaining-tokens", HeaderValue::from_static("9000"));
/// assert_eq!(spark_breaker::reset_after(&headers, now), Some(Duration::from_millis(20)));
/// ```
pub fn reset_after(headers: &HeaderMap, unix_now: Duration) -> Option<Duration> {
    let reached = LIMITS.iter().filter(|[_, remaining]| {
        // Not a number, or a negative one: nothing remains.
        texts(headers, remaining).all(|text| whole_number(text).unwrap_or(0) == 0)
    });
    reached
        .flat_map(|[reset, _]| texts(headers, reset))
        .filter_map(|text| parse(text, unix_now))
        .max()
}

fn parse(text: &str, unix_now: Duration) -> Option<Duration> {
    let wait = plain_number(text, unix_now)
        .or_else(|| go_duration(text))
        .or_else(|| Some(rfc3339(text)?.saturating_sub(unix_now)))?;
    Some(wait.min(LONGEST))
}

/// Seconds; or, where they would be more than thirty years, a Unix time in seconds or milliseconds.
fn plain_number(text: &str, unix_now: Duration) -> Option<Duration> {
    let number = decimal(text)?;
    Some(match number.as_secs() {
        0..1_000_000_000 => number,
        1_000_000_000..1_000_000_000_000 => number.saturating_sub(unix_now),
        milliseconds => Duration::from_millis(milliseconds).saturating_sub(unix_now),
    })
}

/// As `1h2m3.5s`: numbers with units.
fn go_duration(text: &str) -> Option<Duration> {
    let mut sum = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let (number, after) = rest.split_at(rest.find(|c| !is_number(c))?);
        let (unit, after) = after.split_at(after.find(is_number).unwrap_or(after.len()));
        let number = decimal(number)?;
        sum = sum.saturating_add(match unit {
            "h" => number.saturating_mul(3_600),
            "m" => number.saturating_mul(60),
            "s" => number,
            "ms" => number / 1_000,
            "us" => number / 1_000_000,
            "ns" => number / 1_000_000_000,
            _ => return None,
        });
        rest = after;
    }
    (!text.is_empty()).then_some(sum)
}

/// Digits with a decimal point or without, as seconds; what is behind the ninth place is left out.
fn decimal(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let nanos = fraction_of_second(fraction)?;
    Some(Duration::from_secs(whole_number(whole)?).saturating_add(nanos))
}

fn fraction_of_second(digits: &str) -> Option<Duration> {
    whole_number(digits)?;
    let mut nanos = 0;
    for place in 0..9 {
        let digit = digits.as_bytes().get(place).map_or(0, |byte| byte - b'0');
        nanos = nanos * 10 + u32::from(digit);
    }
    Some(Duration::from_nanos(u64::from(nanos)))
}

/// As `2026-11-23T04:05:06.789Z`, or with an offset: the time since 1970.
fn rfc3339(text: &str) -> Option<Duration> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let at = time.find(['Z', 'z', '+', '-'])?;
    let (time, zone) = time.split_at(at);
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 => 28 + u64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    // The last second of a day may be followed by a leap second.
    if year < 1970 || !(1..=length).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let days = days_before(year, month, is_leap) + day - 1;
    let local = days * 86_400 + hour * 3_600 + minute * 60 + second;
    let seconds = match zone {
        "Z" | "z" => local,
        _ => {
            let [hours, minutes] = numbers(&zone[1..], ':', [2, 2])?;
            if hours > 23 || minutes > 59 {
                return None;
            }
            let offset = hours * 3_600 + minutes * 60;
            match zone.starts_with('+') {
                true => local.saturating_sub(offset),
                false => local + offset,
            }
        }
    };
    Some(Duration::from_secs(seconds) + fraction_of_second(fraction)?)
}

/// The days from 1970 to the first of the month.
fn days_before(year: u64, month: u64, is_leap: bool) -> u64 {
    const BEFORE: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let leaps = |before: u64| (before - 1) / 4 - (before - 1) / 100 + (before - 1) / 400;
    let years = (year - 1970) * 365 + leaps(year) - leaps(1970);
    let index = usize::try_from(month - 1).unwrap_or(0);
    let in_year = BEFORE.get(index).copied().unwrap_or(0);
    years + in_year + u64::from(is_leap && month > 2)
}

/// Numbers of so many digits each.
fn numbers<const N: usize>(text: &str, between: char, digits: [usize; N]) -> Option<[u64; N]> {
    let mut parts = text.split(between);
    let mut numbers = [0; N];
    for (number, digits) in numbers.iter_mut().zip(digits) {
        let part = parts.next().filter(|part| part.len() == digits)?;
        *number = whole_number(part)?;
    }
    parts.next().is_none().then_some(numbers)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    fn read(pairs: &[(&'static str, &str)]) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        reset_after(&headers, NOW)
    }

    #[test]
    fn b11_resets_in_every_spelling_are_bounded_and_garbage_is_nothing() {
        let ms = |ms| Some(Duration::from_millis(ms));
        for (value, expected) in [
            ("1s", ms(1_000)),
            ("6m0s", ms(360_000)),
            ("20ms", ms(20)),
            ("7.66s", ms(7_660)),
            ("2m59.56s", ms(179_560)),
            ("1h2m3s", ms(3_723_000)),
            ("1500us", Some(Duration::from_micros(1_500))),
            ("0s", ms(0)),
            ("0", ms(0)),
            ("7", ms(7_000)),
            ("0.25", ms(250)),
            ("99999h", ms(86_400_000)),
            ("99999999999999999999999h", ms(86_400_000)),
            ("1800000009", ms(9_000)),
            ("1799999999", ms(0)),
            ("1800000000500", ms(500)),
            ("2027-01-15T08:00:07Z", ms(7_000)),
            ("2027-01-15T08:00:07.5z", ms(7_500)),
            ("2027-01-15T10:00:07+02:00", ms(7_000)),
            ("2027-01-15 03:30:07-04:30", ms(7_000)),
            ("2020-02-29T00:00:00Z", ms(0)),
            ("2099-12-31T23:59:60Z", ms(86_400_000)),
            ("2027-02-29T00:00:00Z", None),
            ("2027-13-01T00:00:00Z", None),
            ("2027-01-15T24:00:00Z", None),
            ("2027-01-15T08:00:07", None),
            ("2027-01-15T08:00:07+99:00", None),
            ("1969-12-31T23:59:59Z", None),
            ("-1", None),
            ("+1s", None),
            ("1", ms(1_000)),
            ("s", None),
            ("1x", None),
            ("1.5.2s", None),
            (".5s", None),
            ("1.s", None),
            ("1s2", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(
                read(&[("x-ratelimit-reset-tokens", value)]),
                expected,
                "{value}"
            );
        }
    }

    #[test]
    fn only_limits_that_were_reached_count_and_of_these_the_longest() {
        let secs = |secs| Some(Duration::from_secs(secs));
        let both = [
            ("x-ratelimit-reset-requests", "1s"),
            ("x-ratelimit-reset-tokens", "9s"),
        ];
        assert_eq!(read(&both), secs(9));
        let left = |tokens| [both[0], both[1], ("x-ratelimit-remaining-tokens", tokens)];
        assert_eq!(read(&left("0")), secs(9));
        assert_eq!(read(&left("5")), secs(1));
        assert_eq!(read(&left("-3")), secs(9), "overdrawn");
        assert_eq!(
            read(&left("99999999999999999999999")),
            secs(1),
            "much is left"
        );
        for limit in ["requests", "tokens", "input-tokens", "output-tokens"] {
            let name = |what| HeaderName::try_from(format!("anthropic-ratelimit-{limit}-{what}"));
            let mut headers = HeaderMap::new();
            let at = HeaderValue::from_static("2027-01-15T08:00:07Z");
            headers.insert(name("reset").unwrap(), at);
            assert_eq!(reset_after(&headers, NOW), secs(7));
            headers.insert(name("remaining").unwrap(), HeaderValue::from_static("1"));
            assert_eq!(reset_after(&headers, NOW), None);
        }
        for name in ["ratelimit-reset", "x-ratelimit-reset"] {
            assert_eq!(read(&[(name, "4"), (name, "3"), (name, "x")]), secs(4));
        }
        assert_eq!(read(&[]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(
            at in 0usize..8,
            value in prop::collection::vec(any::<u8>(), 0..80),
            now in any::<u64>(),
        ) {
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                headers.insert(LIMITS[at][0].clone(), value);
            }
            let wait = reset_after(&headers, Duration::from_secs(now));
            prop_assert!(wait.unwrap_or_default() <= LONGEST);
        }

        #[test]
        fn almost_times_are_read_without_panic(
            text in "[0-9]{1,4}[-.hms]?[0-9]{0,2}-?[0-9]{0,2}[T ]?[0-9:]{0,8}[.]?[0-9]{0,12}[Z+-]?[0-9:]{0,5}",
        ) {
            prop_assert!(parse(&text, NOW).unwrap_or_default() <= LONGEST);
        }

        #[test]
        fn a_date_is_the_day_that_the_other_reader_finds(seconds in 0u64..253_402_300_799) {
            let http = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
            let part = |from: usize, to: usize| &http[from..to];
            let months = "JanFebMarAprMayJunJulAugSepOctNovDec";
            let month = months.find(part(8, 11)).unwrap() / 3 + 1;
            let text = format!("{}-{month:02}-{}T{}Z", part(12, 16), part(5, 7), part(17, 25));
            prop_assert_eq!(rfc3339(&text), Some(Duration::from_secs(seconds)));
        }
    }
}
