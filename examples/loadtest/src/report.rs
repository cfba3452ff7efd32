//! What people see: a line each second, and a table at the end.

use std::fmt::Write as _;
use std::time::Duration;

use crate::outcome::Outcome;
use crate::recovery::Felt;
use crate::schedule::Rate;
use crate::tally::{Latencies, Tally};
use crate::units::{Share, show};
use crate::verdict::Check;

/// The state of the run at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Progress {
    pub(crate) elapsed: Duration,
    pub(crate) asked: Rate,
    /// Requests that ended within the last second or so, and the time that this was.
    pub(crate) ended: (u64, Duration),
    pub(crate) in_flight: usize,
    pub(crate) p99: Option<Duration>,
    pub(crate) errors: u64,
    pub(crate) dropped: u64,
}

impl Progress {
    pub(crate) fn line(&self) -> String {
        let (ended, within) = self.ended;
        format!(
            "{:>5.0}s  asked {}  done {:.1}/s  in flight {}  p99 {}  errors {}  dropped {}",
            self.elapsed.as_secs_f64(),
            self.asked,
            per_second(ended, within),
            self.in_flight,
            self.p99.map_or("-".into(), show),
            self.errors,
            self.dropped,
        )
    }
}

/// The table of outcomes.
pub(crate) fn table(tally: &Tally, asked: Rate, sending: Duration) -> String {
    let arrived = tally.arrived();
    let mut out = String::new();
    let columns = [
        "count", "share", "rate/s", "p50", "p90", "p99", "p99.9", "max",
    ];
    row(&mut out, "outcome", columns.map(str::to_owned));
    for outcome in Outcome::ALL {
        let latencies = tally.row(outcome);
        if latencies.count() == 0 {
            continue;
        }
        line(
            &mut out,
            outcome.label(),
            latencies,
            arrived,
            sending,
            outcome != Outcome::Dropped,
        );
        if outcome == Outcome::Streamed {
            line(
                &mut out,
                "  to the last byte",
                tally.whole_streams(),
                arrived,
                sending,
                true,
            );
        }
        if outcome == Outcome::Refused {
            for (status, count) in tally.refused_statuses() {
                let _ = writeln!(out, "{:<26}{count:>9}", format!("  status {status}"));
            }
        }
    }
    let dropped = tally.row(Outcome::Dropped).count();
    let _ = writeln!(
        out,
        "\nasked {asked}, sent {:.1}/s for {}; the latest start was {} behind its schedule",
        per_second(arrived.saturating_sub(dropped), sending),
        show(sending),
        show(tally.latest_start()),
    );
    out
}

fn line(
    out: &mut String,
    label: &str,
    latencies: &Latencies,
    arrived: u64,
    sending: Duration,
    timed: bool,
) {
    let quantile = |quantile: f64| match latencies.quantile(quantile) {
        Some(latency) if timed => show(latency),
        _ => "-".into(),
    };
    let count = latencies.count();
    let cells = [
        count.to_string(),
        Share::of(count, arrived).to_string(),
        format!("{:.1}", per_second(count, sending)),
        quantile(0.5),
        quantile(0.9),
        quantile(0.99),
        quantile(0.999),
        quantile(1.0),
    ];
    row(out, label, cells);
}

fn row(out: &mut String, label: &str, cells: [String; 8]) {
    let _ = write!(out, "{label:<26}");
    for cell in cells {
        let _ = write!(out, "{cell:>10}");
    }
    out.push('\n');
}

/// How a provoked failure went.
pub(crate) fn failure(felt: Felt, spell: Duration) -> String {
    let after = |time: Option<Duration>| time.map_or("never".into(), show);
    format!(
        "the provider's failure\n  \
         until refusals or a stand-in met it   {}\n  \
         from its end to the first answer      {}\n  \
         from its end to the last failure      {}\n  \
         longest spell without an answer       {}\n",
        after(felt.contained),
        after(felt.back),
        felt.last_failure.map_or("none came".into(), show),
        show(spell),
    )
}

pub(crate) fn verdict(checks: &[Check]) -> String {
    let mut out = String::from("thresholds\n");
    for check in checks {
        let verdict = if check.held { "pass" } else { "FAIL" };
        let _ = writeln!(out, "  {verdict}  {:<48}{}", check.what, check.got);
    }
    out
}

fn per_second(count: u64, time: Duration) -> f64 {
    if time.is_zero() {
        return 0.0;
    }
    count as f64 / time.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use spark_core::Instant;

    use super::*;
    use crate::tally::tests::exchange;

    #[test]
    fn the_table_has_a_row_for_what_happened() {
        let mut tally = Tally::new().unwrap();
        for outcome in [Outcome::Hit, Outcome::Streamed, Outcome::Limited] {
            tally.ended(
                Instant::default(),
                &exchange(outcome, Duration::from_millis(2)),
            );
        }
        tally.dropped();
        let table = table(&tally, "2".parse().unwrap(), Duration::from_secs(2));
        assert!(
            table.contains("limited (429)") && table.contains("  to the last byte"),
            "{table}"
        );
        assert!(!table.contains("timed out"), "{table}");
        let dropped = table
            .lines()
            .find(|line| line.starts_with("dropped"))
            .unwrap();
        assert_eq!(dropped.matches(" -").count(), 5, "{dropped}");
        assert!(table.contains("sent 1.5/s for 2.00 s"), "{table}");
        let widths: Vec<_> = table.lines().take(6).map(str::len).collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{table}");
    }

    #[test]
    fn the_progress_is_one_line() {
        let progress = Progress {
            elapsed: Duration::from_secs(12),
            asked: "50".parse().unwrap(),
            ended: (49, Duration::from_secs(1)),
            in_flight: 3,
            p99: Some(Duration::from_millis(12)),
            errors: 0,
            dropped: 1,
        };
        let line = "   12s  asked 50/s  done 49.0/s  in flight 3  p99 12.0 ms  errors 0  dropped 1";
        assert_eq!(progress.line(), line);
    }

    #[test]
    fn verdicts_are_plain() {
        let check = Check {
            what: "p99".into(),
            got: "3 ms".into(),
            held: false,
        };
        assert!(verdict(&[check]).contains("FAIL  p99"));
    }
}
