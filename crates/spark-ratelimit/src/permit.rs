//! What was reserved, until it is known what was used.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::key::MIX;
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
/// to refill. After a [reset](Limiter::reset) or a reconfiguration, and while the caller's last charge
/// is another tier's, nothing is given back; nor where the table was too small and forgot the debt.
///
/// What was used beyond the reservation is charged in any case, to at most two bursts of debt, as by
/// [`Limiter::penalize`].
///
/// # Cost
/// One allocation, and one more with a tier. Settling takes time linear in the permits that are out
/// for the same key.
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
    tier: Option<Box<str>>,
    id: u64,
    parts: Box<[Part]>,
    observed: Option<u64>,
}

/// What was reserved from one policy.
pub(crate) struct Part {
    pub(crate) permit: u64,
    /// The policy's id.
    pub(crate) policy: u64,
    pub(crate) key: Key,
    pub(crate) reserved: u64,
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

    /// What was reserved: the largest estimate, where the policies have different ones.
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
    pub(crate) fn new(
        limiter: Limiter,
        plan: &Plan,
        tier: Option<&str>,
        charges: &[Charge],
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let charges = charges.iter().zip(&plan.policies);
        let estimates = charges.filter(|(charge, _)| charge.estimate);
        let parts = estimates.map(|(charge, policy)| Part {
            permit: id,
            policy: policy.id,
            key: charge.key,
            reserved: charge.cost,
        });
        Self {
            parts: parts.collect(),
            epoch: plan.epoch,
            tier: tier.map(Box::from),
            id,
            limiter,
            observed: None,
        }
    }

    /// Never given twice.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }
}

impl Part {
    /// By which the ledger knows this key of this policy.
    pub(crate) fn account(&self) -> u64 {
        Self::account_of(self.policy, self.key)
    }

    pub(crate) fn account_of(policy: u64, key: Key) -> u64 {
        key.bits() ^ policy.wrapping_mul(MIX)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let engine = self.limiter.engine();
        for part in &self.parts {
            if let Some(actual) = self.observed {
                engine.settle(self.epoch, self.tier.as_deref(), part, actual);
            }
            engine.permits.release(part.account(), self.id);
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
