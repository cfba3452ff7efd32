//! Whether the thresholds held.

use std::time::Duration;

use crate::args::{Failing, Load};
use crate::outcome::Outcome;
use crate::tally::Tally;
use crate::units::{Share, show};

/// What the run must keep.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Thresholds {
    p99: Duration,
    error_rate: Share,
    limited_rate: Option<Share>,
    /// Set where a provider fails.
    recovery: Option<Duration>,
}

/// One threshold's verdict.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Check {
    pub(crate) what: String,
    pub(crate) got: String,
    pub(crate) held: bool,
}

impl Thresholds {
    pub(crate) fn steady(load: &Load) -> Self {
        Self {
            p99: load.max_p99.unwrap_or(Duration::from_millis(200)),
            error_rate: load.max_error_rate.unwrap_or(Share::percent(1)),
            limited_rate: load.max_limited_rate,
            recovery: None,
        }
    }

    pub(crate) fn failing(failing: &Failing) -> Self {
        let load = &failing.load;
        Self {
            p99: load.max_p99.unwrap_or(Duration::from_secs(2)),
            error_rate: load.max_error_rate.unwrap_or(Share::percent(10)),
            limited_rate: load.max_limited_rate,
            recovery: Some(failing.max_recovery),
        }
    }

    pub(crate) fn provider_fails(&self) -> bool {
        self.recovery.is_some()
    }

    /// Judges a run whose longest spell without an answer was `spell`; `provoked` tells whether
    /// it made a provider fail itself.
    pub(crate) fn judge(&self, tally: &Tally, spell: Duration, provoked: bool) -> Vec<Check> {
        let arrived = tally.arrived();
        let answers = tally.answers();
        let mut checks = vec![Check {
            what: "something was answered".into(),
            got: format!("{} of {arrived}", answers.count()),
            held: answers.count() > 0,
        }];
        let p99 = answers.quantile(0.99);
        checks.push(Check {
            what: format!("p99 of answers at most {}", show(self.p99)),
            got: p99.map_or("-".into(), show),
            held: p99.is_some_and(|p99| p99 <= self.p99),
        });
        let mut share = |name: &str, count: u64, most: Share| {
            let got = Share::of(count, arrived);
            let what = format!("{name} at most {most}");
            checks.push(Check {
                what,
                got: got.to_string(),
                held: got <= most,
            });
        };
        share(
            "errors",
            tally.errors(self.provider_fails()),
            self.error_rate,
        );
        if let Some(most) = self.limited_rate {
            share("429", tally.row(Outcome::Limited).count(), most);
        }
        if let Some(most) = self.recovery {
            checks.extend(recovered(tally, most, spell, provoked));
        }
        checks
    }
}

fn recovered(tally: &Tally, most: Duration, spell: Duration, provoked: bool) -> Vec<Check> {
    if !provoked {
        let what = format!("no spell without an answer above {}", show(most));
        return vec![Check {
            what,
            got: show(spell),
            held: spell <= most,
        }];
    }
    let felt = tally.recovery.felt();
    let contained = felt.and_then(|felt| felt.contained);
    let back = felt.and_then(|felt| felt.back);
    vec![
        Check {
            what: "the failure was met by refusals or a stand-in".into(),
            got: contained.map_or("never".into(), |after| format!("after {}", show(after))),
            held: contained.is_some(),
        },
        Check {
            what: format!("answers back within {}", show(most)),
            got: back.map_or("never".into(), show),
            held: back.is_some_and(|back| back <= most),
        },
    ]
}

#[cfg(test)]
mod tests {
    use spark_core::Instant;

    use super::*;
    use crate::tally::tests::exchange;

    const STEADY: Thresholds = Thresholds {
        p99: Duration::from_millis(200),
        error_rate: Share::percent(1),
        limited_rate: None,
        recovery: None,
    };

    fn tally(outcomes: &[(Outcome, u64, usize)]) -> Tally {
        let mut tally = Tally::new().unwrap();
        for (outcome, millis, count) in outcomes {
            for _ in 0..*count {
                let exchange = exchange(*outcome, Duration::from_millis(*millis));
                tally.ended(Instant::default(), &exchange);
            }
        }
        tally
    }

    fn held(thresholds: &Thresholds, tally: &Tally) -> Vec<bool> {
        let checks = thresholds.judge(tally, Duration::ZERO, true);
        checks.iter().map(|check| check.held).collect()
    }

    #[test]
    fn a_good_run_passes() {
        let tally = tally(&[(Outcome::Hit, 3, 990), (Outcome::Broken, 900, 10)]);
        assert_eq!(held(&STEADY, &tally), [true, true, true]);
    }

    #[test]
    fn each_threshold_can_fail() {
        let slow = tally(&[(Outcome::Answered, 250, 2), (Outcome::Hit, 1, 98)]);
        assert_eq!(held(&STEADY, &slow), [true, false, true]);
        let wrong = tally(&[(Outcome::Answered, 1, 98), (Outcome::Unavailable, 1, 2)]);
        assert_eq!(held(&STEADY, &wrong), [true, true, false]);
        let limited = tally(&[(Outcome::Answered, 1, 1), (Outcome::Limited, 1, 99)]);
        assert_eq!(held(&STEADY, &limited), [true, true, true]);
        let strict = Thresholds {
            limited_rate: Some(Share::percent(50)),
            ..STEADY
        };
        assert_eq!(held(&strict, &limited), [true, true, true, false]);
    }

    #[test]
    fn nothing_answered_is_no_success() {
        assert_eq!(held(&STEADY, &tally(&[])), [false, false, true]);
        assert_eq!(
            held(&STEADY, &tally(&[(Outcome::Limited, 1, 9)])),
            [false, false, true]
        );
    }

    #[test]
    fn a_provoked_failure_must_be_felt_and_end() {
        let failing = Thresholds {
            recovery: Some(Duration::from_secs(5)),
            ..STEADY
        };
        let mut tally = tally(&[(Outcome::Answered, 1, 9)]);
        assert_eq!(held(&failing, &tally), [true, true, true, false, false]);
        let at = |seconds: u64| Instant::from_nanos(seconds * 1_000_000_000);
        tally.recovery.begin(at(1));
        tally
            .recovery
            .observe(at(2), at(2), Outcome::Unavailable, None);
        tally.recovery.end(at(3));
        tally
            .recovery
            .observe(at(7), at(7), Outcome::Answered, None);
        assert_eq!(held(&failing, &tally), [true; 5]);
        let strict = Thresholds {
            recovery: Some(Duration::from_secs(3)),
            ..STEADY
        };
        assert_eq!(held(&strict, &tally), [true, true, true, true, false]);
    }

    #[test]
    fn an_unprovoked_one_is_judged_by_its_longest_spell() {
        let failing = Thresholds {
            recovery: Some(Duration::from_secs(5)),
            ..STEADY
        };
        let tally = tally(&[(Outcome::Answered, 1, 9), (Outcome::Unavailable, 1, 900)]);
        let judge = |spell: u64| failing.judge(&tally, Duration::from_secs(spell), false);
        assert!(judge(4).iter().all(|check| check.held));
        assert!(!judge(6).iter().all(|check| check.held));
    }
}
