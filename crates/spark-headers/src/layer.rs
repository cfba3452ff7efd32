//! The layer.

use std::sync::Arc;

use spark_core::Miswired;
use tower_layer::Layer;

use crate::service::SecurityHeadersService;
use crate::set::SecurityHeaders;

/// Writes a [`SecurityHeaders`] on every response that passes.
///
/// A response that another such layer further in has already seen is left alone, so one page can
/// have the HTML set inside a service that has the API set.
///
/// # Example
/// ```
/// use spark_headers::{SecurityHeaders, SecurityHeadersLayer};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let service = ServiceBuilder::new()
///     .layer(SecurityHeadersLayer::new(SecurityHeaders::api()))
///     .service(service_fn(|_: http::Request<()>| async {
///         Ok::<_, std::convert::Infallible>(http::Response::new("pong"))
///     }));
/// let response = service.oneshot(http::Request::new(())).await.unwrap();
/// assert_eq!(response.headers()["x-content-type-options"], "nosniff");
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct SecurityHeadersLayer {
    shared: Arc<Shared>,
}

/// What the layer and its services share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) set: SecurityHeaders,
    pub(crate) miswired: Miswired,
}

impl SecurityHeadersLayer {
    /// A layer that writes this set.
    ///
    /// # Example
    /// ```
    /// use spark_headers::{SecurityHeaders, SecurityHeadersLayer};
    /// let layer = SecurityHeadersLayer::new(SecurityHeaders::html());
    /// ```
    pub fn new(set: SecurityHeaders) -> Self {
        Self {
            shared: Arc::new(Shared {
                set,
                miswired: Miswired::new("headers"),
            }),
        }
    }
}

impl<S> Layer<S> for SecurityHeadersLayer {
    type Service = SecurityHeadersService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        SecurityHeadersService::new(inner, Arc::clone(&self.shared))
    }
}
