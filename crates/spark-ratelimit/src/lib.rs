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
//! # What it can do
//! - Several [`Policy`]s decide a request together, **all or nothing**: 10 per second and 1,000 per day
//!   and 100,000 tokens per minute. A refusal is charged to nobody, so hammering does not make the
//!   wait longer.
//! - A quota for each [tier](Policy::tier) and for [single keys](Policy::key), replaced while running by
//!   [`Limiter::reconfigure`]; debts are carried over in proportion.
//! - [`Limiter::acquire`] reserves an estimate, and its [`Permit`] settles what was really used; in a
//!   service, [`RateLimitLayer::budget`] gives the handler that through the request's context.
//! - [`ConcurrencyLimiter`]: how many at once, held to the last byte of the response.
//! - [`KeyBy`]: whose quota, by tenant, network, header, route or a way of your own, put together with
//!   `or` and `and`; a key of its own for each policy with [`RateLimitLayer::key_for`].
//! - [`Policy::shadow`]: counts and never refuses. [`Limiter::peek`], [`Limiter::penalize`],
//!   [`Limiter::reset`] for operators.
//! - [`Limiter`] by itself, without HTTP, guards a job queue. `BoundedStateStore` gives the same bounded
//!   memory to governor's own `RateLimiter`.
//!
//! # What a client sees
//! `RateLimit-Policy` and `RateLimit` of
//! [draft-ietf-httpapi-ratelimit-headers-11](https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/11/):
//! `q` is the quota and `w` its window in seconds, `r` what may be used now, and for `t` seconds there
//! is no more. With several policies, `RateLimit` speaks of the tightest. A refusal is 429 with
//! `Retry-After` (whole seconds, rounded up, at least 1, never earlier than `t`;
//! [a jitter](RateLimitLayer::retry_jitter) if you like), and as a problem it has the type
//! `https://iana.org/assignments/http-problem-types#quota-exceeded`, the code `rate_limited` and the
//! member `violated-policies`. By option also [`X-RateLimit-*`](RateLimitLayer::x_ratelimit) and
//! [OpenAI's fields](RateLimitLayer::openai_headers). For scripts in browsers, let CORS expose
//! `RateLimit`, `RateLimit-Policy` and `Retry-After`.
//!
//! # How much passes
//! Over any window of length `t` at most `burst + t × quota / per` units. The burst equals the quota
//! unless you say otherwise, so the worst single period holds twice the quota. Whoever waits as long
//! as told is admitted, if nobody else uses the key meanwhile; a limit on concurrency cannot promise
//! that, and says 1 second.
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
//! - Nothing tells whose request it is: one shared bucket, a warning, `spark_miswired_total`; never
//!   unlimited, never a 500. [`KeyBy::unknown`] can choose a 503 instead.
//! - [`KeyBy::principal`] without an auth layer outside: the network stands in, and is reported too.
//! - Table full: the least indebted of some neighbours is forgotten, and counted in
//!   `spark_ratelimit_table_evicted_live_total`. The exhausted stay exhausted; who is forgotten begins
//!   with a full burst. So a table that is too small fails open, for those who owe least. Take three
//!   slots for each caller in debt, and watch the counter. Debts are compared in time, so tiers of one
//!   policy whose bursts refill in seconds and in days are better two policies.
//! - A tier that a caller can choose by itself: each change keeps the share of the burst that is used,
//!   but who changes to and fro refills at the faster of both rates. Let the tier come from its key.
//! - A clone of a request's `spark_core::Context`, put on another request, says that it was charged
//!   already: give each sub-request a context of its own.
//! - A clock that steps back: nobody is locked out for longer than two refills of the burst.
//! - Restart: all debts are forgotten, and budgets start afresh. Limits are per process.
//!
//! # Memory and cost
//! 16 bytes per slot and policy, taken at the start and never more: a million slots are 16 MB. No
//! background task. A decision is one hash and one reading of the clock, and per policy one short lock,
//! on one cache line for most keys. It allocates nothing, allowed or refused. The layer allocates at
//! most twice for a request that passes; tests count. [`Limiter::reconfigure`] walks the tables while
//! requests go on. Beside governor: `cargo bench -p spark-benches --bench ratelimit`; floods of ten
//! million keys: `cargo run --release -p spark-ratelimit --example flood`.
//!
//! The tables' metrics are renewed every five seconds, by a request that comes then.
//!
//! # Features
//! `metrics` (on): emits what [`metrics`] names. `governor` (on): `From<governor::Quota>` for [`Quota`],
//! and `BoundedStateStore`. `axum`: `KeyBy::route`, and the peer from axum's `ConnectInfo`.
//!
//! # Not in scope
//! Limits shared between processes; bytes (see tower-http's limits); guessing of keys, which an
//! authenticator throttles by itself.
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
mod memory;
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
