//! `cargo test -p spark-benches --test peer_gaps`: where breakers and caches go wrong, tried on ours and on
//! its peers.
//!
//! Ours must pass, or the test fails. What a peer does is measured and printed, and nothing is expected of
//! it: the versions are pinned in the workspace's `Cargo.toml`. `-- NAME` tries those of which the name
//! holds that; `--features peer-metrics` also looks at the gauges of the peer that has some.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a test that cannot go on fails, and this one is read"
)]

#[path = "gaps/breakers.rs"]
mod breakers;
#[path = "gaps/flights.rs"]
mod flights;
#[path = "gaps/found.rs"]
mod found;
#[path = "gaps/half_open.rs"]
mod half_open;
#[path = "gaps/keeping.rs"]
mod keeping;
#[path = "gaps/loaders.rs"]
mod loaders;
#[path = "gaps/outcomes.rs"]
mod outcomes;
#[path = "gaps/telling.rs"]
mod telling;
#[path = "gaps/window.rs"]
mod window;
#[path = "gaps/work.rs"]
mod work;

use std::process::ExitCode;

use found::Gap;

macro_rules! gaps {
    ($($room:ident::$name:ident,)*) => {
        &[$(Gap { name: stringify!($name), run: $room::$name },)*]
    };
}

const GAPS: &[Gap] = gaps![
    window::a_window_of_100_calls_opens_after_50_failures_behind_10_000_successes,
    window::a_window_of_100_000_calls_costs_what_one_of_100_costs,
    window::a_call_allocates_nothing,
    half_open::a_thousand_callers_at_a_half_open_breaker_make_as_many_calls_as_it_probes,
    half_open::a_hung_probe_gives_its_place_back,
    half_open::a_success_from_before_the_outage_closes_nothing,
    outcomes::two_hundred_timeouts_further_out_open_it,
    outcomes::panics_open_it,
    telling::one_series_says_the_state,
    telling::a_refusal_says_whose_it_is_and_when_to_come_back,
    flights::a_waiter_is_polled_at_most_three_times_in_half_a_second,
    flights::a_leader_who_leaves_costs_no_second_call,
    flights::twenty_callers_with_less_patience_than_the_load_takes_fill_the_cache_with_one_call,
    keeping::what_is_resident_stays_within_the_caps,
    keeping::a_stream_that_is_cut_at_any_byte_is_never_kept,
    keeping::two_tenants_never_share_an_answer,
];

fn main() -> ExitCode {
    let wanted = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let asked = |gap: &&Gap| wanted.as_ref().is_none_or(|it| gap.name.contains(it));
    found::run(GAPS.iter().filter(asked))
}

/// A runtime of one thread.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(future)
}
