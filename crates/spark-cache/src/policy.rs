//! What may be kept, for whom, and under which key.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName};
use http::{request, response};
use spark_core::Context;

use crate::{CacheKey, Freshness};

/// What may be kept, for whom, and under which key. [`LlmPolicy`](crate::LlmPolicy) is the one for
/// model providers; write your own for other answers.
///
/// Whatever a policy says, the layer keeps no answer that carries a
/// [`Refusal`](spark_core::Refusal), whose body failed or ended early, which has trailers, a content
/// coding or a range, or which is too heavy; and it never replays a header that belongs to one exchange (`Set-Cookie`, CORS,
/// `RateLimit`, request ids and the like).
///
/// Every `&'static str` in it is a reason: a short `snake_case` word that becomes a metric label and
/// a part of `Cache-Status`.
///
/// # Example
/// ```
/// use bytes::Bytes;
/// use http::{HeaderMap, request, response};
/// use spark_cache::{CacheKey, Freshness, Lookup, Policy, Public, Route, Scope, Verdict};
/// use spark_core::Context;
///
/// /// Keeps `GET /exchange-rates`, which are the same for everyone.
/// #[derive(Debug)]
/// struct Rates;
///
/// impl Policy for Rates {
///     fn route(&self, parts: &request::Parts, _: Option<&Context>) -> Route {
///         match parts.uri.path() {
///             "/exchange-rates" if parts.method == http::Method::GET => Route::Read,
///             _ => Route::Ignore,
///         }
///     }
///
///     fn request(&self, parts: &request::Parts, _: &Bytes, _: Option<&Context>) -> Lookup {
///         let scope = Scope::Public(Public::anyone_may_read());
///         let query = parts.uri.query().unwrap_or_default();
///         let key = CacheKey::builder(scope).field("query", query.as_bytes()).build();
///         Lookup::Use { key, freshness: Freshness::of(&parts.headers) }
///     }
///
///     fn response(&self, parts: &response::Parts) -> Verdict {
///         match parts.status {
///             http::StatusCode::OK => Verdict::Store { ttl: None },
///             _ => Verdict::Alone("status"),
///         }
///     }
///
///     fn complete(&self, _: &HeaderMap, body: &[u8]) -> Result<(), &'static str> {
///         if body.ends_with(b"}") { Ok(()) } else { Err("cut_off") }
///     }
/// }
/// ```
pub trait Policy: fmt::Debug + Send + Sync + 'static {
    /// Whether this request concerns the cache at all, before its body is read.
    fn route(&self, parts: &request::Parts, context: Option<&Context>) -> Route;

    /// The key of a request of which the body was read.
    fn request(&self, parts: &request::Parts, body: &Bytes, context: Option<&Context>) -> Lookup;

    /// What may be done with an answer, by its head.
    fn response(&self, parts: &response::Parts) -> Verdict;

    /// Whether an answer that was read to its end is whole and fit to be given again. `headers` are
    /// those that would be kept.
    ///
    /// # Errors
    /// The reason why it is not.
    fn complete(&self, headers: &HeaderMap, body: &[u8]) -> Result<(), &'static str>;

    /// Whether a header is kept with the answer.
    fn keeps(&self, name: &HeaderName) -> bool {
        KEPT.contains(name)
    }

    /// The longest request body that is read. A longer one is answered with 413.
    fn max_request_bytes(&self) -> usize {
        1 << 20
    }
}

/// What is kept of the headers unless a policy says otherwise.
pub(crate) const KEPT: [HeaderName; 5] = [
    header::CONTENT_TYPE,
    header::CONTENT_LANGUAGE,
    header::CONTENT_DISPOSITION,
    header::ETAG,
    header::LAST_MODIFIED,
];

/// What to do with a request before its body is read.
///
/// # Example
/// ```
/// use spark_cache::Route;
/// assert_ne!(Route::Ignore, Route::Bypass("no_store"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Route {
    /// Not the cache's business: it passes untouched, unmarked and uncounted.
    Ignore,
    /// It could have been cached, and is not: it passes with its body unread, marked and counted.
    Bypass(&'static str),
    /// Its body is read, and [`Policy::request`] decides.
    Read,
}

/// What to do with a request of which the body was read.
///
/// # Example
/// ```
/// use spark_cache::{CacheKey, Freshness, Lookup, Scope};
/// let key = CacheKey::builder(Scope::Master).build();
/// let lookup = Lookup::Use { key, freshness: Freshness::default() };
/// # let _ = lookup;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Lookup {
    /// It is not cached, and why.
    Bypass(&'static str),
    /// It is looked up, asked for once, and kept.
    Use {
        /// Under which key.
        key: CacheKey,
        /// How fresh the client wants it.
        freshness: Freshness,
    },
}

/// What may be done with an answer, by its head.
///
/// # Example
/// ```
/// use spark_cache::Verdict;
/// let verdict = Verdict::Store { ttl: None };
/// # let _ = verdict;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// Those who wait for it read along, and it is kept if it turns out whole.
    Store {
        /// How long it lives, where that is less than the cache's own time.
        ttl: Option<Duration>,
    },
    /// Those who wait for it read along; it is not kept. For failures of the upstream, so that one
    /// failing call does not turn into one for each who waited.
    Share(&'static str),
    /// It is for the request that caused it, and for nobody else. Whoever waited asks for
    /// themselves, at once and side by side.
    Alone(&'static str),
}
