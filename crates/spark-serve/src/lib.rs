//! An accept loop for hyper and axum services that slow, idle and greedy clients cannot hold up, and
//! that ends without losing a request.
//!
//! hyper has the timeouts; most accept loops do not turn them on, since they need a timer. Two hundred
//! clients that send a byte of a header now and then then hold two hundred connections for ever. This
//! loop turns them on, adds those that hyper leaves to others (pauses in a body, responses that nobody
//! reads), bounds how many connections there are, and drains in the way that load balancers expect.
//!
//! # Example
//! ```no_run
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use axum::{Router, routing::get};
//! use spark_serve::{Config, Server};
//!
//! let app = Router::new().route("/", get(|| async { "pong" }));
//! let config = Config::default()
//!     .max_connections(2_000)
//!     .drain_delay(Duration::from_secs(5))
//!     .drain_deadline(Duration::from_secs(25));
//! # let ctrl_c = async {};
//! let drained = Server::bind("127.0.0.1:8080")
//!     .await?
//!     .config(config)?
//!     .on_drain(|| { /* readiness turns 503 */ })
//!     .serve(app, ctrl_c)
//!     .await;
//! println!("{} finished, {} cut", drained.finished, drained.aborted);
//! # Ok(()) }
//! ```
//!
//! A service is any `tower_service::Service<Request<`[`Body`]`>>` that can be cloned, an axum `Router`
//! among them. Its requests have a [`spark_core::PeerAddr`] among their extensions.
//!
//! # What a client may do
//!
//! | | default | beyond it |
//! |---|---|---|
//! | time for the head of a request, and between requests | 10 s | closed |
//! | size, number of headers | 32 KiB, 64 | 431, closed |
//! | pause within a request's body | 10 s | the body breaks with [`BodyTimeout`]; 408, closed |
//! | time for a request's whole body | 30 s | the same |
//! | time without reading, while there is more to send | 30 s | closed |
//! | connections | 10,000 | closed as soon as accepted |
//! | connections from one address (one IPv6 /64) | no limit | the same |
//!
//! # Order
//! Outside of everything. What it answers by itself (431, 400 for what is not HTTP, 500 for a service
//! that fails) no layer sees. A 408 bears the headers that the layers wrote on the error that it
//! replaces.
//!
//! # Failure modes
//! - A panic in a service ends its connection, not the loop; counted as `reason="panic"`.
//! - No file left to accept with: a pause of 10 ms that doubles to 1 s, instead of spinning.
//! - A service that returns an error: 500 as problem+json, and a line in the log. Layers should answer.
//! - A handler that blocks its thread cannot be cut at the drain's deadline; the drain ends
//!   nevertheless, a tenth of a second later.
//! - Upgraded connections (WebSocket) keep their place among `max_connections`, but the drain does not
//!   wait for them.
//!
//! # Memory and cost
//! Each connection is a task with a read buffer of at most `max_header_bytes`. A request costs a clone
//! of the service and the peer address among the extensions; one whose body has not come yet costs
//! one more allocation, and a timer for each deadline from the first wait on. The table of
//! addresses exists only under `max_connections_per_ip`, and is never longer than there are
//! connections.
//!
//! # Not in scope
//! TLS and HTTP/2 (terminate them in front), Unix sockets, and limits on what is in a body.
#![forbid(unsafe_code)]

mod accept;
mod body;
mod config;
mod connection;
mod error;
mod flushed;
pub mod metrics;
mod server;
mod service;
mod slots;
mod socket;

pub use body::{Body, BodyTimeout, TimedBody};
pub use config::Config;
pub use error::{ConfigError, ServeError};
pub use server::{Drained, Server};
