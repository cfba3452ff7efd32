//! What a callee says about when to come back.

use std::time::{Duration, UNIX_EPOCH};

use http::header::{HeaderMap, HeaderName, RETRY_AFTER};

/// The longest time that is read; a longer one is cut to it.
pub(crate) const LONGEST: Duration = Duration::from_secs(24 * 3600);

static RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");

/// Reads `Retry-After`: a number of seconds, or an HTTP date, which is compared with `unix_now`
/// (from [`Clock::unix_time`](spark_core::Clock::unix_time)); and `Retry-After-Ms`, a number of
/// milliseconds, which some providers send beside it. Of several, the longest counts. A date in the
/// past is zero; garbage is nothing; more than a day is a day.
///
/// # Example
/// ```
/// use http::{HeaderMap, HeaderValue, header::RETRY_AFTER};
/// use std::time::Duration;
/// let mut headers = HeaderMap::new();
/// let now = Duration::from_secs(784_111_777); // Sun, 06 Nov 1994 08:49:37 GMT
/// assert_eq!(spark_breaker::retry_after(&headers, now), None);
/// headers.append(RETRY_AFTER, HeaderValue::from_static("5"));
/// assert_eq!(spark_breaker::retry_after(&headers, now), Some(Duration::from_secs(5)));
/// headers.append(RETRY_AFTER, HeaderValue::from_static("Sun, 06 Nov 1994 08:49:57 GMT"));
/// assert_eq!(spark_breaker::retry_after(&headers, now), Some(Duration::from_secs(20)));
/// ```
pub fn retry_after(headers: &HeaderMap, unix_now: Duration) -> Option<Duration> {
    let plain = texts(headers, &RETRY_AFTER).filter_map(|text| parse(text, unix_now));
    let exact = texts(headers, &RETRY_AFTER_MS).filter_map(|text| {
        let whole = whole_number(text.split('.').next()?)?;
        Some(Duration::from_millis(whole).min(LONGEST))
    });
    plain.chain(exact).max()
}

/// The values of a header that may be a time: short and of plain text.
pub(crate) fn texts<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter();
    let texts = values
        .filter_map(|value| value.to_str().ok())
        .map(str::trim);
    texts.filter(|text| !text.is_empty() && text.len() <= 64)
}

/// Digits and nothing else: what does not fit is too much, not garbage.
pub(crate) fn whole_number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

fn parse(text: &str, unix_now: Duration) -> Option<Duration> {
    let wait = if let Some(seconds) = whole_number(text) {
        Duration::from_secs(seconds)
    } else {
        let date = httpdate::parse_http_date(text).ok()?;
        let at = date.duration_since(UNIX_EPOCH).ok()?;
        at.saturating_sub(unix_now)
    };
    Some(wait.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    fn read(values: &[&str]) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(RETRY_AFTER, HeaderValue::from_str(value).unwrap());
        }
        retry_after(&headers, NOW)
    }

    #[test]
    fn b11_any_retry_after_is_bounded_and_garbage_is_nothing() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (values, expected) in [
            (vec!["0"], seconds(0)),
            (vec!["120"], seconds(120)),
            (vec![" 7 "], seconds(7)),
            (vec!["86401"], seconds(86_400)),
            (vec!["99999999999"], seconds(86_400)),
            (vec!["99999999999999999999999999999999"], seconds(86_400)),
            (vec!["-1"], None),
            (vec!["+1"], None),
            (vec!["1.5"], None),
            (vec![""], None),
            (vec!["soon"], None),
            (vec!["Sun, 06 Nov 1994 08:49:37 GMT"], seconds(0)),
            (vec!["Thu, 31 Dec 2099 23:59:59 GMT"], seconds(86_400)),
            (vec!["3", "9", "nonsense"], seconds(9)),
        ] {
            assert_eq!(read(&values), expected, "{values:?}");
        }
    }

    #[test]
    fn milliseconds_count_beside_seconds_and_the_longest_wins() {
        let ms = |ms| Some(Duration::from_millis(ms));
        for (exact, plain, expected) in [
            ("512", None, ms(512)),
            ("512.7", None, ms(512)),
            ("512", Some("1"), ms(1_000)),
            ("2512", Some("1"), ms(2_512)),
            ("99999999999999999999999", None, ms(86_400_000)),
            ("-5", None, None),
            ("soon", Some("1"), ms(1_000)),
            ("", None, None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("retry-after-ms", HeaderValue::from_str(exact).unwrap());
            if let Some(plain) = plain {
                headers.insert(RETRY_AFTER, HeaderValue::from_static(plain));
            }
            assert_eq!(retry_after(&headers, NOW), expected, "{exact} {plain:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(
            values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..4),
            now in any::<u32>(),
        ) {
            let mut headers = HeaderMap::new();
            for value in &values {
                if let Ok(value) = HeaderValue::from_bytes(value) {
                    headers.append(RETRY_AFTER, value);
                }
            }
            let wait = retry_after(&headers, Duration::from_secs(u64::from(now)));
            prop_assert!(wait.unwrap_or_default() <= LONGEST);
        }

        #[test]
        fn dates_and_near_dates(day in 0u32..40, month in "[A-Z][a-z]{2}", year in 0u32..10_000) {
            let _ = read(&[&format!("Sun, {day:02} {month} {year:04} 08:49:37 GMT")]);
        }

        #[test]
        fn a_date_is_read_back(ahead in 0u64..86_400) {
            let at = UNIX_EPOCH + NOW + Duration::from_secs(ahead);
            let text = httpdate::fmt_http_date(at);
            prop_assert_eq!(read(&[&text]), Some(Duration::from_secs(ahead)));
        }

        #[test]
        fn seconds_are_read_back(ahead in 0u64..=86_400) {
            prop_assert_eq!(read(&[&ahead.to_string()]), Some(Duration::from_secs(ahead)));
        }
    }
}
