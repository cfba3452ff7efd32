//! `spark-loadtest`: asks a SPARK server for answers at a chosen rate, and says whether it kept
//! its promises.
//!
//! The model is open: arrivals follow a schedule that the server cannot slow down, and a latency
//! counts from the moment at which the request was **due**. A stall is therefore seen at its full
//! length by everyone who would have come during it (no coordinated omission). What the cap of
//! requests in flight keeps from being sent is counted, as an error.
//!
//! ```text
//! spark-loadtest steady  --master-key-file spark-data/master.key --rate 10 --duration 30s
//! spark-loadtest failing --master-key-file spark-data/master.key --upstream-control http://127.0.0.1:9001
//! ```
//!
//! - **`steady`** posts a mix to `/api/spark/generate`: repeated prompts (hits of the cache), fresh
//!   ones (misses) and streams.
//! - **`failing`** asks for the same while a provider fails. With `--upstream-control` it makes a
//!   `spark-mock-upstream` fail and recover by itself, and measures how long refusals took to
//!   begin and answers to come back. Without, the server's own configuration must make one fail
//!   (the `demo` provider has a failure rate), and the longest spell without an answer is judged.
//!   A 503 that says when to come back and an answer from another provider are expected here.
//!   A 502 or 504 is an error still: there are as many as the breaker lets happen before it opens.
//!   One that judges by its failure rate opens once failures outweigh the good calls before them,
//!   so the failure begins after a sixth of the run and lasts for half of it, unless told otherwise.
//!
//! # Reading the table
//! One row an outcome. The latency of an answer is to its last byte; that of a stream to its first,
//! with the last in a row of its own. 429 is an outcome of its own: neither an answer nor an error
//! (a run that asks for more than its tier allows measures the limiter; raise the quota or lower
//! `--rate`). The timers are good to a millisecond, so differences below one mean nothing.
//!
//! # Exit code
//! 0: every threshold held. 1: one did not. 2: wrong usage, or the run could not begin.
//!
//! # Not in scope
//! TLS, several machines, HTTP/2, and addresses beyond loopback unless `--allow-remote` says so.
//!
//! Why not goose or rlt: both drive closed loops of users, in which a slow answer delays the next
//! request and so hides itself (goose can estimate what it missed, off by default; rlt cannot).

mod args;
mod client;
mod control;
mod outcome;
mod recovery;
mod report;
mod run;
mod schedule;
mod tally;
mod target;
mod units;
mod verdict;
mod workload;

use std::process::ExitCode;

use clap::Parser as _;

#[tokio::main]
async fn main() -> ExitCode {
    match run::run(args::Cli::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(reason) => {
            eprintln!("spark-loadtest: {reason}");
            ExitCode::from(2)
        }
    }
}
