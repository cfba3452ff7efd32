//! `cargo bench -p spark-benches --bench ratelimit`: who may ask again?
#![allow(clippy::unwrap_used, reason = "a bench stops where its claim is wrong")]

#[path = "ratelimit/check.rs"]
mod check;
#[path = "ratelimit/flood.rs"]
mod flood;
#[path = "ratelimit/keys.rs"]
mod keys;
#[path = "ratelimit/layer.rs"]
mod layer;
#[path = "ratelimit/rule.rs"]
mod rule;

use check::{GOVERNOR, SPARK};
use keys::{ADDRESS, STRING};
use spark_benches::{Bar, Races};

fn main() {
    let races = Races::from_args();
    check::all(&races, ADDRESS);
    check::all(&races, STRING);
    flood::all(&races);
    layer::all(&races);
    bars(&races);
}

fn bars(races: &Races) {
    let check = |claim, race, limit| Bar {
        claim,
        race,
        ours: SPARK,
        theirs: GOVERNOR,
        limit,
    };
    let layer = |claim, race, limit| Bar {
        claim,
        race,
        ours: layer::SPARK,
        theirs: layer::TOWER_GOVERNOR,
        limit,
    };
    races.bars(&[
        check("hot key, address: to governor", "hot key, address", 1.3),
        check(
            "hot key, string: to governor",
            "hot key, 22-byte string",
            1.3,
        ),
        check(
            "random hit, address, 100,000 keys: to governor",
            "random hit, address, 100,000 keys",
            0.6,
        ),
        check(
            "  the same after other work filled the caches",
            "cold hit, address, 100,000 keys",
            0.6,
        ),
        check(
            "random hit, string, 100,000 keys: to governor",
            "random hit, 22-byte string, 100,000 keys",
            0.6,
        ),
        check(
            "  the same after other work filled the caches",
            "cold hit, 22-byte string, 100,000 keys",
            0.6,
        ),
        check(
            "random hit, address, 1,000,000 keys: to governor",
            "random hit, address, 1,000,000 keys",
            0.6,
        ),
        check(
            "  the same after other work filled the caches",
            "cold hit, address, 1,000,000 keys",
            0.6,
        ),
        check(
            "random hit, string, 1,000,000 keys: to governor",
            "random hit, 22-byte string, 1,000,000 keys",
            0.6,
        ),
        check(
            "  the same after other work filled the caches",
            "cold hit, 22-byte string, 1,000,000 keys",
            0.6,
        ),
        Bar {
            claim: "10x flood, a decision: to our own hit (see instructions)",
            race: flood::NAME,
            ours: flood::FRESH,
            theirs: flood::HIT,
            limit: 1.3,
        },
        layer("layer with headers: to tower_governor", layer::ALLOWED, 0.5),
        layer("429, whole: to tower_governor", layer::REFUSED, 1.0 / 15.0),
    ]);
}
