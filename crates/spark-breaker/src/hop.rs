//! One provider among several.

use std::fmt;
use std::sync::Arc;

use crate::metrics::HopMetrics;

/// One provider among several: a name, and a service that calls it.
///
/// # Example
/// ```
/// let hop = spark_breaker::Hop::new("primary", "any service");
/// assert_eq!(&**hop.name(), "primary");
/// ```
#[derive(Clone)]
pub struct Hop<S> {
    name: Arc<str>,
    weight: u32,
    pub(crate) service: S,
    pub(crate) metrics: HopMetrics,
}

impl<S> Hop<S> {
    /// A provider of this name, which is a label of the metrics, with the weight 1.
    ///
    /// # Example
    /// ```
    /// let hop = spark_breaker::Hop::new("primary", "any service");
    /// ```
    pub fn new(name: impl Into<Arc<str>>, service: S) -> Self {
        Self {
            name: name.into(),
            weight: 1,
            service,
            metrics: HopMetrics::default(),
        }
    }

    /// How often it is chosen, compared with the others, under
    /// [`Order::Weighted`](crate::Order::Weighted). With 0 it is chosen when no other is left.
    ///
    /// # Example
    /// ```
    /// let hop = spark_breaker::Hop::new("spare", "any service").weight(0);
    /// ```
    #[must_use]
    pub fn weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// The provider's name.
    ///
    /// # Example
    /// ```
    /// assert_eq!(&**spark_breaker::Hop::new("primary", ()).name(), "primary");
    /// ```
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(crate) fn its_weight(&self) -> u32 {
        self.weight
    }
}

impl<S> fmt::Debug for Hop<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hop").field(&self.name).finish()
    }
}

/// Response extension: which hop answered, and how many were tried.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answered {
    /// The name of the hop whose answer this is.
    pub hop: Arc<str>,
    /// How many hops were tried, this one included.
    pub hops: usize,
}
