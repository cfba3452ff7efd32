//! One request on its way through the policies: all of them, or none.

use crate::decision::{Standing, Tally};
use crate::engine::Engine;
use crate::gcra::{Gcra, Verdict};
use crate::permit::Part;
use crate::plan::Plan;
use crate::store::{Entry, Locked, Mark};
use crate::{Charge, Key};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Peek,
    Charge,
    Force,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Commit,
    Leave,
    Stale,
}

/// What the policies are asked for.
#[derive(Clone, Copy)]
pub(crate) enum Charges<'a> {
    All(Charge),
    /// One for each, in the order of the plan.
    Each(&'a [Charge]),
}

impl Charges<'_> {
    // By reference: the key is on the way to the lock, and a copy that is read before it has been
    // written in full waits for that.
    #[inline]
    pub(crate) fn of(&self, policy: usize) -> &Charge {
        match self {
            Self::All(charge) => charge,
            Self::Each(charges) => &charges[policy],
        }
    }
}

/// One request on its way through the policies.
pub(crate) struct Request<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) engine: &'a Engine,
    /// The tier's tag, where a policy has no quota for the key alone.
    pub(crate) tier: u16,
    pub(crate) charges: &'a Charges<'a>,
    pub(crate) mode: Mode,
    /// By which permit the estimates are reserved.
    pub(crate) permit: Option<u64>,
}

impl Request<'_> {
    /// Asks policy `at` and all after it; writes on the way back, once all have spoken. Every set
    /// stays locked until then, and all requests lock in the same order. The clock is read once, if the
    /// time is not `known`.
    #[inline]
    pub(crate) fn decide(&self, at: usize, known: Option<u64>, tally: &mut Tally) -> Step {
        let policy = &self.plan.policies[at];
        let charge = self.charges.of(at);
        let tag = policy.tag(charge.key, self.tier);
        let rule = policy.rule(tag);
        let table = self.engine.table(policy.slot);
        let clock = || known.unwrap_or_else(|| self.engine.now());
        let mut set = table.lock(charge.key, clock, rule.span(charge.cost));
        let now = set.now;
        let before = self.plan.debt(at, rule, tag, set.get(), now);

        let verdict = rule.ask(before, charge.cost);
        let after = match (self.mode, verdict) {
            (Mode::Force, _) => rule.force(before, charge.cost),
            (Mode::Charge, Verdict::Conforms { debt }) => debt,
            _ => before,
        };
        let standing = Standing::new(at, tag, after);
        tally.near_limit |= rule.is_near_limit(after) && !policy.shadow;
        match verdict {
            Verdict::Conforms { .. } => tally.agrees(standing, policy.shadow, self.plan),
            Verdict::Wait { nanos } => tally.refuses(standing, Some(nanos), policy.shadow),
            Verdict::Never => tally.refuses(standing, None, policy.shadow),
        }

        let step = if at + 1 < self.plan.policies.len() {
            self.ask_next(at + 1, now, tally)
        } else {
            self.conclude(now, tally)
        };
        if step == Step::Commit && after != before {
            let entry = Entry {
                tat: now.saturating_add(after),
                mark: Mark::new(tag, self.plan.turn()),
            };
            if self.permit.is_some() || self.engine.permits.are_some() {
                self.note_debt(at, charge, rule, &set, entry);
            }
            set.put(entry);
        } else if after == before && step != Step::Stale && self.mode != Mode::Peek {
            self.cut_off(at, charge.key, &mut set);
        }
        set.unlock();
        step
    }

    /// A clock that stepped back leaves debts that lie far ahead. What is owed beyond the ceiling goes,
    /// or it would be owed until the clock has caught up.
    #[inline]
    fn cut_off(&self, at: usize, key: Key, set: &mut Locked<'_>) {
        let Some(entry) = set.get() else { return };
        let Some((rule, _)) = self.plan.origin(at, entry) else {
            return;
        };
        if entry.tat.saturating_sub(set.now) > rule.ceiling() {
            let tat = set.now.saturating_add(rule.ceiling());
            set.put(Entry { tat, ..entry });
            let policy = self.plan.policies[at].id;
            self.engine.permits.forgive(Part::account_of(policy, key));
        }
    }

    /// Notes what the debt of this set becomes, and an estimate for its permit.
    #[inline(never)]
    fn note_debt(&self, at: usize, charge: &Charge, rule: &Gcra, set: &Locked<'_>, after: Entry) {
        let account = Part::account_of(self.plan.policies[at].id, charge.key);
        self.engine
            .note_debt(account, rule, set.get(), after, set.now);
        if let Some(permit) = self.permit.filter(|_| charge.estimate) {
            self.engine.permits.reserve(account, permit, after.tat);
        }
    }

    // Apart, so that the first policy, which often is the only one, is decided in place.
    #[inline(never)]
    fn ask_next(&self, at: usize, now: u64, tally: &mut Tally) -> Step {
        self.decide(at, Some(now), tally)
    }

    #[inline]
    fn conclude(&self, now: u64, tally: &mut Tally) -> Step {
        tally.now = now;
        if !self.engine.is_in_force(self.plan) {
            return Step::Stale;
        }
        match self.mode {
            Mode::Charge if tally.violated == 0 => Step::Commit,
            Mode::Force => Step::Commit,
            Mode::Charge | Mode::Peek => Step::Leave,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Policy, Quota};
    use spark_core::Clock;
    use std::time::Duration;

    #[test]
    fn what_was_decided_by_a_plan_that_is_replaced_is_not_written() {
        let quota = Quota::new(5, Duration::from_secs(1)).unwrap();
        let policies = ["a", "b"].map(|name| Policy::new(name, quota).unwrap());
        let engine = Engine::new(Clock::system(), &policies, 8).unwrap();
        let stale = Plan::new(&policies, Some(&engine.plan())).unwrap();
        let decide = |plan: &Plan, mode| {
            let request = Request {
                plan,
                engine: &engine,
                tier: 0,
                charges: &Charges::All(Charge::new(Key::shared(), 1)),
                mode,
                permit: None,
            };
            request.decide(0, Some(7), &mut Tally::default())
        };
        let entries = || [0, 1].map(|slot| engine.table(slot).lock(Key::shared(), || 7, 0).get());

        for mode in [Mode::Charge, Mode::Force, Mode::Peek] {
            assert!(decide(&stale, mode) == Step::Stale);
            assert_eq!(entries(), [None, None]);
        }
        assert!(decide(&engine.plan(), Mode::Charge) == Step::Commit);
        assert!(entries().iter().all(Option::is_some));
    }
}
