//! How a refusal is written for the client that sent the request.

use std::fmt;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Extensions, HeaderMap, Response, StatusCode};
use serde_json::json;

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
pub struct Shape(fn(&Problem) -> Response<Bytes>);

impl Shape {
    /// `application/problem+json` of [RFC 9457](https://www.rfc-editor.org/rfc/rfc9457).
    pub const PROBLEM: Self = Self(problem_json);

    /// The error object of OpenAI's API: `{"error":{"message","type","code","param"}}`.
    pub const OPENAI: Self = Self(openai);

    /// Trailers-only gRPC: HTTP 200 with `grpc-status` and `grpc-message` among the headers, as in
    /// [gRPC over HTTP/2](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).
    pub const GRPC: Self = Self(grpc);

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
        Self(write)
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
        (self.0)(problem)
    }
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

fn problem_json(problem: &Problem) -> Response<Bytes> {
    json_response(
        problem.status(),
        "application/problem+json",
        &problem.details(),
    )
}

fn openai(problem: &Problem) -> Response<Bytes> {
    let kind = match problem.status().as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        400..500 => "invalid_request_error",
        _ => "server_error",
    };
    let error = json!({ "error": {
        "message": problem.message(),
        "type": kind,
        "code": problem.code(),
        "param": problem.param_name(),
    }});
    json_response(problem.status(), "application/json", &error)
}

fn json_response(
    status: StatusCode,
    content_type: &'static str,
    body: &serde_json::Value,
) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn grpc(problem: &Problem) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(
        HeaderName::from_static("grpc-status"),
        grpc_status(problem.status()).into(),
    );
    if let Ok(message) = HeaderValue::from_str(&percent_encode(problem.message())) {
        headers.insert(HeaderName::from_static("grpc-message"), message);
    }
    response
}

/// The codes of gRPC for what a layer refuses.
fn grpc_status(status: StatusCode) -> u16 {
    match status.as_u16() {
        401 => 16,       // UNAUTHENTICATED
        403 => 7,        // PERMISSION_DENIED
        404 => 12,       // UNIMPLEMENTED
        408 | 504 => 4,  // DEADLINE_EXCEEDED
        413 | 429 => 8,  // RESOURCE_EXHAUSTED
        400..500 => 3,   // INVALID_ARGUMENT
        502 | 503 => 14, // UNAVAILABLE
        _ => 13,         // INTERNAL
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
