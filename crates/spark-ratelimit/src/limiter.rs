//! The limiter: policies, their tables, a clock. No HTTP needed.

use std::fmt;
use std::sync::Arc;

use spark_core::Clock;

use crate::engine::Engine;
use crate::permit::Permit;
use crate::plan::{MAX_POLICIES, Plan};
use crate::request::{Charges, Mode};
use crate::sync::yield_now;
use crate::{Charge, ConfigError, Decision, Key, LimiterBuilder, Policy, TableStats};

/// Decides who may, by one or more policies at once, in memory that never grows.
///
/// Cloning is cheap; clones share everything. A request is charged to all policies or to none.
///
/// # Example: a job queue, without HTTP
/// ```
/// use spark_core::Clock;
/// use spark_ratelimit::{Key, Limiter, Policy, Quota};
/// use std::time::Duration;
///
/// let limiter = Limiter::builder()
///     .clock(Clock::system())
///     .policy(Policy::new("pages", Quota::new(100, Duration::from_secs(60))?)?)
///     .policy(Policy::new("pages-per-day", Quota::new(5_000, Duration::from_secs(86_400))?)?)
///     .capacity(10_000)
///     .build()?;
///
/// // A job says whose it is, and how much work it is.
/// for (owner, pages) in [("ann", 60), ("ann", 60), ("bob", 60)] {
///     let decision = limiter.check(&Key::of(owner), None, pages);
///     if decision.allowed() {
///         println!("{owner}: printing {pages} pages");
///     } else if let Some(wait) = decision.retry_after() {
///         println!("{owner}: back into the queue for {wait:?}");
///     } else {
///         println!("{owner}: too big a job, whenever it comes");
///     }
/// }
/// # let left = limiter.peek(&Key::of("ann"), None, 60);
/// # assert!(!left.allowed() && left.tightest().name == "pages");
/// # Ok::<(), spark_ratelimit::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Limiter {
    engine: Arc<Engine>,
}

impl Limiter {
    /// Begins a limiter.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{ConfigError, Limiter};
    /// assert_eq!(Limiter::builder().build().unwrap_err(), ConfigError::NoPolicy);
    /// ```
    pub fn builder() -> LimiterBuilder {
        LimiterBuilder::new()
    }

    /// Charges `cost` units to every policy, or none when one of them refuses.
    ///
    /// Callers of a tier that no policy names have everybody's quota. A key that changes its tier
    /// keeps the share of the burst that it has used: switching to and fro at one instant gains nothing. A cost of
    /// zero asks whether the key is in good standing, and charges nothing.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Key, Limiter, Policy, Quota};
    /// # use std::time::Duration;
    /// # let second = Duration::from_secs(1);
    /// let policy = Policy::new("requests", Quota::new(1, second)?)?
    ///     .tier("pro", Quota::new(5, second)?);
    /// let limiter = Limiter::builder().policy(policy).build()?;
    /// assert!(!limiter.check(&Key::of("ann"), None, 5).allowed());
    /// assert!(limiter.check(&Key::of("bob"), Some("pro"), 5).allowed());
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    pub fn check(&self, key: &Key, tier: Option<&str>, cost: u64) -> Decision<'_> {
        self.decide(&Charges::All(Charge::new(*key, cost)), tier, Mode::Charge)
    }

    /// Says what [`check`](Self::check) would, and charges nothing.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Key, Limiter, Policy, Quota};
    /// # use std::time::Duration;
    /// # let policy = Policy::new("requests", Quota::new(1, Duration::from_secs(1))?)?;
    /// # let limiter = Limiter::builder().policy(policy).build()?;
    /// assert!(limiter.peek(&Key::shared(), None, 1).allowed());
    /// assert!(limiter.peek(&Key::shared(), None, 1).allowed());
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    pub fn peek(&self, key: &Key, tier: Option<&str>, cost: u64) -> Decision<'_> {
        self.decide(&Charges::All(Charge::new(*key, cost)), tier, Mode::Peek)
    }

    /// As [`check`](Self::check), with a key and a cost for each policy: a request by tenant and
    /// tokens by model, or one address by /64 and by /48. Still all or nothing.
    ///
    /// `charge` is asked for each policy, by its name; and again where a reconfiguration intervenes.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Charge, Key, Limiter, Policy, Quota, Unit};
    /// # use std::time::Duration;
    /// # let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
    /// let limiter = Limiter::builder()
    ///     .policy(Policy::new("requests", Quota::new(10, second)?)?)
    ///     .policy(Policy::new("tokens", Quota::new(100_000, minute)?)?.unit(Unit::Tokens))
    ///     .build()?;
    /// let decision = limiter.check_each(None, |policy| match policy {
    ///     "tokens" => Charge::new(Key::of("acme"), 4_000),
    ///     _ => Charge::new(Key::of("acme"), 1),
    /// });
    /// assert!(decision.allowed());
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    pub fn check_each(
        &self,
        tier: Option<&str>,
        charge: impl FnMut(&str) -> Charge,
    ) -> Decision<'_> {
        self.decide_each(tier, charge, Mode::Charge)
    }

    /// Says what [`check_each`](Self::check_each) would, and charges nothing.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Charge, Key, Limiter, Policy, Quota};
    /// # use std::time::Duration;
    /// # let policy = Policy::new("requests", Quota::new(1, Duration::from_secs(1))?)?;
    /// # let limiter = Limiter::builder().policy(policy).build()?;
    /// assert!(limiter.peek_each(None, |_| Charge::new(Key::shared(), 1)).allowed());
    /// assert!(limiter.peek_each(None, |_| Charge::new(Key::shared(), 1)).allowed());
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    pub fn peek_each(
        &self,
        tier: Option<&str>,
        charge: impl FnMut(&str) -> Charge,
    ) -> Decision<'_> {
        self.decide_each(tier, charge, Mode::Peek)
    }

    /// Reserves an estimate, where the cost is known only when the work is done. The permit settles
    /// it: what was reserved too much is given back, what was used beyond it is charged.
    ///
    /// A hundred requests that estimate at the same time are charged one after the other, so that
    /// no more of them begin than the quota covers.
    ///
    /// # Errors
    /// The refusal. Nothing was reserved.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Key, Limiter, Policy, Quota, Unit};
    /// # use std::time::Duration;
    /// let quota = Quota::new(10_000, Duration::from_secs(60))?;
    /// let tokens = Policy::new("tokens", quota)?.unit(Unit::Tokens);
    /// let limiter = Limiter::builder().policy(tokens).build()?;
    ///
    /// let permit = limiter.acquire(&Key::of("acme"), None, 4_000).expect("a full bucket");
    /// assert!(limiter.acquire(&Key::of("acme"), None, 7_000).is_err());
    /// // The answer was shorter than feared.
    /// permit.settle(500);
    /// assert!(limiter.acquire(&Key::of("acme"), None, 7_000).is_ok());
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    pub fn acquire(
        &self,
        key: &Key,
        tier: Option<&str>,
        estimate: u64,
    ) -> Result<Permit, Decision<'_>> {
        let charge = Charge::estimate(*key, estimate);
        self.reserve(tier, |_| charge)
    }

    /// As [`acquire`](Self::acquire), with a key and a cost for each policy. The permit settles those
    /// that are an [`estimate`](Charge::estimate); the others are charged as they are.
    ///
    /// # Errors
    /// The refusal. Nothing was charged or reserved.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Charge, Key, Limiter, Policy, Quota, Unit};
    /// # use std::time::Duration;
    /// # let minute = Duration::from_secs(60);
    /// let limiter = Limiter::builder()
    ///     .policy(Policy::new("requests", Quota::new(60, minute)?)?)
    ///     .policy(Policy::new("tokens", Quota::new(100_000, minute)?)?.unit(Unit::Tokens))
    ///     .build()?;
    /// let acme = Key::of("acme");
    /// let permit = limiter.acquire_each(None, |policy| match policy {
    ///     "tokens" => Charge::estimate(acme, 4_000),
    ///     _ => Charge::new(acme, 1),
    /// });
    /// permit.expect("two full buckets").settle(812);
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    pub fn acquire_each(
        &self,
        tier: Option<&str>,
        charge: impl FnMut(&str) -> Charge,
    ) -> Result<Permit, Decision<'_>> {
        self.reserve(tier, charge)
    }

    /// Charges `cost` units to every policy whether they conform or not: for what turned out to be
    /// worse than it looked. A key never owes more than two bursts, so it is locked out for no
    /// longer than it takes to refill the bucket once more.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Key, Limiter, Policy, Quota};
    /// # use std::time::Duration;
    /// # let policy = Policy::new("requests", Quota::new(10, Duration::from_secs(10))?)?;
    /// # let limiter = Limiter::builder().policy(policy).build()?;
    /// limiter.penalize(&Key::of("mallory"), None, 15);
    /// let refused = limiter.check(&Key::of("mallory"), None, 1);
    /// assert!(refused.retry_after() > Some(Duration::from_secs(5)));
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    pub fn penalize(&self, key: &Key, tier: Option<&str>, cost: u64) {
        self.decide(&Charges::All(Charge::new(*key, cost)), tier, Mode::Force);
    }

    /// Forgives a key everything.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Key, Limiter, Policy, Quota};
    /// # use std::time::Duration;
    /// # let policy = Policy::new("requests", Quota::new(1, Duration::from_secs(1))?)?;
    /// # let limiter = Limiter::builder().policy(policy).build()?;
    /// limiter.check(&Key::shared(), None, 1);
    /// limiter.reset(&Key::shared());
    /// assert!(limiter.check(&Key::shared(), None, 1).allowed());
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    pub fn reset(&self, key: &Key) {
        self.engine.reset(*key);
    }

    /// Replaces all policies while requests are being decided.
    ///
    /// A policy that keeps its name keeps its debts, in proportion: who has used up half of the old
    /// burst has used up half of the new one. Others begin or end here. Takes some ten
    /// milliseconds per million slots; requests go on meanwhile. When the new policies are wrong, the old ones
    /// stay.
    ///
    /// # Errors
    /// As [`LimiterBuilder::build`].
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Key, Limiter, Policy, Quota};
    /// # use std::time::Duration;
    /// # let minute = Duration::from_secs(60);
    /// # let policy = Policy::new("requests", Quota::new(10, minute)?)?;
    /// # let limiter = Limiter::builder().policy(policy).build()?;
    /// limiter.check(&Key::shared(), None, 5);
    /// limiter.reconfigure(vec![Policy::new("requests", Quota::new(100, minute)?)?])?;
    /// assert_eq!(limiter.peek(&Key::shared(), None, 1).tightest().remaining, 50);
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the policies are replaced, not borrowed"
    )]
    pub fn reconfigure(&self, policies: Vec<Policy>) -> Result<(), ConfigError> {
        self.engine.reconfigure(&policies)
    }

    /// How full the tables are: for health pages and metrics. Looks at a sample, so it is cheap.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Key, Limiter, Policy, Quota};
    /// # use std::time::Duration;
    /// # let policy = Policy::new("requests", Quota::new(1, Duration::from_secs(1))?)?;
    /// let limiter = Limiter::builder().policy(policy).capacity(1_000).build()?;
    /// limiter.check(&Key::shared(), None, 1);
    /// let stats = limiter.stats();
    /// assert_eq!((stats[0].capacity, stats[0].occupied, stats[0].evicted_live), (1_000, 1, 0));
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    pub fn stats(&self) -> Vec<TableStats> {
        let now = self.engine.now();
        let plan = self.engine.plan();
        let stats = plan.as_given().map(|policy| {
            let table = self.engine.table(policy.slot);
            TableStats {
                policy: policy.name.as_str().to_owned(),
                capacity: table.capacity(),
                occupied: table.occupied(now),
                evicted_live: table.evicted(),
            }
        });
        stats.collect()
    }

    pub(crate) fn new(
        clock: Clock,
        policies: &[Policy],
        capacity: usize,
    ) -> Result<Self, ConfigError> {
        Ok(Self {
            engine: Arc::new(Engine::new(clock, policies, capacity)?),
        })
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    #[inline]
    fn decide(&self, charges: &Charges<'_>, tier: Option<&str>, mode: Mode) -> Decision<'_> {
        let mut decision = Decision::pending(&self.engine, charges.of(0).key);
        self.engine.decide(charges, tier, mode, decision.attempt());
        decision
    }

    fn decide_each(
        &self,
        tier: Option<&str>,
        mut charge: impl FnMut(&str) -> Charge,
        mode: Mode,
    ) -> Decision<'_> {
        loop {
            let plan = self.engine.plan();
            let mut room = NO_CHARGES;
            let charges = ask(&plan, &mut charge, &mut room);
            let mut decision = Decision::pending(&self.engine, charges[plan.first()].key);
            let charges = Charges::Each(charges);
            let attempt = decision.attempt();
            if self
                .engine
                .attempt(&plan, &charges, tier, mode, None, attempt)
            {
                return decision;
            }
            yield_now();
        }
    }

    fn reserve(
        &self,
        tier: Option<&str>,
        mut charge: impl FnMut(&str) -> Charge,
    ) -> Result<Permit, Decision<'_>> {
        loop {
            let plan = self.engine.plan();
            let mut room = NO_CHARGES;
            let charges = ask(&plan, &mut charge, &mut room);
            let permit = Permit::new(self.clone(), &plan, tier, charges);
            let mut decision = Decision::pending(&self.engine, charges[plan.first()].key);
            let charges = Charges::Each(charges);
            let attempt = decision.attempt();
            let id = Some(permit.id());
            if !self
                .engine
                .attempt(&plan, &charges, tier, Mode::Charge, id, attempt)
            {
                yield_now();
                continue;
            }
            if decision.allowed() {
                return Ok(permit);
            }
            return Err(decision);
        }
    }
}

const NO_CHARGES: [Charge; MAX_POLICIES] = [Charge::NONE; MAX_POLICIES];

/// What each policy is asked for, in the order of the plan. Nothing is locked meanwhile: it is a
/// caller's code that says so.
fn ask<'a>(
    plan: &Plan,
    charge: &mut impl FnMut(&str) -> Charge,
    room: &'a mut [Charge; MAX_POLICIES],
) -> &'a [Charge] {
    for (policy, slot) in plan.policies.iter().zip(room.iter_mut()) {
        *slot = charge(policy.name.as_str());
    }
    &room[..plan.policies.len()]
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = self.engine.plan();
        let names: Vec<_> = plan.as_given().map(|policy| &policy.name).collect();
        f.debug_struct("Limiter")
            .field("policies", &names)
            .field("capacity", &self.engine.capacity)
            .finish_non_exhaustive()
    }
}
