//! Counts and latencies, one row an outcome.

use std::time::Duration;

use hdrhistogram::Histogram;
use spark_core::Instant;

use crate::client::Exchange;
use crate::outcome::Outcome;
use crate::recovery::Recovery;

/// Latencies above an hour are recorded as one.
const MAX_MICROS: u64 = 3_600_000_000;

/// Everything that a run learns. Its size does not depend on the run's length.
#[derive(Debug)]
pub(crate) struct Tally {
    rows: Vec<Latencies>,
    whole_streams: Latencies,
    answers: Latencies,
    pub(crate) recovery: Recovery,
    statuses: [u64; 600],
    latest_start: Duration,
}

impl Tally {
    pub(crate) fn new() -> Result<Self, String> {
        let rows = Outcome::ALL
            .iter()
            .map(|_| Latencies::new())
            .collect::<Result<_, _>>()?;
        Ok(Self {
            rows,
            whole_streams: Latencies::new()?,
            answers: Latencies::new()?,
            recovery: Recovery::default(),
            statuses: [0; 600],
            latest_start: Duration::ZERO,
        })
    }

    /// A request that was due at `due` was sent at `sent`.
    pub(crate) fn started(&mut self, due: Instant, sent: Instant) {
        self.latest_start = self.latest_start.max(sent.saturating_duration_since(due));
    }

    /// It ended as `exchange` says.
    pub(crate) fn ended(&mut self, due: Instant, exchange: &Exchange) {
        let outcome = exchange.outcome;
        let latency = exchange.felt.saturating_duration_since(due);
        self.rows[outcome as usize].record(latency);
        if outcome.is_answer() {
            self.answers.record(latency);
        }
        if outcome == Outcome::Streamed {
            self.whole_streams
                .record(exchange.ended.saturating_duration_since(due));
        }
        if outcome == Outcome::Refused {
            let status = exchange
                .status
                .map_or(0, |status| usize::from(status.as_u16()));
            self.statuses[status.min(self.statuses.len() - 1)] += 1;
        }
        self.recovery
            .observe(due, exchange.ended, outcome, exchange.provider.as_deref());
    }

    /// It was not sent, since too many were under way.
    pub(crate) fn dropped(&mut self) {
        self.rows[Outcome::Dropped as usize].record(Duration::ZERO);
    }

    pub(crate) fn row(&self, outcome: Outcome) -> &Latencies {
        &self.rows[outcome as usize]
    }

    /// Streams to their last byte.
    pub(crate) fn whole_streams(&self) -> &Latencies {
        &self.whole_streams
    }

    /// Hits, answers of providers, and streams to their first byte.
    pub(crate) fn answers(&self) -> &Latencies {
        &self.answers
    }

    /// All that arrived, sent or not.
    pub(crate) fn arrived(&self) -> u64 {
        self.rows.iter().map(Latencies::count).sum()
    }

    pub(crate) fn errors(&self, provider_fails: bool) -> u64 {
        let errors = Outcome::ALL
            .iter()
            .filter(|outcome| outcome.is_error(provider_fails));
        errors.map(|outcome| self.row(*outcome).count()).sum()
    }

    /// How late the latest request was sent: the generator's own share in the latencies.
    pub(crate) fn latest_start(&self) -> Duration {
        self.latest_start
    }

    /// The statuses behind [`Outcome::Refused`], with their counts.
    pub(crate) fn refused_statuses(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.statuses
            .iter()
            .copied()
            .enumerate()
            .filter(|(_, count)| *count > 0)
    }
}

/// A histogram of latencies, exact to three digits.
#[derive(Debug)]
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    fn new() -> Result<Self, String> {
        let histogram = Histogram::new_with_bounds(1, MAX_MICROS, 3);
        histogram.map(Self).map_err(|error| error.to_string())
    }

    fn record(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(MAX_MICROS);
        self.0.saturating_record(micros.max(1));
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// `None` when nothing was recorded.
    pub(crate) fn quantile(&self, quantile: f64) -> Option<Duration> {
        let micros = self.0.value_at_quantile(quantile);
        (!self.0.is_empty()).then(|| Duration::from_micros(micros))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An exchange that was due at 0.
    pub(crate) fn exchange(outcome: Outcome, felt: Duration) -> Exchange {
        let felt = Instant::default().saturating_add(felt);
        Exchange {
            outcome,
            felt,
            ended: felt,
            provider: None,
            status: None,
        }
    }

    #[test]
    fn quantiles_are_exact_to_three_digits() {
        let mut tally = Tally::new().unwrap();
        for millis in 1..=1000 {
            let exchange = exchange(Outcome::Hit, Duration::from_millis(millis));
            tally.ended(Instant::default(), &exchange);
        }
        let near = |quantile: f64, expected: u64| {
            let got = tally.row(Outcome::Hit).quantile(quantile).unwrap();
            let off = got.abs_diff(Duration::from_millis(expected));
            assert!(
                off <= Duration::from_micros(expected),
                "{quantile}: {got:?}"
            );
        };
        near(0.5, 500);
        near(0.99, 990);
        near(1.0, 1000);
        assert_eq!(tally.answers().count(), 1000);
        assert_eq!(tally.row(Outcome::Answered).quantile(0.5), None);
    }

    #[test]
    fn latencies_beyond_the_scale_are_kept() {
        let mut tally = Tally::new().unwrap();
        tally.ended(
            Instant::default(),
            &exchange(Outcome::Broken, Duration::MAX),
        );
        tally.ended(
            Instant::default(),
            &exchange(Outcome::Broken, Duration::ZERO),
        );
        assert_eq!(tally.row(Outcome::Broken).count(), 2);
    }

    #[test]
    fn latency_counts_from_when_it_was_due() {
        let mut tally = Tally::new().unwrap();
        let due = Instant::from_nanos(1_000_000_000);
        tally.started(due, due.saturating_add(Duration::from_millis(40)));
        tally.ended(
            due,
            &exchange(Outcome::Answered, Duration::from_millis(1050)),
        );
        let p50 = tally.answers().quantile(0.5).unwrap();
        assert_eq!(p50.as_millis(), 50);
        assert_eq!(tally.latest_start(), Duration::from_millis(40));
    }

    #[test]
    fn arrivals_and_errors_include_what_was_dropped() {
        let mut tally = Tally::new().unwrap();
        tally.dropped();
        tally.ended(
            Instant::default(),
            &exchange(Outcome::Hit, Duration::from_millis(1)),
        );
        tally.ended(
            Instant::default(),
            &exchange(Outcome::Limited, Duration::from_millis(1)),
        );
        tally.ended(
            Instant::default(),
            &exchange(Outcome::Unavailable, Duration::from_millis(1)),
        );
        assert_eq!(tally.arrived(), 4);
        assert_eq!((tally.errors(false), tally.errors(true)), (2, 1));
    }

    #[test]
    fn other_statuses_are_told_apart() {
        let mut tally = Tally::new().unwrap();
        for status in [401, 500, 500, 999] {
            let status = http::StatusCode::from_u16(status).ok();
            let exchange = Exchange {
                status,
                ..exchange(Outcome::Refused, Duration::from_millis(1))
            };
            tally.ended(Instant::default(), &exchange);
        }
        let statuses: Vec<_> = tally.refused_statuses().collect();
        assert_eq!(statuses, [(401, 1), (500, 2), (599, 1)]);
    }
}
