//! `POST /v1/chat/completions` and `GET /v1/models`: OpenAI's own, so that its clients work.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};
use spark_core::{Context, Problem};

use super::generate::check_numbers;
use super::{invalid, object_of, refuse, wants_stream};
use crate::app::App;
use crate::ask::{Answer, Ask, ask};
use crate::relay;

pub(crate) async fn completions(
    State(app): State<Arc<App>>,
    context: Context,
    body: Bytes,
) -> Response {
    let asked = match parse(&app, &body) {
        Ok(asked) => asked,
        Err(problem) => return refuse(&context, problem),
    };
    match ask(&app, &context, asked).await {
        Err(problem) => refuse(&context, problem),
        Ok(Answer::Whole { bytes, .. }) => {
            ([(CONTENT_TYPE, "application/json")], bytes).into_response()
        }
        Ok(Answer::Stream { events, .. }) => relay::stream(events, |event| Some(event.raw.clone())),
    }
}

/// Only what we act on is checked; fields that we do not know pass through as they are.
fn parse(app: &App, body: &[u8]) -> Result<Ask, Problem> {
    let asked = object_of(body, "must be a JSON object.")?;
    let model = match asked.get("model") {
        Some(Value::String(model)) => model.clone(),
        Some(_) => return Err(invalid("model", "must be a text.")),
        None => return Err(invalid("model", "is missing.")),
    };
    if !app.config.models().contains(&model.as_str()) {
        return Err(
            Problem::new(StatusCode::NOT_FOUND, "server", "model_not_found")
                .detail(format!(
                    "`model` is not offered; these are: {}.",
                    app.config.models().join(", ")
                ))
                .param("model"),
        );
    }
    let messages = match asked.get("messages") {
        Some(Value::Array(messages)) if messages.is_empty() => {
            return Err(invalid("messages", "must hold at least one message."));
        }
        Some(Value::Array(messages)) => messages,
        Some(_) => return Err(invalid("messages", "must be a list of messages.")),
        None => return Err(invalid("messages", "is missing.")),
    };
    for (index, message) in messages.iter().enumerate() {
        if !message["role"].is_string() {
            return Err(invalid(
                format!("messages[{index}].role"),
                "must be a text, as \"user\".",
            ));
        }
    }
    let stream = wants_stream(&asked)?;
    if let Some(options) = asked.get("stream_options")
        && !(options.is_null() || options.is_object())
    {
        return Err(invalid("stream_options", "must be an object."));
    }
    check_numbers(&asked)?;
    Ok(Ask {
        body: asked,
        model,
        provider: None,
        stream,
    })
}

pub(crate) async fn models(State(app): State<Arc<App>>) -> Response {
    let data: Vec<Value> = app
        .config
        .models()
        .into_iter()
        .map(|model| {
            let offers = |p: &&crate::config::Provider| p.models.iter().any(|m| m == model);
            let owner = app.config.providers.iter().find(offers);
            let owner = owner.map_or("none", |provider| provider.name.as_str());
            json!({ "id": model, "object": "model", "created": 0, "owned_by": owner })
        })
        .collect();
    axum::Json(json!({ "object": "list", "data": data })).into_response()
}
