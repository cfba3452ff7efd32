//! Error tracking for tower services: captured, grouped, redacted, bounded, handed to hooks.
//!
//! An [`ErrorTracker`] keeps the last errors and a table of groups of like ones in a few
//! megabytes, and hands them to hooks without ever making a request wait. An [`ErrorsLayer`]
//! turns panics into answers and captures what a service answers with 5xx.
//!
//! ```
//! use std::{convert::Infallible, time::Duration};
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use spark_errors::{ErrorTracker, ErrorsLayer, MemoryHook};
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let sent = MemoryHook::new(100);
//! let tracker = ErrorTracker::builder().hook(sent.clone()).build()?;
//! tracker.install_panic_hook();
//!
//! // What you know about, you capture: grouped by kind, type, place and normalised message.
//! let error = std::io::Error::other("refused after 31 ms, password=hunter2");
//! tracker.event("provider").error(&error).route("/v1/chat/completions").send();
//!
//! // What you do not know about, the layer captures.
//! let handler = service_fn(|_: Request<()>| async {
//!     if true { panic!("planned") }
//!     Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
//! });
//! let response = ErrorsLayer::new(tracker.clone()).layer(handler).oneshot(Request::new(())).await?;
//! assert_eq!(response.status(), 500);
//!
//! tracker.flush(Duration::from_secs(2)).await;
//! assert_eq!(sent.events()[0].message, "refused after 31 ms, password=[redacted]");
//! assert_eq!(sent.events()[1].message, "planned");
//! # Ok(()) }
//! ```
//!
//! # Order
//!
//! Outside of everything that may panic, inside of what must see its answer: metrics, the
//! security headers, CORS. A last, bare panic catch may stand outside of all. Errors of a client
//! to a provider are captured where they are understood, with [`ErrorTracker::event`].
//!
//! # Metrics
//!
//! `spark_errors_total{kind}`, `spark_errors_suppressed_total`, `spark_errors_groups`,
//! `spark_errors_groups_evicted_total`, `spark_errors_hook_delivered_total{hook}` and
//! `spark_errors_hook_dropped_total{hook,reason}`. Kinds are constants of the program; the layer's
//! are `panic`, `response`, `service` and `refusal`.
//!
//! # What is kept of an error
//!
//! Its kind, type, message, sources, place, route, tags and time, after [`Redactor`] took the
//! secrets out; nothing of a request's or response's body. A panic's message is kept without what
//! it quotes, since a slice out of bounds, a failed `unwrap` and a failed assertion print data.
//! An answer to a client says only that something failed, and the event's name.
//!
//! # Failure modes
//!
//! * A storm: a group keeps and sends five events a minute and counts the rest; the ring forgets
//!   the oldest event, the table the group not seen for longest.
//! * A hook that hangs, fails, or panics: each attempt ends after 5 s, three attempts are made,
//!   and after three events in a row it rests for 30 s. Meanwhile its queue of 64 fills, and what
//!   does not fit is dropped. Each drop is counted in `spark_errors_hook_dropped_total`.
//! * An error inside of a hook is kept, and sent to no hook. A panic inside of a capture is left
//!   to the previous panic hook.
//! * A panic of a response body: the body ends with an error, so that the client sees that it is
//!   cut. A panic while `panic = "abort"` ends the process: nothing can catch it.
//!
//! # Memory and cost
//!
//! 5 MiB at the most with the settings as they come, and 64 events per hook. Capturing redacts and
//! normalises at most 16 KiB with linear regular expressions whose look-ahead is bounded, then
//! takes one SHA-256 and a short lock. In an **unoptimised** build the two expressions took 37 µs
//! together for a usual message of 130 bytes, and 6 ms for the worst 64 KiB that we could write.
//! The layer allocates nothing for a request that goes well (a counted test).
//!
//! # Not in scope
//!
//! Back traces, source maps, search, and what was lost at a restart: send events to a service
//! that keeps them. Rates of requests: that is what metrics are for.
#![forbid(unsafe_code)]

mod body;
mod config;
mod error;
mod event;
mod fingerprint;
mod future;
mod hook;
mod layer;
mod metrics;
mod redact;
mod service;
mod store;
mod text;
mod tracker;
mod transport;
mod unwind;
mod webhook;
mod worker;

#[cfg(feature = "metrics")]
pub use self::metrics::describe;
pub use self::{
    body::Guarded,
    config::TrackerBuilder,
    error::BuildError,
    event::{Draft, Event, EventId, Severity},
    fingerprint::{Fingerprint, normalise},
    future::ResponseFuture,
    hook::{Delivery, Hook, HookError, MemoryHook},
    layer::ErrorsLayer,
    redact::Redactor,
    service::Errors,
    store::Group,
    tracker::{ErrorTracker, Stats},
    webhook::{Sending, Transport, WebhookHook},
    worker::HookStats,
};
