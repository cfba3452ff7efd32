//! Rate limits for tower services: GCRA in bounded memory, per principal or per network.
//!
//! Who asks for more than its quota is told 429, when to come back, and is admitted when it does;
//! several policies decide a request together, all or nothing; and a flood of a million addresses
//! costs no more memory, and no more time for each, than one.
//!
//! # Example
//! ```
//! use http::{Request, Response};
//! use spark_core::{Context, Name, User};
//! use spark_ratelimit::{Limiter, Policy, Quota, RateLimitLayer};
//! use std::time::Duration;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! const MINUTE: Duration = Duration::from_secs(60);
//! let policy = Policy::new("requests", Quota::new(60, MINUTE)?.burst(20)?)?
//!     .tier("pro", Quota::new(600, MINUTE)?.burst(100)?);
//! let limiter = Limiter::builder().policy(policy).capacity(100_000).build()?;
//!
//! let service = ServiceBuilder::new()
//!     .layer(RateLimitLayer::new(limiter).scope("tenant"))
//!     .service(service_fn(|_: Request<()>| async {
//!         Ok::<_, std::convert::Infallible>(Response::new("hello".to_owned()))
//!     }));
//!
//! // An auth layer outside says who calls.
//! let user = User::new(Name::new("key-1")?, Name::new("acme")?);
//! let mut request = Request::new(());
//! let context = Context::new(Default::default()).with_principal(user.into());
//! request.extensions_mut().insert(context);
//!
//! let response = service.oneshot(request).await?;
//! assert_eq!(response.headers()["ratelimit-policy"], r#""requests";q=60;w=60"#);
//! assert_eq!(response.headers()["ratelimit"], r#""requests";r=19;t=1"#);
//! # Ok(())
//! # }
//! ```
//! Under axum: `Router::new().layer(RateLimitLayer::new(limiter))`. Without HTTP, [`Limiter`] alone:
//! see its job queue.
//!
//! # What a client sees
//! `RateLimit-Policy` and `RateLimit` of
//! [draft-ietf-httpapi-ratelimit-headers](https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/):
//! `q` is the quota and `w` its window in seconds, `r` what may be used now, `t` when there is more.
//! With several policies, `RateLimit` speaks of the tightest. A refusal is 429 with `Retry-After`
//! (whole seconds, rounded up, at least 1, never earlier than `t`), and as a problem it has the type
//! `https://iana.org/assignments/http-problem-types#quota-exceeded`, the code `rate_limited` and the
//! member `violated-policies`. For scripts in browsers, let CORS expose `RateLimit`,
//! `RateLimit-Policy` and `Retry-After`.
//!
//! # How much passes
//! Over any window of length `t` at most `burst + t × quota / per` units. The burst equals the quota
//! unless you say otherwise, so the worst single period holds twice the quota. A refused request is
//! charged to nobody: hammering does not make the wait longer.
//!
//! # Order
//! Twice is best: outside authentication by [`KeyBy::client_ip`], generous, with
//! [`Headers::OnRefusal`], so that a flood of bad keys is refused cheaply; and inside it by
//! [`KeyBy::principal`], which is what clients plan by. Health probes leave further out, or are
//! exempt by name. Both inside `spark_core::ContextLayer`, which knows the proxies to trust: this
//! crate reads no forwarding header.
//!
//! Two layers with **one** limiter charge a request once for each key: an accidental second layer is
//! passed through, warned about once, and counted as `repeated`.
//!
//! # Failure modes
//! - No peer address and no principal: one shared bucket, a warning, `spark_miswired_total`; never
//!   unlimited, never a 500.
//! - [`KeyBy::principal`] without an auth layer outside: the network stands in, and is reported too.
//! - Table full: the least indebted of eight neighbours is forgotten, and counted in
//!   `spark_ratelimit_table_evicted_live_total`. The exhausted stay exhausted; who is forgotten begins
//!   with a full burst. So a table that is too small fails open, for those who owe least: callers that
//!   push each other out of one set are hardly limited while it is full of others. Watch the counter.
//!   "Too small" begins before every slot is taken, since callers spread unevenly over the sets of
//!   eight: at half load some 2 % of the sets are over-full. Take five slots per caller in debt.
//! - A clock that steps back: nobody is locked out for longer than two refills of the burst.
//! - Restart: all debts are forgotten. Limits are per process.
//!
//! # Memory and cost
//! 17 bytes per slot and policy, taken at the start: a million slots are 17 MB. A decision is one
//! hash and one reading of the clock, and per policy one short lock and at most 128 bytes read. It
//! allocates nothing, allowed or refused. The layer allocates at most twice for a request that
//! passes: the value of `RateLimit`, and the note that the request was charged. Tests count both.
//!
//! The tables' metrics are renewed every five seconds, by a request that comes then.
//!
//! # Features
//! `metrics` (on): emits what [`metrics`] names. `governor`: `From<governor::Quota>` for [`Quota`].
//!
//! # Not in scope
//! Limits shared between processes; bytes and concurrent requests (see tower's and tower-http's
//! limits); guessing of keys, which an authenticator throttles by itself.
#![forbid(unsafe_code)]

mod admit;
mod body;
mod budget;
mod builder;
mod charge;
mod choice;
mod concurrency;
mod decision;
mod engine;
mod error;
mod fields;
mod future;
mod gcra;
#[cfg(feature = "governor")]
mod governor;
mod head;
mod headers;
mod jitter;
mod key;
mod key_by;
mod layer;
mod ledger;
mod legacy;
mod limiter;
pub mod metrics;
#[cfg(all(test, spark_loom))]
mod models;
mod permit;
mod plan;
mod policy;
mod quota;
mod refuse;
mod request;
#[cfg(feature = "axum")]
mod route;
mod service;
mod sip;
mod stats;
mod store;
mod subject;
mod sync;
mod text;
mod unit;

pub use body::HeldBody;
pub use builder::LimiterBuilder;
pub use charge::Charge;
pub use concurrency::{AtCapacity, Concurrency, ConcurrencyLimiter, InFlight};
pub use decision::{Decision, PolicyState};
pub use error::ConfigError;
pub use future::ResponseFuture;
#[cfg(feature = "governor")]
pub use governor::BoundedStateStore;
pub use head::Head;
pub use key::Key;
pub use key_by::KeyBy;
pub use layer::{Headers, RateLimitLayer};
pub use limiter::Limiter;
pub use permit::Permit;
pub use policy::Policy;
pub use quota::Quota;
pub use service::RateLimit;
pub use stats::TableStats;
pub use subject::{ChooseKey, Subject, Unknown};
pub use unit::Unit;
