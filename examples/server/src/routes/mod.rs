//! The routes: each file is one of them, or one family.

pub(crate) mod chat;
pub(crate) mod export;
pub(crate) mod generate;
pub(crate) mod keys;
pub(crate) mod operator;
pub(crate) mod page;
pub(crate) mod usage;

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use spark_core::{Context, Problem, Shape};

use crate::ask::Refused;

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

/// What the provider finds fault with: in its own words where the client speaks its language.
pub(crate) fn refuse_asked(context: &Context, refused: Refused, openai: bool) -> Response {
    match refused {
        Refused::Problem(problem) => refuse(context, problem),
        Refused::Provider { status, body } if openai => {
            let headers = [
                (http::header::CONTENT_TYPE, "application/json"),
                (http::header::CACHE_CONTROL, "no-store"),
            ];
            (status, headers, body).into_response()
        }
        Refused::Provider { status, .. } => refuse(
            context,
            Problem::new(status, "provider", "provider_refused").detail(
                "The provider finds fault with the request: check `model` and `max_tokens`.",
            ),
        ),
    }
}
