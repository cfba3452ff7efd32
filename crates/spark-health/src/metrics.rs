//! What is measured, and where it is described.

use spark_core::Name;

use crate::status::Status;

/// Gauge: 1 when a check passes, 0.5 when it warns, 0 when it fails. Label `check`, one of those that
/// were configured.
pub const STATUS: &str = "spark_health_status";
/// Gauge: 1 when the service was ready the last time that somebody asked, else 0.
pub const READY: &str = "spark_health_ready";

/// Describes every metric of this crate to the recorder in place; call it once, at the start.
///
/// # Example
/// ```
/// spark_health::metrics::describe();
/// ```
pub fn describe() {
    #[cfg(feature = "metrics")]
    {
        use ::metrics::describe_gauge;
        describe_gauge!(
            STATUS,
            "1 when a check passes, 0.5 when it warns, 0 when it fails, by check"
        );
        describe_gauge!(
            READY,
            "1 when the service was ready the last time that somebody asked, else 0"
        );
    }
}

#[cfg(feature = "metrics")]
pub(crate) fn checked(name: &Name, status: Status) {
    let value = match status {
        Status::Pass => 1.0,
        Status::Warn => 0.5,
        Status::Fail => 0.0,
    };
    ::metrics::gauge!(STATUS, "check" => name.as_str().to_owned()).set(value);
}

#[cfg(feature = "metrics")]
pub(crate) fn ready(ready: bool) {
    ::metrics::gauge!(READY).set(f64::from(u8::from(ready)));
}

#[cfg(not(feature = "metrics"))]
pub(crate) fn checked(_name: &Name, _status: Status) {}

#[cfg(not(feature = "metrics"))]
pub(crate) fn ready(_ready: bool) {}
