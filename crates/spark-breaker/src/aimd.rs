//! How a limit finds its own height.

use std::time::Duration;

use crate::ConfigError;

/// The rules by which the limit of [`Bulkhead::adaptive`](crate::Bulkhead::adaptive) moves:
/// additive increase, multiplicative decrease.
///
/// - **Up**: after `limit / increase` good calls (rounded up), in the course of which all places
///   were taken at least once, `limit ← min(max, limit + 1)`. While nobody needs more, nothing
///   grows.
/// - **Down**: when a call is throttled, or its first byte is late,
///   `limit ← max(min, ⌊limit × backoff⌋)`.
/// - Only calls that entered since the last decrease move it, either way: of a hundred that are
///   throttled at one moment, the first one lowers the limit, and the others entered under the old
///   one.
///
/// Latency is judged by the first byte alone, since how long an answer takes depends on how much
/// the model says.
///
/// That such a limit comes to a fair and efficient share, also where several processes share one
/// provider and know nothing of each other, is shown in Chiu and Jain, *Analysis of the Increase
/// and Decrease Algorithms for Congestion Avoidance in Computer Networks* (1989). Netflix's
/// concurrency-limits brought the idea to the number of calls in flight.
///
/// # Example
/// ```
/// use spark_breaker::{Aimd, Bulkhead};
/// use spark_core::Clock;
/// use std::time::Duration;
/// let rules = Aimd::new(4, 64).backoff(0.7).latency(Duration::from_secs(10));
/// let bulkhead = Bulkhead::adaptive("openai", rules, Clock::system())?;
/// assert_eq!(bulkhead.limit(), 64);
/// # Ok::<(), spark_breaker::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[must_use]
pub struct Aimd {
    min: usize,
    max: usize,
    start: Option<usize>,
    increase: usize,
    backoff: f64,
    latency: Option<Duration>,
}

/// What fits into the word of a [`Limit`](crate::limit::Adaptive).
const MOST: usize = 1_000_000;

impl Aimd {
    /// Between `min`, at least 1, and `max`, at most 1,000,000. It starts at the top, backs off to
    /// 0.7 of the limit, grows by 1 in a round, and looks at no latency.
    ///
    /// # Example
    /// ```
    /// let rules = spark_breaker::Aimd::new(1, 64);
    /// ```
    pub fn new(min: usize, max: usize) -> Self {
        Self {
            min,
            max,
            start: None,
            increase: 1,
            backoff: 0.7,
            latency: None,
        }
    }

    /// Where it starts: at `max` unless set, which trusts the operator's figure until the provider
    /// says otherwise.
    ///
    /// # Example
    /// ```
    /// let rules = spark_breaker::Aimd::new(1, 64).start(16);
    /// ```
    pub fn start(mut self, limit: usize) -> Self {
        self.start = Some(limit);
        self
    }

    /// By how much it grows in a round, which is as many good calls as the limit: 1 unless set.
    /// Give more where calls take minutes, so that a round does too.
    ///
    /// # Example
    /// ```
    /// let rules = spark_breaker::Aimd::new(1, 200).increase(10);
    /// ```
    pub fn increase(mut self, places: usize) -> Self {
        self.increase = places;
        self
    }

    /// What is left of the limit after a decrease: above 0 and below 1, to the thousandth.
    ///
    /// # Example
    /// ```
    /// let rules = spark_breaker::Aimd::new(1, 64).backoff(0.5);
    /// ```
    pub fn backoff(mut self, share: f64) -> Self {
        self.backoff = share;
        self
    }

    /// A first byte that comes later than this after the call entered is a sign of overload. Of a
    /// call without a first byte, its end is looked at.
    ///
    /// Set it where answers are streamed: the first byte of one that is not comes when the model
    /// has finished, however long that takes.
    ///
    /// # Example
    /// ```
    /// # use std::time::Duration;
    /// let rules = spark_breaker::Aimd::new(1, 64).latency(Duration::from_secs(10));
    /// ```
    pub fn latency(mut self, first_byte: impl Into<Option<Duration>>) -> Self {
        self.latency = first_byte.into();
        self
    }

    pub(crate) fn checked(&self) -> Result<Rules, ConfigError> {
        let refuse = |field, value, mend| Err(ConfigError::out_of_range(field, value, mend));
        let start = self.start.unwrap_or(self.max);
        if self.max == 0 || self.max > MOST {
            return refuse("max", &self.max, "give 1 to 1000000");
        }
        if self.min == 0 || self.min > self.max {
            return refuse("min", &self.min, "give at least 1 and at most the max");
        }
        if start < self.min || start > self.max {
            return refuse("start", &start, "give at least the min and at most the max");
        }
        if self.increase == 0 || self.increase > self.max {
            return refuse(
                "increase",
                &self.increase,
                "give at least 1 and at most the max",
            );
        }
        if !(0.001..=0.999).contains(&self.backoff) {
            let mend = "give a share from 0.001 to 0.999";
            return Err(ConfigError::out_of_range("backoff", &self.backoff, mend));
        }
        if self.latency.is_some_and(|latency| latency.is_zero()) {
            let mend = "give a longer time, or leave it out for none";
            return Err(ConfigError::out_of_range("latency", &Duration::ZERO, mend));
        }
        Ok(Rules {
            min: self.min as u64,
            max: self.max as u64,
            start: start as u64,
            increase: self.increase as u64,
            // From 1 to 999, as checked above.
            backoff_thousandths: (self.backoff * 1_000.0).round() as u64,
            latency: self.latency,
        })
    }
}

/// What an [`Aimd`] says, checked and in whole numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) min: u64,
    pub(crate) max: u64,
    pub(crate) start: u64,
    pub(crate) increase: u64,
    pub(crate) backoff_thousandths: u64,
    pub(crate) latency: Option<Duration>,
}

impl Rules {
    /// In how many good calls a limit grows by one.
    pub(crate) fn round(&self, limit: u64) -> u64 {
        limit.div_ceil(self.increase)
    }

    pub(crate) fn lowered(&self, limit: u64) -> u64 {
        (limit * self.backoff_thousandths / 1_000).max(self.min)
    }
}
