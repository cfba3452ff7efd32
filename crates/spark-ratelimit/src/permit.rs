//! What was reserved, until it is known what was used.

use std::fmt;

use crate::plan::Plan;
use crate::{Charge, Key, Limiter};

/// So much was reserved by [`Limiter::acquire`]; when the work is done, [`settle`](Self::settle) it.
///
/// A permit that is dropped settles what was [observed](Self::observe) until then; where nothing
/// was, the reservation stays charged, which errs on the side of charging. So whoever gives up before
/// the work has begun settles at 0.
///
/// # What is given back
/// Never more than was reserved, and only what the bucket has not refilled meanwhile: a quota that
/// would have been full anyway does not become fuller by what was reserved from it. So however
/// permits are held and settled, no window admits more than burst and rate allow. For a caller near
/// its limit that is the whole difference, as long as the work takes less time than the bucket takes
/// to refill. After a change of tier or quota in between, nothing is given back; what was used
/// beyond the reservation is charged even so.
///
/// # Example
/// ```
/// # use spark_ratelimit::{Key, Limiter, Policy, Quota};
/// # use std::time::Duration;
/// let tokens = Policy::new("tokens", Quota::new(1_000, Duration::from_secs(60))?)?;
/// let limiter = Limiter::builder().policy(tokens).build()?;
/// let remaining = || limiter.peek(&Key::of("acme"), None, 1).tightest().remaining;
///
/// let mut permit = limiter.acquire(&Key::of("acme"), None, 600).expect("a full bucket");
/// assert_eq!(remaining(), 400);
/// for words in [20, 20, 10] {
///     permit.observe(permit.observed().unwrap_or(0) + words);
/// }
/// drop(permit); // The client has left.
/// assert_eq!(remaining(), 950);
/// # Ok::<(), spark_ratelimit::ConfigError>(())
/// ```
#[must_use = "dropped at once, it leaves the whole estimate charged"]
pub struct Permit {
    limiter: Limiter,
    epoch: u64,
    parts: Box<[Part]>,
    observed: Option<u64>,
}

/// What was reserved from one policy.
pub(crate) struct Part {
    /// The policy's id, and where it stands in the plan.
    pub(crate) policy: u64,
    at: usize,
    pub(crate) key: Key,
    pub(crate) tag: u16,
    pub(crate) reserved: u64,
    /// The arrival time right after the reservation; 0 when it changed nothing.
    mark: u64,
    /// What others of this key had been given back before.
    returned: u64,
}

impl Permit {
    /// So many units have been used until now, input included: what is settled if the permit is
    /// dropped. The highest number told counts.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Key, Limiter, Policy, Quota};
    /// # use std::time::Duration;
    /// # let policy = Policy::new("tokens", Quota::new(9, Duration::from_secs(1))?)?;
    /// # let limiter = Limiter::builder().policy(policy).build()?;
    /// let mut permit = limiter.acquire(&Key::shared(), None, 9).unwrap();
    /// permit.observe(3);
    /// permit.observe(2);
    /// assert_eq!(permit.observed(), Some(3));
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    pub fn observe(&mut self, units: u64) {
        self.observed = self.observed.max(Some(units));
    }

    /// What was observed until now.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Key, Limiter, Policy, Quota};
    /// # use std::time::Duration;
    /// # let policy = Policy::new("tokens", Quota::new(9, Duration::from_secs(1))?)?;
    /// # let limiter = Limiter::builder().policy(policy).build()?;
    /// let permit = limiter.acquire(&Key::shared(), None, 9).unwrap();
    /// assert_eq!(permit.observed(), None);
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    pub fn observed(&self) -> Option<u64> {
        self.observed
    }

    /// What was reserved: the sum of the estimates over the policies that settle one.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Key, Limiter, Policy, Quota};
    /// # use std::time::Duration;
    /// # let policy = Policy::new("tokens", Quota::new(9, Duration::from_secs(1))?)?;
    /// # let limiter = Limiter::builder().policy(policy).build()?;
    /// assert_eq!(limiter.acquire(&Key::shared(), None, 9).unwrap().reserved(), 9);
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    pub fn reserved(&self) -> u64 {
        self.parts
            .iter()
            .map(|part| part.reserved)
            .max()
            .unwrap_or(0)
    }

    /// So many units were used: gives the rest back, or charges what is missing.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Key, Limiter, Policy, Quota};
    /// # use std::time::Duration;
    /// # let policy = Policy::new("tokens", Quota::new(100, Duration::from_secs(60))?)?;
    /// # let limiter = Limiter::builder().policy(policy).build()?;
    /// limiter.acquire(&Key::shared(), None, 50).unwrap().settle(70);
    /// assert_eq!(limiter.peek(&Key::shared(), None, 1).tightest().remaining, 30);
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    pub fn settle(mut self, actual: u64) {
        self.observed = Some(actual);
    }

    /// A permit for the estimates among these charges, one for each policy of the plan.
    pub(crate) fn new(limiter: Limiter, plan: &Plan, charges: &[Charge]) -> Self {
        let permits = &limiter.engine().permits;
        let estimates = charges.iter().enumerate().filter(|(_, it)| it.estimate);
        let parts = estimates.map(|(at, charge)| {
            let mut part = Part {
                policy: plan.policies[at].id,
                at,
                key: charge.key,
                tag: 0,
                reserved: charge.cost,
                mark: 0,
                returned: 0,
            };
            let account = part.account();
            // There is no most: it never refuses.
            let _ = permits.open(account, u32::MAX);
            part.returned = permits.returned(account);
            part
        });
        Self {
            parts: parts.collect(),
            epoch: plan.epoch,
            limiter,
            observed: None,
        }
    }

    /// Takes in what was written, by policy: the arrival time and its tag.
    pub(crate) fn mark(&mut self, marks: &[(u64, u16)]) {
        for part in &mut self.parts {
            (part.mark, part.tag) = marks[part.at];
        }
    }
}

impl Part {
    /// By which the ledger knows this key of this policy.
    pub(crate) fn account(&self) -> u64 {
        self.key.bits() ^ self.policy.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// How many nanoseconds of debt, `most` at most, go back when the entry stands at `tat`.
    ///
    /// Debts are paid in the order in which they were made. Right after the reservation the bucket
    /// was to be full at `mark`; with what others were given back meanwhile, at `mark − others`. What
    /// lies between now and then is still owed for this reservation or for what came before it, and
    /// so at most that goes back: whatever was charged later stays. An entry that stands below that
    /// mark is not the one of then: it was forgotten or forgiven in between.
    pub(crate) fn to_give_back(&self, tat: u64, returned: u64, now: u64, most: u64) -> u64 {
        let others = returned.wrapping_sub(self.returned);
        let mark = self.mark.saturating_sub(others);
        if tat < mark {
            return 0;
        }
        mark.saturating_sub(now).min(most)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        for part in &self.parts {
            if let Some(actual) = self.observed {
                self.limiter.engine().settle(self.epoch, part, actual);
            }
            self.limiter.engine().permits.close(part.account());
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("reserved", &self.reserved())
            .field("observed", &self.observed)
            .finish_non_exhaustive()
    }
}
