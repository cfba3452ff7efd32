//! The names of the metrics that this crate emits, and nothing else.
//!
//! Labels are bounded: the layer's `scope`, a policy's configured name, an exemption's name, and
//! one of five decisions. Never a key, an address or a tenant.

/// Counter: requests by what became of them. Labels `scope`, and `decision`: `allowed`, `denied`,
/// `exempt`, `repeated` (charged already by the same limiter), `unknown` (nothing told whose it is,
/// and the layer refuses those).
pub const DECISIONS_TOTAL: &str = "spark_ratelimit_decisions_total";
/// Counter: how often each policy refused, those for tokens and for concurrency included. Labels
/// `scope`, `policy`.
pub const VIOLATIONS_TOTAL: &str = "spark_ratelimit_violations_total";
/// Counter: how often a shadow policy would have refused. Labels `scope`, `policy`.
pub const SHADOW_VIOLATIONS_TOTAL: &str = "spark_ratelimit_shadow_violations_total";
/// Counter: requests that passed while their caller had less than a fifth of its burst left. Label
/// `scope`.
pub const NEAR_LIMIT_TOTAL: &str = "spark_ratelimit_near_limit_total";
/// Counter: reservations from a budget. Labels `scope`, and `decision`: `allowed`, `denied`.
pub const RESERVATIONS_TOTAL: &str = "spark_ratelimit_reservations_total";
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
        "Requests by what the rate limit decided: allowed, denied, exempt, repeated, unknown."
    );
    describe_counter!(
        VIOLATIONS_TOTAL,
        "Refusals by the policy that refused; one request may violate several."
    );
    describe_counter!(
        SHADOW_VIOLATIONS_TOTAL,
        "What a shadow policy would have refused, by the policy."
    );
    describe_counter!(
        NEAR_LIMIT_TOTAL,
        "Requests that passed while less than a fifth of the burst was left."
    );
    describe_counter!(
        RESERVATIONS_TOTAL,
        "Reservations from a budget such as tokens: allowed, denied."
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
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Mutex, OnceLock, PoisonError};

    use ::metrics::{Counter, counter, gauge};

    use super::{
        DECISIONS_TOTAL, EXEMPT_TOTAL, NEAR_LIMIT_TOTAL, RESERVATIONS_TOTAL,
        SHADOW_VIOLATIONS_TOTAL, TABLE_EVICTED_LIVE_TOTAL, TABLE_OCCUPIED_SLOTS, TABLE_SLOTS,
        VIOLATIONS_TOTAL,
    };
    use crate::layer::Config;
    use crate::{Decision, Limiter};

    /// The tables are looked at this often, by whichever request comes next.
    const TABLE_PERIOD_NANOS: u64 = 5_000_000_000;

    /// One layer's handles.
    pub(crate) struct Meter {
        scope: &'static str,
        handles: OnceLock<Handles>,
        /// When the tables are looked at next, in nanoseconds of the limiter's clock.
        tables_due: AtomicU64,
        named: Mutex<Vec<(&'static str, Box<str>, Counter)>>,
        reservations: OnceLock<[Counter; 2]>,
    }

    struct Handles {
        near_limit: Counter,
        unknown: Counter,
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
                named: Mutex::default(),
                reservations: OnceLock::new(),
            }
        }

        pub(crate) fn decided(&self, decision: &Decision<'_>, config: &Config) {
            let handles = self.handles();
            if decision.allowed() {
                handles.allowed.increment(1);
                if decision.is_near_limit() {
                    handles.near_limit.increment(1);
                }
            } else {
                handles.denied.increment(1);
                self.violated(decision);
            }
            if decision.has_shadows() {
                for policy in decision.shadow_violated() {
                    self.named(SHADOW_VIOLATIONS_TOTAL, policy.as_str());
                }
            }
            self.tables(decision.now(), config);
        }

        pub(crate) fn at_capacity(&self, policy: &str) {
            self.handles().denied.increment(1);
            self.named(VIOLATIONS_TOTAL, policy);
        }

        pub(crate) fn reserved(&self) {
            self.reservations()[0].increment(1);
        }

        pub(crate) fn not_reserved(&self, decision: &Decision<'_>) {
            self.reservations()[1].increment(1);
            self.violated(decision);
        }

        pub(crate) fn unknown(&self) {
            self.handles().unknown.increment(1);
        }

        #[cold]
        fn violated(&self, decision: &Decision<'_>) {
            decision.each_violated(|policy| self.named(VIOLATIONS_TOTAL, policy));
        }

        /// Counts for a policy. There are few, and a refusal is to be cheap.
        fn named(&self, metric: &'static str, policy: &str) {
            let mut counters = self.named.lock().unwrap_or_else(PoisonError::into_inner);
            let known = counters
                .iter()
                .find(|(known, name, _)| *known == metric && **name == *policy);
            if let Some((.., counter)) = known {
                counter.increment(1);
                return;
            }
            let counter = counter!(metric, "scope" => self.scope, "policy" => policy.to_owned());
            counter.increment(1);
            counters.push((metric, policy.into(), counter));
        }

        pub(crate) fn exempt(&self, name: &'static str) {
            self.handles().exempt.increment(1);
            counter!(EXEMPT_TOTAL, "scope" => self.scope, "exemption" => name).increment(1);
        }

        pub(crate) fn repeated(&self) {
            self.handles().repeated.increment(1);
        }

        fn tables(&self, now: u64, config: &Config) {
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
            let limiters = std::iter::once(&config.limiter).chain(&config.budget);
            for table in limiters.flat_map(Limiter::stats) {
                let labels = [
                    ::metrics::Label::from_static_parts("scope", self.scope),
                    ::metrics::Label::new("policy", table.policy),
                ];
                gauge!(TABLE_SLOTS, labels.iter()).set(table.capacity as f64);
                gauge!(TABLE_OCCUPIED_SLOTS, labels.iter()).set(table.occupied as f64);
                counter!(TABLE_EVICTED_LIVE_TOTAL, labels.iter()).absolute(table.evicted_live);
            }
        }

        fn reservations(&self) -> &[Counter; 2] {
            self.reservations.get_or_init(|| {
                ["allowed", "denied"].map(|decision| {
                    counter!(RESERVATIONS_TOTAL, "scope" => self.scope, "decision" => decision)
                })
            })
        }

        fn handles(&self) -> &Handles {
            let decision =
                |decision| counter!(DECISIONS_TOTAL, "scope" => self.scope, "decision" => decision);
            self.handles.get_or_init(|| Handles {
                near_limit: counter!(NEAR_LIMIT_TOTAL, "scope" => self.scope),
                unknown: decision("unknown"),
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
    use crate::Decision;
    use crate::layer::Config;

    pub(crate) struct Meter;

    impl Meter {
        pub(crate) fn new(_: &'static str) -> Self {
            Self
        }

        pub(crate) fn decided(&self, _: &Decision<'_>, _: &Config) {}

        pub(crate) fn exempt(&self, _: &'static str) {}

        pub(crate) fn repeated(&self) {}

        pub(crate) fn unknown(&self) {}

        pub(crate) fn at_capacity(&self, _: &str) {}

        pub(crate) fn reserved(&self) {}

        pub(crate) fn not_reserved(&self, _: &Decision<'_>) {}
    }
}
