//! Results of calls that were made in another state than the breaker is in.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use spark_breaker::{
    Breaker, Config, FailKind, IgnoreKind, Mode, Outcome, Permit, Phase, Snapshot, State, Window,
};
use spark_core::testing::TestClock;

#[derive(Debug, Clone, Copy)]
enum Op {
    Acquire {
        background: bool,
    },
    /// A call of this generation ends.
    End(usize, End),
    /// A call of an earlier one does.
    EndLate(usize, End),
    FirstByte(usize),
    Advance(u64),
    Throttle(u64),
    Exhaust(Option<u64>),
    Mode(Mode),
    Reset,
    Reconfigure {
        probes: u32,
        by_count: bool,
    },
}

#[derive(Debug, Clone, Copy)]
enum End {
    Told(Outcome),
    Drop,
}

impl End {
    /// Whether it says when to come back, or that there is no use in it.
    fn asks(self) -> bool {
        match self {
            Self::Told(Outcome::Failure { retry_after, .. }) => retry_after.is_some(),
            Self::Told(Outcome::Throttled {
                retry_after,
                terminal,
                ..
            }) => retry_after.is_some() || terminal,
            _ => false,
        }
    }
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn end() -> impl Strategy<Value = End> {
    let failure = Outcome::failure(FailKind::Timeout(Phase::Total));
    let asked = || prop::option::of((0..3_000_u64).prop_map(millis));
    prop_oneof![
        4 => Just(End::Told(Outcome::Success)),
        4 => Just(End::Told(failure)),
        1 => asked().prop_map(move |it| End::Told(failure.with_retry_after(it))),
        1 => asked().prop_map(|it| End::Told(Outcome::throttled().with_retry_after(it))),
        1 => asked().prop_map(|it| End::Told(Outcome::exhausted().with_retry_after(it))),
        1 => Just(End::Told(Outcome::Ignored(IgnoreKind::Client))),
        1 => Just(End::Told(Outcome::Ignored(IgnoreKind::Local))),
        4 => Just(End::Drop),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let modes = prop::sample::select(vec![
        Mode::Auto,
        Mode::Auto,
        Mode::Auto,
        Mode::ForcedOpen,
        Mode::ForcedClosed,
        Mode::MetricsOnly,
        Mode::Disabled,
    ]);
    prop_oneof![
        60 => any::<bool>().prop_map(|background| Op::Acquire { background }),
        30 => (any::<usize>(), end()).prop_map(|(at, end)| Op::End(at, end)),
        30 => (any::<usize>(), end()).prop_map(|(at, end)| Op::EndLate(at, end)),
        10 => any::<usize>().prop_map(Op::FirstByte),
        20 => (0..400_u64).prop_map(Op::Advance),
        2 => (0..900_u64).prop_map(Op::Throttle),
        1 => prop::option::of(0..900_u64).prop_map(Op::Exhaust),
        3 => modes.prop_map(Op::Mode),
        3 => Just(Op::Reset),
        2 => (1..4_u32, any::<bool>()).prop_map(|(probes, by_count)| Op::Reconfigure { probes, by_count }),
    ]
}

fn config(probes: u32, by_count: bool) -> Config {
    let window = match by_count {
        true => Window::Count(20),
        false => Window::from(millis(2_000)),
    };
    Config::standard()
        .window(window)
        .min_calls(5)
        .consecutive(4)
        .slow_threshold(millis(600))
        .abandon_after(millis(1_500))
        .slow_rate(0.6)
        .in_flight_slow(4)
        .open_for(millis(300))
        .max_open_for(millis(2_000))
        .jitter(0.3)
        .seed(42)
        .probes(probes)
        .probe_timeout(millis(1_000))
        .background_grace(millis(100))
        .ramp(millis(500))
}

/// Without what it only counts.
fn decides_by(snapshot: Snapshot) -> Snapshot {
    let mut snapshot = snapshot;
    snapshot.in_flight = 0;
    snapshot.totals = Default::default();
    snapshot
}

fn finish(permit: Permit, end: End) {
    match end {
        End::Told(outcome) => permit.record(outcome),
        End::Drop => drop(permit),
    }
}

/// What was counted, whatever as.
fn counted(snapshot: &Snapshot) -> u64 {
    let it = snapshot.totals;
    it.successes + it.failures + it.throttled + it.ignored + it.cancelled + it.late
}

/// Of two breakers, one hears the results that come late, and the other never does.
fn a_late_result_is_statistics(ops: Vec<Op>) -> TestCaseResult {
    let clock = TestClock::new();
    clock.advance(millis(10_000));
    let made = |name| Breaker::new(name, config(2, false), clock.clock()).unwrap();
    let (hears, deaf) = (made("one"), made("one"));
    // Pairs of permits with the generation in which they were given; and those that are withheld.
    let mut held: Vec<(Permit, Permit, u64)> = Vec::new();
    let mut withheld: Vec<Permit> = Vec::new();
    for op in ops {
        let generation = hears.snapshot().generation;
        let pick = |held: &[(Permit, Permit, u64)], at: usize, late: bool| {
            let of_kind = |it: &&usize| (held[**it].2 != generation) == late;
            let all: Vec<usize> = (0..held.len()).collect();
            let some: Vec<usize> = all.iter().filter(of_kind).copied().collect();
            (!some.is_empty()).then(|| some[at % some.len()])
        };
        match op {
            Op::Acquire { background } => {
                let ask = |it: &Breaker| match background {
                    true => it.try_acquire_background(),
                    false => it.try_acquire(),
                };
                match (ask(&hears), ask(&deaf)) {
                    (Ok(one), Ok(other)) => {
                        // Those of a breaker that is switched off are of no generation.
                        if hears.snapshot().mode != Mode::Disabled {
                            held.push((one, other, hears.snapshot().generation));
                        }
                    }
                    (Err(one), Err(other)) => prop_assert_eq!(one, other),
                    (one, other) => prop_assert!(false, "{:?} {:?}", one, other),
                }
            }
            Op::End(at, end) => {
                if let Some(at) = pick(&held, at, false) {
                    let (one, other, _) = held.swap_remove(at);
                    finish(one, end);
                    finish(other, end);
                }
            }
            Op::EndLate(at, end) => {
                if let Some(at) = pick(&held, at, true) {
                    let (one, other, _) = held.swap_remove(at);
                    let before = hears.snapshot();
                    finish(one, end);
                    let after = hears.snapshot();
                    prop_assert_eq!(counted(&after), counted(&before) + 1);
                    if !end.asks() {
                        let totals = (before.totals, after.totals);
                        let late = totals.1.late - totals.0.late;
                        let cancelled = totals.1.cancelled - totals.0.cancelled;
                        prop_assert_eq!(late + cancelled, 1, "{:?}", end);
                        withheld.push(other);
                    } else {
                        // An open one stays open for longer, or for want of credit: and that is all.
                        let (was, is) = (decides_by(before.clone()), decides_by(after.clone()));
                        let mut as_before = is.clone();
                        as_before.retry_after = was.retry_after;
                        as_before.exhausted = was.exhausted;
                        as_before.last_trip = was.last_trip;
                        prop_assert_eq!(&as_before, &was, "{:?}", end);
                        if was.state == State::Open && was.mode == Mode::Auto {
                            prop_assert!(is.exhausted >= was.exhausted);
                            let forever = |it: &Snapshot| it.retry_after.is_none();
                            prop_assert!(
                                forever(&is) || is.retry_after >= was.retry_after && !forever(&was)
                            );
                        } else {
                            prop_assert_eq!(is, was, "{:?}", end);
                        }
                        finish(other, end);
                    }
                }
            }
            Op::FirstByte(_) if held.is_empty() => {}
            Op::FirstByte(at) => {
                let at = at % held.len();
                held[at].0.first_byte();
                held[at].1.first_byte();
            }
            Op::Advance(ms) => clock.advance(millis(ms)),
            Op::Throttle(ms) => [&hears, &deaf]
                .into_iter()
                .for_each(|it| it.throttle(millis(ms))),
            Op::Exhaust(ms) => [&hears, &deaf]
                .into_iter()
                .for_each(|it| it.exhaust(ms.map(millis))),
            Op::Mode(mode) => [&hears, &deaf].into_iter().for_each(|it| it.set_mode(mode)),
            Op::Reset => [&hears, &deaf].into_iter().for_each(Breaker::reset),
            Op::Reconfigure { probes, by_count } => {
                for it in [&hears, &deaf] {
                    it.reconfigure(config(probes, by_count)).unwrap();
                }
            }
        }
        prop_assert_eq!(
            decides_by(hears.snapshot()),
            decides_by(deaf.snapshot()),
            "after {:?}",
            op
        );
    }
    drop(held);
    prop_assert_eq!(hears.snapshot().in_flight, 0);
    prop_assert_eq!(deaf.snapshot().in_flight as usize, withheld.len());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn b8_a_result_of_another_generation_changes_statistics_alone(
        ops in prop::collection::vec(op(), 1..400),
    ) {
        a_late_result_is_statistics(ops)?;
    }
}
