//! `GET /api/spark/usage`: what was used, by tenant.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::json;
use spark_core::{Context, Principal, Problem};

use super::refuse;
use crate::app::App;

/// A user sees the own tenant, the master all of them.
pub(crate) async fn usage(State(app): State<Arc<App>>, context: Context) -> Response {
    match context.principal() {
        Some(Principal::Master) => {
            let lines: BTreeMap<String, _> = app
                .ledger
                .all()
                .into_iter()
                .map(|(tenant, line)| (tenant.to_string(), line))
                .collect();
            Json(json!({ "tenants": lines, "others": app.ledger.others() })).into_response()
        }
        Some(Principal::User(user)) => {
            let line = app.ledger.of(&user.tenant);
            Json(json!({ "tenants": { user.tenant.as_str(): line } })).into_response()
        }
        _ => refuse(
            &context,
            Problem::new(StatusCode::UNAUTHORIZED, "auth", "missing_key")
                .detail("Usage is kept by tenant: send a key."),
        ),
    }
}
