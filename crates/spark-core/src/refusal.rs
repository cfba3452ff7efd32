//! A refusal: who said no, why, and what goes over the wire.

use std::borrow::Cow;
use std::time::Duration;

use http::header::{CACHE_CONTROL, HeaderName, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Response, StatusCode};
use serde_json::Value;

use crate::{ResponseBody, Shape};

/// Who refused a request and why: a **response** extension, so that the layers further out know it
/// without parsing a body. Who passes an upstream's refusal on, passes this on with it.
///
/// # Example
/// ```
/// use spark_core::{Problem, Refusal, ResponseBody, Shape};
/// let response: http::Response<ResponseBody<String>> =
///     Problem::new(http::StatusCode::TOO_MANY_REQUESTS, "ratelimit", "rate_limited")
///         .into_response(Shape::PROBLEM);
/// let refusal = response.extensions().get::<Refusal>().unwrap();
/// assert_eq!((refusal.by, refusal.code), ("ratelimit", "rate_limited"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// The layer: `auth`, `ratelimit`, `sanitize`, `cache`, `breaker`, …
    pub by: &'static str,
    /// The reason, for machines: `snake_case`, one of a small set.
    pub code: &'static str,
    /// When another try may succeed.
    pub retry_after: Option<Duration>,
}

/// A refusal in the making: problem details of [RFC 9457], to be written in any [`Shape`].
///
/// `detail` and `param` go to the client: never put a secret, a prompt or an inner error there.
///
/// [RFC 9457]: https://www.rfc-editor.org/rfc/rfc9457
///
/// # Example
/// ```
/// use http::StatusCode;
/// use spark_core::{Problem, ResponseBody, Shape};
/// use std::time::Duration;
///
/// let response = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "breaker", "breaker_open")
///     .detail("The provider `primary` is not asked at the moment.")
///     .retry_after(Duration::from_millis(1_200))
///     .into_response::<String>(Shape::PROBLEM);
///
/// assert_eq!(response.headers()["content-type"], "application/problem+json");
/// assert_eq!(response.headers()["retry-after"], "2", "rounded up");
/// assert_eq!(response.headers()["cache-control"], "no-store");
/// ```
#[derive(Clone, Debug)]
pub struct Problem(Box<Inner>);

// Boxed, so that a `Result<_, Problem>` is small where all goes well.
#[derive(Clone, Debug)]
struct Inner {
    status: StatusCode,
    refusal: Refusal,
    type_uri: Cow<'static, str>,
    title: Option<Cow<'static, str>>,
    detail: Option<Cow<'static, str>>,
    param: Option<Cow<'static, str>>,
    members: Vec<(&'static str, Value)>,
    headers: HeaderMap,
}

impl Problem {
    /// A refusal by the layer `by`, with a machine-readable `code`.
    ///
    /// # Example
    /// ```
    /// use spark_core::Problem;
    /// let problem = Problem::new(http::StatusCode::FORBIDDEN, "auth", "insufficient_scope");
    /// assert_eq!(problem.code(), "insufficient_scope");
    /// ```
    pub fn new(status: StatusCode, by: &'static str, code: &'static str) -> Self {
        Self(Box::new(Inner {
            status,
            refusal: Refusal {
                by,
                code,
                retry_after: None,
            },
            type_uri: Cow::Borrowed("about:blank"),
            title: None,
            detail: None,
            param: None,
            members: Vec::new(),
            headers: HeaderMap::new(),
        }))
    }

    /// Says in a sentence what is wrong with this request, and how to mend it.
    ///
    /// # Example
    /// ```
    /// # use spark_core::Problem;
    /// let problem = Problem::new(http::StatusCode::BAD_REQUEST, "sanitize", "invalid_field")
    ///     .detail("`max_tokens` must be at least 1.");
    /// ```
    #[must_use]
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// A title other than the status's own phrase: the same for every occurrence of this problem.
    ///
    /// # Example
    /// ```
    /// # use spark_core::Problem;
    /// let problem = Problem::new(http::StatusCode::TOO_MANY_REQUESTS, "ratelimit", "rate_limited")
    ///     .title("Quota Exceeded");
    /// ```
    #[must_use]
    pub fn title(mut self, title: impl Into<Cow<'static, str>>) -> Self {
        self.0.title = Some(title.into());
        self
    }

    /// The problem type; `about:blank` unless said.
    ///
    /// # Example
    /// ```
    /// # use spark_core::Problem;
    /// let problem = Problem::new(http::StatusCode::TOO_MANY_REQUESTS, "ratelimit", "rate_limited")
    ///     .type_uri("https://iana.org/assignments/http-problem-types#quota-exceeded");
    /// ```
    #[must_use]
    pub fn type_uri(mut self, uri: impl Into<Cow<'static, str>>) -> Self {
        self.0.type_uri = uri.into();
        self
    }

    /// The field of the request that is at fault.
    ///
    /// # Example
    /// ```
    /// # use spark_core::Problem;
    /// let problem = Problem::new(http::StatusCode::BAD_REQUEST, "sanitize", "invalid_field")
    ///     .param("messages[0].content");
    /// ```
    #[must_use]
    pub fn param(mut self, param: impl Into<Cow<'static, str>>) -> Self {
        self.0.param = Some(param.into());
        self
    }

    /// When another try may succeed. On the wire it is rounded up to whole seconds, at least 1.
    ///
    /// # Example
    /// ```
    /// # use spark_core::Problem;
    /// # use std::time::Duration;
    /// let problem = Problem::new(http::StatusCode::TOO_MANY_REQUESTS, "ratelimit", "rate_limited")
    ///     .retry_after(Duration::ZERO);
    /// let response = problem.into_response::<String>(spark_core::Shape::PROBLEM);
    /// assert_eq!(response.headers()["retry-after"], "1");
    /// ```
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.0.refusal.retry_after = Some(after);
        self
    }

    /// A header of the response, in whatever shape.
    ///
    /// # Example
    /// ```
    /// # use spark_core::Problem;
    /// use http::header::{HeaderValue, WWW_AUTHENTICATE};
    /// let problem = Problem::new(http::StatusCode::UNAUTHORIZED, "auth", "missing_key")
    ///     .header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"spark\""));
    /// ```
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.insert(name, value);
        self
    }

    /// An extension member of the problem details. The members of RFC 9457 itself stay as they are.
    ///
    /// # Example
    /// ```
    /// # use spark_core::Problem;
    /// let problem = Problem::new(http::StatusCode::TOO_MANY_REQUESTS, "ratelimit", "rate_limited")
    ///     .member("violated-policies", vec!["daily"].into());
    /// ```
    #[must_use]
    pub fn member(mut self, name: &'static str, value: Value) -> Self {
        self.0.members.push((name, value));
        self
    }

    /// The status that it would have over plain HTTP.
    ///
    /// # Example
    /// ```
    /// # use spark_core::Problem;
    /// assert_eq!(Problem::new(http::StatusCode::FORBIDDEN, "auth", "x").status(), 403);
    /// ```
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The machine-readable reason.
    ///
    /// # Example
    /// ```
    /// # use spark_core::Problem;
    /// assert_eq!(Problem::new(http::StatusCode::FORBIDDEN, "auth", "x").code(), "x");
    /// ```
    pub fn code(&self) -> &'static str {
        self.0.refusal.code
    }

    /// What travels in the response's extensions.
    ///
    /// # Example
    /// ```
    /// # use spark_core::Problem;
    /// assert_eq!(Problem::new(http::StatusCode::FORBIDDEN, "auth", "x").refusal().by, "auth");
    /// ```
    pub fn refusal(&self) -> Refusal {
        self.0.refusal
    }

    /// The sentence for the client: the detail, else the title.
    ///
    /// # Example
    /// ```
    /// # use spark_core::Problem;
    /// let problem = Problem::new(http::StatusCode::FORBIDDEN, "auth", "x");
    /// assert_eq!(problem.message(), "Forbidden");
    /// ```
    pub fn message(&self) -> &str {
        self.0
            .detail
            .as_deref()
            .unwrap_or_else(|| self.title_or_phrase())
    }

    /// The field at fault.
    ///
    /// # Example
    /// ```
    /// # use spark_core::Problem;
    /// assert!(Problem::new(http::StatusCode::FORBIDDEN, "auth", "x").param_name().is_none());
    /// ```
    pub fn param_name(&self) -> Option<&str> {
        self.0.param.as_deref()
    }

    /// The problem details object of RFC 9457, with `code`, `param` and the extension members.
    ///
    /// # Example
    /// ```
    /// # use spark_core::Problem;
    /// let details = Problem::new(http::StatusCode::FORBIDDEN, "auth", "x").details();
    /// assert_eq!(details["status"], 403);
    /// ```
    pub fn details(&self) -> Value {
        let mut details = serde_json::Map::new();
        for (name, value) in &self.0.members {
            details.insert((*name).to_owned(), value.clone());
        }
        let mut own = |name: &str, value: Value| details.insert(name.to_owned(), value);
        own("type", self.0.type_uri.as_ref().into());
        own("title", self.title_or_phrase().into());
        own("status", self.0.status.as_u16().into());
        own("code", self.0.refusal.code.into());
        if let Some(detail) = &self.0.detail {
            own("detail", detail.as_ref().into());
        }
        if let Some(param) = &self.0.param {
            own("param", param.as_ref().into());
        }
        Value::Object(details)
    }

    /// The response in this shape, with `Retry-After`, `Cache-Control: no-store`, the headers that
    /// were added, and the [`Refusal`] in its extensions.
    ///
    /// # Example
    /// ```
    /// use spark_core::{Problem, Shape};
    /// let problem = Problem::new(http::StatusCode::TOO_MANY_REQUESTS, "ratelimit", "rate_limited");
    /// let response = problem.into_response::<String>(Shape::OPENAI);
    /// assert_eq!(response.status(), 429);
    /// ```
    pub fn into_response<B>(self, shape: Shape) -> Response<ResponseBody<B>> {
        let (mut parts, body) = shape.write(&self).into_parts();
        parts.headers.extend(self.0.headers);
        parts
            .headers
            .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(after) = self.0.refusal.retry_after {
            parts
                .headers
                .insert(RETRY_AFTER, whole_seconds(after).into());
        }
        parts.extensions.insert(self.0.refusal);
        Response::from_parts(parts, ResponseBody::whole(body))
    }

    fn title_or_phrase(&self) -> &str {
        match &self.0.title {
            Some(title) => title,
            None => self.0.status.canonical_reason().unwrap_or("Error"),
        }
    }
}

/// `Retry-After` as RFC 9110 §10.2.3 writes it: whole seconds, rounded up, and never 0, which would
/// invite a client to come back too early.
///
/// # Example
/// ```
/// use std::time::Duration;
/// assert_eq!(spark_core::whole_seconds(Duration::from_millis(1)), 1);
/// assert_eq!(spark_core::whole_seconds(Duration::from_millis(2_001)), 3);
/// ```
pub fn whole_seconds(after: Duration) -> u64 {
    let up = u64::from(after.subsec_nanos() > 0);
    after.as_secs().saturating_add(up).max(1)
}

#[cfg(feature = "axum")]
impl axum::response::IntoResponse for Problem {
    fn into_response(self) -> axum::response::Response {
        Problem::into_response::<axum::body::Body>(self, Shape::PROBLEM).map(axum::body::Body::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem() -> Problem {
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "ratelimit", "rate_limited")
    }

    #[test]
    fn retry_after_is_rounded_up_and_never_zero() {
        for (millis, seconds) in [(0, 1), (1, 1), (999, 1), (1_000, 1), (1_001, 2), (1_950, 2)] {
            assert_eq!(whole_seconds(Duration::from_millis(millis)), seconds);
        }
        assert_eq!(whole_seconds(Duration::MAX), u64::MAX);
    }

    #[test]
    fn extension_members_never_replace_the_standard_ones() {
        let details = problem()
            .member("status", 200.into())
            .member("a", 1.into())
            .details();
        assert_eq!(details["status"], 429);
        assert_eq!(details["a"], 1);
        assert_eq!(details["title"], "Too Many Requests");
    }

    #[test]
    fn a_refusal_is_never_stored_by_a_cache() {
        for shape in [Shape::PROBLEM, Shape::OPENAI, Shape::GRPC] {
            let response = problem().into_response::<String>(shape);
            assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
            assert!(response.extensions().get::<Refusal>().is_some());
        }
    }
}
