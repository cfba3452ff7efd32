#![doc = include_str!("docs/manual.md")]
#![forbid(unsafe_code)]

mod body;
mod cache;
mod canonical;
mod completion;
mod config;
mod entry;
mod error;
mod flight;
mod frame_log;
mod freshness;
mod future;
mod key;
mod layer;
mod llm;
mod load;
pub mod metrics;
mod passes;
mod policy;
mod service;
mod status;
mod store;

pub use body::CacheBody;
pub use cache::{Cache, CacheResult, Stats};
pub use canonical::{Canonical, Scalar};
pub use config::{Abandon, Builder, Tuning};
pub use entry::{Answer, Entry};
pub use error::{BodyError, ConfigError, FetchError};
pub use freshness::Freshness;
pub use future::CacheFuture;
pub use key::{CacheKey, KeyBuilder, Public, Scope};
pub use layer::CacheLayer;
pub use llm::{LlmPolicy, LlmPolicyBuilder, UnknownWhen, When};
pub use policy::{Lookup, Policy, Route, Verdict};
pub use service::CacheService;
pub use store::{MokaStore, Store, StoreUsage};
