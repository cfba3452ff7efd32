//! An answer, as it is kept.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, response};
use spark_core::{Instant, Refusal};

/// What an entry weighs beyond its bytes: the key, the maps and the queues that know it.
const ENTRY_OVERHEAD: u64 = 320;
/// What a header weighs beyond its bytes.
const HEADER_OVERHEAD: u64 = 72;
/// What a frame weighs beyond its bytes.
pub(crate) const FRAME_OVERHEAD: u64 = 40;

/// An answer to be kept: a status (200 unless said), headers, and a body in the frames in which it
/// came.
///
/// # Example
/// ```
/// use http::header::{CONTENT_TYPE, HeaderValue, SET_COOKIE};
/// use spark_cache::Answer;
///
/// let answer = Answer::new("{}")
///     .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
///     .header(SET_COOKIE, HeaderValue::from_static("id=1"));
/// assert_eq!(answer.headers().len(), 1, "a cookie is never kept");
/// ```
#[derive(Clone)]
pub struct Answer {
    head: Head,
    frames: Vec<Bytes>,
}

impl Answer {
    /// An answer of one frame.
    ///
    /// # Example
    /// ```
    /// let answer = spark_cache::Answer::new("hello");
    /// # let _ = answer;
    /// ```
    pub fn new(body: impl Into<Bytes>) -> Self {
        Self::from_frames(vec![body.into()])
    }

    /// An answer that is replayed frame by frame.
    ///
    /// # Example
    /// ```
    /// let answer = spark_cache::Answer::from_frames(vec!["data: hi\n\n".into()]);
    /// # let _ = answer;
    /// ```
    pub fn from_frames(frames: Vec<Bytes>) -> Self {
        let head = Head {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            refusal: None,
            declared: Some(len(&frames)),
        };
        Self { head, frames }
    }

    /// Adds a header, unless it is one that belongs to a single exchange: those are left out.
    ///
    /// # Example
    /// ```
    /// use http::header::{ETAG, HeaderValue};
    /// let answer = spark_cache::Answer::new("").header(ETAG, HeaderValue::from_static("\"1\""));
    /// assert_eq!(answer.headers()["etag"], "\"1\"");
    /// ```
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        if !is_personal(&name) {
            let _full = self.head.headers.try_append(name, value);
        }
        self
    }

    /// The headers that will be kept.
    ///
    /// # Example
    /// ```
    /// assert!(spark_cache::Answer::new("").headers().is_empty());
    /// ```
    pub fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// Copies the frames into one allocation, so that no frame keeps a read buffer alive and the
    /// weight is what is really held.
    pub(crate) fn keep(self, stored_at: Instant, ttl: Duration) -> Entry {
        let (_, frames) = pack(&self.frames);
        Entry::new(self.head, frames, stored_at, ttl)
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("frames", &self.frames.len())
            .field("bytes", &len(&self.frames))
            .finish_non_exhaustive()
    }
}

/// An answer that is kept. It never changes; it is shared behind an `Arc`.
///
/// # Example
/// ```
/// use spark_cache::{Answer, Cache, CacheKey, Scope};
/// let cache = Cache::builder().build()?;
/// let key = CacheKey::builder(Scope::Master).build();
/// cache.put(key, Answer::new("hello"));
///
/// let entry = cache.get(&key).unwrap();
/// assert_eq!(entry.frames(), ["hello"]);
/// assert!(entry.weight() > 5, "headers, frames and book-keeping count too");
/// # Ok::<(), spark_cache::ConfigError>(())
/// ```
pub struct Entry {
    head: Head,
    frames: Vec<Bytes>,
    len: u64,
    weight: u64,
    stored_at: Instant,
    ttl: Duration,
}

impl Entry {
    pub(crate) fn new(head: Head, frames: Vec<Bytes>, stored_at: Instant, ttl: Duration) -> Self {
        let len = len(&frames);
        let headers: u64 = head
            .headers
            .iter()
            .map(|(name, value)| (name.as_str().len() + value.len()) as u64 + HEADER_OVERHEAD)
            .sum();
        let weight = ENTRY_OVERHEAD + headers + len + FRAME_OVERHEAD * frames.len() as u64;
        Self {
            head,
            frames,
            len,
            weight,
            stored_at,
            ttl,
        }
    }

    /// The status.
    ///
    /// # Example
    /// ```
    /// # use spark_cache::{Answer, Cache, CacheKey, Scope};
    /// # let cache = Cache::builder().build()?;
    /// # let key = CacheKey::builder(Scope::Master).build();
    /// cache.put(key, Answer::new("hello"));
    /// assert_eq!(cache.get(&key).unwrap().status(), 200);
    /// # Ok::<(), spark_cache::ConfigError>(())
    /// ```
    pub fn status(&self) -> StatusCode {
        self.head.status
    }

    /// The headers that are replayed.
    ///
    /// # Example
    /// ```
    /// # use spark_cache::{Answer, Cache, CacheKey, Scope};
    /// # let cache = Cache::builder().build()?;
    /// # let key = CacheKey::builder(Scope::Master).build();
    /// cache.put(key, Answer::new("hello"));
    /// assert!(cache.get(&key).unwrap().headers().is_empty());
    /// # Ok::<(), spark_cache::ConfigError>(())
    /// ```
    pub fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// The body, in the frames in which it came.
    ///
    /// # Example
    /// ```
    /// # use spark_cache::{Answer, Cache, CacheKey, Scope};
    /// # let cache = Cache::builder().build()?;
    /// # let key = CacheKey::builder(Scope::Master).build();
    /// cache.put(key, Answer::from_frames(vec!["he".into(), "llo".into()]));
    /// assert_eq!(cache.get(&key).unwrap().frames(), ["he", "llo"]);
    /// # Ok::<(), spark_cache::ConfigError>(())
    /// ```
    pub fn frames(&self) -> &[Bytes] {
        &self.frames
    }

    /// How many bytes the store counts for it: body, headers and book-keeping.
    ///
    /// # Example
    /// ```
    /// # use spark_cache::{Answer, Cache, CacheKey, Scope};
    /// # let cache = Cache::builder().build()?;
    /// # let key = CacheKey::builder(Scope::Master).build();
    /// cache.put(key, Answer::new("hello"));
    /// assert!((5..1_000).contains(&cache.get(&key).unwrap().weight()));
    /// # Ok::<(), spark_cache::ConfigError>(())
    /// ```
    pub fn weight(&self) -> u64 {
        self.weight
    }

    /// How long ago it was stored.
    ///
    /// # Example
    /// ```
    /// # use spark_cache::{Answer, Cache, CacheKey, Scope};
    /// # use std::time::Duration;
    /// # let clock = spark_core::Clock::system();
    /// # let cache = Cache::builder().clock(clock.clone()).build()?;
    /// # let key = CacheKey::builder(Scope::Master).build();
    /// cache.put(key, Answer::new("hello"));
    /// assert!(cache.get(&key).unwrap().age(clock.now()) < Duration::from_secs(60));
    /// # Ok::<(), spark_cache::ConfigError>(())
    /// ```
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.stored_at)
    }

    /// How long it lives from the moment it was stored.
    ///
    /// # Example
    /// ```
    /// # use spark_cache::{Answer, Cache, CacheKey, Scope};
    /// # use std::time::Duration;
    /// # let cache = Cache::builder().ttl(Duration::from_secs(9)).build()?;
    /// # let key = CacheKey::builder(Scope::Master).build();
    /// cache.put(key, Answer::new("hello"));
    /// assert_eq!(cache.get(&key).unwrap().ttl(), Duration::from_secs(9));
    /// # Ok::<(), spark_cache::ConfigError>(())
    /// ```
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    pub(crate) fn body_len(&self) -> u64 {
        self.len
    }

    pub(crate) fn head(&self) -> &Head {
        &self.head
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("status", &self.head.status)
            .field("frames", &self.frames.len())
            .field("weight", &self.weight)
            .field("stored_at", &self.stored_at)
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}

/// What of a response's head may be shown to somebody other than who asked.
#[derive(Clone)]
pub(crate) struct Head {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) refusal: Option<Refusal>,
    /// How long the body said it would be.
    pub(crate) declared: Option<u64>,
}

impl Head {
    pub(crate) fn of(
        parts: &response::Parts,
        declared: Option<u64>,
        keeps: impl Fn(&HeaderName) -> bool,
    ) -> Arc<Self> {
        let mut headers = HeaderMap::new();
        for (name, value) in &parts.headers {
            if keeps(name) && !is_personal(name) {
                let _full = headers.try_append(name.clone(), value.clone());
            }
        }
        // Whoever waits for a failure may be told when to come back, and must be told how to read
        // it. Failures are never stored.
        if is_failure(parts.status) {
            for name in [header::RETRY_AFTER, header::CONTENT_ENCODING] {
                if let Some(value) = parts.headers.get(&name) {
                    headers.insert(name, value.clone());
                }
            }
        }
        Arc::new(Self {
            status: parts.status,
            headers,
            refusal: parts.extensions.get().copied(),
            declared,
        })
    }
}

pub(crate) fn is_failure(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
}

/// Headers that belong to one exchange, one connection, one browser or one body coding. Whatever a
/// policy says, they are neither kept nor shown to a second reader.
pub(crate) fn is_personal(name: &HeaderName) -> bool {
    const NAMES: [HeaderName; 20] = [
        header::SET_COOKIE,
        header::CONNECTION,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::CONTENT_LENGTH,
        header::CONTENT_ENCODING,
        header::CONTENT_RANGE,
        header::DATE,
        header::AGE,
        header::VARY,
        header::RETRY_AFTER,
        header::WWW_AUTHENTICATE,
        header::AUTHORIZATION,
        header::COOKIE,
        header::LOCATION,
        header::ALT_SVC,
    ];
    const TEXTS: [&str; 12] = [
        "authentication-info",
        "cache-status",
        "keep-alive",
        "proxy-authentication-info",
        "proxy-connection",
        "request-id",
        "server-timing",
        "set-cookie2",
        "traceparent",
        "tracestate",
        "x-correlation-id",
        "x-request-id",
    ];
    const PREFIXES: [&str; 4] = ["access-control-", "ratelimit", "x-ratelimit", "x-spark-"];
    let text = name.as_str();
    NAMES.contains(name)
        || TEXTS.contains(&text)
        || PREFIXES.iter().any(|prefix| text.starts_with(prefix))
}

pub(crate) fn len(frames: &[Bytes]) -> u64 {
    frames.iter().map(|frame| frame.len() as u64).sum()
}

/// The whole body in one allocation, and the frames as slices of it.
pub(crate) fn pack(frames: &[Bytes]) -> (Bytes, Vec<Bytes>) {
    let mut whole = BytesMut::with_capacity(frames.iter().map(Bytes::len).sum());
    frames
        .iter()
        .for_each(|frame| whole.extend_from_slice(frame));
    let whole = whole.freeze();
    let mut at = 0;
    let slices = frames
        .iter()
        .map(|frame| {
            let slice = whole.slice(at..at + frame.len());
            at += frame.len();
            slice
        })
        .collect();
    (whole, slices)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_one_exchange_are_left_out() {
        let mut response = http::Response::new(());
        for name in [
            "set-cookie",
            "connection",
            "access-control-allow-origin",
            "x-request-id",
            "ratelimit",
            "ratelimit-policy",
            "x-ratelimit-remaining-requests",
            "x-spark-tenant",
            "date",
            "transfer-encoding",
            "content-length",
            "www-authenticate",
            "retry-after",
        ] {
            let name = HeaderName::from_static(name);
            assert!(is_personal(&name), "{name}");
            response
                .headers_mut()
                .insert(name, HeaderValue::from_static("x"));
        }
        let text = HeaderValue::from_static("text/plain");
        response.headers_mut().insert(header::CONTENT_TYPE, text);
        let head = Head::of(&response.into_parts().0, None, |_| true);
        assert_eq!(head.headers.len(), 1);
        assert_eq!(head.headers["content-type"], "text/plain");
    }

    #[test]
    fn a_kept_frame_holds_no_foreign_buffer() {
        let buffer = Bytes::from(vec![7; 1 << 20]);
        let answer = Answer::from_frames(vec![buffer.slice(..3), Bytes::new(), buffer.slice(3..5)]);
        let entry = answer.keep(Instant::from_nanos(0), Duration::from_secs(1));
        assert!(buffer.is_unique(), "the kept frames are copies");
        assert_eq!(entry.frames(), [&[7; 3][..], &[], &[7; 2][..]]);
        assert_eq!(entry.body_len(), 5);
        assert_eq!(entry.weight(), ENTRY_OVERHEAD + 5 + 3 * FRAME_OVERHEAD);
    }

    #[test]
    fn debug_shows_no_content() {
        let answer = Answer::new("a secret").header(header::ETAG, HeaderValue::from_static("etag"));
        let shown = format!("{answer:?}");
        let entry = answer.keep(Instant::from_nanos(0), Duration::from_secs(1));
        let shown = format!("{shown} {entry:?}");
        assert!(
            !shown.contains("secret") && !shown.contains("etag"),
            "{shown}"
        );
    }
}
