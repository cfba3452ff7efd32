//! The core alone: the key as the caller has it, hashed and looked up, the clock read, a decision.

use std::hash::Hash;
use std::hint::black_box;
use std::sync::Arc;

use governor::clock::DefaultClock;
use governor::state::keyed::DashMapStateStore;
use governor::{DefaultKeyedRateLimiter, RateLimiter};
use spark_benches::Races;

use crate::keys::{Keys, Kind};
use crate::rule::{ONCE, PLENTY, PLENTY_FOR_ONE, Rule};

pub(crate) const SPARK: &str = "spark Limiter::check";
pub(crate) const GOVERNOR: &str = "governor check_key";

/// Three slots for each caller in debt, as our documentation advises: at 16 bytes a slot about what
/// the peer takes for an address.
pub(crate) const SLOTS_PER_KEY: usize = 3;
/// First-seen keys in one turn.
const INSERTED: u32 = 100_000;
const COLD_HITS: u32 = 20_000;
/// Bytes that are read to fill the caches: more than they hold.
const OTHER_WORK: u32 = 128 << 20;

pub(crate) fn all<K>(races: &Races, kind: Kind<K>)
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
{
    let name = kind.name;
    let hot = || Keys::new(kind, 1);
    let keys = |count| move || Keys::new(kind, races.many(count));
    let run =
        |how| move |name: &str, keys: &dyn Fn() -> Keys<K>| one_thread(races, name, keys, how);
    let (hit, cold, refused) = (run(How::Hit), run(How::ColdHit), run(How::Refused));

    hit(&format!("hot key, {name}"), &hot);
    hit(&format!("random hit, {name}, 1,000 keys"), &keys(1_000));
    hit(&format!("random hit, {name}, 100,000 keys"), &keys(100_000));
    hit(
        &format!("random hit, {name}, 1,000,000 keys"),
        &keys(1_000_000),
    );
    cold(&format!("cold hit, {name}, 100,000 keys"), &keys(100_000));
    cold(
        &format!("cold hit, {name}, 1,000,000 keys"),
        &keys(1_000_000),
    );
    insert(races, kind);
    refused(&format!("refused, hot key, {name}"), &hot);
    refused(&format!("refused, {name}, 100,000 keys"), &keys(100_000));
    two_threads(races, &format!("two threads, hot key, {name}"), &hot);
    two_threads(
        races,
        &format!("two threads, {name}, 100,000 keys"),
        &keys(100_000),
    );
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// With the caches as the sides and the machine's other work leave them.
    Hit,
    /// After other work that filled the caches.
    ColdHit,
    Refused,
}

/// Each side takes the next key, turns it into what it looks up, and decides.
fn one_thread<K>(races: &Races, name: &str, keys: &dyn Fn() -> Keys<K>, how: How)
where
    K: Hash + Eq + Clone + 'static,
{
    races.race(name, |race| {
        let keys = keys();
        let refused = how == How::Refused;
        let rule = if refused { ONCE } else { plenty(&keys) };
        let (spark, peer) = (rule.spark(slots(&keys)), rule.governor());
        let key = keys.key();
        for it in keys.to_insert() {
            assert!(spark.check(&key(it), None, 1).allowed());
            assert!(peer.check_key(it).is_ok());
        }
        assert_eq!(peer.len(), keys.len());
        if refused {
            // Ours is a table that does not grow: where nine debts meet in a set of eight slots, one
            // is forgotten, and its owner let through once more.
            let again = keys.to_insert();
            let again = again.filter(|it| spark.check(&key(it), None, 1).allowed());
            assert!(again.count() * 100 <= keys.len(), "{:?}", spark.stats());
        }
        let (mut ours, mut theirs) = (keys.walk(0, 2), keys.walk(1, 2));
        let race = if how == How::ColdHit {
            // No key comes twice in a turn, and between turns everything is read from memory again.
            let other_work = vec![1u8; races.many(OTHER_WORK) as usize];
            let empty_caches = move || {
                let lines = black_box(&other_work).iter().step_by(64);
                black_box(lines.map(|byte| u64::from(*byte)).sum::<u64>());
            };
            race.times(races.many(COLD_HITS)).between(empty_caches)
        } else {
            race
        };
        race.side(SPARK, move || {
            let decision = spark.check(&key(ours.next()), None, 1);
            assert!(refused || decision.allowed());
            decision.allowed()
        })
        .side(GOVERNOR, move || {
            let decision = peer.check_key(theirs.next());
            assert_eq!(decision.is_err(), refused);
            decision
        })
    });
}

/// Both threads share a limiter, and each visits all the keys.
fn two_threads<K>(races: &Races, name: &str, keys: &dyn Fn() -> Keys<K>)
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
{
    races.race(name, |race| {
        let keys = keys();
        let rule = plenty(&keys);
        let (spark, peer) = (rule.spark(slots(&keys)), Arc::new(rule.governor()));
        let key = keys.key();
        for it in keys.to_insert() {
            assert!(spark.check(&key(it), None, 1).allowed());
            assert!(peer.check_key(it).is_ok());
        }
        let ours = [0, 2].map(|part| {
            let (spark, mut walk) = (spark.clone(), keys.walk(part, 4));
            move || {
                let decision = spark.check(&key(walk.next()), None, 1);
                assert!(decision.allowed());
                decision.allowed()
            }
        });
        let theirs = [1, 3].map(|part| {
            let (peer, mut walk) = (Arc::clone(&peer), keys.walk(part, 4));
            move || {
                let decision = peer.check_key(walk.next());
                assert!(decision.is_ok());
                decision
            }
        });
        race.threads(SPARK, ours.into())
            .threads(GOVERNOR, theirs.into())
    });
}

/// Every turn begins with nobody known, and so many come that were never seen.
fn insert<K>(races: &Races, kind: Kind<K>)
where
    K: Hash + Eq + Clone + 'static,
{
    let name = format!("insert, {}, 0 to 100,000 keys", kind.name);
    races.race(&name, |race| {
        let keys = Keys::new(kind, races.many(1_000_000));
        let inserted = races.many(INSERTED);
        let key = keys.key();
        let spark = move || PLENTY.spark(SLOTS_PER_KEY * inserted as usize);
        let roomy = move || -> DefaultKeyedRateLimiter<K> {
            let store = DashMapStateStore::with_capacity(inserted as usize);
            RateLimiter::new(PLENTY.governor_quota(), store, DefaultClock::default())
        };
        let [mut first, mut second, mut third, mut fourth] =
            [0, 1, 2, 3].map(|part| keys.walk(part, 4));
        race.times(inserted)
            .fresh(SPARK, spark, move |limiter| {
                let decision = limiter.check(&key(first.next()), None, 1);
                assert!(decision.allowed());
                decision.allowed()
            })
            .fresh(
                GOVERNOR,
                || PLENTY.governor(),
                move |limiter| {
                    let decision = limiter.check_key(second.next());
                    assert!(decision.is_ok());
                    decision
                },
            )
            .fresh("governor, with_capacity", roomy, move |limiter| {
                let decision = limiter.check_key(third.next());
                assert!(decision.is_ok());
                decision
            })
            .fresh(
                "spark, its table made in the turn",
                || None,
                move |limiter| {
                    let limiter = limiter.get_or_insert_with(spark);
                    let decision = limiter.check(&key(fourth.next()), None, 1);
                    assert!(decision.allowed());
                    decision.allowed()
                },
            )
    });
}

fn plenty<K>(keys: &Keys<K>) -> Rule {
    if keys.len() == 1 {
        PLENTY_FOR_ONE
    } else {
        PLENTY
    }
}

/// A table for one key is small for both.
fn slots<K>(keys: &Keys<K>) -> usize {
    SLOTS_PER_KEY * keys.len()
}
