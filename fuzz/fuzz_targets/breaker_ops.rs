//! The breaker: no sequence of calls, endings and operators wedges it, or lets it leak a permit.

#![no_main]

use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use spark_breaker::{Breaker, Config, FailKind, Mode, Outcome, Permit, State, Window};
use spark_core::testing::TestClock;

#[derive(Debug, Arbitrary)]
struct Input {
    by_count: bool,
    window: u16,
    buckets: u8,
    min_calls: u8,
    failure_rate: u8,
    consecutive: Option<u8>,
    slow_rate: Option<u8>,
    open_for: u16,
    probes: u8,
    probe_timeout: u16,
    grace: u16,
    ops: Vec<Op>,
}

#[derive(Debug, Arbitrary)]
enum Op {
    Acquire { background: bool },
    FirstByte { which: u8 },
    Succeed { which: u8 },
    Fail { which: u8, retry_after: Option<u32> },
    Throttle { which: u8, retry_after: Option<u32> },
    Ignore { which: u8 },
    Drop { which: u8 },
    Wait { millis: u32 },
    Mode(u8),
    Reset,
    Reconfigure { probes: u8, min_calls: u8 },
    ToldToWait { millis: u32 },
}

fn config(input: &Input) -> Config {
    let window = if input.by_count {
        Window::Count(input.window.into())
    } else {
        let length = Duration::from_millis(u64::from(input.window) * 16);
        Window::Time {
            length,
            buckets: input.buckets,
        }
    };
    let share = |share: u8| f64::from(share) / 255.0;
    Config::standard()
        .window(window)
        .min_calls(input.min_calls.into())
        .failure_rate(share(input.failure_rate))
        .consecutive(input.consecutive.map(u32::from))
        .slow_rate(input.slow_rate.map(share))
        .open_for(Duration::from_millis(input.open_for.into()))
        .probes(input.probes.into())
        .probe_timeout(Duration::from_millis(input.probe_timeout.into()))
        .background_grace(Duration::from_millis(input.grace.into()))
}

fuzz_target!(|input: Input| {
    let clock = TestClock::new();
    let Ok(breaker) = Breaker::new("fuzzed", config(&input), clock.clock()) else {
        return;
    };
    let mut probes = u32::from(input.probes);
    // Each permit with the generation in which it was given.
    let mut held: Vec<(Permit, u64)> = Vec::new();
    let mut ended: u64 = 0;

    for op in &input.ops {
        let mut take = |which: &u8| {
            let permit =
                (!held.is_empty()).then(|| held.swap_remove(usize::from(*which) % held.len()));
            ended += u64::from(permit.is_some());
            permit.map(|(permit, _)| permit)
        };
        match op {
            Op::Acquire { background } => {
                let asked = if *background {
                    breaker.try_acquire_background()
                } else {
                    breaker.try_acquire()
                };
                let snapshot = breaker.snapshot();
                match asked {
                    Ok(permit) => {
                        assert_ne!(snapshot.mode, Mode::ForcedOpen);
                        held.push((permit, snapshot.generation));
                    }
                    Err(rejected) => {
                        assert!(!rejected.retry_after.is_zero());
                        assert_ne!(snapshot.mode, Mode::ForcedClosed);
                        assert_ne!((snapshot.state, snapshot.mode), (State::Closed, Mode::Auto));
                    }
                }
            }
            Op::FirstByte { which } => {
                if !held.is_empty() {
                    let at = usize::from(*which) % held.len();
                    held[at].0.first_byte();
                }
            }
            Op::Succeed { which } => take(which).into_iter().for_each(Permit::success),
            Op::Fail { which, retry_after } => {
                let retry_after = retry_after.map(|millis| Duration::from_millis(millis.into()));
                let outcome = Outcome::failure(FailKind::Transport).with_retry_after(retry_after);
                take(which)
                    .into_iter()
                    .for_each(|permit| permit.record(outcome));
            }
            Op::Throttle { which, retry_after } => {
                let retry_after = retry_after.map(|millis| Duration::from_millis(millis.into()));
                take(which)
                    .into_iter()
                    .for_each(|permit| permit.throttled(retry_after));
            }
            Op::Ignore { which } => take(which).into_iter().for_each(Permit::ignore),
            Op::Drop { which } => drop(take(which)),
            Op::Wait { millis } => clock.advance(Duration::from_millis((*millis).into())),
            Op::Mode(mode) => breaker.set_mode(match mode % 3 {
                0 => Mode::Auto,
                1 => Mode::ForcedOpen,
                _ => Mode::ForcedClosed,
            }),
            Op::Reset => {
                breaker.reset();
                ended = 0;
            }
            Op::Reconfigure {
                probes: new,
                min_calls,
            } => {
                let changed = config(&input)
                    .probes((*new).into())
                    .min_calls((*min_calls).into());
                if breaker.reconfigure(changed).is_ok() {
                    probes = probes.max((*new).into());
                }
            }
            Op::ToldToWait { millis } => breaker.throttle(Duration::from_millis((*millis).into())),
        }

        let snapshot = breaker.snapshot();
        assert_eq!(snapshot.in_flight as usize, held.len());
        let totals = snapshot.totals;
        let counted = totals.successes
            + totals.failures
            + totals.throttled
            + totals.ignored
            + totals.cancelled
            + totals.late;
        assert_eq!(counted, ended, "{totals:?}");
        assert!(snapshot.failures <= snapshot.calls && snapshot.slow <= snapshot.calls);
        if snapshot.state == State::HalfOpen {
            let current = |(permit, generation): &&(Permit, u64)| {
                permit.is_probe() && *generation == snapshot.generation
            };
            assert!(held.iter().filter(current).count() <= probes as usize);
        }
    }

    // Left alone for long enough and handed back to itself, it closes after good probes.
    held.clear();
    breaker.set_mode(Mode::Auto);
    clock.advance(Duration::from_secs(366 * 86_400));
    for _ in 0..=u8::MAX {
        match breaker.try_acquire() {
            Ok(permit) => permit.success(),
            Err(rejected) => clock.advance(rejected.retry_after),
        }
    }
    assert_eq!(breaker.snapshot().state, State::Closed);
});
