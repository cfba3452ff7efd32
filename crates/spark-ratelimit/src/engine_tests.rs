//! What happens between a plan, a clock and a set that are read one after the other.

use super::*;
use crate::{Charge, Limiter, LimiterBuilder, Quota};
use spark_core::testing::TestClock;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const NANOS: u64 = 1_000_000_000;

fn policy(name: &str, n: u64, seconds: u32) -> Policy {
    Policy::new(name, Quota::new(n, SECOND * seconds).unwrap()).unwrap()
}

/// With tables of two sets.
fn limiter(clock: &TestClock, policies: impl IntoIterator<Item = Policy>) -> Limiter {
    let builder = Limiter::builder().clock(clock.clock()).capacity(16);
    let policies = policies.into_iter();
    policies
        .fold(builder, LimiterBuilder::policy)
        .build()
        .unwrap()
}

fn remaining(limiter: &Limiter, key: Key) -> u64 {
    limiter.peek(&key, None, 0).tightest().remaining
}

/// A key whose own set is the first or the second of two.
fn key_of(set: u64) -> Key {
    Key::from_bits(set << 63 | 1)
}

/// Lets another thread come as far as a set that is held, and then calls `meanwhile`, which gives it
/// free. What is tested must be true in any case; should the other be late, less is tested.
fn while_waiting<T: Send>(work: impl FnOnce() -> T + Send, meanwhile: impl FnOnce()) -> T {
    std::thread::scope(|scope| {
        let worker = scope.spawn(work);
        std::thread::park_timeout(Duration::from_millis(50));
        meanwhile();
        worker.join().unwrap()
    })
}

#[test]
fn r11_what_is_paid_while_a_settlement_waits_for_its_set_is_not_given_back() {
    let clock = TestClock::new();
    let limiter = limiter(&clock, [policy("p", 60, 60)]);
    let key = key_of(0);
    let permit = limiter.acquire(&key, None, 60).unwrap();
    let mut set = limiter.engine().table(0).lock(key, || 0, 0);
    while_waiting(
        || permit.settle(0),
        || {
            clock.advance(SECOND * 59);
            let before = set.get().unwrap();
            // What a charge of 59 leaves.
            let tat = before.tat + 59 * NANOS;
            set.put(Entry { tat, ..before });
            drop(set);
        },
    );
    assert_eq!(remaining(&limiter, key), 1, "one of sixty was still owed");
}

#[test]
fn r6_a_charge_counts_from_when_it_has_its_set() {
    let clock = TestClock::new();
    let limiter = limiter(&clock, [policy("p", 1, 1)]);
    let key = key_of(0);
    let set = limiter.engine().table(0).lock(key, || 0, 0);
    let charged = while_waiting(
        || limiter.check(&key, None, 1).allowed(),
        || {
            clock.advance(SECOND * 9);
            drop(set);
        },
    );
    assert!(charged);
    assert!(!limiter.check(&key, None, 1).allowed());
}

#[test]
fn all_policies_judge_a_request_by_one_time() {
    let clock = TestClock::new();
    let limiter = limiter(&clock, ["a", "b"].map(|name| policy(name, 9, 9)));
    let key = key_of(0);
    let tables = [0, 1].map(|slot| limiter.engine().table(slot));
    let second = tables[1].lock(key, || 0, 0);
    let charged = while_waiting(
        || limiter.check(&key, None, 1).allowed(),
        || {
            clock.advance(SECOND * 9);
            drop(second);
        },
    );
    assert!(charged);
    let [a, b] = tables.map(|table| table.lock(key, || 0, 0).get().unwrap().tat);
    assert_eq!(a, b);
}

#[test]
fn half_an_answer_of_a_plan_that_has_gone_is_forgotten() {
    let policies = [policy("p", 5, 1)];
    let limiter = limiter(&TestClock::new(), policies.clone());
    let engine = limiter.engine();
    let stale = Plan::new(&policies, Some(&engine.plan())).unwrap();
    let ask = |cost| Charges::All(Charge::new(key_of(0), cost));
    let mut attempt = Attempt::default();
    assert!(!engine.attempt(&stale, &ask(6), None, Mode::Charge, None, &mut attempt));
    assert!(attempt.tally.violated == 1 && attempt.tally.never);
    engine.decide_anew(&ask(1), None, Mode::Charge, &mut attempt);
    assert!(attempt.tally.violated == 0 && !attempt.tally.never);
}

#[test]
fn r11_a_settlement_that_waits_through_a_reload_is_one_of_the_new_plan() {
    let limiter = limiter(&TestClock::new(), [policy("p", 10, 10)]);
    let (engine, key) = (limiter.engine(), key_of(0));
    let permit = limiter.acquire(&key, None, 5).unwrap();
    let mut set = engine.table(0).lock(key, || 0, 0);
    while_waiting(
        || permit.settle(8),
        || {
            // As `reconfigure` does, with this set as the walk leaves it: still half of the burst.
            let plan = Plan::new(&[policy("p", 10, 100)], Some(&engine.plan())).unwrap();
            let mark = Mark::new(0, plan.turn());
            let epoch = plan.epoch;
            engine.plan.store(Arc::new(plan));
            engine.epoch.store(epoch, Ordering::Release);
            let tat = 50 * NANOS;
            set.put(Entry { tat, mark });
            drop(set);
        },
    );
    assert_eq!(remaining(&limiter, key), 2);
}

#[test]
fn r12_what_is_charged_while_a_reload_walks_is_charged_by_the_new_plan() {
    let limiter = limiter(
        &TestClock::new(),
        ["a", "b"].map(|name| policy(name, 10, 10)),
    );
    let (engine, key) = (limiter.engine(), key_of(0));
    // So that this thread knows the old plan.
    assert!(limiter.check(&key, None, 1).allowed());
    let last = engine.table(1).lock(key_of(1), || 0, 0);
    while_waiting(
        || {
            let slower = ["a", "b"].map(|name| policy(name, 10, 100));
            limiter.reconfigure(slower.to_vec()).unwrap();
        },
        || {
            // The first table has been walked through, the second has not.
            assert!(limiter.check(&key, None, 1).allowed());
            drop(last);
        },
    );
    for slot in [0, 1] {
        let entry = engine.table(slot).lock(key, || 0, 0).get().unwrap();
        assert!(entry.mark.turn(), "{slot}");
    }
    assert_eq!(remaining(&limiter, key), 8);
}
