//! `POST /api/spark/generate`: a prompt in, a text out.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use serde_json::{Map, Value, json};
use spark_core::{Context, Problem};

use super::{invalid, object_of, only_known, refuse, wants_stream};
use crate::app::App;
use crate::ask::{Answer, Ask, ask};
use crate::relay;

const FIELDS: [&str; 7] = [
    "prompt",
    "provider",
    "model",
    "max_tokens",
    "temperature",
    "seed",
    "stream",
];

pub(crate) async fn generate(
    State(app): State<Arc<App>>,
    context: Context,
    body: Bytes,
) -> Response {
    let asked = match parse(&app, &body) {
        Ok(asked) => asked,
        Err(problem) => return refuse(&context, problem),
    };
    let model = asked.model.clone();
    match ask(&app, &context, asked).await {
        Err(problem) => refuse(&context, problem),
        Ok(Answer::Whole {
            provider,
            completion,
            ..
        }) => {
            let answer = json!({
                "id": completion["id"],
                "provider": &*provider,
                "model": model,
                "output": completion["choices"][0]["message"]["content"].as_str().unwrap_or_default(),
                "finish_reason": completion["choices"][0]["finish_reason"],
                "usage": usage(&completion["usage"]),
            });
            ([(CONTENT_TYPE, "application/json")], answer.to_string()).into_response()
        }
        Ok(Answer::Stream { provider, events }) => {
            let mut last = json!({ "provider": &*provider, "model": model });
            relay::stream(events, move |event| {
                let Some(chunk) = &event.chunk else {
                    // The provider's `[DONE]`: first what was learnt on the way, then our own.
                    let end = || format!("data: {last}\n\ndata: [DONE]\n\n").into();
                    return event.is_last.then(end);
                };
                let choice = &chunk["choices"][0];
                if last["id"].is_null() {
                    last["id"] = chunk["id"].clone();
                }
                if choice["finish_reason"].is_string() {
                    last["finish_reason"] = choice["finish_reason"].clone();
                }
                if chunk["usage"].is_object() {
                    last["usage"] = usage(&chunk["usage"]);
                }
                let delta = choice["delta"]["content"]
                    .as_str()
                    .filter(|text| !text.is_empty())?;
                Some(format!("data: {}\n\n", json!({ "delta": delta })).into())
            })
        }
    }
}

fn usage(usage: &Value) -> Value {
    json!({
        "input_tokens": usage["prompt_tokens"].as_u64().unwrap_or(0),
        "output_tokens": usage["completion_tokens"].as_u64().unwrap_or(0),
    })
}

/// Every field is looked at, and the first that is no good is named.
fn parse(app: &App, body: &[u8]) -> Result<Ask, Problem> {
    let asked = object_of(body, "must be a JSON object with the field `prompt`.")?;
    only_known(&asked, &FIELDS)?;
    let prompt = match asked.get("prompt") {
        Some(Value::String(prompt)) if prompt.trim().is_empty() => {
            return Err(invalid("prompt", "must not be empty."));
        }
        Some(Value::String(prompt)) => prompt,
        Some(_) => return Err(invalid("prompt", "must be a text.")),
        None => return Err(invalid("prompt", "is missing.")),
    };
    let provider = text(&asked, "provider")?;
    if let Some(provider) = provider
        && !app.config.providers.iter().any(|p| p.name == provider)
    {
        return Err(invalid(
            "provider",
            "names no configured provider; leave it out to use any.",
        ));
    }
    let offered = app
        .config
        .providers
        .iter()
        .filter(|p| provider.is_none_or(|name| p.name == name))
        .flat_map(|p| p.models.iter().map(String::as_str))
        .collect::<Vec<_>>();
    let model = text(&asked, "model")?;
    if let Some(model) = model
        && !offered.contains(&model)
    {
        return Err(invalid(
            "model",
            format!("is not offered; these are: {}.", offered.join(", ")),
        ));
    }
    let model = model.or(offered.first().copied()).unwrap_or_default();
    let stream = wants_stream(&asked)?;

    let mut body = Map::new();
    body.insert("model".into(), model.into());
    body.insert(
        "messages".into(),
        json!([{ "role": "user", "content": prompt }]),
    );
    body.insert("stream".into(), stream.into());
    if stream {
        // The last event of ours tells the usage.
        body.insert("stream_options".into(), json!({ "include_usage": true }));
    }
    check_numbers(&asked)?;
    for key in ["max_tokens", "temperature", "seed"] {
        if let Some(value) = asked.get(key).filter(|value| !value.is_null()) {
            body.insert(key.into(), value.clone());
        }
    }
    Ok(Ask {
        body,
        model: model.to_owned(),
        provider: provider.map(str::to_owned),
        stream,
    })
}

/// The fields that both routes share: `max_tokens`, `temperature`, `seed`.
pub(crate) fn check_numbers(asked: &Map<String, Value>) -> Result<(), Problem> {
    let given = |key: &str| asked.get(key).filter(|value| !value.is_null());
    for key in ["max_tokens", "max_completion_tokens"] {
        if let Some(value) = given(key)
            && value
                .as_u64()
                .is_none_or(|n| n == 0 || n > u64::from(u32::MAX))
        {
            return Err(invalid(key, "must be a whole number of at least 1."));
        }
    }
    if let Some(value) = given("temperature")
        && value.as_f64().is_none_or(|t| !(0.0..=2.0).contains(&t))
    {
        return Err(invalid("temperature", "must be a number from 0 to 2."));
    }
    if let Some(value) = given("seed")
        && value.as_i64().is_none()
    {
        return Err(invalid("seed", "must be a whole number."));
    }
    Ok(())
}

fn text<'a>(asked: &'a Map<String, Value>, key: &str) -> Result<Option<&'a str>, Problem> {
    match asked.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(invalid(key, "must be a text.")),
    }
}
