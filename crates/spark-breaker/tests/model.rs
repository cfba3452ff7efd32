//! The breaker against a slow reference that remembers everything.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "model/reference.rs"]
mod reference;

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use reference::{ABANDON_MS, MAX_OPEN_MS, Model, OPEN_MS, PROBE_TIMEOUT_MS, Rules, SLOW_MS};
use reference::{Ticket, Where};
use spark_breaker::{Breaker, Config, FailKind, Mode, Outcome, Permit, Window};
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
    Ignore,
    Drop,
    Forget,
}

fn ending() -> impl Strategy<Value = Ending> {
    prop_oneof![
        4 => Just(Ending::Success),
        4 => Just(Ending::Failure),
        1 => (0u64..900).prop_map(Ending::Throttled),
        1 => (0u64..900).prop_map(Ending::Asking),
        1 => Just(Ending::Ignore),
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
    )
        .prop_map(|(count, slow, (probes, needed), grace, ramp)| Rules {
            count,
            slow,
            probes,
            needed,
            grace,
            ramp,
        })
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
}

fn end(permit: Permit, ending: Ending) {
    match ending {
        Ending::Success => permit.success(),
        Ending::Failure => permit.failure(FailKind::Other),
        Ending::Throttled(ms) => permit.throttled(Some(Duration::from_millis(ms))),
        Ending::Asking(ms) => permit
            .record(Outcome::failure(FailKind::Other).with_retry_after(Duration::from_millis(ms))),
        Ending::Ignore => permit.ignore(),
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
                prop_assert_eq!(real.is_ok(), expected.is_some(), "{:?} {:?}", model, real);
                if let (Ok(permit), Some(ticket)) = (real, expected) {
                    held.push((permit, ticket));
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
                held[at].1.first_byte.get_or_insert(model.now);
            }
            Op::Advance(ms) => {
                clock.advance(Duration::from_millis(ms));
                model.now += ms;
            }
            Op::Throttle(ms) => {
                breaker.throttle(Duration::from_millis(ms));
                model.throttle(ms);
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
        if let Where::Open { until } = model.at
            && model.mode == Mode::Auto
        {
            let left = Duration::from_millis(until.saturating_sub(model.now));
            prop_assert_eq!(snapshot.retry_after, Some(left));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_few_operations(rules in rules(), ops in prop::collection::vec(op(), 1..300)) {
        equals_the_reference(rules, ops)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 500, failure_persistence: None, ..ProptestConfig::with_cases(4) })]

    #[test]
    fn ten_thousand_operations(rules in rules(), ops in prop::collection::vec(op(), 10_000)) {
        equals_the_reference(rules, ops)?;
    }
}
