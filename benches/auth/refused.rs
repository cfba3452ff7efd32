//! Keys that do not work, with the default audit and nobody who listens to it.

use spark_auth::Rejected;
use spark_benches::Races;

use crate::floor::{FLOOR, Floor};
use crate::keys::{Keys, issued, strangers, with_another_secret, with_bad_checksum};
use crate::known::SPARK;
use crate::peers::{PREFIXED, Prefixed, SIMPLIFIED_CHECKSUM, Simplified};

pub(crate) const CHECKSUM: &str = "refused, bad checksum, 1,000 keys";
const UNKNOWN: &str = "refused, unknown id, 1,000 keys";
const SECRET: &str = "refused, wrong secret, 1,000 keys";

pub(crate) fn all(races: &Races) {
    bad_checksum(races);
    with_checksum(races, UNKNOWN, Rejected::UnknownKey, strangers);
    with_checksum(races, SECRET, Rejected::WrongSecret, with_another_secret);
}

/// The floor is at its fastest: it verifies one good key, always the same one.
fn bad_checksum(races: &Races) {
    races.race(CHECKSUM, |race| {
        let (auth, keys) = issued(1_000);
        let bad = with_bad_checksum(&keys);
        let known = issued(1).1;
        let floor = Floor::of(known.iter());
        let (simplified, text) = Simplified::issued();
        // The last letter is of its checksum.
        let end = if text.ends_with('0') { '1' } else { '0' };
        let text = format!("{}{end}", &text[..text.len() - 1]);
        assert!(
            bad.iter()
                .all(|key| auth.verify(key) == Err(Rejected::Malformed))
        );
        assert!(!simplified.verify(&text));
        let (mut a, mut b) = (bad.walk(0, 1), known.walk(0, 1));
        race.side(SPARK, move || {
            let refused = auth.verify(a.next());
            assert!(refused.is_err());
            refused
        })
        .side(FLOOR, move || {
            let found = floor.verify(b.next());
            assert!(found.is_some());
            found
        })
        .side(SIMPLIFIED_CHECKSUM, move || simplified.verify(&text))
    });
}

/// In the right form, with the right checksum.
fn with_checksum(races: &Races, name: &str, reason: Rejected, make: fn(&Keys) -> Keys) {
    races.race(name, |race| {
        let (auth, keys) = issued(1_000);
        let floor = Floor::of(keys.iter());
        let bad = make(&keys);
        assert!(bad.iter().all(|key| auth.verify(key) == Err(reason)));
        assert!(bad.iter().all(|key| floor.verify(key).is_none()));
        let (prefixed, known) = Prefixed::issued(1_000);
        let theirs = if reason == Rejected::WrongSecret {
            Keys::new(known.iter().map(|key| format!("{key}x")).collect())
        } else {
            Prefixed::issued(1_000).1
        };
        assert!(theirs.iter().all(|key| prefixed.verify(key).is_none()));
        let [mut a, mut b] = [0, 1].map(|part| bad.walk(part, 2));
        let mut c = theirs.walk(0, 1);
        race.side(SPARK, move || {
            let refused = auth.verify(a.next());
            assert!(refused.is_err());
            refused
        })
        .side(FLOOR, move || floor.verify(b.next()))
        .side(PREFIXED, move || prefixed.verify(c.next()))
    });
}
