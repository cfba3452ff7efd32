//! Live, ready, started, and in detail: the health of a service, without telling strangers its insides.
//!
//! A probe that runs every check for every caller is a way to bring the service down, and one that
//! tells anyone what the database said is a leak. Here each check is run by one caller at a time and
//! its answer remembered for two seconds; it fails when it hangs or panics, and nothing else does; and
//! strangers see one word.
//!
//! # Example
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use spark_health::{CheckResult, Gate, Health, ProbesLayer, Status};
//!
//! let health = Health::builder()
//!     .service_id("spark")
//!     .release(env!("CARGO_PKG_VERSION"))
//!     .check("store", Gate::Ready, || async { CheckResult::pass() })
//!     .check_fn("breakers", Gate::Warn, || CheckResult::warn("1 of 2 providers is cut off"))
//!     .build()?;
//!
//! let operator = health.clone();
//! let app: axum::Router = axum::Router::new()
//!     .route("/health", axum::routing::get(|| async move {
//!         operator.report().await.public().into_response()
//!     }))
//!     .layer(ProbesLayer::new(health.clone()));
//!
//! health.started(); // once the store is open and the listener bound
//! assert!(health.ready().await.is_ready());
//! assert_eq!(health.report().await.status(), Status::Warn);
//!
//! health.begin_drain(); // when told to stop, and some seconds before the listener is closed
//! assert!(!health.ready().await.is_ready());
//! # drop(app);
//! # Ok(()) }
//! ```
//!
//! # What is asked, and what it is for
//!
//! | path | answers 200 when | who asks | what they do otherwise |
//! |---|---|---|---|
//! | `/livez` | the process answers at all | the liveness probe | restart it |
//! | `/startupz` | [`Health::started`] was called | the startup probe | wait |
//! | `/readyz` | it has started, does not drain, and no check of [`Gate::Ready`] fails | the readiness probe, the load balancer | send traffic elsewhere |
//! | yours | the [`Report`] is `pass` or `warn` | operators, dashboards | look into it |
//!
//! No check makes `/livez` fail: a restart mends no dependency, and restarting all instances when one
//! dependency is down makes it worse.
//!
//! # Order
//! [`ProbesLayer`] stands inside of what writes headers and catches panics, and outside of everything
//! that may refuse: load shedding, limits, authentication. The paths need none of them, since what they
//! cost does not depend on how often they are asked for. Put the report under a limit by address, and
//! its details behind the operator's key.
//!
//! # Failure modes
//! - A check that takes longer than the timeout (2 s) has failed, and is cancelled. One that blocks its
//!   thread cannot be; it is not run again until it ends.
//! - A check that panics has failed.
//! - `/livez` waits until the inner service is ready for a request, as every layer does. A service that
//!   pushes back by not being ready needs a layer that sheds load instead, inside of this one.
//! - Outside of a tokio runtime every check fails.
//!
//! # Memory and cost
//! One answer is kept per check. Within the time that it is remembered, `/readyz` costs one lock and
//! a read of the clock for each check of [`Gate::Ready`]; the other two cost neither. A request that is
//! no probe costs the comparison of its method and path, and allocates nothing (a test counts).
//!
//! # Not in scope
//! Checks of particular databases, history, and alerting: [`metrics`] has the gauges to alert on.
#![forbid(unsafe_code)]

mod builder;
mod check;
mod date;
mod error;
mod future;
mod health;
mod layer;
pub mod metrics;
mod report;
mod result;
mod service;
mod status;

pub use builder::HealthBuilder;
pub use error::HealthError;
pub use future::ResponseFuture;
pub use health::{Health, Readiness};
pub use layer::ProbesLayer;
pub use report::{PublicReport, Report};
pub use result::CheckResult;
pub use service::ProbesService;
pub use status::{Gate, Status};
