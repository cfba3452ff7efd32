#![doc = include_str!("docs/manual.md")]
#![forbid(unsafe_code)]

mod budget;
mod client_ip;
mod clock;
mod collect;
pub mod completion;
mod context;
mod context_layer;
#[cfg(feature = "axum")]
mod extract;
mod json;
pub mod metrics;
mod miswired;
mod name;
mod principal;
mod refusal;
mod request_body;
mod response_body;
mod shape;
pub mod sse;
#[cfg(feature = "testing")]
pub mod testing;
mod usage;
mod watched;

pub use budget::Budget;
pub use client_ip::{ClientIp, ForwardedHeader, PeerAddr, Resolved, TrustedProxies, peer_addr};
pub use clock::{Clock, Instant};
pub use collect::{Collect, CollectError, collect};
pub use context::Context;
pub use context_layer::{ContextLayer, ContextService, remove_spark_headers};
pub use miswired::Miswired;
pub use name::{MAX_NAME_LEN, Name, NameError};
pub use principal::{Principal, Scopes, User};
pub use refusal::{Problem, Refusal, whole_seconds};
pub use request_body::RequestBody;
pub use response_body::ResponseBody;
pub use shape::Shape;
pub use usage::{Usage, UsageReport};
pub use watched::{End, Watch, Watched, watch_response};

/// Any error that may cross a thread.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
