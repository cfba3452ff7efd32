//! The names of the metrics that this crate emits, and nothing else.
//!
//! Labels are bounded: the layer's `scope`, a policy's configured name, an exemption's name, and
//! one of four decisions. Never a key, an address or a tenant.

/// Counter: requests by what became of them. Labels `scope`, and `decision`: `allowed`, `denied`,
/// `exempt`, `repeated` (charged already by the same limiter).
pub const DECISIONS_TOTAL: &str = "spark_ratelimit_decisions_total";
/// Counter: how often each policy refused. Labels `scope`, `policy`.
pub const VIOLATIONS_TOTAL: &str = "spark_ratelimit_violations_total";
/// Counter: requests that were not charged. Labels `scope`, `exemption`.
pub const EXEMPT_TOTAL: &str = "spark_ratelimit_exempt_total";
/// Gauge: slots of a policy's table. Labels `scope`, `policy`.
pub const TABLE_SLOTS: &str = "spark_ratelimit_table_slots";
/// Gauge: slots that hold a debt, estimated. Labels `scope`, `policy`.
pub const TABLE_OCCUPIED_SLOTS: &str = "spark_ratelimit_table_occupied_slots";
/// Counter: debts that were forgotten because the table was full. Labels `scope`, `policy`.
pub const TABLE_EVICTED_LIVE_TOTAL: &str = "spark_ratelimit_table_evicted_live_total";

/// Describes every metric of this crate to the installed recorder. Call it once, after installing.
///
/// # Example
/// ```
/// spark_ratelimit::metrics::describe();
/// ```
#[cfg(feature = "metrics")]
pub fn describe() {
    use ::metrics::{describe_counter, describe_gauge};
    describe_counter!(
        DECISIONS_TOTAL,
        "Requests by what the rate limit decided: allowed, denied, exempt, repeated."
    );
    describe_counter!(
        VIOLATIONS_TOTAL,
        "Refusals by the policy that refused; one request may violate several."
    );
    describe_counter!(
        EXEMPT_TOTAL,
        "Requests that passed without being charged, by the exemption's name."
    );
    describe_gauge!(TABLE_SLOTS, "Slots of the policy's table, fixed.");
    describe_gauge!(
        TABLE_OCCUPIED_SLOTS,
        "Slots of the policy's table that hold a debt, estimated from a sample."
    );
    describe_counter!(
        TABLE_EVICTED_LIVE_TOTAL,
        "Debts that were forgotten because the table was full: raise its capacity."
    );
}

#[cfg(feature = "metrics")]
pub(crate) use on::Meter;

#[cfg(feature = "metrics")]
mod on {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use ::metrics::{Counter, counter, gauge};

    use super::{
        DECISIONS_TOTAL, EXEMPT_TOTAL, TABLE_EVICTED_LIVE_TOTAL, TABLE_OCCUPIED_SLOTS, TABLE_SLOTS,
        VIOLATIONS_TOTAL,
    };
    use crate::{Decision, Limiter};

    /// The tables are looked at this often, by whichever request comes next.
    const TABLE_PERIOD_NANOS: u64 = 5_000_000_000;

    /// One layer's handles.
    pub(crate) struct Meter {
        scope: &'static str,
        handles: OnceLock<Handles>,
        /// When the tables are looked at next, in nanoseconds of the limiter's clock.
        tables_due: AtomicU64,
    }

    struct Handles {
        allowed: Counter,
        denied: Counter,
        exempt: Counter,
        repeated: Counter,
    }

    impl Meter {
        pub(crate) fn new(scope: &'static str) -> Self {
            Self {
                scope,
                handles: OnceLock::new(),
                tables_due: AtomicU64::new(0),
            }
        }

        pub(crate) fn decided(&self, decision: &Decision<'_>, limiter: &Limiter) {
            if decision.allowed() {
                self.handles().allowed.increment(1);
            } else {
                self.denied(decision);
            }
            self.tables(decision.now(), limiter);
        }

        #[cold]
        fn denied(&self, decision: &Decision<'_>) {
            self.handles().denied.increment(1);
            for policy in decision.violated() {
                let policy = policy.to_owned();
                counter!(VIOLATIONS_TOTAL, "scope" => self.scope, "policy" => policy).increment(1);
            }
        }

        pub(crate) fn exempt(&self, name: &'static str) {
            self.handles().exempt.increment(1);
            counter!(EXEMPT_TOTAL, "scope" => self.scope, "exemption" => name).increment(1);
        }

        pub(crate) fn repeated(&self) {
            self.handles().repeated.increment(1);
        }

        fn tables(&self, now: u64, limiter: &Limiter) {
            let due = self.tables_due.load(Ordering::Relaxed);
            let next = now.saturating_add(TABLE_PERIOD_NANOS);
            let mine = || {
                self.tables_due
                    .compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed)
                    .is_ok()
            };
            if now < due || !mine() {
                return;
            }
            for table in limiter.stats() {
                let labels = [
                    ::metrics::Label::from_static_parts("scope", self.scope),
                    ::metrics::Label::new("policy", table.policy),
                ];
                gauge!(TABLE_SLOTS, labels.iter()).set(table.capacity as f64);
                gauge!(TABLE_OCCUPIED_SLOTS, labels.iter()).set(table.occupied as f64);
                counter!(TABLE_EVICTED_LIVE_TOTAL, labels.iter()).absolute(table.evicted_live);
            }
        }

        fn handles(&self) -> &Handles {
            let decision =
                |decision| counter!(DECISIONS_TOTAL, "scope" => self.scope, "decision" => decision);
            self.handles.get_or_init(|| Handles {
                allowed: decision("allowed"),
                denied: decision("denied"),
                exempt: decision("exempt"),
                repeated: decision("repeated"),
            })
        }
    }
}

#[cfg(not(feature = "metrics"))]
pub(crate) use off::Meter;

#[cfg(not(feature = "metrics"))]
mod off {
    use crate::{Decision, Limiter};

    pub(crate) struct Meter;

    impl Meter {
        pub(crate) fn new(_: &'static str) -> Self {
            Self
        }

        pub(crate) fn decided(&self, _: &Decision<'_>, _: &Limiter) {}

        pub(crate) fn exempt(&self, _: &'static str) {}

        pub(crate) fn repeated(&self) {}
    }
}
