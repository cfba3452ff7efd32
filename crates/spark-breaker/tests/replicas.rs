//! What many replicas do to one callee.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::Duration;

use spark_breaker::{Breaker, Config, FailKind, RejectReason, State};
use spark_core::testing::TestClock;

const REPLICAS: u64 = 50;
const STEP: Duration = Duration::from_millis(100);

fn replicas(config: &Config, hand: &TestClock) -> Vec<Breaker> {
    let breaker = |seed| Breaker::new("callee", config.clone().seed(seed), hand.clock()).unwrap();
    (1..=REPLICAS).map(breaker).collect()
}

/// All of them, at the same moment.
fn trip(replicas: &[Breaker]) {
    for replica in replicas {
        while let Ok(permit) = replica.try_acquire() {
            permit.failure(FailKind::Status(500));
        }
        assert_eq!(replica.snapshot().state, State::Open);
    }
}

/// How many calls all replicas together let through in each tenth of a second, when each is asked ten
/// times in it; calls end as `end` says.
fn let_through(
    replicas: &[Breaker],
    hand: &TestClock,
    steps: usize,
    end: impl Fn(spark_breaker::Permit),
) -> Vec<usize> {
    let step = |_| {
        hand.advance(STEP);
        let permits: Vec<_> = replicas
            .iter()
            .flat_map(|replica| (0..10).filter_map(|_| replica.try_acquire().ok()))
            .collect();
        let passed = permits.len();
        permits.into_iter().for_each(&end);
        passed
    };
    (0..steps).map(step).collect()
}

/// The probes of an outage of which all replicas learnt at one moment: the most in a tenth of a second,
/// and all.
fn probes(config: &Config) -> (usize, usize) {
    let hand = TestClock::new();
    let replicas = replicas(config, &hand);
    trip(&replicas);
    let fails = |permit: spark_breaker::Permit| permit.failure(FailKind::Status(500));
    let passed = let_through(&replicas, &hand, 125, fails);
    (passed.iter().copied().max().unwrap(), passed.iter().sum())
}

#[test]
fn b15_fifty_replicas_do_not_probe_at_one_moment() {
    let config = Config::standard().probes(1);
    // Two seconds of jitter are twenty tenths: two and a half probes in each, on average.
    let (most, all) = probes(&config);
    assert_eq!(all, 50, "each probes once in its first open time");
    assert!(most <= 8, "{most} at one moment");
    assert_eq!(
        probes(&config.jitter(0.0)),
        (50, 50),
        "without jitter they do"
    );
}

#[test]
fn b15_replicas_that_keep_failing_drift_apart_further() {
    let hand = TestClock::new();
    let config = Config::standard()
        .probes(1)
        .max_open_for(Duration::from_secs(3_600));
    let replicas = replicas(&config, &hand);
    trip(&replicas);
    let fails = |permit: spark_breaker::Permit| permit.failure(FailKind::Status(500));
    // 10, 20, 40, 80 seconds, each up to a fifth longer: the fourth probes come between 150 s and 180 s.
    let passed = let_through(&replicas, &hand, 1_850, fails);
    assert_eq!(passed.iter().sum::<usize>(), 4 * 50);
    let fourth = passed[1_500..].iter().copied().max().unwrap();
    assert!(fourth <= 3, "{fourth} at one moment, at the fourth time");
}

/// All fifty open and close at one moment, and each is asked ten times in each tenth of a second.
fn after_close(config: &Config) -> Vec<usize> {
    let hand = TestClock::new();
    let replicas = replicas(config, &hand);
    trip(&replicas);
    hand.advance(Duration::from_secs(10));
    for replica in &replicas {
        replica.try_acquire().unwrap().success();
        assert_eq!(replica.snapshot().state, State::Closed);
    }
    let_through(&replicas, &hand, 110, spark_breaker::Permit::success)
}

const ASKED: f64 = 500.0;

#[test]
fn b15_after_close_the_peak_stays_below_the_ramp() {
    let config = Config::standard().probes(1).jitter(0.0);
    let ramped = after_close(&config.clone().ramp(Duration::from_secs(10)));
    for (step, passed) in ramped[..100].iter().enumerate() {
        let share = *passed as f64 / ASKED;
        let due = 0.1 + 0.9 * (step + 1) as f64 / 100.0;
        assert!(share <= due + 0.1, "{share} after {step} tenths");
        assert!(share >= due - 0.1, "{share} after {step} tenths");
    }
    let first_second: usize = ramped[..10].iter().sum();
    assert!(
        first_second as f64 <= 0.16 * ASKED * 10.0,
        "{first_second} in the first second"
    );
    assert!(ramped[100..].iter().all(|passed| *passed == 500));
    assert_eq!(
        after_close(&config),
        [500; 110],
        "without a ramp, all at once"
    );
}

#[test]
fn b15_who_is_kept_out_of_a_ramp_is_told_to_come_back_within_a_second() {
    let hand = TestClock::new();
    let config = Config::standard()
        .probes(1)
        .jitter(0.0)
        .ramp(Duration::from_secs(10));
    let replicas = replicas(&config, &hand);
    trip(&replicas);
    hand.advance(Duration::from_secs(10));
    for replica in &replicas {
        replica.try_acquire().unwrap().success();
        let refused = (0..10).find_map(|_| replica.try_acquire().err()).unwrap();
        assert_eq!(refused.reason, RejectReason::Ramping);
        assert_eq!(refused.retry_after, Duration::from_secs(1));
    }
}

#[test]
fn b15_replicas_do_not_all_let_through_the_first_call_of_a_ramp() {
    let hand = TestClock::new();
    let ramp = Duration::from_secs(10);
    let replicas = replicas(&Config::standard().probes(1).ramp(ramp), &hand);
    trip(&replicas);
    hand.advance(Duration::from_secs(12));
    for replica in &replicas {
        replica.try_acquire().unwrap().success();
    }
    let first = |replica: &&Breaker| replica.try_acquire().is_ok();
    let passed = replicas.iter().filter(first).count();
    assert!(passed <= 12, "some five of 50, not {passed}");
}
