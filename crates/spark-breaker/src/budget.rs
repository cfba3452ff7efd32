//! How many further attempts may be made.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::Extensions;

use crate::ConfigError;

/// How many further attempts the calls of one provider may make together. Clones share it.
///
/// Each call puts in a share of a token, and each further attempt takes a whole one out: with a
/// share of 0.1, a provider that fails altogether gets a tenth more calls, not twice as many.
///
/// Give each provider a budget of its own. One budget for all of them and for the
/// [`Failover`](crate::Failover) around them bounds what a request costs altogether: then all calls
/// to all providers are at most the requests and a share of them.
///
/// # Example
/// ```
/// use spark_breaker::RetryBudget;
/// let budget = RetryBudget::new(0.1, 1)?;
/// assert!(budget.withdraw()); // what it starts with
/// assert!(!budget.withdraw());
/// for _ in 0..10 {
///     budget.deposit();
/// }
/// assert!(budget.withdraw());
/// # Ok::<(), spark_breaker::ConfigError>(())
/// ```
#[derive(Debug, Clone)]
pub struct RetryBudget(Arc<Tokens>);

#[derive(Debug)]
struct Tokens {
    /// In thousandths.
    left: AtomicU64,
    share: u64,
    most: u64,
}

const TOKEN: u64 = 1_000;

impl RetryBudget {
    /// Starts with, and holds at most, `reserve` tokens; each call puts in `share` of one, to the
    /// thousandth. With a reserve of 0 there is no further attempt at all.
    ///
    /// # Errors
    /// [`ConfigError`] unless `share` is a number from 0 to 1.
    ///
    /// # Example
    /// ```
    /// assert!(spark_breaker::RetryBudget::new(2.0, 10).is_err());
    /// ```
    pub fn new(share: f64, reserve: u32) -> Result<Self, ConfigError> {
        if !(0.0..=1.0).contains(&share) {
            let mend = "give a share of 0 to 1";
            return Err(ConfigError::out_of_range("share", &share, mend));
        }
        let most = u64::from(reserve) * TOKEN;
        Ok(Self(Arc::new(Tokens {
            left: AtomicU64::new(most),
            // From 0 to 1,000, as checked above.
            share: (share * TOKEN as f64).round() as u64,
            most,
        })))
    }

    /// A call is made.
    ///
    /// # Example
    /// ```
    /// # let budget = spark_breaker::RetryBudget::new(1.0, 1)?;
    /// budget.deposit(); // it is full already: this changes nothing
    /// assert!(budget.withdraw() && !budget.withdraw());
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn deposit(&self) {
        self.put_in(self.0.share);
    }

    /// Whether a further attempt may be made; it is paid for with that.
    ///
    /// # Example
    /// ```
    /// # let budget = spark_breaker::RetryBudget::new(0.1, 1)?;
    /// assert!(budget.withdraw());
    /// assert!(!budget.withdraw());
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn withdraw(&self) -> bool {
        let take = |left: u64| left.checked_sub(TOKEN);
        self.0
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .is_ok()
    }

    /// What was paid for was not done.
    pub(crate) fn refund(&self) {
        self.put_in(TOKEN);
    }

    fn put_in(&self, thousandths: u64) {
        let add = |left: u64| Some(left.saturating_add(thousandths).min(self.0.most));
        let _ = self
            .0
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// Puts in a call's share, unless a layer further out did so for this request.
    pub(crate) fn deposit_for(&self, extensions: &Extensions) {
        let paid = extensions.get::<PaidInto>();
        if paid.is_none_or(|paid| !Arc::ptr_eq(&paid.0.0, &self.0)) {
            self.deposit();
        }
    }
}

/// Request extension: the call has put its share into this budget.
#[derive(Debug, Clone)]
pub(crate) struct PaidInto(pub(crate) RetryBudget);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_pays_once_whatever_layers_share_its_budget() {
        let budget = RetryBudget::new(1.0, 1).unwrap();
        assert!(budget.withdraw());
        let mut extensions = Extensions::new();
        extensions.insert(PaidInto(budget.clone()));
        budget.deposit_for(&extensions);
        assert!(!budget.withdraw());
        extensions.insert(PaidInto(RetryBudget::new(1.0, 1).unwrap()));
        budget.deposit_for(&extensions);
        assert!(budget.withdraw());
    }

    #[test]
    fn a_refund_never_makes_it_more_than_full() {
        let budget = RetryBudget::new(0.0, 1).unwrap();
        budget.refund();
        assert!(budget.withdraw());
        assert!(!budget.withdraw());
        budget.refund();
        assert!(budget.withdraw());
    }
}
