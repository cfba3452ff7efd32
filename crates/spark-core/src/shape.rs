//! How a refusal is written for the client that sent the request.

use std::fmt;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Extensions, HeaderMap, Response, StatusCode};

use crate::json::Json;
use crate::{Context, Problem};

/// The shape of a refusal: one function from a [`Problem`] to a response.
///
/// Three presets, and any function of your own. [`ContextLayer`](crate::ContextLayer) chooses the
/// shape of each request once, at the edge; without it, gRPC requests get gRPC statuses and all
/// others problem details.
///
/// # Example
/// ```
/// use bytes::Bytes;
/// use spark_core::{Problem, Shape};
///
/// fn terse(problem: &Problem) -> http::Response<Bytes> {
///     let mut response = http::Response::new(Bytes::from_static(problem.code().as_bytes()));
///     *response.status_mut() = problem.status();
///     response
/// }
/// let terse = Shape::custom(terse);
/// let problem = Problem::new(http::StatusCode::FORBIDDEN, "auth", "insufficient_scope");
/// assert_eq!(terse.write(&problem).body(), "insufficient_scope");
/// ```
#[derive(Clone, Copy)]
pub struct Shape(Kind);

#[derive(Clone, Copy)]
enum Kind {
    Problem,
    OpenAi,
    Grpc,
    Custom(fn(&Problem) -> Response<Bytes>),
}

impl Shape {
    /// `application/problem+json` of [RFC 9457](https://www.rfc-editor.org/rfc/rfc9457).
    pub const PROBLEM: Self = Self(Kind::Problem);

    /// The error object of OpenAI's API: `{"error":{"message","type","code","param"}}`.
    pub const OPENAI: Self = Self(Kind::OpenAi);

    /// Trailers-only gRPC: HTTP 200 with `grpc-status` and `grpc-message` among the headers, as in
    /// [gRPC over HTTP/2](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).
    pub const GRPC: Self = Self(Kind::Grpc);

    /// A shape of your own.
    ///
    /// # Example
    /// ```
    /// use spark_core::Shape;
    /// let empty = Shape::custom(|problem| {
    ///     let mut response = http::Response::default();
    ///     *response.status_mut() = problem.status();
    ///     response
    /// });
    /// ```
    pub const fn custom(write: fn(&Problem) -> Response<Bytes>) -> Self {
        Self(Kind::Custom(write))
    }

    /// The shape for a request: the one that its [`Context`] carries; else [`Shape::GRPC`] when it
    /// speaks gRPC; else [`Shape::PROBLEM`].
    ///
    /// # Example
    /// ```
    /// # use spark_core::Shape;
    /// let request = http::Request::builder().header("content-type", "application/grpc").body(())?;
    /// let shape = Shape::of(request.extensions(), request.headers());
    /// # Ok::<(), http::Error>(())
    /// ```
    pub fn of(extensions: &Extensions, headers: &HeaderMap) -> Self {
        if let Some(shape) = Context::of(extensions).and_then(Context::shape) {
            return shape;
        }
        if is_grpc(headers) {
            return Self::GRPC;
        }
        Self::PROBLEM
    }

    /// Writes the problem. [`Problem::into_response`] adds what belongs to every shape.
    ///
    /// # Example
    /// ```
    /// # use spark_core::{Problem, Shape};
    /// let problem = Problem::new(http::StatusCode::FORBIDDEN, "auth", "x");
    /// assert_eq!(Shape::GRPC.write(&problem).headers()["grpc-status"], "7");
    /// ```
    pub fn write(self, problem: &Problem) -> Response<Bytes> {
        self.answer(problem, HeaderMap::new())
    }

    /// Writes the problem with these headers, which stand where the shape would write the same.
    pub(crate) fn answer(self, problem: &Problem, mut headers: HeaderMap) -> Response<Bytes> {
        let (status, content_type, body) = match self.0 {
            Kind::Problem => {
                let body = problem_json(problem);
                (problem.status(), "application/problem+json", body)
            }
            Kind::OpenAi => (problem.status(), "application/json", openai(problem)),
            Kind::Grpc => {
                grpc(problem, &mut headers);
                (StatusCode::OK, "application/grpc", Bytes::new())
            }
            Kind::Custom(write) => {
                let mut response = write(problem);
                response.headers_mut().extend(headers);
                return response;
            }
        };
        default(&mut headers, CONTENT_TYPE, || {
            HeaderValue::from_static(content_type)
        });
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

fn default(headers: &mut HeaderMap, name: HeaderName, value: impl FnOnce() -> HeaderValue) {
    headers.entry(name).or_insert_with(value);
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shape")
    }
}

/// `application/grpc`, alone or with a suffix such as `+proto`; not `application/grpc-web`.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes) else {
        return false;
    };
    const PREFIX: &[u8] = b"application/grpc";
    value.len() >= PREFIX.len()
        && value[..PREFIX.len()].eq_ignore_ascii_case(PREFIX)
        && matches!(value.get(PREFIX.len()), None | Some(b'+' | b';' | b' '))
}

/// The problem details object of RFC 9457, with `code`, `param` and the extension members.
fn problem_json(problem: &Problem) -> Bytes {
    let mut json = Json::new();
    json.raw("{\"type\":").text(problem.type_name());
    json.raw(",\"title\":").text(problem.title_or_phrase());
    json.raw(",\"status\":").raw(problem.status().as_str());
    if let Some(detail) = problem.detail_text() {
        json.raw(",\"detail\":").text(detail);
    }
    json.raw(",\"code\":").text(problem.code());
    if let Some(param) = problem.param_name() {
        json.raw(",\"param\":").text(param);
    }
    for (name, value) in problem.members() {
        json.raw(",").text(name).raw(":").value(value);
    }
    json.raw("}");
    json.into_bytes()
}

fn openai(problem: &Problem) -> Bytes {
    let kind = match problem.status().as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        400..500 => "invalid_request_error",
        _ => "server_error",
    };
    let mut json = Json::new();
    json.raw("{\"error\":{\"message\":").text(problem.message());
    json.raw(",\"type\":").text(kind);
    json.raw(",\"code\":").text(problem.code());
    json.raw(",\"param\":");
    match problem.param_name() {
        Some(param) => json.text(param),
        None => json.raw("null"),
    };
    json.raw("}}");
    json.into_bytes()
}

fn grpc(problem: &Problem, headers: &mut HeaderMap) {
    default(headers, HeaderName::from_static("grpc-status"), || {
        HeaderValue::from_static(grpc_status(problem.status()))
    });
    if let Ok(message) = HeaderValue::try_from(percent_encode(problem.message())) {
        default(headers, HeaderName::from_static("grpc-message"), || message);
    }
}

/// The codes of gRPC for what a layer refuses.
fn grpc_status(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "16",       // UNAUTHENTICATED
        403 => "7",        // PERMISSION_DENIED
        404 => "12",       // UNIMPLEMENTED
        408 | 504 => "4",  // DEADLINE_EXCEEDED
        413 | 429 => "8",  // RESOURCE_EXHAUSTED
        400..500 => "3",   // INVALID_ARGUMENT
        502 | 503 => "14", // UNAVAILABLE
        _ => "13",         // INTERNAL
    }
}

/// Percent-encoding of `grpc-message`: everything but printable ASCII without `%`.
fn percent_encode(text: &str) -> String {
    use fmt::Write;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(byte.into()),
            _ => {
                // Writing into a String does not fail.
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problem(status: u16) -> Problem {
        let status = StatusCode::from_u16(status).unwrap();
        Problem::new(status, "auth", "some_code").detail("50 % off: “no”")
    }

    #[test]
    fn grpc_statuses_are_those_that_clients_expect() {
        for (http, grpc) in [(401, "16"), (403, "7"), (429, "8"), (503, "14"), (400, "3")] {
            let response = Shape::GRPC.write(&problem(http));
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()["grpc-status"], grpc);
        }
        let response = Shape::GRPC.write(&problem(401));
        assert_eq!(
            response.headers()["grpc-message"],
            "50 %25 off: %E2%80%9Cno%E2%80%9D"
        );
    }

    #[test]
    fn openai_errors_have_all_four_members() {
        let response = Shape::OPENAI.write(&problem(429).param("model"));
        let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(
            body,
            json!({"error": {
                "message": "50 % off: “no”", "type": "rate_limit_error",
                "code": "some_code", "param": "model",
            }})
        );
    }

    #[test]
    fn only_grpc_itself_counts_as_grpc() {
        for (content_type, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("Application/gRPC; charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/json", false),
            ("app", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            assert_eq!(is_grpc(&headers), expected, "{content_type}");
        }
    }
}
