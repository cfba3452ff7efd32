//! `cargo bench -p spark-benches --bench breaker`: is the callee fit to be asked?
#![allow(clippy::unwrap_used, reason = "a bench stops where its claim is wrong")]

#[path = "breaker/core.rs"]
mod core;
#[path = "breaker/layer.rs"]
mod layer;
#[path = "breaker/occupancy.rs"]
mod occupancy;
#[path = "breaker/threads.rs"]
mod threads;

use std::time::Duration;

use spark_benches::{Bar, Nanos, Races};

pub(crate) const HOUR: Duration = Duration::from_secs(3_600);

fn main() {
    let races = Races::from_args();
    core::all(&races);
    threads::all(&races);
    occupancy::all(&races);
    layer::all(&races);
    bars(&races);
}

fn bars(races: &Races) {
    let bar = |claim, race, ours, theirs, limit| Bar {
        claim,
        race,
        ours,
        theirs,
        limit,
    };
    let allowed = |claim, ours, theirs, limit| bar(claim, core::ALLOWED, ours, theirs, limit);
    races.bars(&[
        allowed(
            "allowed, slow calls looked for: to tower-resilience",
            core::FULL,
            core::RESILIENCE,
            0.3,
        ),
        allowed(
            "allowed, slow calls looked for: to failsafe's default",
            core::FULL,
            core::FAILSAFE,
            1.0,
        ),
        allowed(
            "allowed, by count: to recloser",
            core::LEAN,
            core::RECLOSER,
            2.0,
        ),
        bar(
            "  the same, two threads",
            threads::FEW,
            core::LEAN,
            core::RECLOSER,
            2.0,
        ),
        bar(
            "two threads, slow calls looked for: to failsafe's default",
            threads::FEW,
            core::FULL,
            core::FAILSAFE,
            1.0,
        ),
        allowed(
            "allowed, calls in flight looked at too: to failsafe's default",
            core::WATCHED,
            core::FAILSAFE,
            1.0,
        ),
        bar(
            "100,000 calls in a window by time: to 100",
            occupancy::FLAT_BY_TIME,
            occupancy::MANY,
            occupancy::FEW,
            1.2,
        ),
        bar(
            "  the same, by count",
            occupancy::FLAT_BY_COUNT,
            occupancy::MANY,
            occupancy::FEW,
            1.2,
        ),
        bar(
            "two threads, 100,000 calls in the window: to failsafe's default",
            threads::MANY,
            core::FULL,
            core::FAILSAFE,
            1.0,
        ),
        bar(
            "refused: to recloser",
            core::REFUSED,
            core::SPARK,
            core::RECLOSER,
            2.0,
        ),
        bar(
            "  the same, two threads",
            threads::REFUSED,
            core::SPARK,
            core::RECLOSER,
            2.0,
        ),
        bar(
            "refused: to tower-resilience",
            core::REFUSED,
            core::SPARK,
            core::RESILIENCE,
            0.5,
        ),
        bar(
            "layer: to tower-resilience",
            layer::HUNDRED,
            layer::SPARK,
            layer::RESILIENCE,
            0.5,
        ),
    ]);
    races.nanos(&[
        Nanos {
            claim: "refused",
            race: core::REFUSED,
            side: core::SPARK,
            limit: 60.0,
        },
        Nanos {
            claim: "allowed, slow calls and calls in flight looked for",
            race: core::ALLOWED,
            side: core::WATCHED,
            limit: 120.0,
        },
        Nanos {
            claim: "  the same, two threads, 100,000 calls in the window",
            race: threads::MANY,
            side: core::WATCHED,
            limit: 300.0,
        },
    ]);
}
