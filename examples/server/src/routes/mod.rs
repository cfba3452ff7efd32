//! The routes: each file is one of them, or one family.

pub(crate) mod chat;
pub(crate) mod export;
pub(crate) mod generate;
pub(crate) mod keys;
pub(crate) mod operator;
pub(crate) mod page;
pub(crate) mod usage;

use axum::response::Response;
use http::StatusCode;
use spark_core::{Context, Problem, Shape};

/// A refusal in the shape of the request that it answers.
pub(crate) fn refuse(context: &Context, problem: Problem) -> Response {
    let shape = context.shape().unwrap_or(Shape::PROBLEM);
    problem
        .into_response::<axum::body::Body>(shape)
        .map(axum::body::Body::new)
}

/// A field of the request that is no good: 400, which field, and the mend.
pub(crate) fn invalid(param: impl Into<String>, mend: impl Into<String>) -> Problem {
    let param = param.into();
    let detail = format!("`{param}` {}", mend.into());
    Problem::new(StatusCode::BAD_REQUEST, "server", "invalid_field")
        .detail(detail)
        .param(param)
}

/// The path as it may be logged: cut, and without a key that was put where its id belongs.
pub(crate) fn shown_path(uri: &http::Uri) -> String {
    let path: String = uri.path().chars().take(200).collect();
    let segments = path.split('/').map(|segment| {
        let is_key = ["spark_sk_", "spark_mk_"]
            .iter()
            .any(|start| segment.contains(start));
        if is_key { "[key]" } else { segment }
    });
    segments.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_in_a_path_is_not_shown() {
        let uri: http::Uri = "/api/spark/keys/spark_sk_live_abc/rotate?x=1"
            .parse()
            .unwrap();
        assert_eq!(shown_path(&uri), "/api/spark/keys/[key]/rotate");
    }
}
