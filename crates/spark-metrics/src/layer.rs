//! The layer and its settings.

use std::{collections::HashSet, sync::Arc};

use metrics::Recorder;
use spark_core::Clock;
use tower_layer::Layer;

use crate::{
    RouteLabel,
    ai::Ai,
    instruments::{Instruments, Sink},
    service::HttpMetrics,
};

/// Counts requests, their durations and what became of them; see the [crate's manual](crate).
///
/// ```
/// use spark_core::Clock;
/// use spark_metrics::HttpMetricsLayer;
///
/// let layer = HttpMetricsLayer::new(Clock::system()).models(["gpt-5", "llama-4"]);
/// ```
#[derive(Clone, Debug)]
pub struct HttpMetricsLayer {
    shared: Arc<Shared>,
}

impl HttpMetricsLayer {
    /// A layer that records with the process's recorder, found at the first request.
    ///
    /// ```
    /// let layer = spark_metrics::HttpMetricsLayer::new(spark_core::Clock::system());
    /// ```
    pub fn new(clock: Clock) -> Self {
        let settings = Settings {
            clock,
            ..Settings::default()
        };
        Self {
            shared: Arc::new(Shared::new(settings)),
        }
    }

    /// How the route of a request is found; [`RouteLabel::matched`] unless set.
    ///
    /// ```
    /// # use spark_metrics::{HttpMetricsLayer, RouteLabel};
    /// let layer = HttpMetricsLayer::new(Default::default()).route(RouteLabel::fixed("/generate"));
    /// ```
    #[must_use]
    pub fn route(self, route: RouteLabel) -> Self {
        self.change(|settings| settings.route = route)
    }

    /// The models that may be label values; every other one counts as `other`, since strangers
    /// write the model's name into their requests. None unless set.
    ///
    /// ```
    /// # use spark_metrics::HttpMetricsLayer;
    /// let layer = HttpMetricsLayer::new(Default::default()).models(["gpt-5"]);
    /// ```
    #[must_use]
    pub fn models<M: AsRef<str>>(self, models: impl IntoIterator<Item = M>) -> Self {
        let models = models
            .into_iter()
            .map(|model| Arc::from(model.as_ref()))
            .collect();
        self.change(|settings| settings.models = models)
    }

    /// Records here instead of with the process's recorder.
    ///
    /// ```
    /// # use spark_metrics::{HttpMetricsLayer, Metrics};
    /// let metrics = Metrics::builder().build()?;
    /// let layer = HttpMetricsLayer::new(Default::default()).recorder(metrics.shared_recorder());
    /// # Ok::<(), spark_metrics::InstallError>(())
    /// ```
    #[must_use]
    pub fn recorder(self, recorder: Arc<dyn Recorder + Send + Sync>) -> Self {
        self.change(|settings| settings.sink = Sink::Given(recorder))
    }

    fn change(self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = self.shared.settings.clone();
        change(&mut settings);
        Self {
            shared: Arc::new(Shared::new(settings)),
        }
    }
}

impl<S> Layer<S> for HttpMetricsLayer {
    type Service = HttpMetrics<S>;

    fn layer(&self, inner: S) -> Self::Service {
        HttpMetrics::new(inner, self.shared.clone())
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    pub(crate) clock: Clock,
    pub(crate) route: RouteLabel,
    pub(crate) models: HashSet<Arc<str>>,
    pub(crate) sink: Sink,
}

/// What a layer and its services share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) instruments: Instruments,
    pub(crate) ai: Ai,
}

impl Shared {
    fn new(mut settings: Settings) -> Self {
        settings.models.insert("other".into());
        Self {
            settings,
            instruments: Instruments::default(),
            ai: Ai::default(),
        }
    }
}
