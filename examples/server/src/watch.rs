//! The health of everything that stands behind the routes.

use axum::body::Body;
use axum::response::Response;
use spark_auth::Authenticator;
use spark_breaker::Registry;
use spark_cache::Cache;
use spark_core::Clock;
use spark_errors::ErrorTracker;
use spark_health::{CheckResult, Gate, Health, Report};
use spark_metrics::Metrics;

use crate::app::Limiters;
use crate::ask::chain;
use crate::config::CONCURRENCY;

/// What is watched.
pub(crate) struct Watched {
    pub clock: Clock,
    pub breakers: Registry,
    pub metrics: Metrics,
    pub errors: ErrorTracker,
    pub cache: Cache,
    pub auth: Authenticator,
    pub limits: Limiters,
}

/// An open breaker is a warning and no reason to take the server out: the cache still serves, and
/// another provider may.
pub(crate) fn health(watched: Watched) -> Result<Health, String> {
    let Watched {
        clock,
        breakers,
        metrics,
        errors,
        cache,
        auth,
        limits,
    } = watched;
    Health::builder()
        .service_id("spark-server")
        .release(env!("CARGO_PKG_VERSION"))
        .clock(clock)
        .check_fn("breakers", Gate::Warn, move || breaker_states(&breakers))
        .check_fn("metrics", Gate::Warn, move || recorder(&metrics))
        .check_fn("errors", Gate::Warn, move || tracker(&errors))
        .check_fn("cache", Gate::Info, move || {
            CheckResult::pass().observed(cache.stats().bytes, "bytes")
        })
        .check_fn("keys", Gate::Info, move || {
            CheckResult::pass().observed(auth.len(), "keys")
        })
        .check_fn("limits", Gate::Info, move || tables(&limits))
        .build()
        .map_err(|e| chain(&e))
}

/// The report as a response: the status for anyone, or everything.
pub(crate) fn respond(report: Report, detailed: bool) -> Response {
    let response = match detailed {
        true => report.into_response(),
        false => report.public().into_response(),
    };
    response.map(Body::from)
}

fn breaker_states(registry: &Registry) -> CheckResult {
    let health = registry.health();
    let all = match health.unwell.len() {
        0 => CheckResult::pass(),
        unwell => CheckResult::warn(format!("{unwell} of {} are not well", health.breakers)),
    };
    let all = all.observed(health.worst.as_str(), "worst state");
    health.unwell.iter().fold(all, |all, one| {
        let part = CheckResult::warn(one.to_string()).observed(one.state.as_str(), "state");
        all.part(one.name.to_string(), part)
    })
}

fn recorder(metrics: &Metrics) -> CheckResult {
    let stats = metrics.stats();
    let result = if !stats.upkeep_running {
        CheckResult::warn("the upkeep has ended: memory will grow")
    } else if stats.overflowed > 0 || stats.refused > 0 {
        CheckResult::warn("some series were beyond the cap")
    } else {
        CheckResult::pass()
    };
    result.observed(stats.series, "series")
}

fn tracker(errors: &ErrorTracker) -> CheckResult {
    let stats = errors.stats();
    let dropped: u64 = stats.hooks.iter().map(|hook| hook.dropped).sum();
    let result = match dropped {
        0 => CheckResult::pass(),
        _ => CheckResult::warn(format!("{dropped} events did not reach their hook")),
    };
    result.observed(stats.groups, "groups")
}

fn tables(limits: &Limiters) -> CheckResult {
    let limiters = [&limits.ip, &limits.tenant, &limits.export].into_iter();
    let tables = limiters
        .chain(&limits.tokens)
        .flat_map(|limiter| limiter.stats());
    let tables: Vec<_> = tables.collect();
    let judged = |evicted: u64| match evicted {
        0 => CheckResult::pass(),
        _ => CheckResult::warn("debts were forgotten: raise ratelimit.capacity"),
    };
    let evicted = tables.iter().map(|table| table.evicted_live).sum();
    let all = judged(evicted).observed(evicted, "evictions");
    let all = tables.into_iter().fold(all, |all, table| {
        let part = judged(table.evicted_live).observed(table.occupied, "callers in debt");
        all.part(table.policy, part)
    });
    let Some(concurrency) = &limits.concurrency else {
        return all;
    };
    let part = CheckResult::pass().observed(concurrency.keys(), "callers under way");
    all.part(CONCURRENCY, part)
}
