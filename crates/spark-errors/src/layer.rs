//! The layer and its settings.

use std::{fmt, sync::Arc};

use http::Extensions;
use tower_layer::Layer;

use crate::{ErrorTracker, service::Errors};

/// Answers panics with a problem and captures what goes wrong; see the [crate's manual](crate).
///
/// * A panic of the service, in `call` or in its future, is answered with 500, `internal_error`,
///   whose `instance` is the event: `urn:spark:event:<id>`. Nothing of the panic is in the answer.
/// * A panic of the response body ends the body with an error, so that the client sees a cut
///   stream and not a short one that looks whole.
/// * A 5xx answer is captured as kind `response`, unless it is a refusal of ours (it carries a
///   [`Refusal`](spark_core::Refusal): an open breaker, a full bulkhead; metrics count those) or
///   somebody captured it already (it carries an [`EventId`](crate::EventId)).
/// * An error of the service is captured as kind `service` and passed on.
///
/// ```
/// let tracker = spark_errors::ErrorTracker::builder().build()?;
/// let layer = spark_errors::ErrorsLayer::new(tracker);
/// # Ok::<(), spark_errors::BuildError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ErrorsLayer {
    settings: Arc<Settings>,
}

impl ErrorsLayer {
    /// A layer that captures with `tracker`.
    ///
    /// ```
    /// # let tracker = spark_errors::ErrorTracker::builder().build()?;
    /// let layer = spark_errors::ErrorsLayer::new(tracker);
    /// # Ok::<(), spark_errors::BuildError>(())
    /// ```
    pub fn new(tracker: ErrorTracker) -> Self {
        Self {
            settings: Arc::new(Settings {
                tracker,
                route: |_| None,
                refusals: false,
            }),
        }
    }

    /// How the route of a request is found in the extensions of the request or of its response.
    /// With the feature `axum`, its `MatchedPath` is used where this finds none.
    ///
    /// ```
    /// #[derive(Clone)]
    /// struct Route(&'static str);
    ///
    /// # let tracker = spark_errors::ErrorTracker::builder().build()?;
    /// let layer = spark_errors::ErrorsLayer::new(tracker)
    ///     .route(|extensions| extensions.get::<Route>().map(|route| route.0));
    /// # Ok::<(), spark_errors::BuildError>(())
    /// ```
    #[must_use]
    pub fn route(self, route: fn(&Extensions) -> Option<&'static str>) -> Self {
        self.change(|settings| settings.route = route)
    }

    /// Whether refusals of ours with a 5xx status are captured too, as warnings of kind
    /// `refusal`. They are not, unless set.
    ///
    /// ```
    /// # let tracker = spark_errors::ErrorTracker::builder().build()?;
    /// let layer = spark_errors::ErrorsLayer::new(tracker).refusals(true);
    /// # Ok::<(), spark_errors::BuildError>(())
    /// ```
    #[must_use]
    pub fn refusals(self, refusals: bool) -> Self {
        self.change(|settings| settings.refusals = refusals)
    }

    fn change(self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::clone(&self.settings);
        change(&mut settings);
        Self {
            settings: Arc::new(settings),
        }
    }
}

impl<S> Layer<S> for ErrorsLayer {
    type Service = Errors<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Errors::new(inner, self.settings.clone())
    }
}

#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) tracker: ErrorTracker,
    pub(crate) route: fn(&Extensions) -> Option<&'static str>,
    pub(crate) refusals: bool,
}

impl Settings {
    pub(crate) fn route_in(&self, extensions: &Extensions) -> Option<RouteName> {
        if let Some(route) = (self.route)(extensions) {
            return Some(RouteName::Fixed(route));
        }
        #[cfg(feature = "axum")]
        if let Some(path) = extensions.get::<axum::extract::MatchedPath>() {
            return Some(RouteName::Matched(path.clone()));
        }
        None
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("refusals", &self.refusals)
            .finish_non_exhaustive()
    }
}

/// A route, without a copy of its text.
#[derive(Clone, Debug)]
pub(crate) enum RouteName {
    Fixed(&'static str),
    #[cfg(feature = "axum")]
    Matched(axum::extract::MatchedPath),
}

impl RouteName {
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Fixed(route) => route,
            #[cfg(feature = "axum")]
            Self::Matched(path) => path.as_str(),
        }
    }
}
