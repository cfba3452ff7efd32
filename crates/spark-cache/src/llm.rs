//! The policy for model providers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName};
use http::{Method, StatusCode, request, response};
use spark_core::{Context, Miswired, Principal, Refusal};

use crate::entry::is_failure;
use crate::freshness::{directives, seconds};
use crate::policy::KEPT;
use crate::{
    CacheKey, Canonical, Freshness, LlmPolicyBuilder, Lookup, Policy, Public, Route, Scalar, Scope,
    Verdict, When, completion,
};

/// The policy for routes that ask a model: JSON by `POST`, answered by JSON or by server-sent
/// events. Cloning it shares [`When`].
///
/// - **Whose**: the principal's tenant, or the operator's own scope. Nobody else is cached for,
///   unless the path was named [public](LlmPolicyBuilder::public_path); then the anonymous share a
///   scope among themselves, and whoever has a key keeps to their own.
/// - **Under which key**: method, path, query, the headers that choose an answer (`Accept`,
///   `Accept-Language`, the API versions of the large providers, and those
///   [you name](LlmPolicyBuilder::keyed_header)), and the whole body by its meaning: model,
///   provider, `stream` and every parameter that anyone will ever invent are in it.
/// - **What**: a 200 in JSON or events, without `Set-Cookie`, `no-store`, `private`, a content
///   coding or an unkeyed `Vary`, that turns out whole: each choice finished with `stop`,
///   `tool_calls` or `end_turn`; not empty, no error in it, no broken tool call; a stream with its
///   `data: [DONE]`.
///
/// `Authorization` is never part of a key: who asks is the [`Context`]'s to say. Authorisation
/// must therefore stand outside of the cache, or be the same for all keys of a tenant.
///
/// # Example
/// ```
/// use spark_cache::{LlmPolicy, When};
/// let policy = LlmPolicy::builder()
///     .path("/v1/chat/completions")
///     .path("/api/spark/generate")
///     .when(When::Deterministic)
///     .build()?;
/// policy.set_when(When::Never);
/// # Ok::<(), spark_cache::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct LlmPolicy(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: LlmPolicyBuilder,
    when: AtomicU8,
    no_principal: Miswired,
}

impl LlmPolicy {
    /// Starts a policy.
    ///
    /// # Example
    /// ```
    /// let policy = spark_cache::LlmPolicy::builder().path("/v1/chat/completions").build()?;
    /// # let _ = policy;
    /// # Ok::<(), spark_cache::ConfigError>(())
    /// ```
    pub fn builder() -> LlmPolicyBuilder {
        LlmPolicyBuilder::default()
    }

    pub(crate) fn new(settings: LlmPolicyBuilder) -> Self {
        Self(Arc::new(Inner {
            when: AtomicU8::new(settings.when as u8),
            settings,
            no_principal: Miswired::new("cache"),
        }))
    }

    /// Changes which questions are cached, from the next request on, for all clones. What is kept
    /// stays; [`Cache::purge_all`](crate::Cache::purge_all) forgets it.
    ///
    /// # Example
    /// ```
    /// # use spark_cache::{LlmPolicy, When};
    /// # let policy = LlmPolicy::builder().path("/v1").build()?;
    /// policy.set_when(When::Always);
    /// assert_eq!(policy.when(), When::Always);
    /// # Ok::<(), spark_cache::ConfigError>(())
    /// ```
    pub fn set_when(&self, when: When) {
        self.0.when.store(when as u8, Ordering::Relaxed);
    }

    /// Which questions are cached.
    ///
    /// # Example
    /// ```
    /// # use spark_cache::{LlmPolicy, When};
    /// # let policy = LlmPolicy::builder().path("/v1").build()?;
    /// assert_eq!(policy.when(), When::Deterministic);
    /// # Ok::<(), spark_cache::ConfigError>(())
    /// ```
    pub fn when(&self) -> When {
        match self.0.when.load(Ordering::Relaxed) {
            when if when == When::Deterministic as u8 => When::Deterministic,
            when if when == When::Always as u8 => When::Always,
            _ => When::Never,
        }
    }

    /// Whether the path is opted in, and whether it is public.
    fn path(&self, path: &str) -> Option<bool> {
        let found = self
            .0
            .settings
            .paths
            .iter()
            .find(|(opted, _)| opted == path)?;
        Some(found.1)
    }

    fn scope(&self, public: bool, context: Option<&Context>) -> Result<Scope, &'static str> {
        match context.and_then(Context::principal) {
            Some(Principal::User(user)) => Ok(Scope::Tenant(user.tenant.clone())),
            Some(Principal::Master) => Ok(Scope::Master),
            Some(Principal::Anonymous) | None if public => {
                Ok(Scope::Public(Public::anyone_may_read()))
            }
            Some(Principal::Anonymous) => Err("anonymous"),
            None => {
                self.0.no_principal.report(
                    "no principal reaches the cache, so nothing is cached: \
                     put an auth layer outside of it, or name the path public",
                );
                Err("no_principal")
            }
            Some(_) => Err("no_principal"),
        }
    }

    fn is_keyed(&self, name: &str) -> bool {
        self.0
            .settings
            .keyed
            .iter()
            .any(|keyed| keyed.as_str().eq_ignore_ascii_case(name))
    }
}

impl Policy for LlmPolicy {
    fn route(&self, parts: &request::Parts, context: Option<&Context>) -> Route {
        let public = match self.path(parts.uri.path()) {
            Some(public) if parts.method == Method::POST => public,
            _ => return Route::Ignore,
        };
        if self.when() == When::Never {
            return Route::Bypass("never");
        }
        if !is_type(&parts.headers, is_json) {
            return Route::Bypass("content_type");
        }
        if parts.headers.contains_key(header::CONTENT_ENCODING) {
            return Route::Bypass("encoded");
        }
        if Freshness::of(&parts.headers).no_store {
            return Route::Bypass("no_store");
        }
        match self.scope(public, context) {
            Ok(_) => Route::Read,
            Err(reason) => Route::Bypass(reason),
        }
    }

    fn request(&self, parts: &request::Parts, body: &Bytes, context: Option<&Context>) -> Lookup {
        let path = parts.uri.path();
        let scope = match self.scope(self.path(path).unwrap_or(false), context) {
            Ok(scope) => scope,
            Err(reason) => return Lookup::Bypass(reason),
        };
        let question = Canonical::of(body);
        if !question.is_json() {
            return Lookup::Bypass("not_json");
        }
        match self.when() {
            When::Always => {}
            When::Deterministic if is_deterministic(&question) => {}
            When::Deterministic => return Lookup::Bypass("not_deterministic"),
            When::Never => return Lookup::Bypass("never"),
        }
        let mut key = CacheKey::builder(scope)
            .field("namespace", self.0.settings.namespace.as_bytes())
            .field("method", parts.method.as_str().as_bytes())
            .field("path", path.as_bytes())
            .field("query", parts.uri.query().unwrap_or_default().as_bytes());
        for name in &self.0.settings.keyed {
            for value in parts.headers.get_all(name) {
                key = key.field(name.as_str(), value.as_bytes());
            }
        }
        let key = key.canonical(&question).build();
        Lookup::Use {
            key,
            freshness: Freshness::of(&parts.headers),
        }
    }

    fn response(&self, parts: &response::Parts) -> Verdict {
        if is_failure(parts.status) {
            return Verdict::Share("status");
        }
        if parts.status != StatusCode::OK {
            return Verdict::Alone("status");
        }
        if parts.extensions.get::<Refusal>().is_some() {
            return Verdict::Alone("refusal");
        }
        let headers = &parts.headers;
        if headers.contains_key(header::SET_COOKIE) {
            return Verdict::Alone("set_cookie");
        }
        if headers.contains_key(header::CONTENT_ENCODING) {
            return Verdict::Alone("encoded");
        }
        if !is_type(headers, |kind| is_json(kind) || is_events(kind)) {
            return Verdict::Alone("content_type");
        }
        if !self.knows_vary(headers) {
            return Verdict::Alone("vary");
        }
        match lifetime(headers) {
            Ok(ttl) => Verdict::Store { ttl },
            Err(reason) => Verdict::Alone(reason),
        }
    }

    fn complete(&self, headers: &HeaderMap, body: &[u8]) -> Result<(), &'static str> {
        if is_type(headers, is_events) {
            completion::sse(body)
        } else {
            completion::json(body)
        }
    }

    fn keeps(&self, name: &HeaderName) -> bool {
        KEPT.contains(name) || self.0.settings.kept.contains(name)
    }

    fn max_request_bytes(&self) -> usize {
        self.0.settings.max_request_bytes
    }
}

impl LlmPolicy {
    /// Whether every header by which the answer says to differ is in the key. Of the codings only
    /// the plain one is kept, so `Accept-Encoding` makes no difference.
    fn knows_vary(&self, headers: &HeaderMap) -> bool {
        headers.get_all(header::VARY).iter().all(|line| {
            line.to_str().is_ok_and(|line| {
                line.split(',')
                    .map(str::trim)
                    .filter(|name| !name.is_empty())
                    .all(|name| name.eq_ignore_ascii_case("accept-encoding") || self.is_keyed(name))
            })
        })
    }
}

fn is_deterministic(question: &Canonical<'_>) -> bool {
    question.member("temperature") == Some(Scalar::Number(0.0))
        || matches!(question.member("seed"), Some(Scalar::Number(_)))
}

/// How long the answer says it lives, if it says so at all. Of two times the shorter counts, and what
/// it has lived already, in the caches behind the provider, is over.
fn lifetime(headers: &HeaderMap) -> Result<Option<Duration>, &'static str> {
    let mut lines = headers.get_all(header::CACHE_CONTROL).iter();
    if lines.any(|line| line.to_str().is_err()) {
        // It may forbid to keep it in the part that cannot be read.
        return Err("cache_control");
    }
    let (mut forbidden, mut max_age, mut shared) = (None, None, None);
    let shorter = |known: Option<u64>, value: &str| {
        let time = seconds(value);
        Some(known.map_or(time, |known| known.min(time)))
    };
    directives(headers, |name, value| {
        match name.to_ascii_lowercase().as_str() {
            "no-store" => forbidden = Some("no_store"),
            "no-cache" => forbidden = Some("no_cache"),
            "private" => forbidden = Some("private"),
            "max-age" => max_age = shorter(max_age, value),
            "s-maxage" => shared = shorter(shared, value),
            _ => {}
        }
    });
    let age = headers.get(header::AGE).and_then(|age| age.to_str().ok());
    let age = age.map_or(0, |age| seconds(age.trim()));
    match (forbidden, shared.or(max_age)) {
        (Some(reason), _) => Err(reason),
        (None, Some(ttl)) if ttl <= age => Err("no_cache"),
        (None, ttl) => Ok(ttl.map(|ttl| Duration::from_secs(ttl - age))),
    }
}

fn is_type(headers: &HeaderMap, wanted: impl Fn(&str) -> bool) -> bool {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    value.is_some_and(|value| {
        let kind = value.split(';').next().unwrap_or_default().trim();
        wanted(&kind.to_ascii_lowercase())
    })
}

fn is_json(kind: &str) -> bool {
    kind == "application/json"
}

fn is_events(kind: &str) -> bool {
    kind == "text/event-stream"
}

#[cfg(test)]
#[path = "llm_tests.rs"]
mod tests;
