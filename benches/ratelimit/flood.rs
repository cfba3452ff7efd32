//! Ten times as many strangers as there are slots, and what a decision about one more costs.

use spark_benches::Races;

use crate::check::SLOTS_PER_KEY;
use crate::keys::{ADDRESS, Fresh, Keys};
use crate::rule::PLENTY;

pub(crate) const NAME: &str = "10x flood, address, 100,000 in debt";
pub(crate) const FRESH: &str = "spark, flooded: one key more";
pub(crate) const HIT: &str = "spark, not flooded: random hit";
const DEBTORS: u32 = 100_000;
/// What each debtor owes: more than a stranger, far less than the burst.
const OWED: u64 = 100;

/// Both of our tables have the same size and the same debtors. Into one come ten times its slots of
/// strangers before the race, and more in every turn: each finds a set full of living debts, and
/// somebody must go. In the other, the debtors come back.
pub(crate) fn all(races: &Races) {
    races.race(NAME, |race| {
        let keys = Keys::new(ADDRESS, races.many(DEBTORS));
        let key = keys.key();
        let slots = SLOTS_PER_KEY * keys.len();
        let (flooded, calm) = (PLENTY.spark(slots), PLENTY.spark(slots));
        let peer = PLENTY.governor();
        for it in keys.to_insert() {
            assert!(flooded.check(&key(it), None, OWED).allowed());
            assert!(calm.check(&key(it), None, OWED).allowed());
            assert!(peer.check_key(it).is_ok());
        }
        let mut ours = Fresh(0);
        for _ in 0..10 * slots {
            assert!(flooded.check(&key(&ours.next()), None, 1).allowed());
        }
        let stats = flooded.stats();
        assert!(stats[0].evicted_live > 8 * slots as u64, "{stats:?}");
        let owing = keys.to_insert().filter(|it| {
            let left = flooded.peek(&key(it), None, 1).tightest().remaining;
            left + OWED / 2 < PLENTY.burst.into()
        });
        assert!(
            owing.count() * 100 >= keys.len() * 99,
            "debts are forgotten"
        );

        let (mut theirs, mut hits) = (Fresh(0), keys.walk(0, 1));
        race.side(FRESH, move || {
            let decision = flooded.check(&key(&ours.next()), None, 1);
            assert!(decision.allowed());
            decision.allowed()
        })
        .side(HIT, move || {
            let decision = calm.check(&key(hits.next()), None, 1);
            assert!(decision.allowed());
            decision.allowed()
        })
        // It forgets nobody, so it grows by every one of them.
        .side("governor, growing: one key more", move || {
            let decision = peer.check_key(&theirs.next());
            assert!(decision.is_ok());
            decision
        })
    });
}
