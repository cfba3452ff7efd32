//! The names that this crate emits, and nothing else.
//!
//! Labels are the names that an operator gave to bulkheads and hops, those of breakers, of which a
//! [`Registry`](crate::Registry) bounds how many there ever are, and fixed words.

use std::sync::Arc;

use crate::State;
use crate::machine::Counted;

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
    pub(crate) const BULKHEAD_REJECTIONS: &str = "spark_bulkhead_rejections_total";
    pub(crate) const HOPS: &str = "spark_failover_hops_total";
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
        describe_counter!(
            BULKHEAD_REJECTIONS,
            "Calls that a full bulkhead did not let through."
        );
        describe_counter!(HOPS, "Hops that failover tried, by how they ended.");
        describe_counter!(
            RETRIES,
            "Second attempts on the same provider, and those that the budget refused."
        );
    }
}

pub(crate) use imp::{HopMetrics, InFlight, Metrics};

/// How a hop of a failover ended: the label of its metric.
#[derive(Debug, Clone, Copy)]
pub(crate) enum HopEnd {
    Answered,
    Refused,
    Error,
    Status,
    Deadline,
}

#[cfg(feature = "metrics")]
mod imp {
    use std::sync::OnceLock;

    use metrics::{Counter, Gauge, counter, gauge};

    use super::{
        Arc, BULKHEAD_IN_FLIGHT, Counted, HOPS, HopEnd, OUTCOMES, REJECTIONS, STATE, State,
        TRANSITIONS, WOULD_OPEN,
    };

    /// One bulkhead's gauge, resolved at its first call.
    #[derive(Default)]
    pub(crate) struct InFlight(OnceLock<Gauge>);

    impl InFlight {
        pub(crate) fn add(&self, name: &Arc<str>, change: f64) {
            self.0
                .get_or_init(|| gauge!(BULKHEAD_IN_FLIGHT, "bulkhead" => Arc::clone(name)))
                .increment(change);
        }
    }

    /// One hop's counters, resolved at its first call.
    #[derive(Clone, Default)]
    pub(crate) struct HopMetrics(OnceLock<[Counter; 5]>);

    impl HopMetrics {
        pub(crate) fn count(&self, name: &Arc<str>, end: HopEnd) {
            let counters = self.0.get_or_init(|| {
                ["answered", "refused", "error", "status", "deadline"]
                    .map(|outcome| counter!(HOPS, "hop" => Arc::clone(name), "outcome" => outcome))
            });
            let [answered, refused, error, status, deadline] = counters;
            match end {
                HopEnd::Answered => answered,
                HopEnd::Refused => refused,
                HopEnd::Error => error,
                HopEnd::Status => status,
                HopEnd::Deadline => deadline,
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
    use super::{Arc, Counted, HopEnd, State};

    #[derive(Clone, Default)]
    pub(crate) struct HopMetrics {}

    impl HopMetrics {
        pub(crate) fn count(&self, _: &Arc<str>, _: HopEnd) {}
    }

    #[derive(Default)]
    pub(crate) struct InFlight {}

    impl InFlight {
        pub(crate) fn add(&self, _: &Arc<str>, _: f64) {}
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
