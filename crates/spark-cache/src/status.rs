//! The `Cache-Status` field of RFC 9211.

use std::time::Duration;

use http::{Extensions, HeaderMap, HeaderName, HeaderValue};

use crate::CacheResult;

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// What is known of how a request was answered when the head of the answer is written. Whether a
/// miss was stored is only known at its end, so it is not said.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Status {
    Hit { left: Duration },
    Miss(Forward),
    Collapsed,
    Bypass(&'static str),
}

/// Why a request went forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forward {
    /// Nothing was there.
    Miss,
    /// What was there had expired.
    Stale,
    /// What was there was not what the client wanted.
    Request,
    /// The last answer could not be kept, a moment ago.
    HitForMiss,
    /// Nothing was there, and the client wanted nothing else.
    OnlyIfCached,
}

impl Status {
    pub(crate) fn result(self) -> CacheResult {
        match self {
            Self::Hit { .. } => CacheResult::Hit,
            Self::Miss(_) => CacheResult::Miss,
            Self::Collapsed => CacheResult::Collapsed,
            Self::Bypass(_) => CacheResult::Bypass,
        }
    }

    /// Adds the field, after those of the caches that are nearer to the origin, and the extension.
    pub(crate) fn write(self, headers: &mut HeaderMap, extensions: &mut Extensions) {
        let _full = headers.try_append(CACHE_STATUS, self.value());
        extensions.insert(self.result());
    }

    fn value(self) -> HeaderValue {
        match self {
            Self::Hit { left } => {
                let mut text = String::with_capacity(32);
                text.push_str("spark; hit; ttl=");
                text.push_str(&left.as_secs().to_string());
                made(text)
            }
            Self::Miss(forward) => HeaderValue::from_static(match forward {
                Forward::Miss => "spark; fwd=miss",
                Forward::Stale => "spark; fwd=stale",
                Forward::Request => "spark; fwd=request",
                Forward::HitForMiss => "spark; fwd=miss; detail=hit_for_miss",
                Forward::OnlyIfCached => "spark; detail=only_if_cached",
            }),
            Self::Collapsed => HeaderValue::from_static("spark; fwd=miss; collapsed"),
            Self::Bypass(reason) if is_token(reason) => {
                made(format!("spark; fwd=bypass; detail={reason}"))
            }
            Self::Bypass(_) => HeaderValue::from_static("spark; fwd=bypass"),
        }
    }
}

fn made(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("spark"))
}

/// A token of RFC 9651, as far as reasons use it.
fn is_token(reason: &str) -> bool {
    reason.starts_with(|c: char| c.is_ascii_alphabetic())
        && reason
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_is_well_formed_and_comes_last() {
        let mut response = http::Response::new(());
        response
            .headers_mut()
            .insert(CACHE_STATUS, HeaderValue::from_static("origin; hit"));
        let (mut parts, ()) = response.into_parts();
        let left = Duration::from_millis(59_900);
        for status in [
            Status::Hit { left },
            Status::Collapsed,
            Status::Bypass("not_deterministic"),
            Status::Bypass("two words"),
        ] {
            status.write(&mut parts.headers, &mut parts.extensions);
        }
        let all: Vec<_> = parts.headers.get_all("cache-status").iter().collect();
        assert_eq!(
            all,
            [
                "origin; hit",
                "spark; hit; ttl=59",
                "spark; fwd=miss; collapsed",
                "spark; fwd=bypass; detail=not_deterministic",
                "spark; fwd=bypass",
            ]
        );
        assert_eq!(parts.extensions.get(), Some(&CacheResult::Bypass));
    }
}
