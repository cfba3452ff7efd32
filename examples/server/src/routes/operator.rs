//! The operator's view: health, errors, breakers, the stack, reload, metrics.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};
use spark_breaker::{Mode, Snapshot};
use spark_core::{Context, Principal, Problem};

use super::refuse;
use crate::app::App;
use crate::reload;

const RECENT: usize = 50;

/// One line in the log for each use of the control plane.
pub(crate) async fn audit(request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let path: String = request.uri().path().chars().take(200).collect();
    let client = Context::of(request.extensions())
        .and_then(Context::client_ip)
        .map_or_else(|| "unknown".to_owned(), |ip| ip.to_string());
    let response = next.run(request).await;
    tracing::info!(target: "audit", %method, path, client, status = response.status().as_u16(), "control plane used");
    response
}

/// The status for anyone, the details for the master.
pub(crate) async fn health(State(app): State<Arc<App>>, context: Context) -> Response {
    let report = app.health.report().await;
    let detailed = context.principal().is_some_and(Principal::is_master);
    crate::watch::respond(report, detailed)
}

pub(crate) async fn errors(State(app): State<Arc<App>>) -> Response {
    Json(json!({
        "stats": app.errors.stats(),
        "groups": app.errors.groups(),
        "recent": app.errors.recent(RECENT),
    }))
    .into_response()
}

pub(crate) async fn breakers(State(app): State<Arc<App>>) -> Response {
    let breakers: Vec<Value> = app.breakers.snapshots().iter().map(shown).collect();
    Json(json!({ "breakers": breakers })).into_response()
}

pub(crate) async fn set_breaker(
    State(app): State<Arc<App>>,
    context: Context,
    Path((name, action)): Path<(String, String)>,
) -> Response {
    let Some(breaker) = app.breakers.get(&name) else {
        let problem = Problem::new(StatusCode::NOT_FOUND, "server", "breaker_not_found")
            .detail("No provider has this name: GET /api/spark/breakers lists them.");
        return refuse(&context, problem);
    };
    match action.as_str() {
        "open" => breaker.set_mode(Mode::ForcedOpen),
        "close" => breaker.set_mode(Mode::ForcedClosed),
        "auto" => breaker.set_mode(Mode::Auto),
        "reset" => breaker.reset(),
        _ => {
            let problem = Problem::new(StatusCode::NOT_FOUND, "server", "action_not_found")
                .detail("The actions are open, close, auto and reset.");
            return refuse(&context, problem);
        }
    }
    Json(shown(&breaker.snapshot())).into_response()
}

pub(crate) async fn stack(State(app): State<Arc<App>>) -> Response {
    Json(app.stack.get().cloned().unwrap_or_default()).into_response()
}

pub(crate) async fn reload(State(app): State<Arc<App>>, context: Context) -> Response {
    match reload::reload(&app) {
        Ok(reloaded) => Json(json!(reloaded)).into_response(),
        Err(error) => refuse(
            &context,
            Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "server",
                "configuration_invalid",
            )
            .detail(format!("Nothing was changed. {error}")),
        ),
    }
}

pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Response {
    // A large page takes milliseconds, which no request should wait for.
    let metrics = app.metrics.clone();
    match tokio::task::spawn_blocking(move || metrics.render()).await {
        Ok(page) => ([(CONTENT_TYPE, spark_metrics::CONTENT_TYPE)], page).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn shown(snapshot: &Snapshot) -> Value {
    json!({
        "name": &*snapshot.name,
        "state": snapshot.state.as_str(),
        "mode": snapshot.mode.as_str(),
        "calls": snapshot.calls,
        "failures": snapshot.failures,
        "slow": snapshot.slow,
        "failure_rate": snapshot.failure_rate,
        "in_flight": snapshot.in_flight,
        "retry_after_seconds": snapshot.retry_after.map(|after| after.as_secs_f64()),
        "last_trip": snapshot.last_trip.map(|trip| json!({
            "reason": trip.reason.to_string(),
            "seconds_ago": trip.ago.as_secs_f64(),
        })),
        "totals": {
            "successes": snapshot.totals.successes,
            "failures": snapshot.totals.failures,
            "throttled": snapshot.totals.throttled,
            "ignored": snapshot.totals.ignored,
            "cancelled": snapshot.totals.cancelled,
            "late": snapshot.totals.late,
        },
    })
}
