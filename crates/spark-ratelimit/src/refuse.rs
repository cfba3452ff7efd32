//! The answers to those who are refused.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use spark_core::Problem;

use crate::fields::Customs;
use crate::headers::{self, PolicyItem, RATE_LIMIT, RATE_LIMIT_POLICY};
use crate::jitter::jittered;
use crate::layer::Config;
use crate::{ConcurrencyLimiter, Decision, Headers, Key, Unit};

const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";
/// Nobody knows when what is under way will end.
const A_WHILE: Duration = Duration::from_secs(1);

/// 429: a policy refuses.
pub(crate) fn quota_exceeded(config: &Config, decision: &Decision<'_>, key: Key) -> Problem {
    let mut violated: Vec<serde_json::Value> = Vec::new();
    decision.each_violated(|name| violated.push(name.into()));
    tracing::debug!(scope = config.scope, policies = ?violated, "rate limited");
    let mut problem = too_many("rate_limited");
    problem = match decision.retry_after() {
        Some(wait) => problem
            .detail("The quota is used up for now: try again after the time in Retry-After.")
            .retry_after(spread(config, wait, key)),
        None => problem.detail("The request asks for more than the quota ever allows at once."),
    };
    if config.headers != Headers::Never {
        let (limit, policy) = decision.report(|it| (it.limit_field(), it.policy_field()));
        if let Some(field) = limit {
            problem = problem.header(RATE_LIMIT, field);
        }
        if let Some(field) = policy {
            problem = problem.header(RATE_LIMIT_POLICY, field);
        }
        if let Some(customs) = Customs::of(decision, config) {
            let mut headers = HeaderMap::new();
            customs.write(&mut headers);
            for (name, value) in &headers {
                problem = problem.header(name.clone(), value.clone());
            }
        }
    }
    problem.member("violated-policies", violated.into())
}

/// 429: too many are under way.
#[cold]
pub(crate) fn at_capacity(
    config: &Config,
    limiter: &ConcurrencyLimiter,
    tier: Option<&str>,
    key: Key,
) -> Problem {
    let limit = limiter.limit();
    tracing::debug!(scope = config.scope, policy = limit.name(), "at capacity");
    let mut problem = too_many("too_many_at_once")
        .detail("Too many requests are under way at once: wait until one of them has ended.")
        .retry_after(spread(config, A_WHILE, key));
    if config.headers != Headers::Never {
        let most = u64::from(limit.most(tier));
        let item = PolicyItem::count(limit.policy_name(), most, Unit::ConcurrentRequests);
        let start = headers::limit_field_start(limit.policy_name());
        problem = problem.header(RATE_LIMIT, headers::limit_field(&start, 0, 0));
        if let Some(field) = headers::policy_field([item]) {
            problem = problem.header(RATE_LIMIT_POLICY, field);
        }
    }
    let violated = serde_json::Value::Array(vec![limit.name().into()]);
    problem.member("violated-policies", violated)
}

/// 503: nothing tells whose request it is, and the layer was told not to guess.
#[cold]
pub(crate) fn caller_unknown() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "ratelimit",
        "caller_unknown",
    )
    .detail("The server cannot tell whose quota this request belongs to.")
}

fn too_many(code: &'static str) -> Problem {
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "ratelimit", code)
        .type_uri(QUOTA_EXCEEDED)
        .title("Quota Exceeded")
}

/// Later by a share of the jitter that is the key's own, and another in each refusal.
fn spread(config: &Config, wait: Duration, key: Key) -> Duration {
    if config.jitter.is_zero() {
        return wait;
    }
    let now = config.limiter.engine().now();
    let entropy = key.and(Key::of(&now)).bits();
    jittered(wait, config.jitter, entropy)
}
