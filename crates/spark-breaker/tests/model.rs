//! The breaker against a slow reference that remembers everything.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "model/reference.rs"]
mod reference;

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use reference::{ABANDON_MS, MAX_OPEN_MS, Model, OPEN_MS, PROBE_TIMEOUT_MS, Rules, SLOW_MS};
use reference::{Ticket, Where};
use spark_breaker::{Breaker, Config, FailKind, IgnoreKind, Mode, Outcome, Permit, Window};
use spark_core::testing::TestClock;

#[derive(Debug, Clone, Copy)]
enum Op {
    Acquire {
        background: bool,
    },
    End(usize, Ending),
    FirstByte(usize),
    /// The callee asks to be left alone, other than by the answer to a call.
    Throttle(u64),
    /// It says that waiting does not help, likewise.
    Exhaust(Option<u64>),
    Advance(u64),
    Mode(Mode),
    Reconfigure(Rules),
    Reset,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Ending {
    Success,
    Failure,
    /// A failure that asks to be left alone for so long.
    Asking(u64),
    Throttled(u64),
    Exhausted(Option<u64>),
    /// Ignored: the callee answered that the request was wrong.
    WrongRequest,
    /// Ignored: the callee was not asked.
    Local,
    Drop,
    Forget,
}

fn exhausted() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![2 => (0u64..2_000).prop_map(Some), 1 => Just(None)]
}

fn ending() -> impl Strategy<Value = Ending> {
    prop_oneof![
        4 => Just(Ending::Success),
        4 => Just(Ending::Failure),
        1 => (0u64..900).prop_map(Ending::Throttled),
        1 => (0u64..900).prop_map(Ending::Asking),
        1 => exhausted().prop_map(Ending::Exhausted),
        1 => Just(Ending::WrongRequest),
        1 => Just(Ending::Local),
        1 => Just(Ending::Drop),
        1 => Just(Ending::Forget),
    ]
}

fn rules() -> impl Strategy<Value = Rules> {
    (
        prop_oneof![Just(None), (4u32..40).prop_map(Some)],
        any::<bool>(),
        (1u32..4, 1u32..4),
        prop_oneof![Just(0u64), Just(100)],
        prop_oneof![Just(0u64), Just(1_500)],
        prop_oneof![Just(None), Just(Some(700u64))],
        prop_oneof![Just(None), (1u32..5).prop_map(Some)],
    )
        .prop_map(
            |(count, slow, (probes, needed), grace, ramp, exhausted, in_flight)| Rules {
                count,
                slow,
                probes,
                needed,
                grace,
                ramp,
                exhausted,
                in_flight,
            },
        )
}

fn op() -> impl Strategy<Value = Op> {
    let modes = prop_oneof![
        4 => Just(Mode::Auto),
        1 => Just(Mode::ForcedOpen),
        1 => Just(Mode::ForcedClosed),
        1 => Just(Mode::MetricsOnly),
        1 => Just(Mode::Disabled),
    ];
    prop_oneof![
        90 => prop::bool::weighted(0.2).prop_map(|background| Op::Acquire { background }),
        80 => (any::<usize>(), ending()).prop_map(|(at, ending)| Op::End(at, ending)),
        10 => any::<usize>().prop_map(Op::FirstByte),
        40 => (0u64..400).prop_map(Op::Advance),
        3 => (0u64..900).prop_map(Op::Throttle),
        1 => exhausted().prop_map(Op::Exhaust),
        4 => modes.prop_map(Op::Mode),
        4 => rules().prop_map(Op::Reconfigure),
        2 => Just(Op::Reset),
    ]
}

fn config(rules: Rules) -> Config {
    let window = match rules.count {
        Some(calls) => Window::Count(calls),
        None => Window::Time {
            length: Duration::from_millis(reference::WINDOW_MS),
            buckets: reference::BUCKETS as u8,
        },
    };
    Config::standard()
        .window(window)
        .min_calls(reference::MIN_CALLS as u32)
        .failure_rate(0.5)
        .consecutive(reference::CONSECUTIVE as u32)
        .slow_threshold(Duration::from_millis(SLOW_MS))
        .slow_rate(rules.slow.then_some(0.5))
        .open_for(Duration::from_millis(OPEN_MS))
        .max_open_for(Duration::from_millis(MAX_OPEN_MS))
        .jitter(0.0)
        .seed(0)
        .probes(rules.probes)
        .success_needed(rules.needed)
        .probe_timeout(Duration::from_millis(PROBE_TIMEOUT_MS))
        .abandon_after(Duration::from_millis(ABANDON_MS))
        .background_grace(Duration::from_millis(rules.grace))
        .ramp(Duration::from_millis(rules.ramp))
        .exhausted_for(rules.exhausted.map(Duration::from_millis))
        .in_flight_slow(rules.in_flight)
}

fn end(permit: Permit, ending: Ending) {
    match ending {
        Ending::Success => permit.success(),
        Ending::Failure => permit.failure(FailKind::Other),
        Ending::Throttled(ms) => permit.throttled(Some(Duration::from_millis(ms))),
        Ending::Asking(ms) => permit
            .record(Outcome::failure(FailKind::Other).with_retry_after(Duration::from_millis(ms))),
        Ending::Exhausted(ms) => permit.exhausted(ms.map(Duration::from_millis)),
        Ending::WrongRequest => permit.ignore(IgnoreKind::Client),
        Ending::Local => permit.ignore(IgnoreKind::Local),
        #[expect(
            clippy::mem_forget,
            reason = "a forgotten permit is one of the hazards"
        )]
        Ending::Forget => std::mem::forget(permit),
        Ending::Drop => drop(permit),
    }
}

fn equals_the_reference(rules: Rules, ops: Vec<Op>) -> TestCaseResult {
    let clock = TestClock::new();
    clock.advance(Duration::from_secs(5));
    let breaker = Breaker::new("model", config(rules), clock.clock()).unwrap();
    let mut model = Model::new(rules, 5_000);
    let mut held: Vec<(Permit, Ticket)> = Vec::new();
    let mut forgotten = 0;
    for op in ops {
        match op {
            Op::Acquire { background } => {
                let real = match background {
                    true => breaker.try_acquire_background(),
                    false => breaker.try_acquire(),
                };
                let expected = model.acquire(background);
                match (real, expected) {
                    (Ok(permit), Ok(ticket)) => held.push((permit, ticket)),
                    (Err(real), Err(expected)) => prop_assert_eq!(real.reason, expected),
                    other => prop_assert!(false, "{:?} {:?}", model, other),
                }
            }
            Op::End(..) | Op::FirstByte(_) if held.is_empty() => continue,
            Op::End(at, ending) => {
                let (permit, ticket) = held.swap_remove(at % held.len());
                end(permit, ending);
                match ending {
                    Ending::Forget => forgotten += u32::from(!ticket.uncounted),
                    _ => model.end(ticket, ending),
                }
            }
            Op::FirstByte(at) => {
                let at = at % held.len();
                held[at].0.first_byte();
                model.first_byte(&mut held[at].1);
            }
            Op::Advance(ms) => {
                clock.advance(Duration::from_millis(ms));
                model.now += ms;
            }
            Op::Throttle(ms) => {
                breaker.throttle(Duration::from_millis(ms));
                model.throttle(ms);
            }
            Op::Exhaust(ms) => {
                breaker.exhaust(ms.map(Duration::from_millis));
                model.exhaust(ms);
            }
            Op::Mode(mode) => {
                breaker.set_mode(mode);
                model.set_mode(mode);
            }
            Op::Reconfigure(rules) => {
                breaker.reconfigure(config(rules)).unwrap();
                model.reconfigure(rules);
            }
            Op::Reset => {
                breaker.reset();
                model.reset();
            }
        }
        let snapshot = breaker.snapshot();
        prop_assert_eq!(snapshot.state, model.state(), "after {:?}", op);
        prop_assert_eq!(snapshot.mode, model.mode, "after {:?}", op);
        prop_assert_eq!(snapshot.generation, model.generation, "after {:?}", op);
        let counts = (
            snapshot.calls as usize,
            snapshot.failures as usize,
            snapshot.slow as usize,
        );
        prop_assert_eq!(counts, model.counts(), "after {:?}", op);
        let counted = held.iter().filter(|(_, ticket)| !ticket.uncounted).count();
        prop_assert_eq!(snapshot.in_flight, counted as u32 + forgotten);
        prop_assert_eq!(snapshot.in_flight_slow, model.overdue(), "after {:?}", op);
        if let Where::Open { until, exhausted } = model.at
            && model.mode == Mode::Auto
        {
            let left = Duration::from_millis(until.saturating_sub(model.now));
            let left = (until != reference::NEVER).then_some(left);
            prop_assert_eq!(
                (snapshot.retry_after, snapshot.exhausted),
                (left, exhausted)
            );
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn b3_a_few_operations_equal_the_reference(rules in rules(), ops in prop::collection::vec(op(), 1..300)) {
        equals_the_reference(rules, ops)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 500, failure_persistence: None, ..ProptestConfig::with_cases(4) })]

    #[test]
    fn b3_ten_thousand_operations_equal_the_reference(rules in rules(), ops in prop::collection::vec(op(), 10_000)) {
        equals_the_reference(rules, ops)?;
    }
}
