//! What a limiter's clones share: the plan in force, the tables, the clock; and how both are brought
//! together for a request.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use arc_swap::{ArcSwap, ArcSwapOption};
use spark_core::Clock;

use crate::decision::Tally;
use crate::ledger::Ledger;
use crate::permit::Part;
use crate::plan::{MAX_POLICIES, Plan};
use crate::request::{Charges, Mode, Request, Step};
use crate::store::{Entry, Mark, Table};
use crate::sync::{AtomicU64, Mutex, hold, yield_now};
use crate::{ConfigError, Policy};

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
    pub(crate) now: u64,
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

    /// Calls `tell`, which must not call back into a limiter, with the plan of that epoch; with the
    /// one in force where it is long gone.
    #[inline]
    pub(crate) fn with_plan_of<T>(&self, epoch: u64, tell: impl Fn(&Plan) -> T) -> T {
        with_plan(self, epoch, &tell).unwrap_or_else(|| tell(&self.plan_of(epoch)))
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
        charges: Charges<'_>,
        tier: Option<&str>,
        mode: Mode,
        attempt: &mut Attempt,
    ) {
        let epoch = self.epoch.load(Ordering::Acquire);
        let known = with_plan(self, epoch, |plan| {
            self.attempt(plan, charges, tier, mode, &mut [], attempt)
        });
        if known != Some(true) {
            self.decide_anew(charges, tier, mode, attempt);
        }
    }

    #[cold]
    fn decide_anew(
        &self,
        charges: Charges<'_>,
        tier: Option<&str>,
        mode: Mode,
        attempt: &mut Attempt,
    ) {
        while !self.attempt(&remember(self), charges, tier, mode, &mut [], attempt) {
            // A reconfiguration is a few instructions away from done.
            yield_now();
        }
    }

    /// Decides a request by this plan; false when it is not in force any more. Into `marks` goes, by
    /// policy, the arrival time that was written and under which tag.
    #[inline]
    pub(crate) fn attempt(
        &self,
        plan: &Plan,
        charges: Charges<'_>,
        tier: Option<&str>,
        mode: Mode,
        marks: &mut [(u64, u16)],
        attempt: &mut Attempt,
    ) -> bool {
        let tier = plan.tag(tier);
        let now = self.now();
        attempt.tally = Tally::default();
        attempt.now = now;
        attempt.epoch = plan.epoch;
        attempt.tier = tier;
        let request = Request {
            plan,
            engine: self,
            tier,
            charges,
            now,
            mode,
        };
        request.decide(0, &mut attempt.tally, marks) != Step::Stale
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

    /// Settles one part of a permit at `actual` units.
    pub(crate) fn settle(&self, epoch: u64, part: &Part, actual: u64) {
        while !self.try_settle(epoch, part, actual) {
            yield_now();
        }
    }

    fn try_settle(&self, epoch: u64, part: &Part, actual: u64) -> bool {
        let plan = self.plan.load();
        let found = plan.policies.iter().position(|it| it.id == part.policy);
        // A policy that is no more has nothing to settle.
        let Some(at) = found else { return true };
        let now = self.now();
        let mut set = self.table(plan.policies[at].slot).lock(part.key, now, now);
        if self.epoch.load(Ordering::Acquire) != plan.epoch {
            return false;
        }
        let entry = set.get();
        let turn = plan.turn();
        let mark = Mark::new(part.tag, turn);
        let unchanged = plan.epoch == epoch && entry.is_none_or(|it| it.mark == mark);
        let tag = match entry {
            _ if unchanged => part.tag,
            Some(entry) => plan.origin(at, entry).map_or(0, |(_, tag)| tag),
            None => 0,
        };
        let rule = plan.policies[at].rule(tag);
        if let Some(missing) = actual.checked_sub(part.reserved).filter(|it| *it > 0) {
            let debt = rule.force(plan.debt(at, entry, tag, now), missing);
            let tat = now.saturating_add(debt);
            let mark = Mark::new(tag, turn);
            set.put(Entry { tat, mark }, now);
            return true;
        }
        let Some(entry) = entry.filter(|_| unchanged) else {
            return true;
        };
        let account = part.account();
        let most = rule.span(part.reserved - actual);
        let back = part.to_give_back(entry.tat, self.permits.returned(account), now, most);
        if back > 0 {
            self.permits.give_back(account, back);
            let tat = entry.tat - back;
            set.put(Entry { tat, ..entry }, now);
        }
        true
    }
}

/// How many limiters' plans a thread remembers.
const REMEMBERED: usize = 8;

thread_local! {
    /// Plans by their limiter's id. Taking one out of here costs no atomic write, which would be a
    /// third of a whole decision.
    static PLANS: RefCell<[Remembered; REMEMBERED]> =
        const { RefCell::new([const { None }; REMEMBERED]) };
}

type Remembered = Option<(u64, Arc<Plan>)>;

/// Calls `work`, which must not call back into a limiter, with the plan of `epoch`, if this thread
/// remembers it.
#[inline]
fn with_plan<T>(engine: &Engine, epoch: u64, work: impl FnOnce(&Plan) -> T) -> Option<T> {
    let known = PLANS.try_with(|plans| match &plans.borrow()[place(engine)] {
        Some((id, plan)) if *id == engine.id && plan.epoch == epoch => Some(work(plan)),
        _ => None,
    });
    known.ok().flatten()
}

/// The plan in force, which this thread will know from now on.
fn remember(engine: &Engine) -> Arc<Plan> {
    let plan = engine.plan();
    // Where the thread is about to end, nothing is remembered.
    let _ = PLANS.try_with(|plans| {
        plans.borrow_mut()[place(engine)] = Some((engine.id, Arc::clone(&plan)));
    });
    plan
}

fn place(engine: &Engine) -> usize {
    (engine.id % REMEMBERED as u64) as usize
}
