#![doc = include_str!("docs/manual.md")]
#![forbid(unsafe_code)]

mod body;
mod breaker;
mod bulkhead;
mod classify;
mod comments;
mod config;
mod connect;
mod error;
mod failover;
mod failover_future;
mod future;
mod jitter;
mod layer;
mod live;
mod machine;
pub mod metrics;
#[cfg(all(test, spark_loom))]
mod models;
mod outcome;
mod permit;
mod registry;
mod retry;
mod retry_after;
mod run;
mod service;
mod snapshot;
mod sync;
mod tally;
mod timeout;
mod timeout_body;
mod timeout_layer;
mod waiting;
mod window;
mod word;

pub use body::{BreakerBody, Guard};
pub use breaker::Breaker;
pub use bulkhead::{Bulkhead, BulkheadFuture, BulkheadLayer, BulkheadService, Place};
pub use classify::{Classify, ClassifyBody, Head, HttpClassify, LlmClassify, ToTheEnd, Verdict};
pub use config::{Config, Window};
pub use connect::{ConnectFuture, ConnectTimeout};
pub use error::{CallError, ConfigError, RejectReason, Rejected};
pub use failover::{Answered, Failover, Hop};
pub use failover_future::{FailoverBody, FailoverFuture};
pub use future::BreakerFuture;
pub use layer::BreakerLayer;
pub use outcome::{FailKind, IgnoreKind, Mode, Outcome, Reason, Scope, State};
pub use permit::Permit;
pub use registry::{OVERFLOW, Registry};
pub use retry::{RetryBudget, RetryFuture, RetryLayer, RetryService};
pub use retry_after::retry_after;
pub use service::BreakerService;
pub use snapshot::{Snapshot, Totals, Trip};
pub use timeout::{Phase, TimeoutError, Timeouts};
pub use timeout_body::TimeoutBody;
pub use timeout_layer::{TimeoutFuture, TimeoutLayer, TimeoutService};
