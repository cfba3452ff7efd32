//! Slowing down those who guess.

use std::fmt;
use std::time::Duration;

use spark_core::ClientIp;

/// Says whether an address may try another credential. A rate limiter satisfies it in a few lines.
///
/// It is asked before a credential is looked at, and only when one is there; it is told of every
/// credential that was then refused. It knows addresses alone, and never keys or tenants:
///
/// - Whoever guesses from elsewhere can never lock a key's owner out, since nothing is counted per
///   key.
/// - Whoever shares an address with someone who guesses shares the penalty, valid key or not. It
///   cannot be otherwise: an answer that differs for a valid key is what the guesser asks for. So
///   be generous (generated keys cannot be guessed anyway) and keep the penalty short.
/// - Success is not told, so that one valid key does not buy new guesses.
///
/// `None` stands for callers without a known address. Give all of them one common allowance, never
/// an unlimited one.
///
/// # Example
/// ```
/// use std::sync::atomic::{AtomicU32, Ordering};
/// use std::time::Duration;
/// use spark_auth::FailureThrottle;
/// use spark_core::ClientIp;
///
/// /// Three failures, whoever it was, until the process restarts.
/// #[derive(Debug, Default)]
/// struct Three(AtomicU32);
///
/// impl FailureThrottle for Three {
///     fn permit(&self, _: Option<ClientIp>) -> Result<(), Duration> {
///         if self.0.load(Ordering::Relaxed) < 3 { Ok(()) } else { Err(Duration::from_secs(60)) }
///     }
///
///     fn record(&self, _: Option<ClientIp>) {
///         self.0.fetch_add(1, Ordering::Relaxed);
///     }
/// }
/// ```
pub trait FailureThrottle: fmt::Debug + Send + Sync {
    /// Whether this address may try a credential now.
    ///
    /// # Errors
    /// How long it has to wait; the caller is told in `Retry-After`.
    fn permit(&self, ip: Option<ClientIp>) -> Result<(), Duration>;

    /// Takes note of a credential from this address that was refused.
    fn record(&self, ip: Option<ClientIp>);
}
