//! What is counted, and where it is described.

/// Counter: responses whose policy was sent without its nonce.
pub const NONCE_FAILURES_TOTAL: &str = "spark_headers_nonce_failures_total";

/// Describes every metric of this crate to the recorder in place; call it once, at the start.
///
/// # Example
/// ```
/// spark_headers::metrics::describe();
/// ```
pub fn describe() {
    #[cfg(feature = "metrics")]
    metrics::describe_counter!(
        NONCE_FAILURES_TOTAL,
        "Responses whose policy was sent without its nonce, for want of randomness"
    );
}

#[cold]
pub(crate) fn nonce_failure() {
    #[cfg(feature = "metrics")]
    metrics::counter!(NONCE_FAILURES_TOTAL).increment(1);
    tracing::error!(
        "no randomness for a nonce: the page's scripts will not run; check getrandom(2)"
    );
}
