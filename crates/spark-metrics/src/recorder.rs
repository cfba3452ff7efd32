//! The recorder: what holds the numbers and writes the page.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use metrics::{Gauge, Key, Metadata, Recorder};
use metrics_exporter_prometheus::{PrometheusHandle, PrometheusRecorder};
use spark_core::{Clock, Instant};

use crate::{CardinalityLimit, HttpMetricsLayer, MetricsBuilder, metrics::SERIES, upkeep::Upkeep};

/// The content type of [`Metrics::render`]; Prometheus 3 fails a scrape without one.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A Prometheus recorder with bounded series and its own upkeep. A clone is the same recorder;
/// upkeep ends when the last clone is dropped.
///
/// ```
/// let metrics = spark_metrics::Metrics::builder().build()?;
/// metrics::with_local_recorder(metrics.recorder(), || metrics::counter!("jobs_total").increment(1));
/// assert!(metrics.render().contains("jobs_total 1"));
/// # Ok::<(), spark_metrics::InstallError>(())
/// ```
#[derive(Clone)]
pub struct Metrics {
    core: Arc<Core>,
    upkeep: Option<Arc<Upkeep>>,
}

impl Metrics {
    /// The settings, to be changed one by one.
    ///
    /// ```
    /// let builder = spark_metrics::Metrics::builder();
    /// ```
    pub fn builder() -> MetricsBuilder {
        MetricsBuilder::new()
    }

    pub(crate) fn new(core: Arc<Core>, upkeep: Option<Upkeep>) -> Self {
        Self {
            core,
            upkeep: upkeep.map(Arc::new),
        }
    }

    /// The page that Prometheus scrapes; send it with [`CONTENT_TYPE`].
    ///
    /// It costs some 3 µs per series. With thousands of series, keep it off the executor:
    /// `tokio::task::spawn_blocking(move || metrics.render()).await`.
    ///
    /// ```
    /// let metrics = spark_metrics::Metrics::builder().build()?;
    /// assert!(metrics.render().contains("# TYPE spark_build_info gauge"));
    /// # Ok::<(), spark_metrics::InstallError>(())
    /// ```
    pub fn render(&self) -> String {
        self.core.publish();
        self.core.handle.render()
    }

    /// The recorder itself, for `metrics::with_local_recorder`.
    ///
    /// ```
    /// let metrics = spark_metrics::Metrics::builder().build()?;
    /// let guard = metrics::set_default_local_recorder(metrics.recorder());
    /// # Ok::<(), spark_metrics::InstallError>(())
    /// ```
    pub fn recorder(&self) -> &dyn Recorder {
        &*self.core.recorder
    }

    /// The recorder as a shared handle, for [`HttpMetricsLayer::recorder`] and threads.
    ///
    /// ```
    /// let metrics = spark_metrics::Metrics::builder().build()?;
    /// let recorder = metrics.shared_recorder();
    /// std::thread::spawn(move || {
    ///     metrics::with_local_recorder(&recorder, || metrics::counter!("jobs_total").increment(1));
    /// }).join().unwrap();
    /// assert!(metrics.render().contains("jobs_total 1"));
    /// # Ok::<(), spark_metrics::InstallError>(())
    /// ```
    pub fn shared_recorder(&self) -> Arc<dyn Recorder + Send + Sync> {
        self.core.recorder.clone()
    }

    /// An HTTP layer that records here, whatever recorder is installed.
    ///
    /// ```
    /// let metrics = spark_metrics::Metrics::builder().build()?;
    /// let layer = metrics.http_layer();
    /// # Ok::<(), spark_metrics::InstallError>(())
    /// ```
    pub fn http_layer(&self) -> HttpMetricsLayer {
        HttpMetricsLayer::new(self.core.clock.clone()).recorder(self.shared_recorder())
    }

    /// Series held.
    ///
    /// ```
    /// let metrics = spark_metrics::Metrics::builder().build()?;
    /// assert!(metrics.series() >= 2);
    /// # Ok::<(), spark_metrics::InstallError>(())
    /// ```
    pub fn series(&self) -> usize {
        self.core.recorder.series()
    }

    /// How the recorder does, for a health check.
    ///
    /// ```
    /// let metrics = spark_metrics::Metrics::builder().build()?;
    /// assert_eq!(metrics.stats().overflowed, 0);
    /// # Ok::<(), spark_metrics::InstallError>(())
    /// ```
    pub fn stats(&self) -> Stats {
        let recorder = &self.core.recorder;
        let limits = recorder.limits();
        let upkept = Instant::from_nanos(self.core.upkept.load(Ordering::Relaxed));
        Stats {
            series: recorder.series(),
            max_series_per_metric: limits.series_per_metric,
            metrics: recorder.metric_names(),
            max_metrics: limits.metrics,
            overflowed: recorder.overflowed(),
            refused: recorder.refused(),
            upkeep_running: self
                .upkeep
                .as_ref()
                .is_some_and(|upkeep| upkeep.is_running()),
            upkeep_age: self.core.clock.now().saturating_duration_since(upkept),
        }
    }

    /// Drains histogram samples into their buckets; the upkeep task does it by itself.
    ///
    /// ```
    /// let metrics = spark_metrics::Metrics::builder().build()?;
    /// metrics.upkeep();
    /// # Ok::<(), spark_metrics::InstallError>(())
    /// ```
    pub fn upkeep(&self) {
        self.core.upkeep();
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// How a [`Metrics`] recorder does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Series held, overflow series included.
    pub series: usize,
    /// The cap on label sets of one metric.
    pub max_series_per_metric: usize,
    /// Metric names held.
    pub metrics: usize,
    /// The cap on metric names.
    pub max_metrics: usize,
    /// Look-ups that landed in an overflow series.
    pub overflowed: u64,
    /// Look-ups answered with a handle that records nothing.
    pub refused: u64,
    /// Whether the upkeep task is alive.
    pub upkeep_running: bool,
    /// Time since the last upkeep, or since the recorder was made.
    pub upkeep_age: Duration,
}

/// What the upkeep task and every clone share.
pub(crate) struct Core {
    recorder: Arc<CardinalityLimit<PrometheusRecorder>>,
    handle: PrometheusHandle,
    clock: Clock,
    upkept: AtomicU64,
    series: Gauge,
}

impl Core {
    pub(crate) fn new(
        recorder: CardinalityLimit<PrometheusRecorder>,
        handle: PrometheusHandle,
        clock: Clock,
    ) -> Self {
        static METADATA: Metadata<'static> =
            Metadata::new(module_path!(), metrics::Level::INFO, Some(module_path!()));
        let series = recorder.register_gauge(&Key::from_static_name(SERIES), &METADATA);
        let upkept = AtomicU64::new(clock.now().as_nanos());
        Self {
            recorder: Arc::new(recorder),
            handle,
            clock,
            upkept,
            series,
        }
    }

    pub(crate) fn upkeep(&self) {
        self.publish();
        self.handle.run_upkeep();
        self.upkept
            .store(self.clock.now().as_nanos(), Ordering::Relaxed);
    }

    #[expect(clippy::cast_precision_loss, reason = "series are far fewer than 2^52")]
    fn publish(&self) {
        self.series.set(self.recorder.series() as f64);
    }
}
