//! The names of the metrics that this crate emits. Labels come from fixed sets.

/// Counter: findings in inspected fields. Labels `rule`, `action`.
pub const FINDINGS_TOTAL: &str = "spark_sanitize_findings_total";
/// Counter: requests that were refused. Label `reason`, the code of the refusal.
pub const REFUSALS_TOTAL: &str = "spark_sanitize_refusals_total";
/// Counter: bodies of another type than JSON that were let through as configured. No labels.
pub const UNCHECKED_TOTAL: &str = "spark_sanitize_unchecked_total";

/// Describes every metric of this crate to the installed recorder. Call it once, after installing.
///
/// ```
/// spark_sanitize::metrics::describe();
/// ```
#[cfg(feature = "metrics")]
pub fn describe() {
    ::metrics::describe_counter!(
        FINDINGS_TOTAL,
        "Findings in the inspected fields of request bodies, by rule and by the action taken."
    );
    ::metrics::describe_counter!(
        REFUSALS_TOTAL,
        "Requests that the sanitizer or the body limit refused, by reason."
    );
    ::metrics::describe_counter!(
        UNCHECKED_TOTAL,
        "Request bodies that are no JSON and were let through unread, as configured."
    );
}

#[cfg(feature = "metrics")]
pub(crate) fn finding(rule: &'static str, action: &'static str) {
    ::metrics::counter!(FINDINGS_TOTAL, "rule" => rule, "action" => action).increment(1);
}

#[cfg(feature = "metrics")]
pub(crate) fn refusal(reason: &'static str) {
    ::metrics::counter!(REFUSALS_TOTAL, "reason" => reason).increment(1);
}

#[cfg(feature = "metrics")]
pub(crate) fn unchecked() {
    ::metrics::counter!(UNCHECKED_TOTAL).increment(1);
}

#[cfg(not(feature = "metrics"))]
pub(crate) fn finding(_rule: &'static str, _action: &'static str) {}

#[cfg(not(feature = "metrics"))]
pub(crate) fn refusal(_reason: &'static str) {}

#[cfg(not(feature = "metrics"))]
pub(crate) fn unchecked() {}
