//! What is counted, and where it is described.

/// Gauge: connections that are open.
pub const CONNECTIONS: &str = "spark_serve_connections";
/// Counter: connections that were closed, by `reason`.
pub const CONNECTIONS_CLOSED_TOTAL: &str = "spark_serve_connections_closed_total";
/// Counter: connections that were closed as soon as they were accepted, by `reason`.
pub const CONNECTIONS_REFUSED_TOTAL: &str = "spark_serve_connections_refused_total";
/// Counter: accepts that failed, by `kind`.
pub const ACCEPT_ERRORS_TOTAL: &str = "spark_serve_accept_errors_total";
/// Counter: request bodies that took too long, by `kind`.
pub const BODY_TIMEOUTS_TOTAL: &str = "spark_serve_body_timeouts_total";

/// Describes every metric of this crate to the recorder in place; call it once, at the start.
///
/// # Example
/// ```
/// spark_serve::metrics::describe();
/// ```
pub fn describe() {
    #[cfg(feature = "metrics")]
    {
        use ::metrics::{describe_counter, describe_gauge};
        describe_gauge!(CONNECTIONS, "Connections that are open");
        describe_counter!(
            CONNECTIONS_CLOSED_TOTAL,
            "Connections that were closed, by reason: finished, idle, header_timeout, \
             write_timeout, bad_request, broken, service, panic, aborted"
        );
        describe_counter!(
            CONNECTIONS_REFUSED_TOTAL,
            "Connections that were closed as soon as they were accepted, by reason: full, per_ip"
        );
        describe_counter!(
            ACCEPT_ERRORS_TOTAL,
            "Accepts that failed, by kind: peer (it left again), resources (such as files)"
        );
        describe_counter!(
            BODY_TIMEOUTS_TOTAL,
            "Request bodies that took too long, by kind: idle, total"
        );
    }
}

/// Why a connection was closed as soon as it was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Full,
    PerIp,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    /// By either side, between requests.
    Finished,
    /// Nothing came after a response.
    Idle,
    /// The first request did not come whole.
    HeaderTimeout,
    /// The client did not read.
    WriteTimeout,
    /// What came was not HTTP, or too much of it.
    BadRequest,
    /// The client left within a request, or the network did.
    Broken,
    /// The body of a response failed.
    Service,
    /// The service panicked.
    Panic,
    /// Cut at the drain's deadline.
    Aborted,
}

/// What an accept failed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AcceptError {
    Peer,
    Resources,
}

impl Refused {
    fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::PerIp => "per_ip",
        }
    }
}

impl Closed {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Idle => "idle",
            Self::HeaderTimeout => "header_timeout",
            Self::WriteTimeout => "write_timeout",
            Self::BadRequest => "bad_request",
            Self::Broken => "broken",
            Self::Service => "service",
            Self::Panic => "panic",
            Self::Aborted => "aborted",
        }
    }
}

impl AcceptError {
    fn label(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Resources => "resources",
        }
    }
}

pub(crate) fn opened() {
    #[cfg(feature = "metrics")]
    ::metrics::gauge!(CONNECTIONS).increment(1.0);
}

pub(crate) fn closed() {
    #[cfg(feature = "metrics")]
    ::metrics::gauge!(CONNECTIONS).decrement(1.0);
}

pub(crate) fn ended(reason: Closed, connections: usize) {
    count(
        CONNECTIONS_CLOSED_TOTAL,
        "reason",
        reason.label(),
        connections,
    );
}

pub(crate) fn refused(reason: Refused) {
    count(CONNECTIONS_REFUSED_TOTAL, "reason", reason.label(), 1);
}

pub(crate) fn accept_error(kind: AcceptError) {
    count(ACCEPT_ERRORS_TOTAL, "kind", kind.label(), 1);
}

pub(crate) fn body_timeout(kind: &'static str) {
    count(BODY_TIMEOUTS_TOTAL, "kind", kind, 1);
}

#[cfg(feature = "metrics")]
fn count(name: &'static str, label: &'static str, value: &'static str, by: usize) {
    ::metrics::counter!(name, label => value).increment(by as u64);
}

#[cfg(not(feature = "metrics"))]
fn count(_name: &'static str, _label: &'static str, _value: &'static str, _by: usize) {}
