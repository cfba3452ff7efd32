//! The pause between attempts.

use std::sync::Arc;
use std::time::Duration;

use crate::jitter::Jitter;

/// Random pauses whose bound doubles with each failure: between nothing and
/// `base * 2^(failures - 1)`, at most `most`. Clones share the randomness.
///
/// This is "full jitter": of the usual ways to spread attempts, the one that makes the fewest
/// collide. Source: Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog.
///
/// # Example
/// ```
/// use spark_breaker::Backoff;
/// use std::time::Duration;
/// let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
/// assert!(backoff.pause(1) <= Duration::from_millis(100));
/// assert!(backoff.pause(3) <= Duration::from_millis(400));
/// assert!(backoff.pause(u32::MAX) <= Duration::from_secs(2));
/// ```
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    most: Duration,
    jitter: Arc<Jitter>,
}

impl Backoff {
    /// With this bound on the first pause, and this one on all. Zero is no pause.
    ///
    /// # Example
    /// ```
    /// use spark_breaker::Backoff;
    /// use std::time::Duration;
    /// let none = Backoff::new(Duration::ZERO, Duration::ZERO);
    /// assert!(none.pause(1).is_zero());
    /// ```
    pub fn new(base: Duration, most: Duration) -> Self {
        Self {
            base,
            most,
            jitter: Arc::new(Jitter::new(None)),
        }
    }

    /// Makes its pauses the same each time: for tests and simulations.
    ///
    /// # Example
    /// ```
    /// use spark_breaker::Backoff;
    /// let seeded = || Backoff::default().seed(7);
    /// assert_eq!(seeded().pause(1), seeded().pause(1));
    /// ```
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.jitter = Arc::new(Jitter::new(Some(seed)));
        self
    }

    /// The pause after so many failures in a row, the first being 1.
    ///
    /// # Example
    /// ```
    /// use std::time::Duration;
    /// assert!(spark_breaker::Backoff::default().pause(1) <= Duration::from_millis(100));
    /// ```
    pub fn pause(&self, failures: u32) -> Duration {
        let doubled = 1_u32.checked_shl(failures.saturating_sub(1));
        let bound = self.base.saturating_mul(doubled.unwrap_or(u32::MAX));
        self.jitter.part(bound.min(self.most))
    }

    /// A little more than what a callee asked for, so that its callers do not return as one.
    pub(crate) fn after(&self, wait: Duration) -> Duration {
        wait.saturating_add(self.jitter.part(self.base.min(self.most)))
    }
}

impl Default for Backoff {
    /// Up to 100 ms at first, never more than 2 s.
    fn default() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(2))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_pause_is_within_its_bound(
            base in 0_u64..=u64::MAX,
            most in 0_u64..=u64::MAX,
            failures in 0_u32..80,
            seed: u64,
        ) {
            let (base, most) = (Duration::from_nanos(base), Duration::from_nanos(most));
            let backoff = Backoff::new(base, most).seed(seed);
            let bound = (1..failures).fold(base, |bound, _| bound.saturating_mul(2));
            prop_assert!(backoff.pause(failures) <= bound.min(most));
        }

        #[test]
        fn no_wait_is_shorter_than_what_was_asked_for(wait in 0_u64..=u64::MAX, seed: u64) {
            let wait = Duration::from_nanos(wait);
            let backoff = Backoff::default().seed(seed);
            let longer = backoff.after(wait);
            prop_assert!(wait <= longer && longer <= wait + Duration::from_millis(100));
        }
    }

    #[test]
    fn pauses_are_spread_over_their_whole_bound() {
        let backoff = Backoff::default().seed(1);
        let mut tenths = [0_u32; 10];
        for _ in 0..10_000 {
            let tenth = backoff.pause(2).as_millis() / 20;
            tenths[usize::try_from(tenth).unwrap()] += 1;
        }
        assert!(
            tenths.iter().all(|n| (800..1_200).contains(n)),
            "{tenths:?}"
        );
    }
}
