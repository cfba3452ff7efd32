//! What threads can do to each other, in every order of their locks.
//!
//! `RUSTFLAGS="--cfg spark_loom" cargo test -p spark-ratelimit --lib --release models`. (The cfg is
//! our own, since `--cfg loom` switches other crates too.) The exchange of plans is arc-swap's, which
//! is not modelled: it happens in one step between any two of ours; nor what a thread remembers.

use std::time::Duration;

use loom::thread;
use spark_core::testing::TestClock;

use crate::store::{Entry, Mark, Table};
use crate::{Concurrency, ConcurrencyLimiter, Key, Limiter, Policy, Quota};

const SECOND: Duration = Duration::from_secs(1);

fn policy(name: &str, burst: u64) -> Policy {
    Policy::new(name, Quota::new(burst, SECOND).unwrap()).unwrap()
}

fn limiter(capacity: usize, policies: impl IntoIterator<Item = Policy>) -> Limiter {
    let builder = Limiter::builder().clock(TestClock::new().clock());
    policies
        .into_iter()
        .fold(builder.capacity(capacity), crate::LimiterBuilder::policy)
        .build()
        .unwrap()
}

/// A key whose own set is the first or the second of two.
fn key(set: u64, n: u64) -> Key {
    Key::from_bits(set << 63 | (set * 100 + n + 1))
}

fn remaining(limiter: &Limiter, key: Key) -> u64 {
    limiter.peek(&key, None, 0).tightest().remaining
}

/// Both at once; what they return.
fn race<A, B>(a: impl FnOnce() -> A + 'static, b: impl FnOnce() -> B) -> (A, B)
where
    A: 'static,
{
    let a = thread::spawn(a);
    let b = b();
    (a.join().unwrap(), b)
}

#[test]
fn two_charges_of_one_key_by_several_policies() {
    loom::model(|| {
        let limiter = limiter(8, [policy("a", 3), policy("b", 2)]);
        let other = limiter.clone();
        let charge = |limiter: &Limiter| limiter.check(&key(0, 0), None, 2).allowed();
        let (a, b) = race(move || charge(&other), || charge(&limiter));
        assert!(a != b, "one of them, and not both");
        assert_eq!(remaining(&limiter, key(0, 0)), 0);
    });
}

#[test]
fn two_charges_of_two_keys_in_one_set() {
    loom::model(|| {
        let limiter = limiter(8, [policy("a", 3), policy("b", 2)]);
        let other = limiter.clone();
        let charge = |limiter: &Limiter, n| limiter.check(&key(0, n), None, 1).allowed();
        let (a, b) = race(move || charge(&other, 0), || charge(&limiter, 1));
        assert!(a && b);
        assert_eq!(remaining(&limiter, key(0, 0)), 1);
        assert_eq!(remaining(&limiter, key(0, 1)), 1);
    });
}

/// Each key's second set is the other's own.
#[test]
fn two_charges_that_need_both_sets_in_opposite_order() {
    loom::model(|| {
        let limiter = limiter(16, [policy("a", 8), policy("b", 8)]);
        for n in 0..8 {
            for set in [0, 1] {
                assert!(limiter.check(&key(set, n), None, 4).allowed());
            }
        }
        let other = limiter.clone();
        let charge = |limiter: &Limiter, set| limiter.check(&key(set, 8), None, 5).allowed();
        let (a, b) = race(move || charge(&other, 0), || charge(&limiter, 1));
        assert!(a && b);
        assert_eq!(remaining(&limiter, key(0, 8)), 3);
        assert_eq!(remaining(&limiter, key(1, 8)), 3);
        assert!(limiter.stats().iter().all(|it| it.evicted_live == 2));
    });
}

#[test]
fn a_spilled_entry_that_comes_home_while_another_spills() {
    loom::model(|| {
        let table = std::sync::Arc::new(Table::new(16));
        let put = |table: &Table, key, tat: u64, now| {
            let mark = Mark::default();
            table
                .lock(key, || now, tat.saturating_sub(now))
                .put(Entry { tat, mark });
        };
        for n in 0..7 {
            put(&table, key(0, n), 90, 0);
        }
        put(&table, key(0, 7), 10, 0);
        put(&table, key(0, 8), 100, 0);
        let other = std::sync::Arc::clone(&table);
        race(
            move || put(&other, key(0, 8), 200, 50),
            || put(&table, key(0, 9), 300, 50),
        );
        for (n, tat) in [(8, 200), (9, 300)] {
            let entry = table.lock(key(0, n), || 50, 0).get();
            assert_eq!(entry.map(|it| it.tat), Some(tat));
        }
        assert_eq!((table.occupied(50), table.evicted()), (9, 0));
    });
}

#[test]
fn a_settlement_against_a_charge() {
    loom::model(|| {
        let limiter = limiter(8, [policy("a", 10)]);
        let permit = limiter.acquire(&key(0, 0), None, 6).unwrap();
        let other = limiter.clone();
        let ((), charged) = race(
            move || permit.settle(2),
            || other.check(&key(0, 0), None, 5).allowed(),
        );
        let left = if charged { 3 } else { 8 };
        assert_eq!(remaining(&limiter, key(0, 0)), left);
    });
}

#[test]
fn two_settlements_of_one_key() {
    loom::model(|| {
        let limiter = limiter(8, [policy("a", 10)]);
        let first = limiter.acquire(&key(0, 0), None, 4).unwrap();
        let second = limiter.acquire(&key(0, 0), None, 5).unwrap();
        race(move || first.settle(1), move || second.settle(7));
        // 1 and 7.
        assert_eq!(remaining(&limiter, key(0, 0)), 2);
    });
}

#[test]
fn a_settlement_against_an_eviction() {
    loom::model(|| {
        let limiter = limiter(8, [policy("a", 10)]);
        for n in 1..8 {
            assert!(limiter.check(&key(0, n), None, 9).allowed());
        }
        let permit = limiter.acquire(&key(0, 0), None, 4).unwrap();
        let other = limiter.clone();
        race(
            move || permit.settle(0),
            || assert!(other.check(&key(0, 8), None, 3).allowed()),
        );
        assert_eq!(remaining(&limiter, key(0, 8)), 7);
        assert_eq!(remaining(&limiter, key(0, 0)), 10);
        for n in 1..8 {
            assert_eq!(remaining(&limiter, key(0, n)), 1);
        }
    });
}

#[test]
fn a_settlement_after_an_eviction_gives_nothing_of_what_came_later() {
    loom::model(|| {
        let limiter = limiter(8, [policy("a", 10)]);
        for n in 1..8 {
            assert!(limiter.check(&key(0, n), None, 9).allowed());
        }
        let permit = limiter.acquire(&key(0, 0), None, 4).unwrap();
        limiter.reset(&key(0, 0));
        let other = limiter.clone();
        race(
            move || permit.settle(0),
            || assert!(other.check(&key(0, 0), None, 3).allowed()),
        );
        assert_eq!(remaining(&limiter, key(0, 0)), 7);
    });
}

#[test]
fn a_change_of_tier_against_a_charge() {
    loom::model(|| {
        let quota = Quota::new(100, SECOND).unwrap();
        let limiter = limiter(8, [policy("a", 10).tier("pro", quota)]);
        let other = limiter.clone();
        let (pro, free) = race(
            move || other.check(&key(0, 0), Some("pro"), 60).allowed(),
            || limiter.check(&key(0, 0), None, 6).allowed(),
        );
        assert!(pro != free, "each takes 60 % of the burst");
        assert_eq!(remaining(&limiter, key(0, 0)), 4);
    });
}

#[test]
fn a_reload_against_a_charge() {
    loom::model(|| {
        let limiter = limiter(8, [policy("a", 10), policy("b", 10)]);
        let (other, late) = (limiter.clone(), limiter.clone());
        race(
            move || {
                other
                    .reconfigure(vec![policy("b", 20), policy("a", 20)])
                    .unwrap()
            },
            || assert!(late.check(&key(0, 0), None, 5).allowed()),
        );
        let left = remaining(&limiter, key(0, 0));
        assert!(left == 10 || left == 15, "before or after, not {left}");
    });
}

#[test]
fn a_reload_against_a_settlement() {
    loom::model(|| {
        let limiter = limiter(8, [policy("a", 10)]);
        let permit = limiter.acquire(&key(0, 0), None, 6).unwrap();
        let other = limiter.clone();
        race(
            move || other.reconfigure(vec![policy("a", 20)]).unwrap(),
            || permit.settle(1),
        );
        let left = remaining(&limiter, key(0, 0));
        assert!(
            left == 18 || left == 8,
            "given back before, or not at all: {left}"
        );
    });
}

#[test]
fn no_more_at_once_than_the_limit() {
    loom::model(|| {
        let limiter = ConcurrencyLimiter::new(Concurrency::new("c", 1).unwrap());
        let other = limiter.clone();
        let now = std::sync::Arc::new(loom::sync::atomic::AtomicU32::new(0));
        let there = std::sync::Arc::clone(&now);
        let work = |limiter: &ConcurrencyLimiter, now: &loom::sync::atomic::AtomicU32| {
            use std::sync::atomic::Ordering::SeqCst;
            let Ok(one) = limiter.acquire(&key(0, 0), None) else {
                return false;
            };
            assert_eq!(now.fetch_add(1, SeqCst), 0);
            now.fetch_sub(1, SeqCst);
            drop(one);
            true
        };
        let (a, b) = race(move || work(&other, &there), || work(&limiter, &now));
        assert!(a || b);
        assert_eq!(limiter.keys(), 0);
    });
}

#[test]
fn two_reloads_against_a_charge() {
    loom::model(|| {
        let limiter = limiter(8, [policy("a", 10)]);
        let other = limiter.clone();
        race(
            move || {
                other
                    .reconfigure(vec![policy("a", 20), policy("b", 20)])
                    .unwrap();
                other
                    .reconfigure(vec![policy("c", 20), policy("a", 40)])
                    .unwrap();
            },
            || assert!(limiter.check(&key(0, 0), None, 5).allowed()),
        );
        let left = limiter.peek(&key(0, 0), None, 0).tightest();
        // Of `a`, half, a quarter or an eighth is used; or of `c` some.
        assert!(matches!(left.remaining, 15 | 20), "{left:?}");
    });
}
