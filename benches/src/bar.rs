//! What a ratio ought to be, and whether it is.

use crate::race::Outcome;
use crate::side::Spread;

/// One side takes at most so many times what another one takes, nothing taken off of either.
#[derive(Clone, Copy, Debug)]
pub struct Bar<'a> {
    /// What is claimed, in a few words.
    pub claim: &'a str,
    /// The race that shows it.
    pub race: &'a str,
    /// The side that is claimed to be cheap.
    pub ours: &'a str,
    /// What it is compared with.
    pub theirs: &'a str,
    /// The most that the ratio of the fastest turns may be.
    pub limit: f64,
}

/// One side takes at most so many nanoseconds, on whatever machine it runs.
#[derive(Clone, Copy, Debug)]
pub struct Nanos<'a> {
    /// What is claimed, in a few words.
    pub claim: &'a str,
    /// The race that shows it.
    pub race: &'a str,
    /// The side that is claimed to be cheap.
    pub side: &'a str,
    /// The most that its fastest turn may be, for one time.
    pub limit: f64,
}

#[expect(clippy::print_stdout, reason = "it is what a bar is for")]
pub(crate) fn report_nanos(bars: &[Nanos<'_>], outcomes: &[Outcome]) {
    for bar in bars {
        let Some(rounds) = rounds(outcomes, bar.race, bar.side) else {
            continue;
        };
        let Spread { min, median, max } = Spread::of(rounds.iter().copied());
        let verdict = match min <= bar.limit {
            true => "met",
            false => "NOT MET",
        };
        println!(
            "  {:<62}{min:>7.1} <= {:<6.1}{verdict:<8}ns: {min:.1} / {median:.1} / {max:.1}",
            bar.claim, bar.limit
        );
    }
}

#[expect(clippy::print_stdout, reason = "it is what a bar is for")]
pub(crate) fn report(bars: &[Bar<'_>], outcomes: &[Outcome]) {
    let shown = bars
        .iter()
        .filter_map(|bar| Some((bar, found(bar, outcomes)?)));
    let shown: Vec<_> = shown.collect();
    if shown.is_empty() {
        return;
    }
    println!("BARS: ratio of the fastest turns, whole operations, nothing taken off");
    let mut met = 0;
    for (bar, (ours, theirs)) in &shown {
        let fastest = |rounds: &[f64]| Spread::of(rounds.iter().copied()).min;
        let ratio = fastest(ours) / fastest(theirs);
        let Spread { min, median, max } = Spread::of_ratios(ours, theirs);
        let verdict = if ratio <= bar.limit {
            met += 1;
            "met"
        } else {
            "NOT MET"
        };
        println!(
            "  {:<62}{ratio:>7.3} <= {:<6.3}{verdict:<8}rounds: {min:.3} / {median:.3} / {max:.3}",
            bar.claim, bar.limit
        );
    }
    println!("  {met} of {} met", shown.len());
}

/// The rounds of both sides.
fn found<'a>(bar: &Bar<'_>, outcomes: &'a [Outcome]) -> Option<(&'a [f64], &'a [f64])> {
    let of = |side| rounds(outcomes, bar.race, side);
    Some((of(bar.ours)?, of(bar.theirs)?))
}

/// Where the race was run and the side took part.
fn rounds<'a>(outcomes: &'a [Outcome], race: &str, name: &str) -> Option<&'a [f64]> {
    let outcome = outcomes.iter().find(|it| it.race == race)?;
    let mut sides = outcome.sides.iter();
    let (_, rounds) = sides.find(|(side, rounds)| *side == name && !rounds.is_empty())?;
    Some(rounds)
}
