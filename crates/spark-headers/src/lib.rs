//! Security headers for tower services, on every response: refusals, 404s and panics too.
//!
//! A browser believes the worst of a response that says nothing. This crate says it: two sets of
//! headers, one for data and one for pages, with the values that MDN's Observatory, the OWASP Secure
//! Headers Project and Google's CSP evaluator have nothing to say against, and a content security
//! policy that is checked while the service starts, with a nonce that is fresh in every response.
//!
//! # Example
//! ```
//! use spark_headers::{Csp, CspNonce, Https, SecurityHeaders, SecurityHeadersLayer};
//! use tower::{Layer, ServiceExt, service_fn};
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // One page, within a service that otherwise answers with data.
//! let page = service_fn(|request: http::Request<()>| async move {
//!     let nonce = request.extensions().get::<CspNonce>().unwrap();
//!     let html = format!("<!doctype html><script nonce=\"{nonce}\">alert(1)</script>");
//!     Ok::<_, std::convert::Infallible>(http::Response::new(html))
//! });
//! let csp = Csp::html().directive("img-src", ["'self'", "https://images.example.com"])?;
//! let page = SecurityHeadersLayer::new(SecurityHeaders::html().csp(csp)).layer(page);
//!
//! let app = SecurityHeadersLayer::new(SecurityHeaders::api().https(Https::Never)).layer(page);
//! let response = app.oneshot(http::Request::new(())).await?;
//! assert_eq!(response.headers()["x-frame-options"], "DENY");
//! assert!(response.headers()["content-security-policy"].to_str()?.contains("'nonce-"));
//! # Ok(()) }
//! ```
//! With axum, `.layer(SecurityHeadersLayer::new(SecurityHeaders::api()))` on the `Router`; with the
//! feature `axum`, [`CspNonce`] is an extractor.
//!
//! # What is sent
//!
//! | header | [`api()`](SecurityHeaders::api) | [`html()`](SecurityHeaders::html) |
//! |---|---|---|
//! | Content-Security-Policy | [`Csp::api()`] | [`Csp::html()`] |
//! | Strict-Transport-Security | `max-age=63072000; includeSubDomains`, over [`Https`] only | same |
//! | X-Content-Type-Options | `nosniff` | same |
//! | X-Frame-Options | `DENY` | same |
//! | Referrer-Policy | `no-referrer` | same |
//! | Cross-Origin-Resource-Policy | `same-origin` | same |
//! | Cross-Origin-Opener-Policy | `same-origin` | same |
//! | Cross-Origin-Embedder-Policy | `require-corp` | not sent: it shuts out media of other origins |
//! | Permissions-Policy | every powerful feature off | same |
//! | Cache-Control | `no-store, max-age=0` | same |
//! | X-Permitted-Cross-Domain-Policies | `none` | same |
//! | X-DNS-Prefetch-Control | `off` | same |
//! | Origin-Agent-Cluster | not sent | `?1` |
//!
//! Both take off `Server`, `X-Powered-By` and 85 other headers that name the software behind. Neither
//! sends what does harm today: `X-XSS-Protection`, `Expect-CT`, `Feature-Policy`, `Public-Key-Pins`.
//!
//! A value that the handler set stands, and there is never a second one beside it. Where a handler
//! set a header twice that has but one value, the set's takes the place of both.
//!
//! # Order
//! As far out as can be, so that the answers of all other layers carry the headers: inside request
//! ids, traces and metrics only. A panic handler outside of it writes the same set with
//! [`SecurityHeaders::apply`]. A layer with another set may stand further in: what it has written is
//! left alone.
//!
//! # Failure modes
//! - A mistake in a value is an error while the set is built, never a broken response.
//! - No randomness for a nonce: the policy is sent without it, so that inline scripts do not run;
//!   counted in `spark_headers_nonce_failures_total`.
//! - A 304 carries no policy that has a nonce: the browser would put it on the page that it holds,
//!   whose nonce is another. For the same reason a page with a nonce must not be kept by a shared
//!   cache; the default `Cache-Control` sees to it.
//! - [`Https::ForwardedProto`] without a peer address: as plain http, warned about once, and counted in
//!   `spark_miswired_total{layer="headers"}`.
//!
//! # Memory and cost
//! All values are made when the set is built, and nothing grows after. A response costs the insertion
//! of each header; the values are shared, not copied. Allocations, as a test counts them: two where
//! the header map has to grow, and two more for a nonce (what the handler finds, and the policy that
//! names it). The mark that a response bears allocates where its extensions were empty. A nonce costs
//! one call to the operating system, too.
//!
//! # Not in scope
//! CORS, cookies, CSRF, `Clear-Site-Data` (set it where someone logs out: on every response it slows
//! the site down), and rewriting HTML to put nonces in.
#![forbid(unsafe_code)]

mod csp;
mod error;
#[cfg(feature = "axum")]
mod extract;
mod future;
mod hsts;
mod layer;
pub mod metrics;
mod nonce;
mod presets;
mod service;
mod set;
mod source;
mod template;
mod write;

pub use csp::Csp;
pub use error::HeadersError;
pub use future::ResponseFuture;
pub use hsts::{Hsts, Https};
pub use layer::SecurityHeadersLayer;
pub use nonce::{CspNonce, NoRandomness};
pub use service::SecurityHeadersService;
pub use set::SecurityHeaders;
