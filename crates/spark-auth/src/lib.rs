#![doc = include_str!("docs/manual.md")]
#![doc = include_str!("docs/security.md")]
#![cfg_attr(feature = "redb", doc = include_str!("docs/storage.md"))]
#![forbid(unsafe_code)]

mod answer;
mod audit;
mod audit_queue;
mod authenticator;
mod base62;
mod change;
mod codec;
mod config;
mod credential;
mod error;
#[cfg(feature = "axum")]
mod extract;
#[cfg(feature = "redb")]
mod file_store;
mod flush;
mod future;
mod hex;
mod index;
mod info;
mod key;
mod last_use;
mod layer;
mod mac;
mod master;
mod memory;
pub mod metrics;
mod new_key;
mod page;
mod pepper;
mod record;
mod refresh;
mod renewal;
mod require;
mod secret_file;
mod service;
mod stop;
mod store;
mod strength;
mod throttle;
mod verify;
mod words;

pub use audit::{AuditEvent, AuditSink, TracingAudit};
pub use audit_queue::AuditQueue;
pub use authenticator::Authenticator;
pub use change::MAX_OVERLAP;
pub use codec::DecodeError;
pub use config::{AuthenticatorBuilder, DEFAULT_MAX_KEYS};
pub use credential::{CredentialError, credential};
pub use error::{
    AuthError, BuildError, KeyError, MasterKeyError, PepperError, Rejected, StoreError,
};
#[cfg(feature = "axum")]
pub use extract::{Caller, MasterCaller, UserCaller};
#[cfg(feature = "redb")]
pub use file_store::FileStore;
pub use flush::Flushed;
pub use future::AuthFuture;
pub use info::KeyInfo;
pub use key::{
    ApiKey, ForMasters, ForUsers, KEY_PATTERN, KeyKind, MAX_CREDENTIAL_LEN, MasterKey, UserKey,
};
pub use layer::AuthLayer;
pub use mac::Mac;
pub use master::MasterVerifier;
pub use new_key::NewKey;
pub use page::{KeyPage, PageMark, PageMarkError};
pub use pepper::{Pepper, PepperId};
pub use record::{
    Issued, KeyRecord, KeyState, KeyStatus, MAX_LABEL_LEN, MAX_NETWORKS, MAX_OWNER_LEN, MAX_SCOPES,
};
pub use require::{RequireLayer, RequireService};
pub use secret_file::{read_secret_file, write_secret_file};
pub use service::AuthService;
pub use store::{Change, Changes, KeyStore, Loaded, MemoryStore};
pub use strength::MIN_MASTER_SECRET_LEN;
pub use throttle::FailureThrottle;
pub use words::{Brand, Environment, Kind};
