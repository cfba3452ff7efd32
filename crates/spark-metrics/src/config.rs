//! The recorder's settings, checked when it is built.

use std::{sync::Arc, time::Duration};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use spark_core::Clock;

use crate::{
    CardinalityLimit, InstallError, Limits, Metrics, buckets,
    metrics::{BUILD_INFO, START_TIME, describe},
    recorder::Core,
    upkeep::Upkeep,
};

/// Settings of a [`Metrics`] recorder; made by [`Metrics::builder`].
///
/// ```
/// let metrics = spark_metrics::Metrics::builder().max_series_per_metric(500).build()?;
/// assert!(metrics.render().contains("spark_build_info"));
/// # Ok::<(), spark_metrics::InstallError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `install` or `build`"]
pub struct MetricsBuilder {
    limits: Limits,
    version: String,
    upkeep: Option<Duration>,
    clock: Clock,
    suffixes: Vec<(String, Vec<f64>)>,
    names: Vec<(String, Vec<f64>)>,
}

impl MetricsBuilder {
    pub(crate) fn new() -> Self {
        let suffix = |suffix: &str, bounds: &[f64]| (suffix.to_owned(), bounds.to_vec());
        Self {
            limits: Limits::default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            upkeep: Some(Duration::from_secs(5)),
            clock: Clock::default(),
            suffixes: vec![
                suffix("_seconds", buckets::SECONDS),
                suffix("_bytes", buckets::BYTES),
                suffix("_tokens", buckets::TOKENS),
            ],
            names: Vec::new(),
        }
    }

    /// Label sets that one metric may have; 2,000 unless set.
    ///
    /// ```
    /// # use spark_metrics::Metrics;
    /// let builder = Metrics::builder().max_series_per_metric(500);
    /// ```
    pub fn max_series_per_metric(mut self, max: usize) -> Self {
        self.limits.series_per_metric = max;
        self
    }

    /// Metric names that the process may have; 1,000 unless set.
    ///
    /// ```
    /// # use spark_metrics::Metrics;
    /// let builder = Metrics::builder().max_metrics(200);
    /// ```
    pub fn max_metrics(mut self, max: usize) -> Self {
        self.limits.metrics = max;
        self
    }

    /// Bytes that a label value may have; 128 unless set. Longer values are cut.
    ///
    /// ```
    /// # use spark_metrics::Metrics;
    /// let builder = Metrics::builder().max_label_value_len(64);
    /// ```
    pub fn max_label_value_len(mut self, max: usize) -> Self {
        self.limits.label_value_len = max;
        self
    }

    /// Bounds for the histograms whose name ends in `suffix`; the built-in suffixes `_seconds`,
    /// `_bytes` and `_tokens` can be replaced.
    ///
    /// ```
    /// # use spark_metrics::Metrics;
    /// let builder = Metrics::builder().buckets("_seconds", &[0.01, 0.1, 1.0]);
    /// ```
    pub fn buckets(mut self, suffix: &str, bounds: &[f64]) -> Self {
        self.suffixes.retain(|(known, _)| known != suffix);
        self.suffixes.push((suffix.to_owned(), bounds.to_vec()));
        self
    }

    /// Bounds for one histogram, by its whole name; they go before those of its suffix.
    ///
    /// ```
    /// # use spark_metrics::Metrics;
    /// let builder = Metrics::builder().buckets_of("dns_lookup_seconds", &[0.0001, 0.001, 0.01]);
    /// ```
    pub fn buckets_of(mut self, metric: &str, bounds: &[f64]) -> Self {
        self.names.retain(|(known, _)| known != metric);
        self.names.push((metric.to_owned(), bounds.to_vec()));
        self
    }

    /// The version in `spark_build_info`; that of this crate unless set.
    ///
    /// ```
    /// # use spark_metrics::Metrics;
    /// let builder = Metrics::builder().version(env!("CARGO_PKG_VERSION"));
    /// ```
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// How often histograms are drained when nobody scrapes; every 5 s unless set.
    /// `None`: call [`Metrics::upkeep`] yourself, or every recorded sample stays in memory.
    ///
    /// ```
    /// # use spark_metrics::Metrics;
    /// let metrics = Metrics::builder().upkeep_every(None).build()?;
    /// metrics.upkeep();
    /// # Ok::<(), spark_metrics::InstallError>(())
    /// ```
    pub fn upkeep_every(mut self, every: impl Into<Option<Duration>>) -> Self {
        self.upkeep = every.into();
        self
    }

    /// The clock that tells the age of the last upkeep.
    ///
    /// ```
    /// # use spark_metrics::Metrics;
    /// let builder = Metrics::builder().clock(spark_core::Clock::system());
    /// ```
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Builds the recorder and installs it for the whole process. Upkeep runs on the current
    /// tokio runtime until the last clone of the returned [`Metrics`] is dropped, so keep it.
    ///
    /// # Errors
    /// When a setting is out of range, a recorder is installed already, or there is no runtime.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), spark_metrics::InstallError> {
    /// let metrics = spark_metrics::Metrics::builder().install()?;
    /// metrics::counter!("jobs_total").increment(1);
    /// assert!(metrics.render().contains("jobs_total 1"));
    /// # Ok(()) }
    /// ```
    pub fn install(self) -> Result<Metrics, InstallError> {
        let runtime = tokio::runtime::Handle::try_current().ok();
        if self.upkeep.is_some() && runtime.is_none() {
            return Err(InstallError::NoRuntime);
        }
        let metrics = self.build()?;
        metrics::set_global_recorder(metrics.shared_recorder())
            .map_err(|_| InstallError::AlreadyInstalled)?;
        Ok(metrics)
    }

    /// Builds the recorder without installing it: for tests, or several in one process. Outside
    /// a tokio runtime no upkeep task is started; a scrape drains the histograms too.
    ///
    /// # Errors
    /// When a setting is out of range.
    ///
    /// ```
    /// let metrics = spark_metrics::Metrics::builder().build()?;
    /// metrics::with_local_recorder(metrics.recorder(), || {
    ///     metrics::counter!("jobs_total").increment(2);
    /// });
    /// assert!(metrics.render().contains("jobs_total 2"));
    /// # Ok::<(), spark_metrics::InstallError>(())
    /// ```
    pub fn build(self) -> Result<Metrics, InstallError> {
        self.check()?;
        let recorder = self.exporter()?.build_recorder();
        let handle = recorder.handle();
        let recorder = CardinalityLimit::new(recorder, self.limits).doubling_backslashes();
        metrics::with_local_recorder(&recorder, || {
            describe();
            metrics::gauge!(BUILD_INFO, "version" => self.version).set(1);
            metrics::gauge!(START_TIME).set(self.clock.unix_time().as_secs_f64());
        });
        let core = Arc::new(Core::new(recorder, handle, self.clock));
        let upkeep = self
            .upkeep
            .and_then(|every| Upkeep::spawn(core.clone(), every));
        Ok(Metrics::new(core, upkeep))
    }

    fn check(&self) -> Result<(), InstallError> {
        let floor = |field, value, least: usize, mend| {
            if value < least {
                Err(InstallError::Setting { field, mend })
            } else {
                Ok(())
            }
        };
        floor(
            "max_series_per_metric",
            self.limits.series_per_metric,
            1,
            "give at least 1",
        )?;
        floor("max_metrics", self.limits.metrics, 50, "give at least 50")?;
        floor(
            "max_label_value_len",
            self.limits.label_value_len,
            16,
            "give at least 16 bytes",
        )?;
        if self.upkeep.is_some_and(|every| every.is_zero()) {
            let mend = "give more than zero, or `None` to do it yourself";
            return Err(InstallError::Setting {
                field: "upkeep_every",
                mend,
            });
        }
        let refuse = |name: &str, mend| {
            Err(InstallError::Buckets {
                name: name.to_owned(),
                mend,
            })
        };
        for (name, bounds) in self.suffixes.iter().chain(&self.names) {
            if let Some(mend) = buckets::problem(bounds) {
                return refuse(name, mend);
            }
        }
        for (suffix, _) in &self.suffixes {
            let ends = |(other, _): &(String, Vec<f64>)| other != suffix && suffix.ends_with(other);
            if self.suffixes.iter().any(ends) {
                return refuse(
                    suffix,
                    "another suffix ends it too: use `buckets_of` with the metric's name",
                );
            }
        }
        Ok(())
    }

    fn exporter(&self) -> Result<PrometheusBuilder, InstallError> {
        let refuse = |name: &str| InstallError::Buckets {
            name: name.to_owned(),
            mend: "give at least one bound",
        };
        let mut exporter = PrometheusBuilder::new()
            .set_buckets(buckets::OTHER)
            .map_err(|_| refuse("the rest"))?;
        for (suffix, bounds) in &self.suffixes {
            let matcher = Matcher::Suffix(suffix.clone());
            exporter = exporter
                .set_buckets_for_metric(matcher, bounds)
                .map_err(|_| refuse(suffix))?;
        }
        for (name, bounds) in &self.names {
            let matcher = Matcher::Full(name.clone());
            exporter = exporter
                .set_buckets_for_metric(matcher, bounds)
                .map_err(|_| refuse(name))?;
        }
        Ok(exporter)
    }
}
