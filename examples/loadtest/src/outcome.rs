//! What can become of a request, read from the answer alone.

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};
use serde_json::Value;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Answered by the cache.
    Hit,
    /// Answered by a provider.
    Answered,
    /// A stream that ended as streams should.
    Streamed,
    /// 429: over the quota.
    Limited,
    /// 503 that says when to come back.
    Unavailable,
    /// 502 or 504: the provider failed, and nobody stood in for it.
    ProviderFailed,
    /// Any other status that is no success.
    Refused,
    /// The body broke off, or does not hold an answer.
    Broken,
    /// Nothing, or no end, within the time given.
    TimedOut,
    /// No connection, or it closed without an answer.
    NoAnswer,
    /// Never sent: too many were under way.
    Dropped,
}

impl Outcome {
    pub(crate) const ALL: [Self; 11] = [
        Self::Hit,
        Self::Answered,
        Self::Streamed,
        Self::Limited,
        Self::Unavailable,
        Self::ProviderFailed,
        Self::Refused,
        Self::Broken,
        Self::TimedOut,
        Self::NoAnswer,
        Self::Dropped,
    ];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Hit => "answered, cache hit",
            Self::Answered => "answered, provider",
            Self::Streamed => "streamed, first byte",
            Self::Limited => "limited (429)",
            Self::Unavailable => "unavailable (503)",
            Self::ProviderFailed => "provider failed (502/504)",
            Self::Refused => "other status",
            Self::Broken => "broken off",
            Self::TimedOut => "timed out",
            Self::NoAnswer => "no connection",
            Self::Dropped => "dropped, not sent",
        }
    }

    pub(crate) fn is_answer(self) -> bool {
        matches!(self, Self::Hit | Self::Answered | Self::Streamed)
    }

    /// Whether it counts against the server. 429 is what was asked for; a 503 that says when to
    /// come back is expected while a provider fails.
    pub(crate) fn is_error(self, provider_fails: bool) -> bool {
        match self {
            Self::Hit | Self::Answered | Self::Streamed | Self::Limited => false,
            Self::Unavailable => !provider_fails,
            _ => true,
        }
    }

    /// What the head alone decides; `None` when the body must be looked at.
    pub(crate) fn of_head(status: StatusCode, headers: &HeaderMap) -> Option<Self> {
        match status {
            StatusCode::OK => None,
            StatusCode::TOO_MANY_REQUESTS => Some(Self::Limited),
            StatusCode::SERVICE_UNAVAILABLE if retry_after(headers) => Some(Self::Unavailable),
            StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => Some(Self::ProviderFailed),
            _ => Some(Self::Refused),
        }
    }

    /// What a whole JSON answer is, and who gave it.
    pub(crate) fn of_answer(headers: &HeaderMap, body: &[u8]) -> (Self, Option<String>) {
        let Ok(answer) = serde_json::from_slice::<Value>(body) else {
            return (Self::Broken, None);
        };
        if !answer["output"].is_string() {
            return (Self::Broken, None);
        }
        let provider = answer["provider"].as_str().map(str::to_owned);
        (
            if cache_hit(headers) {
                Self::Hit
            } else {
                Self::Answered
            },
            provider,
        )
    }

    /// What a stream is whose body ended properly: only `data: [DONE]` says that all was said.
    pub(crate) fn of_stream(body: &[u8]) -> Self {
        let text = String::from_utf8_lossy(body);
        let mut data = text.lines().filter_map(|line| line.strip_prefix("data:"));
        match data.next_back().map(str::trim) {
            Some("[DONE]") => Self::Streamed,
            _ => Self::Broken,
        }
    }
}

/// A number of seconds above 0.
fn retry_after(headers: &HeaderMap) -> bool {
    let value = headers
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok());
    value
        .and_then(|value| value.parse::<u64>().ok())
        .is_some_and(|seconds| seconds > 0)
}

/// Whether a cache says `hit` in `Cache-Status` (RFC 9211).
fn cache_hit(headers: &HeaderMap) -> bool {
    let lines = headers
        .get_all("cache-status")
        .iter()
        .filter_map(|line| line.to_str().ok());
    lines
        .flat_map(|line| line.split([',', ';']))
        .any(|part| matches!(part.trim(), "hit" | "hit=?1"))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        [(
            http::HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )]
        .into_iter()
        .collect()
    }

    #[test]
    fn heads() {
        let none = HeaderMap::new();
        let of = |status: u16, headers: &HeaderMap| {
            Outcome::of_head(StatusCode::from_u16(status).unwrap(), headers)
        };
        assert_eq!(of(200, &none), None);
        assert_eq!(of(429, &none), Some(Outcome::Limited));
        assert_eq!(
            of(503, &headers("retry-after", "2")),
            Some(Outcome::Unavailable)
        );
        // A client that may come back at once, or never learns when, is not told enough.
        assert_eq!(
            of(503, &headers("retry-after", "0")),
            Some(Outcome::Refused)
        );
        assert_eq!(of(503, &none), Some(Outcome::Refused));
        assert_eq!(of(502, &none), Some(Outcome::ProviderFailed));
        assert_eq!(of(401, &none), Some(Outcome::Refused));
        assert_eq!(of(204, &none), Some(Outcome::Refused));
    }

    #[test]
    fn answers() {
        let body = br#"{"provider":"demo","output":"words"}"#;
        let hit = headers("cache-status", "spark; hit; ttl=12");
        assert_eq!(
            Outcome::of_answer(&hit, body),
            (Outcome::Hit, Some("demo".into()))
        );
        let miss = headers("cache-status", "spark; fwd=uri-miss; stored");
        assert_eq!(Outcome::of_answer(&miss, body).0, Outcome::Answered);
        for broken in [&b"{\"output\":"[..], b"", b"{}", b"null", b"{\"output\":1}"] {
            assert_eq!(Outcome::of_answer(&hit, broken), (Outcome::Broken, None));
        }
    }

    #[test]
    fn streams() {
        let well = b"data: {\"delta\":\"a\"}\n\ndata: [DONE]\n\n";
        assert_eq!(Outcome::of_stream(well), Outcome::Streamed);
        for broken in [
            &b""[..],
            b": [DONE]\n\n",
            b"data: {\"delta\":\"a\"}\n\n",
            b"data: {}\n\ndata: {\"error\":{\"message\":\"x\"}}\n\n",
            b"data: [DONE]\n\ndata: {}\n\n",
        ] {
            assert_eq!(Outcome::of_stream(broken), Outcome::Broken);
        }
    }

    #[test]
    fn the_scenario_decides_what_an_error_is() {
        let errors = |fails: bool| Outcome::ALL.iter().filter(|o| o.is_error(fails)).count();
        assert_eq!(errors(false), 7);
        assert_eq!(errors(true), 6);
        assert!(
            Outcome::ALL
                .iter()
                .all(|o| !(o.is_answer() && o.is_error(false)))
        );
    }
}
