//! A refusal: who said no, why, and what goes over the wire.

use std::borrow::Cow;
use std::mem;
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
    members: Members,
    headers: HeaderMap,
}

/// Extension members, no name twice. Most problems have at most one: it costs no allocation.
#[derive(Clone, Debug, Default)]
struct Members {
    first: Option<Member>,
    more: Vec<Member>,
}

type Member = (&'static str, Value);

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
            members: Members::default(),
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

    /// An extension member of the problem details. The members of RFC 9457 itself, `code` and
    /// `param` stay as they are, and of two members of one name the last one stands.
    ///
    /// # Example
    /// ```
    /// # use spark_core::Problem;
    /// let problem = Problem::new(http::StatusCode::TOO_MANY_REQUESTS, "ratelimit", "rate_limited")
    ///     .member("violated-policies", vec!["daily"].into());
    /// ```
    #[must_use]
    pub fn member(mut self, name: &'static str, value: Value) -> Self {
        self.0.members.set(name, value);
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
    pub fn into_response<B>(mut self, shape: Shape) -> Response<ResponseBody<B>> {
        let refusal = self.0.refusal;
        // The headers that were added become those of the response, and take the others in.
        let headers = mem::take(&mut self.0.headers);
        let mut response = shape.answer(&self, headers);
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(after) = refusal.retry_after {
            headers.insert(RETRY_AFTER, decimal(whole_seconds(after)));
        }
        response.extensions_mut().insert(refusal);
        response.map(ResponseBody::whole)
    }

    pub(crate) fn type_name(&self) -> &str {
        &self.0.type_uri
    }

    pub(crate) fn title_or_phrase(&self) -> &str {
        match &self.0.title {
            Some(title) => title,
            None => self.0.status.canonical_reason().unwrap_or("Error"),
        }
    }

    pub(crate) fn detail_text(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    /// The extension members, without those that have a standard member's name.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Member> {
        let Members { first, more } = &self.0.members;
        first.iter().chain(more).filter(|(name, _)| match *name {
            "type" | "title" | "status" | "code" => false,
            "detail" => self.0.detail.is_none(),
            "param" => self.0.param.is_none(),
            _ => true,
        })
    }
}

impl Members {
    fn set(&mut self, name: &'static str, value: Value) {
        let mut all = self.first.iter_mut().chain(&mut self.more);
        if let Some(member) = all.find(|member| member.0 == name) {
            member.1 = value;
        } else if self.first.is_none() {
            self.first = Some((name, value));
        } else {
            self.more.push((name, value));
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

/// A number as a header: below 100, as most waits are, without an allocation.
fn decimal(number: u64) -> HeaderValue {
    const BELOW_100: &str = "\
        0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243444546474849\
        5051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899";
    let digits = match usize::try_from(number) {
        Ok(number) if number < 10 => 2 * number + 1..2 * number + 2,
        Ok(number) if number < 100 => 2 * number..2 * number + 2,
        _ => return HeaderValue::from(number),
    };
    HeaderValue::from_static(&BELOW_100[digits])
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
    fn a_wait_of_any_length_is_written_in_digits() {
        for number in (0..1_100).chain([u64::MAX]) {
            assert_eq!(decimal(number), number.to_string().as_str());
        }
    }

    fn written(problem: &Problem) -> String {
        let response = Shape::PROBLEM.write(problem);
        String::from_utf8(response.body().to_vec()).unwrap()
    }

    #[test]
    fn the_members_have_their_order() {
        let problem = problem()
            .member("limit", 5.into())
            .param("a\"b")
            .member("\n", vec!["x"].into())
            .detail("No.")
            .type_uri("urn:x")
            .title("Quota");
        assert_eq!(
            written(&problem),
            r#"{"type":"urn:x","title":"Quota","status":429,"detail":"No.","code":"rate_limited","#
                .to_owned()
                + r#""param":"a\"b","limit":5,"\n":["x"]}"#
        );
    }

    #[test]
    fn extension_members_never_replace_the_standard_ones() {
        let names = ["type", "title", "status", "detail", "code", "param", "a"];
        let problem = names
            .into_iter()
            .fold(problem(), |problem, name| problem.member(name, 1.into()))
            .detail("No.")
            .param("p");
        assert_eq!(
            written(&problem),
            r#"{"type":"about:blank","title":"Too Many Requests","status":429,"detail":"No.","#
                .to_owned()
                + r#""code":"rate_limited","param":"p","a":1}"#
        );
    }

    #[test]
    fn of_members_with_one_name_the_last_stands() {
        let problem = ["a", "b", "a", "c", "b"]
            .into_iter()
            .zip(1..)
            .fold(problem(), |problem, (name, value)| {
                problem.member(name, value.into())
            });
        let body = written(&problem);
        assert!(body.ends_with(r#","a":3,"b":5,"c":4}"#), "{body}");
    }

    #[test]
    fn headers_that_were_added_stand_but_for_those_of_every_refusal() {
        use http::header::{CONTENT_TYPE, VARY};
        let custom = Shape::custom(|_| {
            let mut response = Response::default();
            for name in [CONTENT_TYPE, VARY] {
                let value = HeaderValue::from_static("the shape's");
                response.headers_mut().append(name, value);
            }
            response
        });
        for shape in [Shape::PROBLEM, Shape::OPENAI, Shape::GRPC, custom] {
            let mut problem = problem().retry_after(Duration::from_secs(7));
            for name in [CONTENT_TYPE, CACHE_CONTROL, RETRY_AFTER] {
                problem = problem.header(name, HeaderValue::from_static("added"));
            }
            let response = problem.into_response::<String>(shape);
            assert_eq!(response.headers()[CONTENT_TYPE], "added");
            assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
            assert_eq!(response.headers()[RETRY_AFTER], "7");
            let unique = response.headers().keys_len();
            assert_eq!(response.headers().len(), unique, "no header twice");
        }
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
