//! What only those who take a step need: guarded by the control lock.

use std::time::Duration;

use spark_core::Instant;

use crate::jitter::Jitter;
use crate::{Config, Reason, Totals};

/// The end of an open time that only an operator ends.
pub(super) const NEVER: u64 = u64::MAX;

/// The longest that a callee is believed whose credit is used up.
pub(super) const MOST_EXHAUSTED: Duration = Duration::from_secs(31 * 24 * 3600);

/// The end of any other open time.
pub(super) fn known(until: Instant) -> u64 {
    until.as_nanos().min(NEVER - 1)
}

#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) config: Config,
    /// How many times in a row it opened without having been calm in between.
    pub(super) streak: u32,
    pub(super) closed_since: Instant,
    /// While closed: the latest moment that a failing callee asked to be left alone until.
    pub(super) asked_until: Option<Instant>,
    pub(crate) last_trip: Option<(Reason, Instant)>,
    /// Why it would have opened, had it only not been told to watch; and until when it would have
    /// been open.
    pub(crate) would_trip: Option<(Reason, Instant)>,
    pub(super) would_be_open_until: Instant,
    /// What had been counted when it was reset.
    pub(crate) counted_before: Totals,
    /// The most successes that anybody was told of.
    pub(crate) successes_shown: u64,
    jitter: Jitter,
}

impl Control {
    pub(super) fn new(config: Config, now: Instant) -> Self {
        Self {
            jitter: Jitter::new(config.seed),
            config,
            streak: 0,
            closed_since: now,
            asked_until: None,
            last_trip: None,
            would_trip: None,
            would_be_open_until: now,
            counted_before: Totals::default(),
            successes_shown: 0,
        }
    }

    /// Until when it stays open that opens now: for longer each time that it did not hold.
    pub(super) fn backed_off(&mut self, now: Instant) -> Instant {
        self.streak = self.streak.saturating_add(1);
        let doublings = (self.streak - 1).min(31);
        let Config {
            open_for,
            max_open_for,
            jitter,
            ..
        } = self.config;
        // At the longest too, replicas must not probe at one moment: it is the latest of them, unless
        // the shortest leaves no room before it.
        let most = max_open_for.div_f64(1.0 + jitter).max(open_for);
        let time = open_for.saturating_mul(1 << doublings).min(most);
        now.saturating_add(self.jitter.lengthen(time, jitter))
    }

    /// A moment somewhat later: a callee tells all replicas the same one.
    pub(super) fn spread(&mut self, now: Instant, asked: Instant) -> Instant {
        let wait = asked.saturating_duration_since(now);
        now.saturating_add(self.jitter.lengthen(wait, self.config.jitter))
    }

    /// Until when it stays open whose callee cannot be helped by waiting. No longer than an open
    /// time lengthens it so that replicas do not probe at one moment: its end may be a month away.
    pub(super) fn exhausted_until(&mut self, now: Instant, asked: Option<Duration>) -> u64 {
        let Some(wait) = asked.or(self.config.exhausted_for) else {
            return NEVER;
        };
        let spread = wait.min(self.config.max_open_for);
        let extra = self.jitter.lengthen(spread, self.config.jitter) - spread;
        known(now.saturating_add(wait).saturating_add(extra))
    }

    /// As long as is believed.
    pub(super) fn believed(&self, wait: Option<Duration>) -> Duration {
        wait.unwrap_or_default().min(self.config.max_retry_after)
    }

    /// Whether it has been closed for so long that it opens for the first time again.
    pub(super) fn has_been_calm(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.closed_since) >= self.config.calm_after()
    }
}
