//! Prometheus metrics for tower services, with bounded cardinality.
//!
//! A recorder that cannot be made to grow without end, and a layer that counts a request when its
//! response **body** ends: streams are measured in full, and a client that went away, a panic and
//! an error are told from success.
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::{BodyExt, Full};
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let metrics = spark_metrics::Metrics::builder().max_series_per_metric(2_000).install()?;
//! let layer = spark_metrics::HttpMetricsLayer::new(spark_core::Clock::system());
//!
//! let handler = service_fn(|_: Request<Full<Bytes>>| async {
//!     let mut response = Response::new(Full::from("hello"));
//!     response.extensions_mut().insert(spark_metrics::Route("/hello"));
//!     Ok::<_, std::convert::Infallible>(response)
//! });
//! let response = layer.layer(handler).oneshot(Request::default()).await?;
//! response.into_body().collect().await?;
//!
//! let page = metrics.render(); // send it as `spark_metrics::CONTENT_TYPE`
//! assert!(page.contains(
//!     r#"spark_http_requests_total{method="GET",route="/hello",status="200",outcome="complete"} 1"#
//! ));
//! # Ok(()) }
//! ```
//!
//! # What the layer records
//!
//! | metric | labels |
//! |---|---|
//! | `spark_http_requests_total` | `method`, `route`, `status`, `outcome` (`complete`, `cancelled`, `error`) |
//! | `spark_http_request_duration_seconds` | `method`, `route`, `status_class` |
//! | `spark_http_time_to_first_byte_seconds` | `method`, `route` |
//! | `spark_http_response_body_bytes` | `method`, `route` |
//! | `spark_http_requests_in_flight` | |
//! | `spark_http_refusals_total` | `by`, `code`: from [`spark_core::Refusal`] |
//! | `spark_ai_requests_total`, `spark_ai_upstream_duration_seconds` | `provider`, `model`: from [`spark_core::Usage`] |
//! | `spark_ai_tokens_total` | `provider`, `model`, `type` (`input`, `output`) |
//!
//! The recorder adds `spark_metrics_series`, `spark_metrics_overflow_total{metric}`,
//! `spark_metrics_refused_total{reason}`, `spark_build_info{version}` and
//! `process_start_time_seconds`. [`describe`] has the help of each.
//!
//! `status` is `none` where no response head was made (the service failed, panicked, or the
//! client left first). The time to the first byte is that of the first byte of the **body**; an
//! answer without one has none. The route is never the raw path: see [`RouteLabel`]. Methods that
//! the standards do not know are `_OTHER`; models that were not listed with
//! [`HttpMetricsLayer::models`] are `other`.
//!
//! # Order
//!
//! Outside of everything that answers, so that refusals are counted; inside of
//! [`spark_core::ContextLayer`], which carries the `Usage` that the AI metrics read. With axum,
//! either `router.layer(layer)`, or around the whole router with `MatchedPathLayer` inside
//! (feature `axum`).
//!
//! # Failure modes
//!
//! * A metric at its cap of label sets: further ones share `{overflow="true"}`, counted and warned
//!   about once per metric. What was there before keeps its own series.
//! * A name in use as two kinds, or one name too many: the later one records nothing, counted.
//!   The page stays one that Prometheus can read.
//! * No recorder installed: the layer records nothing, at some nanoseconds per request.
//! * The runtime of [`MetricsBuilder::install`] ends, or every clone of [`Metrics`] is dropped:
//!   upkeep ends, and samples stay in memory until the next scrape. [`Metrics::stats`] tells.
//!
//! # Memory and cost
//!
//! At most `max_metrics` × (`max_series_per_metric` + 1) series; in practice the cap of a few
//! metrics. The layer holds handles for 1,000 routes, ten methods each, and for 256 pairs of
//! provider and model. Once a route has been seen, a request allocates nothing: it reads the
//! clock three times and updates two counters, a gauge and three histograms (a counted test).
//! Rendering costs some 3 µs per series: send pages of thousands of series from `spawn_blocking`.
//!
//! # Not in scope
//!
//! Serving `/metrics` (a handler that returns [`Metrics::render`]) and guarding it; request body
//! sizes; the gRPC status in trailers (gRPC answers 200); exemplars, OpenMetrics, native
//! histograms; process metrics beyond the start time.
#![forbid(unsafe_code)]

mod ai;
mod buckets;
mod cardinality;
mod clean;
mod config;
mod error;
mod future;
mod instruments;
mod layer;
#[cfg(feature = "axum")]
mod matched;
mod metrics;
mod observation;
mod recorder;
mod route;
mod service;
mod upkeep;

pub use self::{
    buckets::{BYTES, SECONDS, TOKENS},
    cardinality::{CardinalityLimit, Limits},
    config::MetricsBuilder,
    error::InstallError,
    future::ResponseFuture,
    layer::HttpMetricsLayer,
    metrics::describe,
    observation::Observation,
    recorder::{CONTENT_TYPE, Metrics, Stats},
    route::{Route, RouteLabel},
    service::HttpMetrics,
};

#[cfg(feature = "axum")]
pub use self::matched::{MatchedPathFuture, MatchedPathLayer, MatchedPathService};
