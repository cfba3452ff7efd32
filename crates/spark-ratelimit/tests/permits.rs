//! Reservations against an exact ledger: whatever is reserved, settled, charged and punished, and in
//! whatever order, nobody gets more than burst and rate allow.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use common::{SECOND, limiter, policy, quota, remaining};
use proptest::prelude::*;
use spark_core::testing::TestClock;
use spark_ratelimit::{Charge, Key, Limiter, Permit, Policy, Quota};

/// What is done to one key, as the limiter was seen to decide it.
#[derive(Clone, Copy, Debug)]
enum Event {
    Pass(u128),
    Charge { units: u64, permit: Option<usize> },
    Force(u64),
    Reset,
}

/// A bucket in exact arithmetic: what it lacks, in nanoseconds of refill.
struct Bucket {
    interval: u128,
    size: u128,
    lacks: u128,
}

impl Bucket {
    /// The bucket after these events, if each permit that is settled had reserved no more than it
    /// used, from the beginning.
    fn after(quota: &Quota, events: &[Event], used: &[Option<u64>]) -> Self {
        let interval = quota.interval().as_nanos();
        let mut bucket = Self {
            interval,
            size: interval * u128::from(quota.burst_size()),
            lacks: 0,
        };
        for event in events {
            match *event {
                Event::Pass(nanos) => bucket.lacks = bucket.lacks.saturating_sub(nanos),
                Event::Charge { units, permit } => {
                    let used = permit.and_then(|permit| used[permit]);
                    bucket.take(used.map_or(units, |used| used.min(units)));
                }
                Event::Force(units) => {
                    bucket.take(units);
                    bucket.lacks = bucket.lacks.min(2 * bucket.size);
                }
                Event::Reset => bucket.lacks = 0,
            }
        }
        bucket
    }

    fn take(&mut self, units: u64) {
        self.lacks += self.interval * u128::from(units);
    }
}

#[derive(Clone, Copy, Debug)]
enum Op {
    /// A share of the interval, in hundredths.
    Pass(u64),
    Check(u64),
    Acquire(u64),
    /// Which permit, and what share of its reservation was used, in eighths: more than eight, and
    /// more was used than reserved.
    Settle(usize, u64),
    Observe(usize, u64),
    Drop(usize),
    Penalize(u64),
    /// Forgives the key everything, while nothing is out.
    Reset,
}

fn op(penalties: u32, pardons: u32) -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => prop_oneof![Just(0), 0u64..150, 0u64..3_000].prop_map(Op::Pass),
        4 => (0u64..12).prop_map(Op::Check),
        5 => (0u64..12).prop_map(Op::Acquire),
        5 => (0usize..6, prop_oneof![8 => 0u64..=8, 1 => 9u64..13])
            .prop_map(|(permit, share)| Op::Settle(permit, share)),
        1 => (0usize..6, 0u64..10).prop_map(|(permit, share)| Op::Observe(permit, share)),
        2 => (0usize..6).prop_map(Op::Drop),
        penalties => (0u64..4).prop_map(Op::Penalize),
        pardons => Just(Op::Reset),
    ]
}

fn ops(penalties: u32, pardons: u32) -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(op(penalties, pardons), 1..60)
}

fn a_quota() -> impl Strategy<Value = Quota> {
    let pers = prop::sample::select(vec![1_000_000, 999_999_937, 1_000_000_000]);
    (1u64..50, pers, 4u64..24)
        .prop_map(|(n, per, burst)| quota(n, Duration::from_nanos(per), burst))
}

/// The limiter beside the ledger.
struct Race {
    clock: TestClock,
    limiter: Limiter,
    quotas: Vec<Quota>,
    events: Vec<Event>,
    /// Permits that are out: their number, what they reserved, what was observed.
    open: Vec<(usize, u64, Option<u64>, Permit)>,
    /// By the number of a permit: what was used, if that is known.
    used: Vec<Option<u64>>,
}

const NAMES: [&str; 3] = ["a", "b", "c"];

impl Race {
    fn new(quotas: Vec<Quota>) -> Self {
        let clock = TestClock::new();
        let policies = quotas.iter().zip(NAMES);
        let policies = policies.map(|(quota, name)| Policy::new(name, *quota).unwrap());
        Self {
            limiter: limiter(&clock, policies),
            clock,
            quotas,
            events: Vec::new(),
            open: Vec::new(),
            used: Vec::new(),
        }
    }

    fn run(&mut self, op: Op) {
        let key = Key::shared();
        match op {
            Op::Pass(percent) => {
                let nanos = self.quotas[0].interval().as_nanos() * u128::from(percent) / 100;
                self.clock.advance(Duration::from_nanos(nanos as u64));
                self.events.push(Event::Pass(nanos));
            }
            Op::Check(units) => {
                if self.limiter.check(&key, None, units).allowed() {
                    self.events.push(Event::Charge {
                        units,
                        permit: None,
                    });
                }
            }
            Op::Acquire(units) => {
                let Ok(permit) = self.limiter.acquire(&key, None, units) else {
                    return;
                };
                let number = self.used.len();
                self.used.push(None);
                self.open.push((number, units, None, permit));
                let permit = Some(number);
                self.events.push(Event::Charge { units, permit });
            }
            Op::Settle(which, eighths) => {
                let Some((number, reserved, _, permit)) = self.take(which) else {
                    return;
                };
                // Rounded up, so that more than all of it is more than all of it.
                let used = (reserved * eighths).div_ceil(8);
                permit.settle(used);
                self.settled(number, reserved, used);
            }
            Op::Observe(which, eighths) => {
                let places = self.open.len().max(1);
                let Some((_, reserved, observed, permit)) = self.open.get_mut(which % places)
                else {
                    return;
                };
                let units = *reserved * eighths / 8;
                permit.observe(units);
                *observed = (*observed).max(Some(units));
            }
            Op::Drop(which) => {
                let Some((number, reserved, observed, permit)) = self.take(which) else {
                    return;
                };
                drop(permit);
                if let Some(used) = observed {
                    self.settled(number, reserved, used);
                }
            }
            Op::Penalize(units) => {
                // Up to the two bursts that a key owes at most. What a penalty loses there, a permit
                // that is out gives back all the same.
                let quota = &self.quotas[0];
                let interval = quota.interval().as_nanos();
                let most = interval * u128::from(2 * quota.burst_size());
                if self.lacks(0) + interval * u128::from(units) > most {
                    return;
                }
                self.limiter.penalize(&key, None, units);
                self.events.push(Event::Force(units));
            }
            Op::Reset if self.open.is_empty() => {
                self.limiter.reset(&key);
                self.events.push(Event::Reset);
            }
            Op::Reset => {}
        }
    }

    fn take(&mut self, which: usize) -> Option<(usize, u64, Option<u64>, Permit)> {
        let places = self.open.len();
        (places > 0).then(|| self.open.remove(which % places))
    }

    fn settled(&mut self, number: usize, reserved: u64, used: u64) {
        self.used[number] = Some(used);
        if let Some(more) = used.checked_sub(reserved).filter(|more| *more > 0) {
            self.events.push(Event::Force(more));
        }
    }

    /// What the bucket of a policy lacks, to the nanosecond.
    fn lacks(&self, policy: usize) -> u128 {
        // All others are asked for nothing of another key, so that this one is the tightest.
        let decision = self.limiter.peek_each(None, |name| {
            let key = if name == NAMES[policy] {
                Key::shared()
            } else {
                Key::of("idle")
            };
            Charge::new(key, u64::from(name == NAMES[policy]) * 1_000_000)
        });
        assert_eq!(decision.tightest().name.as_str(), NAMES[policy]);
        decision.tightest().full_in.as_nanos()
    }

    /// No bucket is fuller than if what was given back had never been reserved; and none is emptier
    /// than if nothing had been given back.
    fn compare(&self) -> Result<(), TestCaseError> {
        for (at, quota) in self.quotas.iter().enumerate() {
            let lacks = self.lacks(at);
            let never_reserved = Bucket::after(quota, &self.events, &self.used).lacks;
            prop_assert!(
                lacks >= never_reserved,
                "{}: lacks {lacks} ns, but {never_reserved} ns were used: {:?}",
                NAMES[at],
                self.events
            );
            let nothing = vec![None; self.used.len()];
            let kept = Bucket::after(quota, &self.events, &nothing).lacks;
            prop_assert!(
                lacks <= kept,
                "{}: {lacks} of {kept}: {:?}",
                NAMES[at],
                self.events
            );
        }
        Ok(())
    }

    /// In no window was more used, or is held, than burst and rate allow.
    fn windows(&self) -> Result<(), TestCaseError> {
        for quota in &self.quotas {
            let interval = quota.interval().as_nanos();
            let size = interval * u128::from(quota.burst_size());
            for start in 0..self.events.len() {
                let (mut passed, mut sum) = (0, 0);
                for event in &self.events[start..] {
                    match *event {
                        Event::Pass(nanos) => passed += nanos,
                        Event::Charge { units, permit } => {
                            let used = permit.and_then(|permit| self.used[permit]);
                            sum += interval * u128::from(used.map_or(units, |it| it.min(units)));
                            prop_assert!(sum <= size + passed, "{sum} > {size} + {passed}");
                        }
                        Event::Force(_) => {}
                        Event::Reset => break,
                    }
                }
            }
        }
        Ok(())
    }
}

fn race(quotas: Vec<Quota>, ops: Vec<Op>) -> Result<(), TestCaseError> {
    let mut race = Race::new(quotas);
    for op in ops {
        race.run(op);
        race.compare()?;
    }
    race.windows()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// R6, R10, R11: charges, reservations, settlements, time; one policy.
    #[test]
    fn r6_permits_never_make_a_bucket_fuller_than_had_they_never_been(quota in a_quota(), ops in ops(0, 0)) {
        race(vec![quota], ops)?;
    }

    /// The same by three policies at once, which refill at different speeds.
    #[test]
    fn r6_permits_of_several_policies(quotas in prop::collection::vec(a_quota(), 2..=3), ops in ops(0, 0)) {
        race(quotas, ops)?;
    }

    #[test]
    fn r6_permits_among_penalties_and_pardons(quota in a_quota(), ops in ops(2, 1)) {
        race(vec![quota], ops)?;
    }
}

/// Several permits of one key, settled by several threads: in the end, what is owed is what was
/// used, or more.
#[test]
fn r6_permits_settled_by_threads_at_once() {
    let limiter = limiter(&TestClock::new(), [policy("p", 100_000, SECOND * 1_000)]);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for used in 0..500 {
                    let permit = limiter.acquire(&Key::shared(), None, 40).unwrap();
                    permit.settle(used % 41);
                }
            });
        }
    });
    // What four have under way at a time may be counted against each other: then it stays charged.
    let used = 4 * (0..500).map(|used| used % 41).sum::<u64>();
    let left = remaining(&limiter, Key::shared(), None);
    assert!(left <= 100_000 - used, "{left} left, {used} used");
    assert!(left >= 100_000 - 4 * 500 * 40, "{left} left");
}
