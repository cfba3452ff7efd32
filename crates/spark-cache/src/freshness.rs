//! How fresh a client wants an answer.

use std::time::Duration;

use http::HeaderMap;
use http::header::{CACHE_CONTROL, PRAGMA};

/// What a request's `Cache-Control` says, as far as an answer from the store is concerned.
///
/// # Example
/// ```
/// use http::{HeaderMap, HeaderValue, header::CACHE_CONTROL};
/// use spark_cache::Freshness;
/// use std::time::Duration;
///
/// let mut headers = HeaderMap::new();
/// headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=60, only-if-cached"));
/// let freshness = Freshness::of(&headers);
/// assert_eq!(freshness.max_age, Some(Duration::from_secs(60)));
/// assert!(freshness.only_if_cached);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Freshness {
    /// `no-store`: nothing of it may be kept.
    pub no_store: bool,
    /// `no-cache`: only an answer of its own will do.
    pub no_cache: bool,
    /// `only-if-cached`: an answer from the store or none.
    pub only_if_cached: bool,
    /// `max-age`: how old an answer may be.
    pub max_age: Option<Duration>,
    /// `min-fresh`: how long it must still live.
    pub min_fresh: Option<Duration>,
}

impl Freshness {
    /// Reads every `Cache-Control` of the request, or `Pragma: no-cache` where there is none. A
    /// number that cannot be read counts as 0: the client wanted a limit, and gets the strictest.
    ///
    /// # Example
    /// ```
    /// use spark_cache::Freshness;
    /// assert_eq!(Freshness::of(&http::HeaderMap::new()), Freshness::default());
    /// ```
    pub fn of(headers: &HeaderMap) -> Self {
        let mut freshness = Self::default();
        if !headers.contains_key(CACHE_CONTROL) {
            let pragma = headers.get_all(PRAGMA).iter();
            freshness.no_cache = pragma
                .filter_map(|value| value.to_str().ok())
                .any(|value| value.trim().eq_ignore_ascii_case("no-cache"));
            return freshness;
        }
        directives(headers, |name, value| {
            let seconds = || Some(Duration::from_secs(seconds(value)));
            match name {
                _ if name.eq_ignore_ascii_case("no-store") => freshness.no_store = true,
                _ if name.eq_ignore_ascii_case("no-cache") => freshness.no_cache = true,
                _ if name.eq_ignore_ascii_case("only-if-cached") => {
                    freshness.only_if_cached = true;
                }
                // Of two, the stricter.
                _ if name.eq_ignore_ascii_case("max-age") => {
                    let known = freshness.max_age.unwrap_or(Duration::MAX);
                    freshness.max_age = seconds().map(|max| max.min(known));
                }
                _ if name.eq_ignore_ascii_case("min-fresh") => freshness.min_fresh = seconds(),
                _ => {}
            }
        });
        freshness
    }

    /// Whether an answer of this age, with this long to live, will do.
    pub(crate) fn accepts(&self, age: Duration, left: Duration) -> bool {
        !self.wants_its_own()
            && self.max_age.is_none_or(|max| age <= max)
            && self.min_fresh.is_none_or(|min| min <= left)
    }

    /// Whether even an answer that is on its way to somebody else will not do.
    pub(crate) fn wants_its_own(&self) -> bool {
        self.no_cache || self.max_age == Some(Duration::ZERO)
    }
}

/// Calls `each` with the name and the value (empty when there is none) of every directive.
pub(crate) fn directives(headers: &HeaderMap, mut each: impl FnMut(&str, &str)) {
    for line in headers.get_all(CACHE_CONTROL) {
        // Bytes beyond ASCII are in no directive that we know.
        let Ok(line) = line.to_str() else { continue };
        for directive in split(line) {
            let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
            let value = value.trim();
            let value = value
                .strip_prefix('"')
                .and_then(|v| v.strip_suffix('"'))
                .unwrap_or(value);
            each(name.trim(), value);
        }
    }
}

/// At commas, but not at those within quotes.
fn split(line: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    line.split(move |c| {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ',' => return !quoted,
            _ => {}
        }
        false
    })
}

pub(crate) fn seconds(value: &str) -> u64 {
    if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return 0;
    }
    // Only overflow is left: as long as can be.
    value
        .parse::<u64>()
        .unwrap_or(u64::MAX)
        .min(u32::MAX.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn of(lines: &[&'static str]) -> Freshness {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CACHE_CONTROL, HeaderValue::from_static(line));
        }
        Freshness::of(&headers)
    }

    fn secs(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    #[test]
    fn every_line_and_spelling_is_read() {
        assert!(of(&["a=1", "No-Cache"]).no_cache);
        assert!(of(&["a=1 ,  no-store"]).no_store);
        assert_eq!(of(&["max-age=\"5\""]).max_age, secs(5));
        assert_eq!(of(&["min-fresh = 7"]).min_fresh, secs(7));
        assert_eq!(of(&["max-age=5", "max-age=60"]).max_age, secs(5));
        assert_eq!(of(&["max-age=60, max-age=5"]).max_age, secs(5));
        assert_eq!(
            of(&["x=\"no-store, max-age=1\\\", no-cache\""]),
            Freshness::default()
        );
        for strict in [
            "max-age",
            "max-age=",
            "max-age=-1",
            "max-age=1.5",
            "max-age=x",
        ] {
            assert_eq!(of(&[strict]).max_age, secs(0), "{strict}");
        }
        assert_eq!(
            of(&["max-age=99999999999999999999"]).max_age,
            secs(u32::MAX.into())
        );
    }

    #[test]
    fn pragma_counts_where_nothing_else_does() {
        let mut headers = HeaderMap::new();
        headers.insert(PRAGMA, HeaderValue::from_static("No-Cache"));
        assert!(Freshness::of(&headers).no_cache);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=5"));
        assert!(!Freshness::of(&headers).no_cache);
    }

    #[test]
    fn what_a_client_accepts() {
        let (young, old) = (Duration::from_secs(1), Duration::from_secs(50));
        assert!(of(&[]).accepts(old, young));
        assert!(!of(&["no-cache"]).accepts(young, old));
        assert!(of(&["max-age=1"]).accepts(young, old));
        assert!(!of(&["max-age=0"]).accepts(Duration::ZERO, old));
        assert!(!of(&["max-age=49"]).accepts(old, young));
        assert!(!of(&["min-fresh=2"]).accepts(old, young));
    }
}
