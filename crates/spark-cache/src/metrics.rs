//! The names of the metrics that this crate emits.

/// Requests to routes that are opted in, by how they were answered.
pub const REQUESTS_TOTAL: &str = "spark_cache_requests_total";
/// Answers that were not kept, by why.
pub const STORE_REJECTED_TOTAL: &str = "spark_cache_store_rejected_total";
/// Requests that met a bound and passed.
pub const OVERFLOWS_TOTAL: &str = "spark_cache_overflows_total";
/// Entries that were put out for want of room.
pub const EVICTIONS_TOTAL: &str = "spark_cache_evictions_total";
/// Entries that are kept.
pub const ENTRIES: &str = "spark_cache_entries";
/// Their weight.
pub const BYTES: &str = "spark_cache_bytes";
/// Upstream calls under way.
pub const FLIGHTS: &str = "spark_cache_flights";

/// Describes every metric that this crate emits. Call it once, after the recorder is installed.
///
/// # Example
/// ```
/// spark_cache::metrics::describe();
/// ```
#[cfg(feature = "metrics")]
pub fn describe() {
    use ::metrics::{Unit, describe_counter, describe_gauge};
    describe_counter!(
        REQUESTS_TOTAL,
        "Requests to cached routes, by result: hit, miss, collapsed onto another's call, or bypass."
    );
    describe_counter!(
        STORE_REJECTED_TOTAL,
        "Answers that were not kept, by reason."
    );
    describe_counter!(
        OVERFLOWS_TOTAL,
        "Times that a bound on calls under way was met, by bound: flights, waiters or bytes. The request passes uncached."
    );
    describe_counter!(
        EVICTIONS_TOTAL,
        "Entries that were put out for want of room."
    );
    describe_gauge!(
        ENTRIES,
        "Entries that are kept, expired ones not yet met included."
    );
    describe_gauge!(BYTES, Unit::Bytes, "Weight of the entries that are kept.");
    describe_gauge!(FLIGHTS, "Upstream calls of the cache under way.");
}

#[cfg(feature = "metrics")]
mod on {
    use std::sync::OnceLock;

    use ::metrics::{Counter, counter, gauge};

    use crate::CacheResult;
    use crate::store::StoreUsage;

    /// Handles of the counters on the hot path, found at the first request.
    #[derive(Default)]
    pub(crate) struct Handles(OnceLock<[Counter; 4]>);

    impl Handles {
        pub(crate) fn count(&self, result: CacheResult) {
            let counters = self.0.get_or_init(|| {
                CacheResult::ALL
                    .map(|result| counter!(super::REQUESTS_TOTAL, "result" => result.as_str()))
            });
            counters[result as usize].increment(1);
        }
    }

    pub(crate) fn rejected(reason: &'static str) {
        counter!(super::STORE_REJECTED_TOTAL, "reason" => reason).increment(1);
    }

    pub(crate) fn overflowed(bound: &'static str) {
        counter!(super::OVERFLOWS_TOTAL, "bound" => bound).increment(1);
    }

    pub(crate) fn evicted() {
        counter!(super::EVICTIONS_TOTAL).increment(1);
    }

    pub(crate) fn flights(by: f64) {
        gauge!(super::FLIGHTS).increment(by);
    }

    pub(crate) fn usage(usage: StoreUsage) {
        gauge!(super::ENTRIES).set(usage.entries as f64);
        gauge!(super::BYTES).set(usage.bytes as f64);
    }
}

#[cfg(not(feature = "metrics"))]
mod on {
    use crate::CacheResult;
    use crate::store::StoreUsage;

    #[derive(Default)]
    pub(crate) struct Handles {}

    impl Handles {
        pub(crate) fn count(&self, _result: CacheResult) {}
    }

    pub(crate) fn rejected(_reason: &'static str) {}
    pub(crate) fn overflowed(_bound: &'static str) {}
    pub(crate) fn evicted() {}
    pub(crate) fn flights(_by: f64) {}
    pub(crate) fn usage(_usage: StoreUsage) {}
}

pub(crate) use on::{Handles, evicted, flights, overflowed, rejected, usage};
