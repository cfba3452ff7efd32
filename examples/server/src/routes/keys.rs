//! `/api/spark/keys`: issue, list, rotate, revoke. For the master key.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use spark_auth::{AuthError, Authenticator, Issued, KeyInfo, NewKey};
use spark_core::{Context, Name, Problem};

use super::{invalid, object_of, only_known, refuse};
use crate::app::App;
use crate::config::{RateLimit, Span, check_tier};

const FIELDS: [&str; 5] = ["tenant", "label", "tier", "scopes", "expires_at"];
const OBJECT: &str = "must be a JSON object.";
const DEFAULT_OVERLAP: Duration = Duration::from_secs(24 * 3_600);

pub(crate) async fn list(State(app): State<Arc<App>>) -> Response {
    Json(json!({ "keys": app.auth.list() })).into_response()
}

pub(crate) async fn issue(State(app): State<Arc<App>>, context: Context, body: Bytes) -> Response {
    let new = new_key(&app.quotas(), &body);
    let new = match new {
        Ok(new) => new,
        Err(problem) => return refuse(&context, problem),
    };
    match on_disk(&app, move |auth| auth.issue(new)).await {
        Ok(issued) => (StatusCode::CREATED, Json(shown(&app, &issued))).into_response(),
        Err(problem) => refuse(&context, problem),
    }
}

pub(crate) async fn rotate(
    State(app): State<Arc<App>>,
    context: Context,
    id: Result<Path<String>, PathRejection>,
    body: Bytes,
) -> Response {
    let Ok(Path(id)) = id else {
        return refuse(&context, invalid("id", "is not UTF-8."));
    };
    let overlap = match overlap(&body) {
        Ok(overlap) => overlap,
        Err(problem) => return refuse(&context, problem),
    };
    match on_disk(&app, move |auth| auth.rotate(&id, overlap)).await {
        Ok(issued) => (StatusCode::CREATED, Json(shown(&app, &issued))).into_response(),
        Err(problem) => refuse(&context, problem),
    }
}

pub(crate) async fn revoke(
    State(app): State<Arc<App>>,
    context: Context,
    id: Result<Path<String>, PathRejection>,
) -> Response {
    let Ok(Path(id)) = id else {
        return refuse(&context, invalid("id", "is not UTF-8."));
    };
    match on_disk(&app, move |auth| auth.revoke(&id)).await {
        Ok(info) => Json(json!(info)).into_response(),
        Err(problem) => refuse(&context, problem),
    }
}

/// Changes reach the disk before they return, so they may not run where requests do.
async fn on_disk<T: Send + 'static>(
    app: &App,
    change: impl FnOnce(&Authenticator) -> Result<T, AuthError> + Send + 'static,
) -> Result<T, Problem> {
    let auth = app.auth.clone();
    // In the span of the request, so that the audit of the change names it.
    let span = tracing::Span::current();
    let done = tokio::task::spawn_blocking(move || span.in_scope(|| change(&auth))).await;
    match done {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(refusal(&error)),
        Err(_) => Err(Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "server",
            "internal_error",
        )),
    }
}

/// The answer that shows the key, this once.
fn shown(app: &App, issued: &Issued) -> Value {
    let mut shown = json!(KeyInfo::of(&issued.record, app.clock.unix_time()));
    shown["key"] = issued.key.expose().into();
    shown
}

fn refusal(error: &AuthError) -> Problem {
    let status = match error {
        AuthError::NotFound => StatusCode::NOT_FOUND,
        AuthError::Invalid { .. } => StatusCode::BAD_REQUEST,
        AuthError::AlreadyRotated { .. } | AuthError::NotActive { .. } => StatusCode::CONFLICT,
        AuthError::Full { .. } => StatusCode::INSUFFICIENT_STORAGE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    if status.is_server_error() {
        tracing::error!(error = %crate::ask::chain(error), "a key could not be changed");
    }
    let problem = Problem::new(status, "auth", "key_not_changed").detail(error.to_string());
    match error.field() {
        Some(field) => problem.param(field),
        None => problem,
    }
}

fn new_key(quotas: &RateLimit, body: &[u8]) -> Result<NewKey, Problem> {
    let fields = object_of(body, OBJECT)?;
    only_known(&fields, &FIELDS)?;
    let given = |key: &str| fields.get(key).filter(|value| !value.is_null());
    let name = |key: &str, value: &Value| {
        let text = value
            .as_str()
            .ok_or_else(|| invalid(key, "must be a text."))?;
        Name::new(text).map_err(|error| invalid(key, format!("is not valid: {error}.")))
    };
    let tenant = given("tenant").ok_or_else(|| invalid("tenant", "is missing."))?;
    let mut new = NewKey::new(name("tenant", tenant)?);
    if let Some(label) = given("label") {
        let label = label
            .as_str()
            .ok_or_else(|| invalid("label", "must be a text."))?;
        new = new.label(label);
    }
    if let Some(tier) = given("tier") {
        let tier = name("tier", tier)?;
        check_tier(quotas, &tier).map_err(|mend| invalid("tier", mend))?;
        new = new.tier(tier);
    }
    if let Some(scopes) = given("scopes") {
        let scopes = scopes
            .as_array()
            .ok_or_else(|| invalid("scopes", "must be a list of texts."))?;
        let scopes = scopes.iter().map(|scope| name("scopes", scope));
        new = new.scopes(scopes.collect::<Result<Vec<_>, _>>()?);
    }
    if let Some(time) = given("expires_at") {
        let seconds = time.as_u64().ok_or_else(|| {
            invalid(
                "expires_at",
                "must be a time in whole seconds since 1970-01-01 UTC.",
            )
        })?;
        new = new.expires_at(Duration::from_secs(seconds));
    }
    Ok(new)
}

/// `{"overlap": "1h"}`; without a body, a day. `"0s"` ends the old key at once.
fn overlap(body: &[u8]) -> Result<Duration, Problem> {
    if body.is_empty() {
        return Ok(DEFAULT_OVERLAP);
    }
    match object_of(body, OBJECT)?.get("overlap") {
        None => Ok(DEFAULT_OVERLAP),
        Some(Value::String(text)) => match text.parse::<Span>() {
            Ok(span) => Ok(span.duration()),
            Err(error) => Err(invalid("overlap", format!("is not valid: {error}."))),
        },
        Some(_) => Err(invalid("overlap", "must be a time such as \"1h\".")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_at_fault_is_named() {
        let config = crate::config::Config::load(None, |_| None).unwrap();
        let quotas = &config.ratelimit;
        for (body, param) in [
            ("nonsense", "body"),
            ("[]", "body"),
            ("{}", "tenant"),
            (r#"{"tenant":"two words"}"#, "tenant"),
            (r#"{"tenant":"a","tire":"pro"}"#, "tire"),
            (r#"{"tenant":"a","tier":"typo"}"#, "tier"),
            (r#"{"tenant":"a","scopes":"x"}"#, "scopes"),
            (r#"{"tenant":"a","expires_at":-1}"#, "expires_at"),
        ] {
            assert_eq!(
                new_key(quotas, body.as_bytes()).unwrap_err().param_name(),
                Some(param),
                "{body}"
            );
        }
        assert!(new_key(quotas, br#"{"tenant":"a","label":null,"tier":"pro"}"#).is_ok());
        assert_eq!(overlap(b"").unwrap(), DEFAULT_OVERLAP);
        assert_eq!(overlap(br#"{"overlap":"0s"}"#).unwrap(), Duration::ZERO);
        assert!(overlap(br#"{"overlap":"soon"}"#).is_err());
    }
}
