//! What a limiter's clones share: the plan in force, the tables, the clock; and how both are brought
//! together for a request.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use arc_swap::{ArcSwap, ArcSwapOption};
use spark_core::Clock;

use crate::decision::Tally;
use crate::gcra::Gcra;
use crate::ledger::Ledger;
use crate::memory::{remember, with_plan};
use crate::permit::Part;
use crate::plan::{MAX_POLICIES, Plan};
use crate::request::{Charges, Mode, Request, Step};
use crate::store::{Entry, Mark, Table};
use crate::sync::{AtomicU64, Mutex, hold, yield_now};
use crate::{ConfigError, Key, Policy};

pub(crate) struct Engine {
    /// Told apart from all limiters that were ever made in this process.
    pub(crate) id: u64,
    clock: Clock,
    /// The epoch of the plan that may write to the tables: see [`Engine::reconfigure`].
    epoch: AtomicU64,
    plan: ArcSwap<Plan>,
    /// The plan before, for decisions that were made just before it was replaced.
    previous: ArcSwapOption<Plan>,
    tables: Tables,
    pub(crate) capacity: usize,
    /// The permits that are out.
    pub(crate) permits: Ledger,
    /// Held while reconfiguring.
    reconfiguring: Mutex<()>,
}

/// The policies' tables, by slot. They are locked in this order. A table is never given back: one
/// whose policy has gone is taken by the next that comes.
pub(crate) struct Tables(Box<[OnceLock<Table>]>);

impl Tables {
    pub(crate) fn new() -> Self {
        // The policies of one configuration, and those of the one before.
        Self((0..2 * MAX_POLICIES).map(|_| OnceLock::new()).collect())
    }

    pub(crate) fn get(&self, slot: usize, capacity: usize) -> &Table {
        self.0[slot].get_or_init(|| Table::new(capacity))
    }
}

/// What came of a request.
#[derive(Clone, Copy, Default)]
pub(crate) struct Attempt {
    pub(crate) epoch: u64,
    pub(crate) tally: Tally,
    pub(crate) tier: u16,
}

impl Engine {
    pub(crate) fn new(
        clock: Clock,
        policies: &[Policy],
        capacity: usize,
    ) -> Result<Self, ConfigError> {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let plan = Plan::new(policies, None)?;
        let tables = Tables::new();
        for policy in &plan.policies {
            tables.get(policy.slot, capacity);
        }
        Ok(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            clock,
            epoch: AtomicU64::new(plan.epoch),
            plan: ArcSwap::from_pointee(plan),
            previous: ArcSwapOption::empty(),
            tables,
            capacity,
            permits: Ledger::new(),
            reconfiguring: Mutex::new(()),
        })
    }

    pub(crate) fn now(&self) -> u64 {
        self.clock.now().as_nanos()
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The plan in force.
    pub(crate) fn plan(&self) -> Arc<Plan> {
        self.plan.load_full()
    }

    /// Calls `tell` with the plan of that epoch; with the one in force where it is long gone.
    #[inline]
    pub(crate) fn with_plan_of<T>(&self, epoch: u64, mut tell: impl FnMut(&Plan) -> T) -> T {
        match with_plan(self, epoch, &mut tell) {
            Some(told) => told,
            None => tell(&self.plan_of(epoch)),
        }
    }

    #[cold]
    fn plan_of(&self, epoch: u64) -> Arc<Plan> {
        let plan = self.plan();
        if plan.epoch == epoch {
            return plan;
        }
        let previous = self.previous.load_full().filter(|it| it.epoch == epoch);
        previous.unwrap_or(plan)
    }

    pub(crate) fn table(&self, slot: usize) -> &Table {
        self.tables.get(slot, self.capacity)
    }

    /// Whether this plan may write to the tables.
    pub(crate) fn is_in_force(&self, plan: &Plan) -> bool {
        self.epoch.load(Ordering::Acquire) == plan.epoch
    }

    /// Decides a request by the plan in force.
    ///
    /// What comes of it is written where it stays: to move it costs as much as a lock.
    #[inline]
    pub(crate) fn decide(
        &self,
        charges: &Charges<'_>,
        tier: Option<&str>,
        mode: Mode,
        attempt: &mut Attempt,
    ) {
        let epoch = self.epoch.load(Ordering::Acquire);
        let known = with_plan(self, epoch, |plan| {
            self.attempt(plan, charges, tier, mode, None, attempt)
        });
        if known != Some(true) {
            self.decide_anew(charges, tier, mode, attempt);
        }
    }

    #[cold]
    fn decide_anew(
        &self,
        charges: &Charges<'_>,
        tier: Option<&str>,
        mode: Mode,
        attempt: &mut Attempt,
    ) {
        loop {
            // A plan that has gone may have left half an answer.
            attempt.tally = Tally::default();
            if self.attempt(&remember(self), charges, tier, mode, None, attempt) {
                return;
            }
            // A reconfiguration is a few instructions away from done.
            yield_now();
        }
    }

    /// Decides a request by this plan, into an attempt that is fresh; false when it is not in force
    /// any more. The estimates are noted for `permit`.
    #[inline]
    pub(crate) fn attempt(
        &self,
        plan: &Plan,
        charges: &Charges<'_>,
        tier: Option<&str>,
        mode: Mode,
        permit: Option<u64>,
        attempt: &mut Attempt,
    ) -> bool {
        let tier = plan.tag(tier);
        attempt.epoch = plan.epoch;
        attempt.tier = tier;
        let request = Request {
            plan,
            engine: self,
            tier,
            charges,
            mode,
            permit,
        };
        request.decide(0, None, &mut attempt.tally) != Step::Stale
    }

    /// Replaces the plan while requests are being decided.
    pub(crate) fn reconfigure(&self, policies: &[Policy]) -> Result<(), ConfigError> {
        let _one_at_a_time = hold(&self.reconfiguring);
        let before = self.plan();
        let plan = Arc::new(Plan::new(policies, Some(&before))?);
        // A table that changes hands belongs to no policy now, so nobody writes to it.
        for policy in &plan.policies {
            if before.policies.iter().all(|it| it.slot != policy.slot) {
                self.table(policy.slot).clear();
            }
        }

        // Whoever holds a set and still sees the old epoch writes an old entry; the walk comes to
        // that set later and brings it over. Whoever holds it after the walk sees the new epoch and
        // begins again with the new plan. So entries are at most one configuration behind.
        self.previous.store(Some(before));
        self.plan.store(Arc::clone(&plan));
        self.epoch.store(plan.epoch, Ordering::Release);
        plan.carry_over(|slot| self.table(slot), self.now());
        Ok(())
    }

    /// Settles one part of a permit of a tier, made at `epoch`, at `actual` units.
    pub(crate) fn settle(&self, epoch: u64, tier: Option<&str>, part: &Part, actual: u64) {
        while !self.try_settle(epoch, tier, part, actual) {
            yield_now();
        }
    }

    fn try_settle(&self, epoch: u64, tier: Option<&str>, part: &Part, actual: u64) -> bool {
        let plan = self.plan.load();
        let found = plan.policies.iter().position(|it| it.id == part.policy);
        // A policy that is no more has nothing to settle.
        let Some(at) = found else { return true };
        let policy = &plan.policies[at];
        let tag = policy.tag(part.key, plan.tag(tier));
        let rule = policy.rule(tag);
        let mark = Mark::new(tag, plan.turn());
        // What is given back is what time has not: time goes on while the set is waited for.
        let mut set = self.table(policy.slot).lock(part.key, || self.now(), 0);
        let now = set.now;
        if !self.is_in_force(&plan) {
            return false;
        }
        let entry = set.get();
        if let Some(missing) = actual.checked_sub(part.reserved).filter(|it| *it > 0) {
            let debt = rule.force(plan.debt(at, rule, tag, entry, now), missing);
            let tat = now.saturating_add(debt);
            let after = Entry { tat, mark };
            self.note_debt(part.account(), rule, entry, after, now);
            set.put(after);
            return true;
        }
        // What was reserved under another quota cannot be told in this one.
        let entry = entry.filter(|it| plan.epoch == epoch && it.mark == mark);
        let Some(entry) = entry else { return true };
        let most = rule.span(part.reserved - actual);
        let end = self.permits.end(part.account(), part.permit);
        // An entry that stands below that end is not the one of then: it was forgotten.
        let back = match end <= entry.tat {
            true => end.saturating_sub(now).min(most),
            false => 0,
        };
        if back > 0 {
            self.permits.give_back(part.account(), part.permit, back);
            let tat = entry.tat - back;
            set.put(Entry { tat, mark });
        }
        true
    }

    /// Notes what a debt became, with its set locked. Where it begins anew, is measured by another
    /// rule or was cut off, nothing that was reserved before can be given back.
    pub(crate) fn note_debt(
        &self,
        account: u64,
        rule: &Gcra,
        before: Option<Entry>,
        after: Entry,
        now: u64,
    ) {
        let goes_on = before.is_some_and(|it| it.tat > now && it.mark == after.mark);
        if !goes_on || after.tat.saturating_sub(now) >= rule.ceiling() {
            self.permits.forgive(account);
        }
    }

    /// Forgives a key everything.
    pub(crate) fn reset(&self, key: Key) {
        while !self.try_reset(key) {
            yield_now();
        }
    }

    fn try_reset(&self, key: Key) -> bool {
        let plan = self.plan();
        plan.policies.iter().all(|policy| {
            let mut set = self.table(policy.slot).lock(key, || self.now(), 0);
            let in_force = self.is_in_force(&plan);
            if in_force {
                set.clear();
                self.permits.forgive(Part::account_of(policy.id, key));
            }
            in_force
        })
    }
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
