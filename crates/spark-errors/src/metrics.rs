//! The names that this crate emits, and nothing else.

#[cfg(feature = "metrics")]
use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

/// Describes every metric that this crate emits to the current recorder.
///
/// ```
/// # #[cfg(feature = "metrics")]
/// spark_errors::describe();
/// ```
#[cfg(feature = "metrics")]
pub fn describe() {
    describe_counter!(
        "spark_errors_total",
        Unit::Count,
        "Errors that were captured, by kind."
    );
    describe_counter!(
        "spark_errors_suppressed_total",
        Unit::Count,
        "Errors that were only counted, because their group had reached its share of the window."
    );
    describe_gauge!(
        "spark_errors_groups",
        Unit::Count,
        "Groups of like errors that are held."
    );
    describe_counter!(
        "spark_errors_groups_evicted_total",
        Unit::Count,
        "Groups that were forgotten because the table was full."
    );
    describe_counter!(
        "spark_errors_hook_delivered_total",
        Unit::Count,
        "Errors that a hook has delivered, by hook."
    );
    describe_counter!(
        "spark_errors_hook_dropped_total",
        Unit::Count,
        "Errors that a hook did not deliver, by hook and reason (queue_full, failed, rejected, resting, recursion, closed)."
    );
}

#[cfg(feature = "metrics")]
pub(crate) fn captured(kind: &'static str) {
    counter!("spark_errors_total", "kind" => kind).increment(1);
}

#[cfg(feature = "metrics")]
pub(crate) fn suppressed() {
    counter!("spark_errors_suppressed_total").increment(1);
}

#[cfg(feature = "metrics")]
pub(crate) fn groups(held: usize, evicted: u64) {
    #[expect(clippy::cast_precision_loss, reason = "groups are far fewer than 2^52")]
    gauge!("spark_errors_groups").set(held as f64);
    if evicted > 0 {
        counter!("spark_errors_groups_evicted_total").increment(evicted);
    }
}

#[cfg(feature = "metrics")]
pub(crate) fn delivered(hook: &str) {
    counter!("spark_errors_hook_delivered_total", "hook" => hook.to_owned()).increment(1);
}

#[cfg(feature = "metrics")]
pub(crate) fn dropped(hook: &str, reason: &'static str) {
    counter!("spark_errors_hook_dropped_total", "hook" => hook.to_owned(), "reason" => reason)
        .increment(1);
}

#[cfg(not(feature = "metrics"))]
mod off {
    pub(crate) fn captured(_: &'static str) {}
    pub(crate) fn suppressed() {}
    pub(crate) fn groups(_: usize, _: u64) {}
    pub(crate) fn delivered(_: &str) {}
    pub(crate) fn dropped(_: &str, _: &'static str) {}
}

#[cfg(not(feature = "metrics"))]
pub(crate) use off::{captured, delivered, dropped, groups, suppressed};
