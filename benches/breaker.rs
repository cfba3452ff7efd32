//! `cargo bench -p spark-benches --bench breaker`: is the callee fit to be asked?
#![allow(clippy::unwrap_used, reason = "a bench stops where its claim is wrong")]

#[path = "breaker/core.rs"]
mod core;
#[path = "breaker/layer.rs"]
mod layer;

use std::time::Duration;

use spark_benches::{Bar, Races};

pub(crate) const HOUR: Duration = Duration::from_secs(3_600);

fn main() {
    let races = Races::from_args();
    core::all(&races);
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
            core::TWO_THREADS,
            core::LEAN,
            core::RECLOSER,
            2.0,
        ),
        bar(
            "two threads, slow calls looked for: to failsafe's default",
            core::TWO_THREADS,
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
}
