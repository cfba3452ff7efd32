//! One request on its way through the policies: all of them, or none.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::Key;
use crate::decision::{Standing, Tally};
use crate::gcra::Verdict;
use crate::plan::Plan;
use crate::store::Entry;

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

/// One request on its way through the policies.
pub(crate) struct Request<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) epoch: &'a AtomicU64,
    pub(crate) tag: u16,
    pub(crate) key: Key,
    pub(crate) cost: u64,
    pub(crate) now: u64,
    pub(crate) mode: Mode,
}

impl Request<'_> {
    /// Asks policy `at` and all after it; writes on the way back, once all have spoken. Every set
    /// stays locked until then, and all requests lock in the same order.
    pub(crate) fn decide(&self, at: usize, tally: &mut Tally) -> Step {
        let Some(policy) = self.plan.policies.get(at) else {
            return self.conclude(tally);
        };
        let rule = &self.plan.views[usize::from(self.tag)].rules[at].1;
        let mut set = policy.table.lock(self.key);
        let before = self.plan.debt(at, set.get(), rule, self.now);
        let standing = |debt| Standing {
            policy: at,
            remaining: rule.remaining(debt),
            next_in: rule.next_in(debt),
            full_in: debt,
        };

        let after = match (self.mode, rule.ask(before, self.cost)) {
            (Mode::Force, _) => rule.force(before, self.cost),
            (Mode::Charge, Verdict::Conforms { debt }) => {
                tally.agrees(standing(debt));
                debt
            }
            (Mode::Peek, Verdict::Conforms { .. }) => {
                tally.agrees(standing(before));
                before
            }
            (_, Verdict::Wait { nanos }) => {
                tally.refuses(standing(before), Some(nanos));
                before
            }
            (_, Verdict::Never) => {
                tally.refuses(standing(before), None);
                before
            }
        };

        let step = self.decide(at + 1, tally);
        if step == Step::Commit && after != before {
            let entry = Entry {
                tat: self.now.saturating_add(after),
                tag: self.tag,
                turn: self.plan.turn(),
            };
            set.put(entry, self.now);
        }
        step
    }

    fn conclude(&self, tally: &Tally) -> Step {
        if self.epoch.load(Ordering::Acquire) != self.plan.epoch {
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
    use std::time::Duration;

    #[test]
    fn what_was_decided_by_a_plan_that_is_replaced_is_not_written() {
        let quota = Quota::new(5, Duration::from_secs(1)).unwrap();
        let policies = ["a", "b"].map(|name| Policy::new(name, quota).unwrap());
        let plan = Plan::new(&policies, 8, None, &mut 0).unwrap();
        let decide = |epoch: u64, mode| {
            let request = Request {
                plan: &plan,
                epoch: &AtomicU64::new(epoch),
                tag: 0,
                key: Key::shared(),
                cost: 1,
                now: 7,
                mode,
            };
            request.decide(0, &mut Tally::default())
        };
        let entries = || [0, 1].map(|at| plan.policies[at].table.lock(Key::shared()).get());

        for mode in [Mode::Charge, Mode::Force, Mode::Peek] {
            assert!(decide(1, mode) == Step::Stale);
            assert_eq!(entries(), [None, None]);
        }
        assert!(decide(0, Mode::Charge) == Step::Commit);
        assert!(entries().iter().all(Option::is_some));
    }
}
