//! The layer.

use tower_layer::Layer;

use crate::health::Health;
use crate::service::ProbesService;

/// Answers `GET` and `HEAD` of `/livez`, `/readyz` and `/startupz` in plain text, and passes
/// everything else on.
///
/// # Example
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use spark_health::{Health, ProbesLayer};
/// use tower::{Layer, ServiceExt, service_fn};
/// let health = Health::builder().build()?;
/// let service = ProbesLayer::new(health.clone()).layer(service_fn(|_: http::Request<()>| async {
///     Ok::<_, std::convert::Infallible>(http::Response::new(String::from("pong")))
/// }));
/// let probe = http::Request::get("/readyz").body(())?;
/// assert_eq!(service.clone().oneshot(probe.clone()).await?.status(), 503);
/// health.started();
/// assert_eq!(service.oneshot(probe).await?.status(), 200);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct ProbesLayer {
    health: Health,
}

impl ProbesLayer {
    /// Answers with this health.
    ///
    /// # Example
    /// ```
    /// use spark_health::{Health, ProbesLayer};
    /// let layer = ProbesLayer::new(Health::builder().build()?);
    /// # Ok::<(), spark_health::HealthError>(())
    /// ```
    pub fn new(health: Health) -> Self {
        Self { health }
    }
}

impl<S> Layer<S> for ProbesLayer {
    type Service = ProbesService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ProbesService::new(inner, self.health.clone())
    }
}
