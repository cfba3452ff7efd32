//! Saying aloud that a layer stands where its input does not reach it.

use std::sync::atomic::{AtomicBool, Ordering};

/// Warns once, and counts every time, that a layer misses its input.
///
/// A layer holds one in its shared state. It never answers 500 for being mis-wired: it takes its
/// configured fallback, and this makes the fallback visible: one `tracing` warning, and the counter
/// `spark_miswired_total{layer}` (feature `metrics`).
///
/// # Example
/// ```
/// use spark_core::Miswired;
/// let miswired = Miswired::new("ratelimit");
/// miswired.report("no peer address: serve with spark-serve, or with axum's ConnectInfo");
/// ```
#[derive(Debug)]
pub struct Miswired {
    layer: &'static str,
    warned: AtomicBool,
}

impl Miswired {
    /// For the layer of this name.
    ///
    /// # Example
    /// ```
    /// let miswired = spark_core::Miswired::new("ratelimit");
    /// ```
    pub const fn new(layer: &'static str) -> Self {
        Self {
            layer,
            warned: AtomicBool::new(false),
        }
    }

    /// Counts it; the first time, also says what is missing and how to mend it.
    ///
    /// # Example
    /// ```
    /// spark_core::Miswired::new("cache").report("no principal: put the auth layer outside");
    /// ```
    #[cold]
    pub fn report(&self, what_and_mend: &str) {
        #[cfg(feature = "metrics")]
        metrics::counter!(crate::metrics::MISWIRED_TOTAL, "layer" => self.layer).increment(1);
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(layer = self.layer, "mis-wired: {what_and_mend}");
        }
    }
}
