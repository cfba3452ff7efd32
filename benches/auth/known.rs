//! Keys that work.

use spark_benches::Races;

use crate::floor::{FLOOR, Floor, SHORT_FLOOR};
use crate::keys::issued;
use crate::peers::{PREFIXED, Prefixed, SIMPLIFIED, Simplified};

pub(crate) const SPARK: &str = "spark Authenticator::verify";

pub(crate) const ONE: &str = "verify, 1 key";
pub(crate) const THOUSAND: &str = "verify, 1,000 keys";
pub(crate) const MANY: &str = "verify, 100,000 keys";

pub(crate) fn all(races: &Races) {
    verify(races, ONE, 1);
    verify(races, THOUSAND, 1_000);
    verify(races, MANY, races.many(100_000));
    password_hash(races);
}

/// Each side takes the text of the next key and says whose it is.
fn verify(races: &Races, name: &str, count: u32) {
    races.race(name, |race| {
        let (auth, keys) = issued(count);
        let (floor, short) = (Floor::of(keys.iter()), Floor::short(keys.iter()));
        let (prefixed, theirs) = Prefixed::issued(count);
        for key in keys.iter() {
            assert!(auth.verify(key).unwrap().tenant().is_some());
            assert_eq!(floor.verify(key), short.verify(key));
            assert!(floor.verify(key).is_some());
        }
        assert!(theirs.iter().all(|key| prefixed.verify(key).is_some()));
        let [mut a, mut b, mut c] = [0, 1, 2].map(|part| keys.walk(part, 3));
        let mut d = theirs.walk(0, 1);
        // As many for each side, so that none has the caches to itself for longer than the others.
        let race = race.times(races.many(20_000));
        race.side(SPARK, move || {
            let found = auth.verify(a.next());
            assert!(found.is_ok());
            found
        })
        .side(FLOOR, move || {
            let found = floor.verify(b.next());
            assert!(found.is_some());
            found
        })
        .side(SHORT_FLOOR, move || {
            let found = short.verify(c.next());
            assert!(found.is_some());
            found
        })
        .side(PREFIXED, move || {
            let found = prefixed.verify(d.next());
            assert!(found.is_some());
            found
        })
    });
}

/// What a hash that is made for passwords costs at each request.
fn password_hash(races: &Races) {
    races.race("verify, 1 key, to a password hash", |race| {
        let (auth, keys) = issued(1);
        let mut ours = keys.walk(0, 1);
        let (simplified, text) = Simplified::issued();
        assert!(simplified.verify(&text));
        race.side(SPARK, move || {
            let found = auth.verify(ours.next());
            assert!(found.is_ok());
            found
        })
        // On a thread of its own, which whoever counts instructions leaves out: 10^13 of them.
        .threads(SIMPLIFIED, vec![move || assert!(simplified.verify(&text))])
    });
}
