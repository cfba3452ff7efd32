//! The limiter: policies, their tables, a clock. No HTTP needed.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use spark_core::Clock;

use crate::decision::Tally;
use crate::plan::Plan;
use crate::request::{Mode, Request, Step};
use crate::{ConfigError, Decision, Key, LimiterBuilder, Policy, TableStats};

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
    shared: Arc<Shared>,
}

struct Shared {
    clock: Clock,
    plan: ArcSwap<Plan>,
    /// The epoch that may write to the tables: see [`Limiter::reconfigure`].
    epoch: AtomicU64,
    /// Held while reconfiguring; the id of the newest table.
    newest_table: Mutex<u64>,
    capacity: usize,
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
    /// keeps the share of the burst that it has used: switching to and fro gains nothing. A cost of
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
    pub fn check(&self, key: &Key, tier: Option<&str>, cost: u64) -> Decision {
        self.decide(*key, tier, cost, Mode::Charge)
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
    pub fn peek(&self, key: &Key, tier: Option<&str>, cost: u64) -> Decision {
        self.decide(*key, tier, cost, Mode::Peek)
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
        self.decide(*key, tier, cost, Mode::Force);
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
        for policy in &self.shared.plan.load().policies {
            policy.table.lock(*key).clear();
        }
    }

    /// Replaces all policies while requests are being decided.
    ///
    /// A policy that keeps its name keeps its debts, in proportion: who has used up half of the old
    /// burst has used up half of the new one. Others begin or end here. Takes a few milliseconds
    /// per million slots; requests go on meanwhile. When the new policies are wrong, the old ones
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
        let shared = &*self.shared;
        let mut newest_table = shared
            .newest_table
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let before = shared.plan.load_full();
        let plan = Plan::new(&policies, shared.capacity, Some(&before), &mut newest_table)?;
        let plan = Arc::new(plan);

        // Whoever holds a set and still sees the old epoch writes an old entry; the walk comes to
        // that set later and brings it over. Whoever holds it after the walk sees the new epoch and
        // begins again with the new plan. So entries are at most one configuration behind.
        shared.plan.store(Arc::clone(&plan));
        shared.epoch.store(plan.epoch, Ordering::Release);
        plan.carry_over(self.now());
        Ok(())
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
        let now = self.now();
        let plan = self.shared.plan.load();
        let stats = plan.policies.iter().map(|policy| TableStats {
            policy: policy.name.as_str().to_owned(),
            capacity: policy.table.capacity(),
            occupied: policy.table.occupied(now),
            evicted_live: policy.table.evicted(),
        });
        stats.collect()
    }

    pub(crate) fn new(
        clock: Clock,
        policies: &[Policy],
        capacity: usize,
    ) -> Result<Self, ConfigError> {
        let mut newest_table = 0;
        let plan = Plan::new(policies, capacity, None, &mut newest_table)?;
        Ok(Self {
            shared: Arc::new(Shared {
                clock,
                epoch: AtomicU64::new(plan.epoch),
                plan: ArcSwap::from_pointee(plan),
                newest_table: Mutex::new(newest_table),
                capacity,
            }),
        })
    }

    pub(crate) fn now(&self) -> u64 {
        self.shared.clock.now().as_nanos()
    }

    /// Tells limiters apart for as long as they live.
    pub(crate) fn id(&self) -> usize {
        Arc::as_ptr(&self.shared).addr()
    }

    fn decide(&self, key: Key, tier: Option<&str>, cost: u64, mode: Mode) -> Decision {
        loop {
            let plan = self.shared.plan.load();
            let tag = plan.tag(tier);
            let now = self.now();
            let request = Request {
                plan: &plan,
                epoch: &self.shared.epoch,
                tag,
                key,
                cost,
                now,
                mode,
            };
            let mut tally = Tally::default();
            if request.decide(0, &mut tally) != Step::Stale {
                return Decision {
                    now,
                    plan,
                    tag,
                    tally,
                };
            }
            // A reconfiguration is a few instructions away from done.
            std::thread::yield_now();
        }
    }
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = self.shared.plan.load();
        f.debug_struct("Limiter")
            .field(
                "policies",
                &plan
                    .policies
                    .iter()
                    .map(|policy| &policy.name)
                    .collect::<Vec<_>>(),
            )
            .field("capacity", &self.shared.capacity)
            .finish_non_exhaustive()
    }
}
