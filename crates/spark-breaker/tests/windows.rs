//! Windows against a list of all that is in them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::VecDeque;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use spark_breaker::{Breaker, Config, FailKind, Mode, State, Window};
use spark_core::testing::TestClock;

#[derive(Debug, Clone, Copy)]
struct Call {
    failed: bool,
    /// In milliseconds.
    took: u64,
    /// And then nothing happens for so long.
    idle: u64,
}

const SLOW: u64 = 50;

fn calls(number: usize) -> impl Strategy<Value = Vec<Call>> {
    // From almost none to almost all.
    (0.02..0.98_f64, 0.02..0.98_f64).prop_flat_map(move |(failing, slow)| {
        let took = prop::bool::weighted(slow).prop_map(|slow| if slow { SLOW } else { SLOW - 1 });
        let idle = prop_oneof![5 => Just(0_u64), 4 => 0..40_u64, 1 => 0..2_000_u64];
        let call = (prop::bool::weighted(failing), took, idle);
        prop::collection::vec(call, number).prop_map(|calls| {
            let call = |(failed, took, idle)| Call { failed, took, idle };
            calls.into_iter().map(call).collect()
        })
    })
}

/// One that ended at this moment.
struct Ended {
    at: u64,
    failed: bool,
    slow: bool,
}

/// All that is in the window, and nothing else.
struct Reference {
    window: Window,
    ended: VecDeque<Ended>,
}

impl Reference {
    fn record(&mut self, at: u64, failed: bool, slow: bool) {
        self.ended.push_back(Ended { at, failed, slow });
    }

    /// Calls, failures and slow ones.
    fn counts(&mut self, now: u64) -> (u32, u32, u32) {
        match self.window {
            Window::Count(calls) => {
                while self.ended.len() > calls as usize {
                    self.ended.pop_front();
                }
            }
            Window::Time { length, buckets } => {
                let bucket = length.as_millis() as u64 / u64::from(buckets);
                let oldest = (now / bucket + 1).saturating_sub(u64::from(buckets));
                let is_old = |it: &Ended| it.at / bucket < oldest;
                while self.ended.front().is_some_and(is_old) {
                    self.ended.pop_front();
                }
            }
            other => panic!("{other:?}"),
        }
        let count = |of: fn(&Ended) -> bool| self.ended.iter().filter(|it| of(it)).count() as u32;
        (count(|_| true), count(|it| it.failed), count(|it| it.slow))
    }
}

/// Each in turn. `rates`: for failures and for slow calls.
fn equals_the_list(
    window: Window,
    min_calls: u32,
    rates: (f64, f64),
    calls: &[Call],
) -> TestCaseResult {
    let rules = Config::standard()
        .window(window)
        .min_calls(min_calls)
        .failure_rate(rates.0)
        .slow_rate(rates.1)
        .slow_threshold(Duration::from_millis(SLOW))
        .consecutive(None);
    let clock = TestClock::new();
    let counting = Breaker::new("counts", rules.clone(), clock.clock()).unwrap();
    // Open or not, this one goes on counting.
    counting.set_mode(Mode::ForcedClosed);
    let deciding = Breaker::new("decides", rules, clock.clock()).unwrap();
    let ended = VecDeque::new();
    let mut all = Reference { window, ended };
    let ended = VecDeque::new();
    let mut since_reset = Reference { window, ended };
    let mut now = 0;
    for (number, call) in calls.iter().enumerate() {
        let permits = [&counting, &deciding].map(|it| it.try_acquire().unwrap());
        clock.advance(Duration::from_millis(call.took));
        now += call.took;
        for permit in permits {
            match call.failed {
                true => permit.failure(FailKind::Other),
                false => permit.success(),
            }
        }
        let slow = call.took >= SLOW;
        all.record(now, call.failed, slow);
        since_reset.record(now, call.failed, slow);

        let snapshot = counting.snapshot();
        let counts = (snapshot.calls, snapshot.failures, snapshot.slow);
        prop_assert_eq!(counts, all.counts(now), "after {}", number);

        let (calls, failures, slow_calls) = since_reset.counts(now);
        let reached = |part: u32, share: f64| f64::from(part) / f64::from(calls) >= share;
        let broken = reached(failures, rates.0) || reached(slow_calls, rates.1);
        // What is neither breaks no rule that was not broken before, but for what slid out.
        let opens = calls >= min_calls && broken && (call.failed || slow);
        let expected = if opens { State::Open } else { State::Closed };
        prop_assert_eq!(deciding.snapshot().state, expected, "after {}", number);
        if opens {
            deciding.reset();
            since_reset.ended.clear();
        }
        clock.advance(Duration::from_millis(call.idle));
        now += call.idle;
        let snapshot = counting.snapshot();
        let counts = (snapshot.calls, snapshot.failures, snapshot.slow);
        prop_assert_eq!(counts, all.counts(now), "idle after {}", number);
    }
    Ok(())
}

fn rate() -> impl Strategy<Value = f64> {
    prop_oneof![Just(1.0), Just(0.5), 0.01..1.0_f64]
}

fn runner(cases: u32) -> proptest::test_runner::TestRunner {
    proptest::test_runner::TestRunner::new(ProptestConfig {
        failure_persistence: None,
        max_shrink_iters: 2_000,
        ..ProptestConfig::with_cases(cases)
    })
}

/// Every size from one to three hundred: a hundred thousand calls in all.
#[test]
fn b3_windows_by_count_are_the_latest_so_many_calls() {
    for size in 1..=300_u32 {
        let input = (1..=size, rate(), rate(), calls(350));
        runner(1)
            .run(&input, |(min_calls, failure_rate, slow_rate, calls)| {
                let rates = (failure_rate, slow_rate);
                equals_the_list(Window::Count(size), min_calls, rates, &calls)
            })
            .unwrap_or_else(|error| panic!("{size}: {error}"));
    }
}

#[test]
fn b3_windows_by_time_are_the_latest_stretch_of_it() {
    let input = (1..=60_u8, 1..200_u64, 1..20_u32, rate(), rate(), calls(500));
    runner(100)
        .run(
            &input,
            |(buckets, bucket, min_calls, failure_rate, slow_rate, calls)| {
                let length = Duration::from_millis(bucket * u64::from(buckets));
                let window = Window::Time { length, buckets };
                equals_the_list(window, min_calls, (failure_rate, slow_rate), &calls)
            },
        )
        .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn b3_ten_thousand_calls_of_each_kind() {
    let windows = [
        Window::Count(100),
        Window::Count(257),
        Window::from(Duration::from_secs(10)),
    ];
    for window in windows {
        runner(1)
            .run(&(rate(), calls(10_000)), |(share, calls)| {
                equals_the_list(window, 10, (share, 0.5), &calls)
            })
            .unwrap_or_else(|error| panic!("{window:?}: {error}"));
    }
}
