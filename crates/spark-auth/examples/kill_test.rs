//! Kills a process that issues, rotates and revokes keys, and checks what is left, many times:
//!
//! ```sh
//! cargo run --release -p spark-auth --example kill_test -- --rounds 200
//! ```
//!
//! `--seed 7` gives other kills. It ends with 0 once every change that was acknowledged was found in
//! every round, and fails at the first that was not, leaving the folder for inspection.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for a terminal, whose failure is to panic"
)]

#[path = "../tests/common/kill.rs"]
mod kill;

use std::process::Command;
use std::time::Duration;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "child") {
        return kill::child();
    }
    let (mut rounds, mut seed) = (200, 1);
    for pair in arguments.chunks(2) {
        match pair {
            [name, value] if name == "--rounds" => rounds = value.parse().unwrap(),
            [name, value] if name == "--seed" => seed = value.parse().unwrap(),
            _ => panic!("--rounds N and --seed N are all there is"),
        }
    }
    let dir = tempfile::tempdir().unwrap().keep();
    println!("{rounds} rounds on {}", dir.display());
    let command = || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("child");
        command
    };
    // A round takes a tenth of a second.
    let limit = Duration::from_secs(60) + Duration::from_secs(3) * u32::try_from(rounds).unwrap();
    let outcome = kill::rounds(rounds, seed, &dir, limit, command, |so_far| {
        if so_far.rounds % 20 == 0 {
            println!("{so_far:?}");
        }
    });
    std::fs::remove_dir_all(&dir).unwrap();
    println!("nothing was lost: {outcome:?}");
}
