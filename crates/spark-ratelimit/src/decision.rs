//! The answer to "may it?".

use std::cmp::Reverse;
use std::fmt;
use std::time::Duration;

use http::HeaderValue;
use spark_core::Name;

use crate::engine::{Attempt, Engine};
use crate::gcra::Gcra;
use crate::legacy::Figures;
use crate::plan::{Active, Plan};
use crate::{Key, Unit, headers};

/// Whether a request may pass, and how its caller stands.
///
/// Made without allocating.
///
/// It speaks of the policies that it was made by, also when the limiter was
/// [reconfigured](crate::Limiter::reconfigure) since. After a second reconfiguration their names and
/// quotas are not known any more: it names none then and gives no header fields, while whether it
/// may, and how long to wait, stays as it was.
///
/// # Example
/// ```
/// use spark_ratelimit::{Key, Limiter, Policy, Quota};
/// use std::time::Duration;
/// let policy = Policy::new("requests", Quota::new(2, Duration::from_secs(1))?)?;
/// let limiter = Limiter::builder().policy(policy).build()?;
/// let decision = limiter.check(&Key::shared(), None, 1);
/// assert!(decision.allowed());
/// assert_eq!(decision.tightest().remaining, 1);
/// # Ok::<(), spark_ratelimit::ConfigError>(())
/// ```
#[derive(Clone, Copy)]
pub struct Decision<'a> {
    engine: &'a Engine,
    attempt: Attempt,
    /// Whose quota the first policy charged.
    key: Key,
}

/// What the policies say, gathered one by one. Small: it is on the way of every request.
#[derive(Clone, Copy, Default)]
pub(crate) struct Tally {
    /// One bit for each policy that refuses.
    pub(crate) violated: u32,
    /// One bit for each policy that would refuse, if it were not a shadow.
    pub(crate) shadowed: u32,
    /// When it was decided.
    pub(crate) now: u64,
    /// The longest wait, in nanoseconds, among those that refuse.
    pub(crate) wait: u64,
    /// The policy to report.
    pub(crate) tightest: Standing,
    /// One of them refuses forever.
    pub(crate) never: bool,
    /// A policy that is no shadow has spoken.
    pub(crate) enforced: bool,
    /// Less than a fifth of some burst is left.
    pub(crate) near_limit: bool,
}

/// How a key stands with one policy.
#[derive(Clone, Copy, Default)]
pub(crate) struct Standing {
    pub(crate) debt: u64,
    pub(crate) policy: u16,
    /// By which of the policy's quotas.
    pub(crate) tag: u16,
}

impl Standing {
    pub(crate) fn new(policy: usize, tag: u16, debt: u64) -> Self {
        Self {
            debt,
            // There are 32 at most.
            policy: policy as u16,
            tag,
        }
    }

    fn rule<'a>(&self, plan: &'a Plan) -> &'a Gcra {
        plan.policies[usize::from(self.policy)].rule(self.tag)
    }
}

impl Tally {
    /// A policy agrees.
    #[inline]
    pub(crate) fn agrees(&mut self, standing: Standing, shadow: bool, plan: &Plan) {
        if shadow {
            self.note_shadow(standing);
        } else if self.violated == 0 && (!self.enforced || self.is_tighter(standing, plan)) {
            self.tightest = standing;
            self.enforced = true;
        }
    }

    /// A policy refuses, for so long (`None`: forever).
    #[inline]
    pub(crate) fn refuses(&mut self, standing: Standing, wait: Option<u64>, shadow: bool) {
        if shadow {
            self.shadowed |= 1 << standing.policy;
            self.note_shadow(standing);
            return;
        }
        let longest = match wait {
            None => !self.never,
            Some(wait) => !self.never && wait > self.wait,
        };
        if self.violated == 0 || longest {
            self.tightest = standing;
        }
        self.enforced = true;
        self.violated |= 1 << standing.policy;
        self.never |= wait.is_none();
        self.wait = self.wait.max(wait.unwrap_or(0));
    }

    /// A shadow is reported only where there is nothing else.
    fn note_shadow(&mut self, standing: Standing) {
        if !self.enforced {
            self.tightest = standing;
        }
    }

    #[inline(never)]
    fn is_tighter(&self, standing: Standing, plan: &Plan) -> bool {
        let rank = |it: &Standing| {
            let rule = it.rule(plan);
            (rule.remaining(it.debt), Reverse(rule.next_in(it.debt)))
        };
        rank(&standing) < rank(&self.tightest)
    }
}

/// How a caller stands with one policy.
///
/// # Example
/// ```
/// # use spark_ratelimit::{Key, Limiter, Policy, Quota};
/// # use std::time::Duration;
/// # let policy = Policy::new("requests", Quota::new(2, Duration::from_secs(1))?)?;
/// # let limiter = Limiter::builder().policy(policy).build()?;
/// let decision = limiter.peek(&Key::shared(), None, 1);
/// let state = decision.tightest();
/// assert_eq!(state.name, "requests");
/// assert_eq!((state.limit, state.remaining), (2, 2));
/// assert!(state.full_in.is_zero());
/// # Ok::<(), spark_ratelimit::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PolicyState {
    /// The policy's name.
    pub name: Name,
    /// What is counted.
    pub unit: Unit,
    /// The caller's quota per period.
    pub limit: u64,
    /// What the caller may use at once after a pause.
    pub burst: u64,
    /// Whole units that may be used now.
    pub remaining: u64,
    /// Until one unit more may be used; zero when all may be.
    pub next_in: Duration,
    /// Until all of the burst may be used again.
    pub full_in: Duration,
}

impl<'a> Decision<'a> {
    /// Whether the request may pass. If so, it has been charged to every policy; if not, to none.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Key, Limiter, Policy, Quota};
    /// # use std::time::Duration;
    /// # let policy = Policy::new("requests", Quota::new(1, Duration::from_secs(1))?)?;
    /// # let limiter = Limiter::builder().policy(policy).build()?;
    /// assert!(limiter.check(&Key::shared(), None, 1).allowed());
    /// assert!(!limiter.check(&Key::shared(), None, 1).allowed());
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    pub fn allowed(&self) -> bool {
        self.attempt.tally.violated == 0
    }

    /// How long a refused caller has to wait until the same request passes, if nobody else uses
    /// its quota meanwhile. `None` when the request passed, and when it never can, because it asks
    /// for more than a burst.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Key, Limiter, Policy, Quota};
    /// # use std::time::Duration;
    /// # let policy = Policy::new("requests", Quota::new(1, Duration::from_secs(9))?)?;
    /// # let limiter = Limiter::builder().policy(policy).build()?;
    /// limiter.check(&Key::shared(), None, 1);
    /// let refused = limiter.check(&Key::shared(), None, 1);
    /// assert!(refused.retry_after() > Some(Duration::from_secs(8)));
    /// assert_eq!(limiter.check(&Key::shared(), None, 2).retry_after(), None);
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    pub fn retry_after(&self) -> Option<Duration> {
        let waits = !self.allowed() && !self.attempt.tally.never;
        waits.then(|| Duration::from_nanos(self.attempt.tally.wait))
    }

    /// Whether the request asks for more than a burst, so that no waiting helps.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Key, Limiter, Policy, Quota};
    /// # use std::time::Duration;
    /// # let policy = Policy::new("requests", Quota::new(3, Duration::from_secs(1))?)?;
    /// # let limiter = Limiter::builder().policy(policy).build()?;
    /// assert!(limiter.check(&Key::shared(), None, 4).exceeds_capacity());
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    pub fn exceeds_capacity(&self) -> bool {
        self.attempt.tally.never
    }

    /// The policy that binds first: of a refusal, the one with the longest wait; otherwise the one
    /// of which the least is left. After two reconfigurations it is some policy of now, with numbers
    /// that mean nothing.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Key, Limiter, Policy, Quota};
    /// # use std::time::Duration;
    /// let limiter = Limiter::builder()
    ///     .policy(Policy::new("second", Quota::new(10, Duration::from_secs(1))?)?)
    ///     .policy(Policy::new("day", Quota::new(1_000, Duration::from_secs(86_400))?)?)
    ///     .build()?;
    /// assert_eq!(limiter.check(&Key::shared(), None, 1).tightest().name, "second");
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    pub fn tightest(&self) -> PolicyState {
        self.report(|it| it.tightest())
    }

    /// The names of the policies that refuse; empty when the request passed, and after two
    /// reconfigurations.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Key, Limiter, Policy, Quota};
    /// # use std::time::Duration;
    /// # let policy = Policy::new("requests", Quota::new(1, Duration::from_secs(1))?)?;
    /// # let limiter = Limiter::builder().policy(policy).build()?;
    /// limiter.check(&Key::shared(), None, 1);
    /// let refused = limiter.check(&Key::shared(), None, 1);
    /// assert_eq!(refused.violated().collect::<Vec<_>>(), ["requests"]);
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    pub fn violated(&self) -> impl Iterator<Item = Name> + use<> {
        self.named(self.attempt.tally.violated)
    }

    /// The names of the shadow policies that would have refused; none after two reconfigurations.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Key, Limiter, Policy, Quota};
    /// # use std::time::Duration;
    /// # let second = Duration::from_secs(1);
    /// let limiter = Limiter::builder()
    ///     .policy(Policy::new("now", Quota::new(9, second)?)?)
    ///     .policy(Policy::new("tomorrow", Quota::new(1, second)?)?.shadow())
    ///     .build()?;
    /// limiter.check(&Key::shared(), None, 1);
    /// let decision = limiter.check(&Key::shared(), None, 1);
    /// assert!(decision.allowed());
    /// assert_eq!(decision.shadow_violated().collect::<Vec<_>>(), ["tomorrow"]);
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    pub fn shadow_violated(&self) -> impl Iterator<Item = Name> + use<> {
        self.named(self.attempt.tally.shadowed)
    }

    /// One that is still to be made.
    #[inline]
    pub(crate) fn pending(engine: &'a Engine, key: Key) -> Self {
        Self::again(engine, (Attempt::default(), key))
    }

    /// One that was made before, by its [`outcome`](Self::outcome).
    #[inline]
    pub(crate) fn again(engine: &'a Engine, (attempt, key): (Attempt, Key)) -> Self {
        Self {
            engine,
            attempt,
            key,
        }
    }

    /// Where it is written.
    #[inline]
    pub(crate) fn attempt(&mut self) -> &mut Attempt {
        &mut self.attempt
    }

    /// What came of it, and for whom.
    pub(crate) fn outcome(&self) -> (Attempt, Key) {
        (self.attempt, self.key)
    }

    /// When it was made, on the limiter's clock.
    pub(crate) fn now(&self) -> u64 {
        self.attempt.tally.now
    }

    /// Whether a shadow would have refused.
    #[cfg(feature = "metrics")]
    pub(crate) fn has_shadows(&self) -> bool {
        self.attempt.tally.shadowed != 0
    }

    /// Whether some policy has less than a fifth of its burst left.
    #[cfg(feature = "metrics")]
    pub(crate) fn is_near_limit(&self) -> bool {
        self.attempt.tally.near_limit
    }

    /// The same by name.
    #[inline]
    pub(crate) fn report<T>(&self, mut tell: impl FnMut(Report<'_>) -> T) -> T {
        let (attempt, key) = (&self.attempt, self.key);
        self.engine
            .with_plan_of(attempt.epoch, |plan| tell(Report { attempt, key, plan }))
    }

    /// Calls `tell` with the name of each policy that refuses.
    pub(crate) fn each_violated(&self, mut tell: impl FnMut(&str)) {
        let bits = self.attempt.tally.violated;
        self.report(|it| it.named(bits).for_each(|name| tell(name.as_str())));
    }

    fn named(&self, bits: u32) -> impl Iterator<Item = Name> + use<> {
        let names = match bits {
            0 => Vec::new(),
            _ => self.report(|it| it.named(bits).cloned().collect()),
        };
        names.into_iter()
    }

    /// The `RateLimit` field of draft-ietf-httpapi-ratelimit-headers: what may be used now, and in
    /// how many seconds there is more. One allocation. `None` where all policies are shadows, and
    /// after two reconfigurations.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Key, Limiter, Policy, Quota};
    /// # use std::time::Duration;
    /// # let policy = Policy::new("requests", Quota::new(60, Duration::from_secs(60))?)?;
    /// # let limiter = Limiter::builder().policy(policy).build()?;
    /// let decision = limiter.check(&Key::shared(), None, 1);
    /// assert_eq!(decision.rate_limit_field().unwrap(), r#""requests";r=59;t=1"#);
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    pub fn rate_limit_field(&self) -> Option<HeaderValue> {
        self.report(|it| it.limit_field())
    }

    /// The `RateLimit-Policy` field of the same draft: the quotas of the caller's tier. Made when
    /// the limiter was configured, but for a key with a quota of its own (of several keys, the first
    /// policy's). `None` where all policies are shadows, and after two reconfigurations.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Key, Limiter, Policy, Quota};
    /// # use std::time::Duration;
    /// # let policy = Policy::new("requests", Quota::new(60, Duration::from_secs(60))?)?;
    /// # let limiter = Limiter::builder().policy(policy).build()?;
    /// let decision = limiter.peek(&Key::shared(), None, 1);
    /// assert_eq!(decision.rate_limit_policy_field().unwrap(), r#""requests";q=60;w=60"#);
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    pub fn rate_limit_policy_field(&self) -> Option<HeaderValue> {
        self.report(|it| it.policy_field())
    }
}

/// A decision with the configuration that it was made under.
pub(crate) struct Report<'a> {
    attempt: &'a Attempt,
    key: Key,
    plan: &'a Plan,
}

impl Report<'_> {
    pub(crate) fn tightest(&self) -> PolicyState {
        let (policy, standing) = self.reported();
        let (rule, quota) = (policy.rule(standing.tag), policy.quota(standing.tag));
        PolicyState {
            name: policy.name.clone(),
            unit: policy.unit,
            limit: quota.limit(),
            burst: quota.burst_size(),
            remaining: rule.remaining(standing.debt),
            next_in: Duration::from_nanos(rule.next_in(standing.debt)),
            full_in: Duration::from_nanos(standing.debt),
        }
    }

    pub(crate) fn limit_field(&self) -> Option<HeaderValue> {
        self.is_to_be_told().then(|| {
            let (policy, standing) = self.reported();
            let rule = policy.rule(standing.tag);
            let (remaining, next_in) = (rule.remaining(standing.debt), rule.next_in(standing.debt));
            headers::limit_field(&policy.field_start, remaining, next_in)
        })
    }

    pub(crate) fn policy_field(&self) -> Option<HeaderValue> {
        let field = || self.plan.field(self.key, self.attempt.tier);
        self.is_to_be_told().then(field).flatten()
    }

    /// The burst stands for the limit: who tells these knows no other, and a client that has asked
    /// for nothing sees all of it left.
    pub(crate) fn figures(&self) -> Option<Figures> {
        self.is_to_be_told().then(|| {
            let (policy, standing) = self.reported();
            Figures {
                unit: policy.unit,
                limit: policy.quota(standing.tag).burst_size(),
                remaining: policy.rule(standing.tag).remaining(standing.debt),
                full_in: standing.debt,
            }
        })
    }

    /// Whether a client hears of it: of a shadow never, nor of policies that are not those of then.
    fn is_to_be_told(&self) -> bool {
        self.attempt.tally.enforced && self.is_of_its_plan()
    }

    /// Whether the plan is the one that it was made by: after two reconfigurations it is not, and
    /// what stands in the attempt by number means other policies, or none.
    fn is_of_its_plan(&self) -> bool {
        self.plan.epoch == self.attempt.epoch
    }

    fn named(&self, bits: u32) -> impl Iterator<Item = &Name> {
        let known = self.is_of_its_plan();
        let policies = self.plan.policies.iter().enumerate();
        policies
            .filter(move |(at, _)| known && bits >> at & 1 == 1)
            .map(|(_, policy)| &policy.name)
    }

    /// The policy to report, and how the key stands with it.
    fn reported(&self) -> (&Active, Standing) {
        let standing = self.attempt.tally.tightest;
        let policies = &self.plan.policies;
        // A plan of later may have fewer.
        let policy = policies.get(usize::from(standing.policy));
        (policy.unwrap_or(&policies[0]), standing)
    }
}

impl fmt::Debug for Decision<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decision")
            .field("allowed", &self.allowed())
            .field("retry_after", &self.retry_after())
            .field("tightest", &self.tightest())
            .finish_non_exhaustive()
    }
}
