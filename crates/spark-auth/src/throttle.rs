//! Slowing down those who guess.

use std::fmt;
use std::time::Duration;

use spark_core::ClientIp;

/// Says whether an address may try another credential. A rate limiter satisfies it in a few lines.
///
/// It is asked when a credential is there, and told of every credential that was refused. While it
/// refuses an address, only generated keys that work pass from there. It knows addresses alone, and
/// never keys or tenants:
///
/// - Whoever guesses from elsewhere can never lock a key's owner out, since nothing is counted per
///   key.
/// - Whoever shares an address with someone who guesses, behind a proxy or in an office, is not shut
///   out: a generated key, a user's or a master's, has 190 random bits, so that letting a right one
///   pass helps no guesser. A master secret of free text was chosen by somebody, so it shares the
///   penalty: be generous, and keep the penalty short, or use a generated master key.
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
