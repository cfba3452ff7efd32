#![doc = include_str!("docs/manual.md")]
#![forbid(unsafe_code)]

mod body;
mod cache;
mod canonical;
mod completion;
mod config;
mod entry;
mod error;
mod fetch;
mod flight;
mod frame_log;
mod freshness;
mod future;
mod key;
mod layer;
mod llm;
mod llm_builder;
mod load;
pub mod metrics;
mod passes;
mod policy;
mod respond;
mod service;
mod stats;
mod status;
mod store;
mod tuning;
mod when;

pub use body::CacheBody;
pub use cache::Cache;
pub use canonical::{Canonical, Scalar};
pub use config::{Abandon, Builder};
pub use entry::{Answer, Entry};
pub use error::{BodyError, ConfigError, FetchError};
pub use freshness::Freshness;
pub use future::CacheFuture;
pub use key::{CacheKey, KeyBuilder, Public, Scope};
pub use layer::CacheLayer;
pub use llm::LlmPolicy;
pub use llm_builder::LlmPolicyBuilder;
pub use policy::{Lookup, Policy, Route, Verdict};
pub use service::CacheService;
pub use stats::{CacheResult, Stats};
pub use store::{MokaStore, Store, StoreUsage};
pub use tuning::Tuning;
pub use when::{UnknownWhen, When};
