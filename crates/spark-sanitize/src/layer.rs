//! The layer that inspects JSON bodies.

use std::sync::Arc;

use tower_layer::Layer;

use crate::{
    fields::Fields, json_report::FieldReport, report::Action, sanitizer::Sanitizer,
    service::Sanitize,
};

/// Reads JSON bodies, checks and cleans them, and refuses what must not pass.
///
/// A body that passes is handed on whole, as `RequestBody`, with a [`SanitizeReport`] among the
/// request's extensions; where something was found, the response gets it, too.
///
/// ```
/// use spark_sanitize::{Fields, SanitizeLayer, Sanitizer};
///
/// let layer = SanitizeLayer::new(
///     Sanitizer::builder().build()?,
///     Fields::new(["prompt", "messages[].content"])?,
/// )
/// .max_body(256 * 1024);
/// # Ok::<(), spark_sanitize::BuildError>(())
/// ```
#[derive(Clone, Debug)]
pub struct SanitizeLayer(Arc<Rules>);

/// What the layer and all its services share.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) sanitizer: Sanitizer,
    pub(crate) fields: Fields,
    pub(crate) max_body: usize,
    pub(crate) pass_other_types: bool,
}

impl SanitizeLayer {
    /// Inspects the selected fields of JSON bodies of up to 1 MiB, and refuses bodies of any other
    /// type that come with POST, PUT or PATCH.
    ///
    /// ```
    /// # use spark_sanitize::{Fields, SanitizeLayer, Sanitizer};
    /// let layer = SanitizeLayer::new(Sanitizer::builder().build()?, Fields::new(["prompt"])?);
    /// # Ok::<(), spark_sanitize::BuildError>(())
    /// ```
    pub fn new(sanitizer: Sanitizer, fields: Fields) -> Self {
        Self(Arc::new(Rules {
            sanitizer,
            fields,
            max_body: 1 << 20,
            pass_other_types: false,
        }))
    }

    /// Reads bodies of up to `bytes`; longer ones are answered with 413.
    ///
    /// ```
    /// # use spark_sanitize::{Fields, SanitizeLayer, Sanitizer};
    /// # let (sanitizer, fields) = (Sanitizer::builder().build()?, Fields::new(["prompt"])?);
    /// let layer = SanitizeLayer::new(sanitizer, fields).max_body(64 * 1024);
    /// # Ok::<(), spark_sanitize::BuildError>(())
    /// ```
    #[must_use]
    pub fn max_body(self, bytes: usize) -> Self {
        let mut rules = Arc::unwrap_or_clone(self.0);
        rules.max_body = bytes;
        Self(Arc::new(rules))
    }

    /// Lets bodies that are no JSON pass unread, for routes with uploads or gRPC. Each one is
    /// counted. Without it, they are answered with 415.
    ///
    /// ```
    /// # use spark_sanitize::{Fields, SanitizeLayer, Sanitizer};
    /// # let (sanitizer, fields) = (Sanitizer::builder().build()?, Fields::new(["prompt"])?);
    /// let layer = SanitizeLayer::new(sanitizer, fields).pass_other_types(true);
    /// # Ok::<(), spark_sanitize::BuildError>(())
    /// ```
    #[must_use]
    pub fn pass_other_types(self, yes: bool) -> Self {
        let mut rules = Arc::unwrap_or_clone(self.0);
        rules.pass_other_types = yes;
        Self(Arc::new(rules))
    }
}

impl<S> Layer<S> for SanitizeLayer {
    type Service = Sanitize<S>;

    fn layer(&self, inner: S) -> Sanitize<S> {
        Sanitize {
            inner,
            rules: Arc::clone(&self.0),
        }
    }
}

/// An extension of requests that were inspected, and of responses where something was found.
///
/// It is for the service itself: nothing of it is told to the client.
#[derive(Clone, Debug)]
pub struct SanitizeReport {
    pub(crate) action: Action,
    /// None where nothing was found, which is the rule and costs no allocation.
    pub(crate) fields: Option<Arc<[FieldReport]>>,
}

impl SanitizeReport {
    /// The strictest action that was taken.
    ///
    /// ```
    /// fn handler(request: http::Request<()>) -> bool {
    ///     let report = request.extensions().get::<spark_sanitize::SanitizeReport>();
    ///     report.is_some_and(|report| report.action() > spark_sanitize::Action::Allow)
    /// }
    /// # assert!(!handler(http::Request::new(())));
    /// ```
    pub fn action(&self) -> Action {
        self.action
    }

    /// The fields in which something was found.
    ///
    /// ```
    /// fn rules(report: &spark_sanitize::SanitizeReport) -> Vec<&'static str> {
    ///     report.fields().iter().flat_map(|field| &field.findings).map(|f| f.rule).collect()
    /// }
    /// ```
    pub fn fields(&self) -> &[FieldReport] {
        self.fields.as_deref().unwrap_or_default()
    }
}
