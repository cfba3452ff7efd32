//! `cargo bench -p spark-benches --bench breaker_simulation`: fifty replicas, one provider, two outages.
//!
//! Ours is played in a time that is set, which is the same each time; then all are played by the machine's
//! clock, since the peers read no other, twenty times as fast as they would live. `-- --write` puts what
//! was found into the manual.
#![allow(
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a report of numbers that are far from any limit"
)]

#[path = "simulation/dice.rs"]
mod dice;
#[path = "simulation/ledger.rs"]
mod ledger;
#[path = "simulation/page.rs"]
mod page;
#[path = "simulation/script.rs"]
mod script;
#[path = "simulation/sides.rs"]
mod sides;
#[path = "simulation/world.rs"]
mod world;

use std::time::{Duration, Instant};

use page::Row;
use script::{END, MILLI, SECOND};
use world::Play;

const SEEDS: [u64; 3] = [1, 2, 3];
/// How long a second of the script takes by the machine's clock.
const SCALE: f64 = 0.05;
/// A machine that is later than this, in milliseconds of the script, was too busy.
const LATE: u64 = 500;

fn main() -> std::io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |arg: &str| args.iter().any(|it| it == arg);
    let set = page::rows(SEEDS.map(in_set_time).into());
    let set_tables = in_set_words(&set);
    println!("{set_tables}");
    if !has("--bench") {
        let again = page::rows(SEEDS.map(in_set_time).into());
        assert_eq!(digests(&set), digests(&again), "the same each time");
        let said = page::part("set time")?;
        assert!(
            said == set_tables,
            "the manual says otherwise: run it with --write"
        );
        return Ok(());
    }
    let mut lags = Vec::new();
    let real = SEEDS.map(|seed| in_real_time(seed, &mut lags));
    let real = page::rows(real.into());
    let real_tables = in_real_words(&real, lags);
    println!("{real_tables}");
    if has("--write") {
        page::write("set time", &set_tables)?;
        page::write("real time", &real_tables)?;
        page::write("drawing", &page::drawing(&real))?;
    }
    Ok(())
}

fn in_set_time(seed: u64) -> Vec<Box<dyn Play>> {
    let mut worlds = sides::in_set_time(seed);
    for world in &mut worlds {
        world.play(END);
    }
    worlds
}

/// All of them together, so that what a neighbour on the machine takes away, it takes from all.
fn in_real_time(seed: u64, lags: &mut Vec<u64>) -> Vec<Box<dyn Play>> {
    let mut worlds = sides::in_real_time(seed, SCALE);
    let mut next = vec![0; worlds.len()];
    let start = now();
    loop {
        let at = (start.elapsed().as_nanos() as f64 / SCALE) as u64;
        for (world, next) in worlds.iter_mut().zip(&mut next) {
            if at >= *next {
                lags.push(at - *next);
                *next = world.play(at);
            }
        }
        let first = next.iter().copied().min().unwrap_or(END);
        if first >= END {
            return worlds;
        }
        let wait = (first.saturating_sub(at) as f64 * SCALE) as u64;
        if wait > MILLI / 5 {
            rest(Duration::from_nanos(wait / 2));
        }
    }
}

fn digests(rows: &[Row]) -> Vec<u64> {
    let of = |row: &Row| {
        row.ledgers()
            .map(ledger::Ledger::digest)
            .collect::<Vec<_>>()
    };
    rows.iter().flat_map(of).collect()
}

fn in_set_words(rows: &[Row]) -> String {
    let all = digests(rows)
        .into_iter()
        .fold(0_u64, |all, one| all.rotate_left(7) ^ one);
    format!(
        "{}\nThe digest of everything that happened: `{all:016x}`.\n",
        page::tables(rows)
    )
}

fn in_real_words(rows: &[Row], mut lags: Vec<u64>) -> String {
    lags.sort_unstable();
    let late = |share: f64| {
        let at = (lags.len() as f64 * share) as usize;
        lags.get(at.min(lags.len() - 1)).copied().unwrap_or(0) / MILLI
    };
    let busy = match late(0.999) > LATE {
        true => " **The machine was too busy: run it again.**",
        false => "",
    };
    format!(
        "{}\nA second of the script took {:.0} ms. Events came late by {} ms of the script in the middle, {} ms \
         at the 99.9th percentile, {} ms at most.{busy}\n",
        page::tables(rows),
        SCALE * 1_000.0,
        late(0.5),
        late(0.999),
        late(1.0),
    )
}

#[expect(clippy::disallowed_methods, reason = "the peers read no other clock")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "there is no executor to block")]
fn rest(time: Duration) {
    std::thread::sleep(time);
}

const _: () = assert!(END.is_multiple_of(SECOND));
