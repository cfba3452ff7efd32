//! The operator's view: health, errors, breakers, the stack, reload, metrics.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};
use spark_breaker::{Mode, Snapshot, Trip};
use spark_core::{ClientIp, Context, Principal, Problem};

use super::{invalid, refuse, shown_path};
use crate::app::App;
use crate::reload;

const RECENT: usize = 50;

/// One line in the log for each use of the control plane, also when the client is gone before the
/// answer.
pub(crate) async fn audit(request: Request, next: Next) -> Response {
    let mut line = AuditLine {
        method: request.method().clone(),
        path: shown_path(request.uri()),
        client: Context::of(request.extensions()).and_then(Context::client_ip),
        status: None,
    };
    let response = next.run(request).await;
    line.status = Some(response.status().as_u16());
    response
}

struct AuditLine {
    method: http::Method,
    path: String,
    client: Option<ClientIp>,
    status: Option<u16>,
}

impl Drop for AuditLine {
    fn drop(&mut self) {
        let client = self.client.map(|ip| ip.to_string());
        tracing::info!(
            target: "audit",
            method = %self.method,
            path = self.path,
            client = client.as_deref().unwrap_or("unknown"),
            status = self.status,
            answered = self.status.is_some(),
            "control plane used"
        );
    }
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
    let now = app.clock.unix_time();
    let snapshots = app.breakers.snapshots();
    let breakers: Vec<Value> = snapshots.iter().map(|it| shown(it, now)).collect();
    Json(json!({ "breakers": breakers })).into_response()
}

pub(crate) async fn set_breaker(
    State(app): State<Arc<App>>,
    context: Context,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Response {
    let Ok(Path((name, action))) = path else {
        return refuse(&context, invalid("name", "is not UTF-8."));
    };
    let Some(breaker) = app.breakers.get(&name) else {
        let problem = Problem::new(StatusCode::NOT_FOUND, "server", "breaker_not_found")
            .detail("No breaker has this name: GET /api/spark/breakers lists them.");
        return refuse(&context, problem);
    };
    match action.as_str() {
        "open" => breaker.set_mode(Mode::ForcedOpen),
        "close" => breaker.set_mode(Mode::ForcedClosed),
        "auto" => breaker.set_mode(Mode::Auto),
        "metrics_only" => breaker.set_mode(Mode::MetricsOnly),
        "disable" => breaker.set_mode(Mode::Disabled),
        "reset" => breaker.reset(),
        _ => {
            let problem = Problem::new(StatusCode::NOT_FOUND, "server", "action_not_found")
                .detail("The actions are open, close, auto, metrics_only, disable and reset.");
            return refuse(&context, problem);
        }
    }
    Json(shown(&breaker.snapshot(), app.clock.unix_time())).into_response()
}

pub(crate) async fn stack(State(app): State<Arc<App>>) -> Response {
    Json(app.stack()).into_response()
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

pub(crate) async fn metrics(State(app): State<Arc<App>>, context: Context) -> Response {
    // A large page takes milliseconds, which no request should wait for.
    let metrics = app.metrics.clone();
    crate::log::count_dropped();
    match tokio::task::spawn_blocking(move || metrics.render()).await {
        Ok(page) => ([(CONTENT_TYPE, spark_metrics::CONTENT_TYPE)], page).into_response(),
        Err(_) => refuse(
            &context,
            Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "server",
                "internal_error",
            ),
        ),
    }
}

fn trip(trip: Trip) -> Value {
    json!({
        "reason": trip.reason.to_string(),
        "seconds_ago": trip.ago.as_secs_f64(),
    })
}

/// `until` is in seconds since 1970, as all times here.
fn shown(snapshot: &Snapshot, now: Duration) -> Value {
    let until = snapshot.retry_after.map(|after| now + after);
    json!({
        "name": &*snapshot.name,
        "state": snapshot.state.as_str(),
        "mode": snapshot.mode.as_str(),
        "calls": snapshot.calls,
        "failures": snapshot.failures,
        "slow": snapshot.slow,
        "failure_rate": snapshot.failure_rate,
        "in_flight": snapshot.in_flight,
        "in_flight_slow": snapshot.in_flight_slow,
        "retry_after_seconds": snapshot.retry_after.map(|after| after.as_secs_f64()),
        "until": until.map(spark_core::whole_seconds),
        "exhausted": snapshot.exhausted,
        "last_trip": snapshot.last_trip.map(trip),
        "would_trip": snapshot.would_trip.map(trip),
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
