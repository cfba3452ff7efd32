//! The handler that all stacks stand around: parse 1 KB of JSON, ask a provider within the process,
//! answer with 1 KB of JSON.

use std::convert::Infallible;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
pub(crate) struct Question {
    model: String,
    prompt: String,
}

#[derive(Serialize)]
struct Answer<'a> {
    id: &'static str,
    model: &'a str,
    output: &'a str,
    finish_reason: &'static str,
    usage: Usage,
}

#[derive(Serialize)]
struct Usage {
    input_tokens: usize,
    output_tokens: usize,
}

pub(crate) fn service() -> Router {
    Router::new().route(
        "/api/generate",
        post(async |body: Bytes| {
            let Some(question) = parse(&body) else {
                return StatusCode::BAD_REQUEST.into_response();
            };
            let (model, tokens) = question.head();
            match provider(question).await {
                Ok(output) => json(write(&model, &output, tokens)),
                Err(never) => match never {},
            }
        }),
    )
}

pub(crate) fn parse(body: &[u8]) -> Option<Question> {
    serde_json::from_slice(body).ok()
}

impl Question {
    pub(crate) fn head(&self) -> (String, usize) {
        (self.model.clone(), self.prompt.len() / 4)
    }
}

pub(crate) async fn provider(question: Question) -> Result<String, Infallible> {
    const TEXT: &str = "Forty ships lie in the harbour, and nine of them are under repair. ";
    let mut output = String::with_capacity(1_024);
    for _ in 0..13 {
        output.push_str(TEXT);
    }
    output.push_str(&question.prompt[question.prompt.len().saturating_sub(32)..]);
    Ok(output)
}

pub(crate) fn write(model: &str, output: &str, tokens: usize) -> Vec<u8> {
    let answer = Answer {
        id: "gen-1",
        model,
        output,
        finish_reason: "stop",
        usage: Usage {
            input_tokens: tokens,
            output_tokens: 225,
        },
    };
    serde_json::to_vec(&answer).unwrap()
}

pub(crate) fn json(body: impl Into<axum::body::Body>) -> Response {
    ([(CONTENT_TYPE, "application/json")], body.into()).into_response()
}
