//! The metrics that this crate emits. Labels are small fixed sets: never a key, an address or a
//! tenant.

/// Requests by what was decided about their credential. Labels: `kind`, `outcome`.
pub const DECISIONS_TOTAL: &str = "spark_auth_decisions_total";
/// Requests that a route refused to a caller who was known. Labels: `route`, `caller`.
pub const FORBIDDEN_TOTAL: &str = "spark_auth_forbidden_total";
/// Changes of keys. Label: `change`.
pub const KEY_CHANGES_TOTAL: &str = "spark_auth_key_changes_total";
/// Keys kept, those that ended included.
pub const KEYS: &str = "spark_auth_keys";
/// Changes that the key store failed to keep.
pub const STORE_FAILURES_TOTAL: &str = "spark_auth_store_failures_total";

/// Describes every metric to the installed recorder. Call it once, at the start.
///
/// # Example
/// ```
/// spark_auth::metrics::describe();
/// ```
pub fn describe() {
    #[cfg(feature = "metrics")]
    {
        ::metrics::describe_counter!(
            DECISIONS_TOTAL,
            "Requests by kind (user, master, anonymous, unknown) and outcome of their credential"
        );
        ::metrics::describe_counter!(
            FORBIDDEN_TOTAL,
            "Requests that a route refused, by what it requires and who called"
        );
        ::metrics::describe_counter!(
            KEY_CHANGES_TOTAL,
            "Keys issued, rotated, suspended, resumed and revoked by this process"
        );
        ::metrics::describe_gauge!(KEYS, "Keys kept, those that ended included");
        ::metrics::describe_counter!(
            STORE_FAILURES_TOTAL,
            "Changes of keys that the store failed to keep"
        );
    }
}

/// What was decided about a request's credential. The order is that of the table below.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Decision {
    User,
    Master,
    Anonymous,
    Outer,
    Missing,
    UnsupportedScheme,
    InvalidRequest,
    Throttled,
    Malformed,
    WrongMaster,
    UnknownKey,
    WrongSecret,
    UnknownPepper,
    Revoked,
    Suspended,
    Address,
    Environment,
    Expired,
    NotYetValid,
}

impl From<crate::Rejected> for Decision {
    fn from(reason: crate::Rejected) -> Self {
        use crate::Rejected;
        match reason {
            Rejected::Malformed => Self::Malformed,
            Rejected::WrongMaster => Self::WrongMaster,
            Rejected::UnknownKey => Self::UnknownKey,
            Rejected::WrongSecret => Self::WrongSecret,
            Rejected::UnknownPepper => Self::UnknownPepper,
            Rejected::Revoked => Self::Revoked,
            Rejected::Suspended => Self::Suspended,
            Rejected::Address => Self::Address,
            Rejected::Environment => Self::Environment,
            Rejected::Expired => Self::Expired,
            Rejected::NotYetValid => Self::NotYetValid,
        }
    }
}

#[cfg(feature = "metrics")]
const DECISIONS: [(&str, &str); 19] = [
    ("user", "accepted"),
    ("master", "accepted"),
    ("anonymous", "accepted"),
    ("outer", "accepted"),
    ("anonymous", "missing"),
    ("unknown", "unsupported_scheme"),
    ("unknown", "invalid_request"),
    ("unknown", "throttled"),
    ("unknown", "malformed"),
    ("master", "wrong_master"),
    ("user", "unknown_key"),
    ("user", "wrong_secret"),
    ("user", "unknown_pepper"),
    ("user", "revoked"),
    ("user", "suspended"),
    ("user", "address"),
    ("user", "environment"),
    ("user", "expired"),
    ("user", "not_yet_valid"),
];

/// The counters of a layer, resolved at its first call, when the recorder is installed.
#[derive(Clone, Default)]
pub(crate) struct Counters {
    #[cfg(feature = "metrics")]
    decisions: std::sync::OnceLock<[::metrics::Counter; DECISIONS.len()]>,
}

impl Counters {
    pub(crate) fn count(&self, decision: Decision, keys: impl FnOnce() -> usize) {
        #[cfg(feature = "metrics")]
        self.decisions.get_or_init(|| {
            gauge_keys(keys());
            DECISIONS.map(
                |(kind, outcome)| ::metrics::counter!(DECISIONS_TOTAL, "kind" => kind, "outcome" => outcome),
            )
        })[decision as usize]
            .increment(1);
        #[cfg(not(feature = "metrics"))]
        let _ = (decision, keys);
    }
}

impl std::fmt::Debug for Counters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Counters")
    }
}

pub(crate) fn forbidden(route: &'static str, caller: &'static str) {
    #[cfg(feature = "metrics")]
    ::metrics::counter!(FORBIDDEN_TOTAL, "route" => route, "caller" => caller).increment(1);
    #[cfg(not(feature = "metrics"))]
    let _ = (route, caller);
}

pub(crate) fn key_changed(change: &'static str, keys: usize) {
    #[cfg(feature = "metrics")]
    {
        ::metrics::counter!(KEY_CHANGES_TOTAL, "change" => change).increment(1);
        gauge_keys(keys);
    }
    #[cfg(not(feature = "metrics"))]
    let _ = (change, keys);
}

/// Other processes have changed keys.
pub(crate) fn keys_refreshed(keys: usize) {
    #[cfg(feature = "metrics")]
    gauge_keys(keys);
    #[cfg(not(feature = "metrics"))]
    let _ = keys;
}

pub(crate) fn store_failed() {
    #[cfg(feature = "metrics")]
    ::metrics::counter!(STORE_FAILURES_TOTAL).increment(1);
}

#[cfg(feature = "metrics")]
fn gauge_keys(keys: usize) {
    // Exact up to 2^53 keys.
    ::metrics::gauge!(KEYS).set(keys as f64);
}
