//! The names that this crate emits, and nothing else.
//!
//! Labels are the names that an operator gave to bulkheads and hops, those of breakers, of which a
//! [`Registry`](crate::Registry) bounds how many there ever are, and fixed words.

use std::sync::Arc;

use crate::limit::Moved;
use crate::machine::Counted;
use crate::{BulkheadFull, State};

pub(crate) use names::*;

#[cfg_attr(
    not(feature = "metrics"),
    allow(dead_code, reason = "nothing is emitted")
)]
mod names {
    pub(crate) const STATE: &str = "spark_breaker_state";
    pub(crate) const TRANSITIONS: &str = "spark_breaker_transitions_total";
    pub(crate) const WOULD_OPEN: &str = "spark_breaker_would_open_total";
    pub(crate) const REJECTIONS: &str = "spark_breaker_rejections_total";
    pub(crate) const OUTCOMES: &str = "spark_breaker_outcomes_total";
    pub(crate) const OVERFLOWS: &str = "spark_breaker_registry_overflows_total";
    pub(crate) const TIMEOUTS: &str = "spark_breaker_timeouts_total";
    pub(crate) const BULKHEAD_IN_FLIGHT: &str = "spark_bulkhead_in_flight";
    pub(crate) const BULKHEAD_LIMIT: &str = "spark_bulkhead_limit";
    pub(crate) const BULKHEAD_BACKOFFS: &str = "spark_bulkhead_backoffs_total";
    pub(crate) const BULKHEAD_REJECTIONS: &str = "spark_bulkhead_rejections_total";
    pub(crate) const HOPS: &str = "spark_failover_hops_total";
    pub(crate) const WAITS: &str = "spark_failover_waits_total";
    pub(crate) const RETRIES: &str = "spark_retry_attempts_total";
}

/// Describes every metric of this crate to the installed recorder. Call it once at start.
///
/// # Example
/// ```
/// spark_breaker::metrics::describe();
/// ```
pub fn describe() {
    #[cfg(feature = "metrics")]
    {
        use metrics::{describe_counter, describe_gauge};
        describe_gauge!(
            STATE,
            "Where a breaker stands: 0 closed, 1 half open, 2 open."
        );
        describe_counter!(TRANSITIONS, "Steps of a breaker into a state.");
        describe_counter!(
            WOULD_OPEN,
            "Times that a breaker would have opened, had it not been told only to watch."
        );
        describe_counter!(REJECTIONS, "Calls that a breaker did not let through.");
        describe_counter!(OUTCOMES, "How the calls that a breaker let through ended.");
        describe_counter!(
            OVERFLOWS,
            "Names that shared one breaker because the registry was full."
        );
        describe_counter!(
            TIMEOUTS,
            "Calls to a provider that ran out of time, by phase."
        );
        describe_gauge!(BULKHEAD_IN_FLIGHT, "Calls inside a bulkhead.");
        describe_gauge!(
            BULKHEAD_LIMIT,
            "How many calls a bulkhead lets in at a time."
        );
        describe_counter!(
            BULKHEAD_BACKOFFS,
            "Times that an adaptive bulkhead lowered its limit, by what it saw."
        );
        describe_counter!(
            BULKHEAD_REJECTIONS,
            "Calls that a bulkhead did not let through: it was full, or the tenant had its share."
        );
        describe_counter!(HOPS, "Hops that failover tried, by how they ended.");
        describe_counter!(
            WAITS,
            "Calls that waited for a hop to come back, and those for which there was no room."
        );
        describe_counter!(
            RETRIES,
            "Further attempts on the same provider, and those for which budget or time was short."
        );
    }
}

pub(crate) use imp::{BulkheadMetrics, HopMetrics, Metrics};

/// How a hop of a failover ended: the label of its metric.
#[derive(Debug, Clone, Copy)]
pub(crate) enum HopEnd {
    Answered,
    Refused,
    Error,
    Status,
    Deadline,
    Credential,
    FirstByte,
    NoBudget,
}

#[cfg(feature = "metrics")]
mod imp {
    use std::sync::OnceLock;

    use metrics::{Counter, Gauge, counter, gauge};

    use crate::limit::Cause;

    use super::{
        Arc, BULKHEAD_BACKOFFS, BULKHEAD_IN_FLIGHT, BULKHEAD_LIMIT, BULKHEAD_REJECTIONS,
        BulkheadFull, Counted, HOPS, HopEnd, Moved, OUTCOMES, REJECTIONS, STATE, State,
        TRANSITIONS, WOULD_OPEN,
    };

    /// One bulkhead's handles, resolved at its first call.
    #[derive(Default)]
    pub(crate) struct BulkheadMetrics(OnceLock<BulkheadHandles>);

    struct BulkheadHandles {
        in_flight: Gauge,
        limit: Gauge,
        full: Counter,
        share: Counter,
        throttled: Counter,
        late: Counter,
    }

    impl BulkheadMetrics {
        fn handles(&self, name: &Arc<str>, limit: impl Fn() -> usize) -> &BulkheadHandles {
            self.0.get_or_init(|| {
                let refused = |reason: &'static str| {
                    counter!(BULKHEAD_REJECTIONS, "bulkhead" => Arc::clone(name), "reason" => reason)
                };
                let lowered = |cause: &'static str| {
                    counter!(BULKHEAD_BACKOFFS, "bulkhead" => Arc::clone(name), "cause" => cause)
                };
                let handles = BulkheadHandles {
                    in_flight: gauge!(BULKHEAD_IN_FLIGHT, "bulkhead" => Arc::clone(name)),
                    limit: gauge!(BULKHEAD_LIMIT, "bulkhead" => Arc::clone(name)),
                    full: refused("full"),
                    share: refused("tenant_share"),
                    throttled: lowered("throttled"),
                    late: lowered("late"),
                };
                handles.limit.set(limit() as f64);
                handles
            })
        }

        pub(crate) fn entered(&self, name: &Arc<str>, limit: impl Fn() -> usize) {
            self.handles(name, limit).in_flight.increment(1.0);
        }

        pub(crate) fn left(&self, name: &Arc<str>, limit: impl Fn() -> usize) {
            self.handles(name, limit).in_flight.decrement(1.0);
        }

        pub(crate) fn refused(
            &self,
            name: &Arc<str>,
            full: BulkheadFull,
            limit: impl Fn() -> usize,
        ) {
            let handles = self.handles(name, limit);
            match full {
                BulkheadFull::Places => &handles.full,
                BulkheadFull::TenantShare => &handles.share,
            }
            .increment(1);
        }

        /// Reads the limit again after writing, so that the last writer leaves the truth.
        pub(crate) fn moved(&self, name: &Arc<str>, moved: Moved, now: impl Fn() -> usize) {
            let handles = self.handles(name, &now);
            match moved {
                Moved::Up => {}
                Moved::Down(Cause::Throttled) => handles.throttled.increment(1),
                Moved::Down(Cause::Late) => handles.late.increment(1),
            }
            let mut limit = now();
            for _ in 0..8 {
                handles.limit.set(limit as f64);
                let after = now();
                if after == limit {
                    return;
                }
                limit = after;
            }
        }
    }

    const HOP_ENDS: [&str; 8] = [
        "answered",
        "refused",
        "error",
        "status",
        "deadline",
        "credential",
        "first_byte",
        "no_budget",
    ];

    /// One hop's counters, resolved at its first call.
    #[derive(Clone, Default)]
    pub(crate) struct HopMetrics(OnceLock<[Counter; 8]>);

    impl HopMetrics {
        pub(crate) fn count(&self, name: &Arc<str>, end: HopEnd) {
            let counters = self.0.get_or_init(|| {
                HOP_ENDS
                    .map(|outcome| counter!(HOPS, "hop" => Arc::clone(name), "outcome" => outcome))
            });
            let [
                answered,
                refused,
                error,
                status,
                deadline,
                credential,
                first_byte,
                no_budget,
            ] = counters;
            match end {
                HopEnd::Answered => answered,
                HopEnd::Refused => refused,
                HopEnd::Error => error,
                HopEnd::Status => status,
                HopEnd::Deadline => deadline,
                HopEnd::Credential => credential,
                HopEnd::FirstByte => first_byte,
                HopEnd::NoBudget => no_budget,
            }
            .increment(1);
        }
    }

    /// One breaker's handles, resolved at its first call.
    #[derive(Default)]
    pub(crate) struct Metrics {
        /// Whose series it counts in, if it has none of its own.
        shared: Option<Arc<str>>,
        handles: OnceLock<Handles>,
    }

    struct Handles {
        /// None where the series are shared: it tells of the one whose name it has.
        state: Option<Gauge>,
        rejections: Counter,
        closed: Counter,
        half_open: Counter,
        open: Counter,
        success: Counter,
        failure: Counter,
        throttled: Counter,
        ignored: Counter,
        cancelled: Counter,
        late: Counter,
    }

    impl Metrics {
        /// Without series of its own.
        pub(crate) fn shared(label: &Arc<str>) -> Self {
            Self {
                shared: Some(Arc::clone(label)),
                handles: OnceLock::new(),
            }
        }

        fn label<'a>(&'a self, name: &'a Arc<str>) -> &'a Arc<str> {
            self.shared.as_ref().unwrap_or(name)
        }

        fn handles(&self, name: &Arc<str>) -> &Handles {
            self.handles.get_or_init(|| {
                let name = self.label(name);
                let to = |to: State| {
                    counter!(TRANSITIONS, "breaker" => Arc::clone(name), "to" => to.as_str())
                };
                let outcome = |outcome: &'static str| {
                    counter!(OUTCOMES, "breaker" => Arc::clone(name), "outcome" => outcome)
                };
                let own = self.shared.is_none();
                let handles = Handles {
                    state: own.then(|| gauge!(STATE, "breaker" => Arc::clone(name))),
                    rejections: counter!(REJECTIONS, "breaker" => Arc::clone(name)),
                    closed: to(State::Closed),
                    half_open: to(State::HalfOpen),
                    open: to(State::Open),
                    success: outcome("success"),
                    failure: outcome("failure"),
                    throttled: outcome("throttled"),
                    ignored: outcome("ignored"),
                    cancelled: outcome("cancelled"),
                    late: outcome("late"),
                };
                handles.set(State::Closed);
                handles
            })
        }

        /// Its breaker is no more: what is not remembered is closed.
        pub(crate) fn is_forgotten(&self) {
            if let Some(handles) = self.handles.get() {
                handles.set(State::Closed);
            }
        }

        /// Makes the series exist.
        pub(crate) fn touch(&self, name: &Arc<str>) {
            self.handles(name);
        }

        pub(crate) fn rejection(&self, name: &Arc<str>) {
            self.handles(name).rejections.increment(1);
        }

        pub(crate) fn outcome(&self, name: &Arc<str>, counted: Counted) {
            let handles = self.handles(name);
            match counted {
                Counted::Success => &handles.success,
                Counted::Failure => &handles.failure,
                Counted::Throttled => &handles.throttled,
                Counted::Ignored => &handles.ignored,
                Counted::Cancelled => &handles.cancelled,
                Counted::Late => &handles.late,
            }
            .increment(1);
        }

        /// Off the hot path.
        pub(crate) fn would_open(&self, name: &Arc<str>) {
            self.handles(name);
            counter!(WOULD_OPEN, "breaker" => Arc::clone(self.label(name))).increment(1);
        }

        /// Counts the step, and sets the one gauge to where the breaker stands now: read again
        /// after writing, so that the last writer leaves the truth.
        pub(crate) fn transition(&self, name: &Arc<str>, to: State, now: impl Fn() -> State) {
            let handles = self.handles(name);
            match to {
                State::Closed => &handles.closed,
                State::HalfOpen => &handles.half_open,
                State::Open => &handles.open,
            }
            .increment(1);
            let mut state = now();
            for _ in 0..8 {
                handles.set(state);
                let after = now();
                if after == state {
                    return;
                }
                state = after;
            }
        }
    }

    impl Handles {
        fn set(&self, state: State) {
            if let Some(gauge) = &self.state {
                gauge.set(match state {
                    State::Closed => 0.0,
                    State::HalfOpen => 1.0,
                    State::Open => 2.0,
                });
            }
        }
    }
}

#[cfg(not(feature = "metrics"))]
mod imp {
    use super::{Arc, BulkheadFull, Counted, HopEnd, Moved, State};

    #[derive(Clone, Default)]
    pub(crate) struct HopMetrics {}

    impl HopMetrics {
        pub(crate) fn count(&self, _: &Arc<str>, _: HopEnd) {}
    }

    #[derive(Default)]
    pub(crate) struct BulkheadMetrics {}

    impl BulkheadMetrics {
        pub(crate) fn entered(&self, _: &Arc<str>, _: impl Fn() -> usize) {}
        pub(crate) fn left(&self, _: &Arc<str>, _: impl Fn() -> usize) {}
        pub(crate) fn refused(&self, _: &Arc<str>, _: BulkheadFull, _: impl Fn() -> usize) {}
        pub(crate) fn moved(&self, _: &Arc<str>, _: Moved, _: impl Fn() -> usize) {}
    }

    #[derive(Default)]
    pub(crate) struct Metrics {}

    impl Metrics {
        pub(crate) fn shared(_: &Arc<str>) -> Self {
            Self {}
        }
        pub(crate) fn is_forgotten(&self) {}
        pub(crate) fn touch(&self, _: &Arc<str>) {}
        pub(crate) fn rejection(&self, _: &Arc<str>) {}
        pub(crate) fn outcome(&self, _: &Arc<str>, _: Counted) {}
        pub(crate) fn would_open(&self, _: &Arc<str>) {}
        pub(crate) fn transition(&self, _: &Arc<str>, _: State, _: impl Fn() -> State) {}
    }
}

/// Counts one event off the hot path.
macro_rules! count {
    ($name:expr $(, $label:literal => $value:expr)* $(,)?) => {{
        #[cfg(feature = "metrics")]
        ::metrics::counter!($name $(, $label => $value)*).increment(1);
        #[cfg(not(feature = "metrics"))]
        { let _ = ($name, $(&$value),*); }
    }};
}
pub(crate) use count;
