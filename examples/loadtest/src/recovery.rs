//! How a failure was felt, and how soon it was over.

use std::collections::BTreeMap;
use std::time::Duration;

use spark_core::Instant;

use crate::outcome::Outcome;

/// More names of providers than this are not told apart.
const MAX_PROVIDERS: usize = 16;

/// Follows the answers that came from providers; the cache hides failures, so hits do not count.
#[derive(Debug, Default)]
pub(crate) struct Recovery {
    answers_before: BTreeMap<String, u64>,
    began: Option<Instant>,
    ended: Option<Instant>,
    contained: Option<Instant>,
    back: Option<Instant>,
    last_failure: Option<Instant>,
    spell: Spell,
}

/// The time between two answers with failures between them.
#[derive(Debug, Default)]
struct Spell {
    last_answer: Option<Instant>,
    failing: bool,
    longest: Duration,
}

/// What a run with a provoked failure shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Felt {
    /// From the failure's beginning to the first quick refusal or answer of a stand-in.
    pub(crate) contained: Option<Duration>,
    /// From the failure's end to the first answer of the usual provider.
    pub(crate) back: Option<Duration>,
    /// From the failure's end to the last refusal or failure.
    pub(crate) last_failure: Option<Duration>,
}

impl Recovery {
    /// The failure begins now.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.began.get_or_insert(now);
    }

    /// It is over now.
    pub(crate) fn end(&mut self, now: Instant) {
        self.ended.get_or_insert(now);
    }

    /// Takes in what became of a request that was due at `due` and done at `done`.
    pub(crate) fn observe(
        &mut self,
        due: Instant,
        done: Instant,
        outcome: Outcome,
        provider: Option<&str>,
    ) {
        if matches!(outcome, Outcome::Hit | Outcome::Limited | Outcome::Dropped) {
            return;
        }
        self.spell.observe(done, outcome.is_answer());
        let Some(began) = self.began else {
            if outcome.is_answer() {
                self.count(provider);
            }
            return;
        };
        let answered_by = outcome.is_answer().then(|| self.standing(provider));
        let contains = outcome == Outcome::Unavailable || answered_by == Some(Standing::StandIn);
        if due >= began && contains {
            self.contained.get_or_insert(done);
        }
        // Whoever was due before the end may have met the failure: that says nothing.
        if self.ended.is_none_or(|ended| due < ended) {
            return;
        }
        match answered_by {
            Some(Standing::Usual) => _ = self.back.get_or_insert(done),
            Some(Standing::StandIn | Standing::Unknown) => {}
            None => self.last_failure = self.last_failure.max(Some(done)),
        }
    }

    /// `None` when no failure was provoked to its end.
    pub(crate) fn felt(&self) -> Option<Felt> {
        let (began, ended) = (self.began?, self.ended?);
        let since = |start: Instant| move |end: Instant| end.saturating_duration_since(start);
        Some(Felt {
            contained: self.contained.map(since(began)),
            back: self.back.map(since(ended)),
            last_failure: self.last_failure.map(since(ended)),
        })
    }

    /// The longest time without an answer in which someone asked in vain, up to `now`.
    pub(crate) fn longest_spell(&self, now: Instant) -> Duration {
        let open = self.spell.last_answer.filter(|_| self.spell.failing);
        let open = open.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        self.spell.longest.max(open)
    }

    fn count(&mut self, provider: Option<&str>) {
        let Some(provider) = provider else { return };
        if let Some(count) = self.answers_before.get_mut(provider) {
            *count += 1;
        } else if self.answers_before.len() < MAX_PROVIDERS {
            self.answers_before.insert(provider.to_owned(), 1);
        }
    }

    /// Whether this provider gave most answers before the failure. A stream does not name its
    /// provider: where others do, it tells nothing.
    fn standing(&self, provider: Option<&str>) -> Standing {
        let usual = self.answers_before.iter().max_by_key(|(_, count)| **count);
        match (usual, provider) {
            (None, _) => Standing::Usual,
            (Some(_), None) => Standing::Unknown,
            (Some((usual, _)), Some(provider)) if usual == provider => Standing::Usual,
            (Some(_), Some(_)) => Standing::StandIn,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Usual,
    StandIn,
    Unknown,
}

impl Spell {
    fn observe(&mut self, done: Instant, answered: bool) {
        if !answered {
            self.failing = true;
            // A run that never answered has its spell counted from the first failure.
            self.last_answer.get_or_insert(done);
            return;
        }
        if let Some(last) = self.last_answer.filter(|_| self.failing) {
            self.longest = self.longest.max(done.saturating_duration_since(last));
        }
        self.failing = false;
        self.last_answer = self.last_answer.max(Some(done));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    fn see(recovery: &mut Recovery, second: u64, outcome: Outcome, provider: Option<&str>) {
        recovery.observe(at(second), at(second), outcome, provider);
    }

    #[test]
    fn a_breaker_that_opens_and_closes() {
        let mut recovery = Recovery::default();
        see(&mut recovery, 1, Outcome::Answered, Some("primary"));
        recovery.begin(at(10));
        see(&mut recovery, 10, Outcome::ProviderFailed, None);
        see(&mut recovery, 12, Outcome::Hit, Some("primary"));
        see(&mut recovery, 13, Outcome::Unavailable, None);
        recovery.end(at(20));
        // Due before the end: its good luck does not count.
        recovery.observe(at(19), at(21), Outcome::Answered, Some("primary"));
        see(&mut recovery, 22, Outcome::Unavailable, None);
        see(&mut recovery, 24, Outcome::Answered, Some("primary"));
        let felt = recovery.felt().unwrap();
        assert_eq!(felt.contained, Some(Duration::from_secs(3)));
        assert_eq!(felt.back, Some(Duration::from_secs(4)));
        assert_eq!(felt.last_failure, Some(Duration::from_secs(2)));
        assert_eq!(recovery.longest_spell(at(30)), Duration::from_secs(20));
    }

    #[test]
    fn a_stand_in_contains_but_is_not_the_way_back() {
        let mut recovery = Recovery::default();
        see(&mut recovery, 1, Outcome::Answered, Some("primary"));
        recovery.begin(at(10));
        see(&mut recovery, 11, Outcome::Answered, Some("second"));
        recovery.end(at(20));
        see(&mut recovery, 21, Outcome::Answered, Some("second"));
        see(&mut recovery, 21, Outcome::Streamed, None);
        assert_eq!(recovery.felt().unwrap().back, None);
        see(&mut recovery, 25, Outcome::Answered, Some("primary"));
        let felt = recovery.felt().unwrap();
        assert_eq!(felt.contained, Some(Duration::from_secs(1)));
        assert_eq!(
            (felt.back, felt.last_failure),
            (Some(Duration::from_secs(5)), None)
        );
        assert_eq!(recovery.longest_spell(at(30)), Duration::ZERO);
    }

    #[test]
    fn a_failure_nobody_noticed_shows() {
        let mut recovery = Recovery::default();
        assert_eq!(recovery.felt(), None);
        see(&mut recovery, 1, Outcome::Answered, Some("primary"));
        recovery.begin(at(2));
        see(&mut recovery, 3, Outcome::Answered, Some("primary"));
        assert_eq!(recovery.felt(), None);
        recovery.end(at(4));
        assert_eq!(recovery.felt().unwrap().contained, None);
    }

    #[test]
    fn a_spell_that_never_ends_is_counted() {
        let mut recovery = Recovery::default();
        see(&mut recovery, 5, Outcome::NoAnswer, None);
        assert_eq!(recovery.longest_spell(at(9)), Duration::from_secs(4));
    }
}
