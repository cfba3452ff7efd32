//! `cargo bench -p spark-benches --bench auth`: whose key is this?
#![allow(clippy::unwrap_used, reason = "a bench stops where its claim is wrong")]

#[path = "auth/floor.rs"]
mod floor;
#[path = "auth/keys.rs"]
mod keys;
#[path = "auth/known.rs"]
mod known;
#[path = "auth/peers.rs"]
mod peers;
#[path = "auth/refused.rs"]
mod refused;

use floor::FLOOR;
use known::SPARK;
use spark_benches::{Bar, Races};

fn main() {
    let races = Races::from_args();
    known::all(&races);
    refused::all(&races);
    bars(&races);
}

/// Every bar is held against the floor that hashes what the caller sent, the whole key. What the
/// shorter one makes of it is among the ratios of the races.
fn bars(races: &Races) {
    let to_floor = |claim, race, limit| Bar {
        claim,
        race,
        ours: SPARK,
        theirs: FLOOR,
        limit,
    };
    races.bars(&[
        to_floor("verify, 1 key: to the floor", known::ONE, 2.5),
        to_floor("verify, 1,000 keys: to the floor", known::THOUSAND, 2.5),
        to_floor("verify, 100,000 keys: to the floor", known::MANY, 2.5),
        to_floor(
            "a bad checksum: to the floor at a good key",
            refused::CHECKSUM,
            0.5,
        ),
        Bar {
            claim: "verify, 1,000 keys: to prefixed-api-key",
            race: known::THOUSAND,
            ours: SPARK,
            theirs: peers::PREFIXED,
            limit: 0.8,
        },
    ]);
}
