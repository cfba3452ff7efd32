//! The generic cell rate algorithm, in whole nanoseconds.
//!
//! Source: ITU-T Recommendation I.371 (03/2004), Annex A.1, and the ATM Forum's Traffic Management
//! Specification 4.0 (af-tm-0056.000), §4.4.2, "virtual scheduling". A caller's whole state is one
//! number, the theoretical arrival time (TAT): when its bucket will be full again. The **debt** is
//! how far that lies ahead of now. With `T` the time per unit and `τ = burst × T`, a request of `c`
//! units conforms when `debt + c × T ≤ τ`, and is charged by moving the TAT by `c × T`. (The sources
//! write the limit as `τ + T` for cells of weight one; this is the same, for any weight.)
//!
//! Everything here is a pure function of the debt, so that asking and charging are separate.

use crate::Quota;

/// The two numbers of the algorithm, for one quota, and what follows from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gcra {
    /// `T`: nanoseconds per unit, at least 1.
    interval: u64,
    /// `τ`: the debt at which the bucket is empty, at least `T`, at most 2⁶¹.
    tolerance: u64,
    /// The debt at which a fifth of the bucket is left.
    near: u64,
    /// The most that can be owed.
    ceiling: u64,
}

/// What the algorithm says to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It conforms, and would leave this debt.
    Conforms { debt: u64 },
    /// It will conform in so many nanoseconds, at least 1.
    Wait { nanos: u64 },
    /// It asks for more than the burst: it will never conform.
    Never,
}

impl Gcra {
    pub(crate) fn new(quota: &Quota) -> Self {
        let interval = quota.interval_nanos();
        let tolerance = interval.saturating_mul(quota.burst_size());
        Self {
            interval,
            tolerance,
            near: tolerance - tolerance / 5,
            ceiling: tolerance.saturating_mul(2),
        }
    }

    /// How far a theoretical arrival time lies ahead: nanoseconds until the bucket is full.
    ///
    /// At most twice the tolerance, so that neither a penalty nor a clock that stepped back locks
    /// anybody out for longer than it takes to refill the bucket twice.
    pub(crate) fn debt(&self, tat: u64, now: u64) -> u64 {
        tat.saturating_sub(now).min(self.ceiling())
    }

    /// Whether `cost` units conform. Changes nothing.
    pub(crate) fn ask(&self, debt: u64, cost: u64) -> Verdict {
        let wanted = self.span(cost);
        if wanted > self.tolerance {
            return Verdict::Never;
        }
        // Both are at most 2⁶², so the sum cannot wrap.
        let after = debt + wanted;
        if after <= self.tolerance {
            Verdict::Conforms { debt: after }
        } else {
            Verdict::Wait {
                nanos: after - self.tolerance,
            }
        }
    }

    /// The debt after `cost` units, whether they conform or not.
    pub(crate) fn force(&self, debt: u64, cost: u64) -> u64 {
        debt.saturating_add(self.span(cost)).min(self.ceiling())
    }

    /// Whole units that may be used now.
    pub(crate) fn remaining(&self, debt: u64) -> u64 {
        self.tolerance.saturating_sub(debt) / self.interval
    }

    /// Nanoseconds until one unit more than now may be used; 0 when the bucket is full.
    pub(crate) fn next_in(&self, debt: u64) -> u64 {
        if debt == 0 {
            return 0;
        }
        // The debt at which the next unit is there. With a debt of at most `T` that is 0.
        let enough = (self.remaining(debt) + 1).saturating_mul(self.interval);
        debt - self.tolerance.saturating_sub(enough)
    }

    /// The debt here that uses up the same share of the burst as `debt` did under `old`.
    /// Rounded up: a change of quota never forgives anything.
    pub(crate) fn carry(&self, old: &Self, debt: u64) -> u64 {
        if old == self {
            return debt;
        }
        let scaled = (u128::from(debt) * u128::from(self.tolerance))
            .div_ceil(u128::from(old.tolerance.max(1)));
        u64::try_from(scaled).map_or(self.ceiling(), |debt| debt.min(self.ceiling()))
    }

    /// Nanoseconds of debt that so many units are.
    pub(crate) fn span(&self, units: u64) -> u64 {
        self.interval.saturating_mul(units)
    }

    /// Whether less than a fifth of the burst is left.
    pub(crate) fn is_near_limit(&self, debt: u64) -> bool {
        debt > self.near
    }

    /// The most that can be owed.
    pub(crate) fn ceiling(&self) -> u64 {
        self.ceiling
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn gcra(n: u64, per: Duration, burst: u64) -> Gcra {
        Gcra::new(&Quota::new(n, per).unwrap().burst(burst).unwrap())
    }

    #[test]
    fn a_cost_above_the_burst_never_conforms_and_none_overflows() {
        let gcra = gcra(10, Duration::from_secs(1), 5);
        assert_eq!(gcra.ask(0, 6), Verdict::Never);
        assert_eq!(gcra.ask(0, u64::MAX), Verdict::Never);
        assert_eq!(gcra.force(u64::MAX, u64::MAX), gcra.ceiling());
        assert_eq!(gcra.ask(0, 0), Verdict::Conforms { debt: 0 });
    }

    #[test]
    fn a_clock_that_steps_back_locks_nobody_out_for_long() {
        let gcra = gcra(10, Duration::from_secs(1), 5);
        let hour = 3_600_000_000_000;
        assert_eq!(gcra.debt(hour, 0), 1_000_000_000);
    }

    #[test]
    fn a_change_of_quota_keeps_the_used_share() {
        let free = gcra(60, Duration::from_secs(60), 20);
        let pro = gcra(600, Duration::from_secs(60), 100);
        assert_eq!(pro.carry(&free, free.tolerance), pro.tolerance);
        assert_eq!(free.carry(&pro, pro.tolerance / 2), free.tolerance / 2);
        assert_eq!(pro.carry(&free, 0), 0);
    }

    proptest! {
        /// One nanosecond before `next_in` there is not a unit more; at it there is.
        #[test]
        fn next_in_is_exact(n in 1u64..1_000, per in 1_000_000u64..1_000_000_000, burst in 1u64..100, used in 1u64..200_000) {
            let gcra = gcra(n, Duration::from_nanos(per), burst);
            let debt = (gcra.tolerance / 100_000 * used).clamp(1, gcra.ceiling());
            let next = gcra.next_in(debt);
            prop_assert!(next >= 1);
            let now = gcra.remaining(debt);
            prop_assert_eq!(gcra.remaining(debt - next + 1), now);
            prop_assert_eq!(gcra.remaining(debt - next), now + 1);
        }

        /// The wait is exact: refused a nanosecond earlier, admitted at it.
        #[test]
        fn waits_are_exact(burst in 1u64..100, cost in 1u64..120, debt in 0u64..2_000_000) {
            let gcra = gcra(100_000, Duration::from_secs(1), burst);
            let debt = debt.min(gcra.ceiling());
            match gcra.ask(debt, cost) {
                Verdict::Never => prop_assert!(cost > burst),
                Verdict::Conforms { debt: after } => prop_assert!(after <= gcra.tolerance),
                Verdict::Wait { nanos } => {
                    let later = matches!(gcra.ask(debt - nanos, cost), Verdict::Conforms { .. });
                    let earlier = matches!(gcra.ask(debt - nanos + 1, cost), Verdict::Conforms { .. });
                    prop_assert!(later && !earlier);
                }
            }
        }
    }
}
