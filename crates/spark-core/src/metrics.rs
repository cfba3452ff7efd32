//! The names of the metrics that this crate emits.

/// Counter: how often a layer missed its input and took its fallback. Label `layer`.
pub const MISWIRED_TOTAL: &str = "spark_miswired_total";

/// Describes every metric of this crate to the installed recorder. Call it once, after installing.
///
/// # Example
/// ```
/// spark_core::metrics::describe();
/// ```
#[cfg(feature = "metrics")]
pub fn describe() {
    ::metrics::describe_counter!(
        MISWIRED_TOTAL,
        "Requests for which a layer missed its input (a peer address, a principal) and took its fallback."
    );
}
