//! The names that this crate emits, and nothing else.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

pub(crate) const HTTP_REQUESTS: &str = "spark_http_requests_total";
pub(crate) const HTTP_DURATION: &str = "spark_http_request_duration_seconds";
pub(crate) const HTTP_FIRST_BYTE: &str = "spark_http_time_to_first_byte_seconds";
pub(crate) const HTTP_RESPONSE_BYTES: &str = "spark_http_response_body_bytes";
pub(crate) const HTTP_IN_FLIGHT: &str = "spark_http_requests_in_flight";
pub(crate) const HTTP_REFUSALS: &str = "spark_http_refusals_total";
pub(crate) const AI_REQUESTS: &str = "spark_ai_requests_total";
pub(crate) const AI_TOKENS: &str = "spark_ai_tokens_total";
pub(crate) const AI_UPSTREAM: &str = "spark_ai_upstream_duration_seconds";
pub(crate) const SERIES: &str = "spark_metrics_series";
pub(crate) const OVERFLOW: &str = "spark_metrics_overflow_total";
pub(crate) const REFUSED: &str = "spark_metrics_refused_total";
pub(crate) const BUILD_INFO: &str = "spark_build_info";
pub(crate) const START_TIME: &str = "process_start_time_seconds";

/// Describes every metric that this crate emits to the current recorder.
///
/// [`MetricsBuilder`](crate::MetricsBuilder) does it by itself; call it when another recorder is
/// in use. A second call changes nothing.
///
/// ```
/// spark_metrics::describe();
/// ```
pub fn describe() {
    describe_counter!(
        HTTP_REQUESTS,
        Unit::Count,
        "Requests that ended, by method, route, status (none: no response head was made) and outcome (complete, cancelled, error)."
    );
    describe_histogram!(
        HTTP_DURATION,
        Unit::Seconds,
        "Time from a request's arrival until its response body ended, by method, route and status class."
    );
    describe_histogram!(
        HTTP_FIRST_BYTE,
        Unit::Seconds,
        "Time from a request's arrival until the first byte of its response body, by method and route."
    );
    describe_histogram!(
        HTTP_RESPONSE_BYTES,
        Unit::Bytes,
        "Bytes of response body handed to the connection, by method and route."
    );
    describe_gauge!(
        HTTP_IN_FLIGHT,
        Unit::Count,
        "Requests whose response body has not ended yet."
    );
    describe_counter!(
        HTTP_REFUSALS,
        Unit::Count,
        "Requests that a layer refused, by the layer and its code."
    );
    describe_counter!(
        AI_REQUESTS,
        Unit::Count,
        "Requests that a model provider answered, by provider and model."
    );
    describe_counter!(
        AI_TOKENS,
        Unit::Count,
        "Tokens that providers reported, by provider, model and type (input, output)."
    );
    describe_histogram!(
        AI_UPSTREAM,
        Unit::Seconds,
        "Time spent waiting for the model provider, by provider and model."
    );
    describe_gauge!(SERIES, Unit::Count, "Series that the recorder holds.");
    describe_counter!(
        OVERFLOW,
        Unit::Count,
        "Look-ups that landed in a metric's overflow series because it had reached its cap, by metric."
    );
    describe_counter!(
        REFUSED,
        Unit::Count,
        "Look-ups answered with a handle that records nothing, by reason (names: too many metrics; kind: the name is in use as another kind)."
    );
    describe_gauge!(BUILD_INFO, "Always 1; the label carries the version.");
    describe_gauge!(
        START_TIME,
        Unit::Seconds,
        "When the recorder was made, in seconds since 1970."
    );
}
