//! What a request cost at the provider.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// A write-once cell that travels with a request: put in at the edge, filled by the provider's
/// adapter, read by limiter, cache and metrics when the response body has ended.
///
/// It stays empty when no provider was asked, as for a cache hit: then nothing was used.
///
/// # Example
/// ```
/// use spark_core::{Usage, UsageReport};
/// let usage = Usage::default();
/// let seen_by_the_metrics = usage.clone();
/// assert!(usage.record(UsageReport::new("demo", "demo-1").with_tokens(3, 5)));
/// assert_eq!(seen_by_the_metrics.get().unwrap().output_tokens, 5);
/// assert!(!usage.record(UsageReport::new("demo", "demo-1")), "the first report stands");
/// ```
#[derive(Clone, Debug, Default)]
pub struct Usage(Arc<OnceLock<UsageReport>>);

impl Usage {
    /// Keeps the first report; `false` says that there was one already.
    ///
    /// # Example
    /// ```
    /// # use spark_core::{Usage, UsageReport};
    /// assert!(Usage::default().record(UsageReport::new("demo", "demo-1")));
    /// ```
    pub fn record(&self, report: UsageReport) -> bool {
        self.0.set(report).is_ok()
    }

    /// The report, once there is one.
    ///
    /// # Example
    /// ```
    /// assert!(spark_core::Usage::default().get().is_none());
    /// ```
    pub fn get(&self) -> Option<&UsageReport> {
        self.0.get()
    }
}

/// What one request cost at one provider.
///
/// # Example
/// ```
/// use spark_core::UsageReport;
/// use std::time::Duration;
/// let report = UsageReport::new("primary", "some-model")
///     .with_tokens(12, 34)
///     .with_upstream(Duration::from_millis(250));
/// assert_eq!(report.input_tokens + report.output_tokens, 46);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UsageReport {
    /// The provider's configured name.
    pub provider: Arc<str>,
    /// The model that was asked.
    pub model: Arc<str>,
    /// Tokens of the prompt.
    pub input_tokens: u64,
    /// Tokens of the answer.
    pub output_tokens: u64,
    /// From the start of the upstream call to the end of its answer.
    pub upstream: Duration,
}

impl UsageReport {
    /// A report of no tokens and no time.
    ///
    /// # Example
    /// ```
    /// assert_eq!(spark_core::UsageReport::new("p", "m").output_tokens, 0);
    /// ```
    pub fn new(provider: impl Into<Arc<str>>, model: impl Into<Arc<str>>) -> Self {
        Self {
            provider: provider.into(),
            model: model.into(),
            input_tokens: 0,
            output_tokens: 0,
            upstream: Duration::ZERO,
        }
    }

    /// Sets the tokens of prompt and answer.
    ///
    /// # Example
    /// ```
    /// assert_eq!(spark_core::UsageReport::new("p", "m").with_tokens(1, 2).input_tokens, 1);
    /// ```
    #[must_use]
    pub fn with_tokens(mut self, input: u64, output: u64) -> Self {
        self.input_tokens = input;
        self.output_tokens = output;
        self
    }

    /// Sets the time that the provider took.
    ///
    /// # Example
    /// ```
    /// # use std::time::Duration;
    /// let report = spark_core::UsageReport::new("p", "m").with_upstream(Duration::from_secs(1));
    /// assert_eq!(report.upstream.as_secs(), 1);
    /// ```
    #[must_use]
    pub fn with_upstream(mut self, upstream: Duration) -> Self {
        self.upstream = upstream;
        self
    }
}
