//! The breaker: no sequence of calls, endings and operators wedges it, or lets it leak a permit; none
//! but an operator ends what waiting does not help; and its events follow from each other.

#![no_main]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use spark_breaker::{
    Breaker, Config, Event, EventKind, FailKind, IgnoreKind, Mode, Outcome, Permit, RejectReason,
    State, Window,
};
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
    success_needed: Option<u8>,
    probe_timeout: u16,
    grace: u16,
    ramp: u16,
    slow_threshold: u16,
    in_flight_slow: Option<u8>,
    exhausted_for: Option<u32>,
    ops: Vec<Op>,
}

#[derive(Debug, Arbitrary)]
enum Op {
    Acquire {
        background: bool,
    },
    FirstByte {
        which: u8,
    },
    Succeed {
        which: u8,
    },
    Fail {
        which: u8,
        retry_after: Option<u32>,
    },
    Throttle {
        which: u8,
        retry_after: Option<u32>,
    },
    Exhaust {
        which: u8,
        retry_after: Option<u32>,
    },
    Ignore {
        which: u8,
        local: bool,
    },
    Drop {
        which: u8,
    },
    Wait {
        millis: u32,
    },
    Mode(u8),
    Reset,
    Reconfigure {
        probes: u8,
        min_calls: u8,
        in_flight_slow: Option<u8>,
    },
    ToldToWait {
        millis: u32,
    },
    ToldThatItIsOver {
        millis: Option<u32>,
    },
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
    let millis = |millis: u16| Duration::from_millis(millis.into());
    let share = |share: u8| f64::from(share) / 255.0;
    Config::standard()
        .window(window)
        .min_calls(input.min_calls.into())
        .failure_rate(share(input.failure_rate))
        .consecutive(input.consecutive.map(u32::from))
        .slow_rate(input.slow_rate.map(share))
        .open_for(millis(input.open_for))
        .probes(input.probes.into())
        .success_needed(input.success_needed.map(u32::from))
        .probe_timeout(millis(input.probe_timeout))
        .background_grace(millis(input.grace))
        .ramp(millis(input.ramp))
        .slow_threshold(millis(input.slow_threshold))
        .in_flight_slow(input.in_flight_slow.map(u32::from))
        .exhausted_for(after(input.exhausted_for))
}

fn after(millis: Option<u32>) -> Option<Duration> {
    millis.map(|millis| Duration::from_millis(millis.into()))
}

/// Each transition begins where the one before ended, and none is told of twice.
fn follow(event: &Event<'_>, last: &mut (State, u64)) {
    if let EventKind::Transition { from, to, .. } = event.kind {
        let (at, generation) = *last;
        assert_eq!(from, at);
        // An open one that hears that waiting does not help stays in its generation.
        let worse = (from, to) == (State::Open, State::Open) && event.generation == generation;
        assert!(event.generation > generation || worse);
        *last = (to, event.generation);
    }
}

/// A permit, the generation in which it was given, and whether it counts.
struct Held {
    permit: Permit,
    generation: u64,
    counts: bool,
}

fuzz_target!(|input: Input| {
    let clock = TestClock::new();
    let last = Arc::new(Mutex::new((State::Closed, 0)));
    let listener = {
        let last = Arc::clone(&last);
        Arc::new(move |event: &Event<'_>| follow(event, &mut last.lock().unwrap()))
    };
    let made = Breaker::with_listener("fuzzed", config(&input), clock.clock(), listener);
    let Ok(breaker) = made else {
        return;
    };
    let mut probes = u32::from(input.probes);
    let mut held: Vec<Held> = Vec::new();
    let mut ended: u64 = 0;
    // Until an operator acts.
    let mut over = false;

    for op in &input.ops {
        let mut take = |which: &u8| {
            let permit =
                (!held.is_empty()).then(|| held.swap_remove(usize::from(*which) % held.len()));
            ended += u64::from(permit.as_ref().is_some_and(|held| held.counts));
            permit.map(|held| held.permit)
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
                        assert!(!over);
                        held.push(Held {
                            permit,
                            generation: snapshot.generation,
                            counts: snapshot.mode != Mode::Disabled,
                        });
                    }
                    Err(rejected) => {
                        assert!(!rejected.retry_after.is_zero());
                        assert_eq!(
                            rejected.reason == RejectReason::ForcedOpen,
                            snapshot.mode == Mode::ForcedOpen
                        );
                        assert!(matches!(snapshot.mode, Mode::Auto | Mode::ForcedOpen));
                        let ramping = rejected.reason == RejectReason::Ramping;
                        assert_eq!(snapshot.state == State::Closed, ramping);
                        assert_eq!(
                            rejected.reason == RejectReason::Exhausted,
                            snapshot.exhausted && snapshot.retry_after != Some(Duration::ZERO)
                        );
                    }
                }
            }
            Op::FirstByte { which } => {
                if !held.is_empty() {
                    let at = usize::from(*which) % held.len();
                    held[at].permit.first_byte();
                }
            }
            Op::Succeed { which } => take(which).into_iter().for_each(Permit::success),
            Op::Fail { which, retry_after } => {
                let outcome = Outcome::failure(FailKind::Transport);
                let outcome = outcome.with_retry_after(after(*retry_after));
                take(which)
                    .into_iter()
                    .for_each(|permit| permit.record(outcome));
            }
            Op::Throttle { which, retry_after } => {
                take(which)
                    .into_iter()
                    .for_each(|permit| permit.throttled(after(*retry_after)));
            }
            Op::Exhaust { which, retry_after } => {
                take(which)
                    .into_iter()
                    .for_each(|permit| permit.exhausted(after(*retry_after)));
            }
            Op::Ignore { which, local } => {
                let why = if *local {
                    IgnoreKind::Local
                } else {
                    IgnoreKind::Client
                };
                take(which)
                    .into_iter()
                    .for_each(|permit| permit.ignore(why));
            }
            Op::Drop { which } => drop(take(which)),
            Op::Wait { millis } => clock.advance(Duration::from_millis((*millis).into())),
            Op::Mode(mode) => {
                let mode = match mode % 5 {
                    0 => Mode::Auto,
                    1 => Mode::ForcedOpen,
                    2 => Mode::ForcedClosed,
                    3 => Mode::MetricsOnly,
                    _ => Mode::Disabled,
                };
                // Automatic already, that is no act.
                over &= mode == Mode::Auto;
                breaker.set_mode(mode);
            }
            Op::Reset => {
                over = false;
                breaker.reset();
                ended = 0;
            }
            Op::Reconfigure {
                probes: new,
                min_calls,
                in_flight_slow,
            } => {
                let changed = config(&input)
                    .probes((*new).into())
                    .min_calls((*min_calls).into())
                    .in_flight_slow(in_flight_slow.map(u32::from));
                if breaker.reconfigure(changed).is_ok() {
                    probes = probes.max((*new).into());
                }
            }
            Op::ToldToWait { millis } => breaker.throttle(Duration::from_millis((*millis).into())),
            Op::ToldThatItIsOver { millis } => breaker.exhaust(after(*millis)),
        }

        let snapshot = breaker.snapshot();
        let counts = held.iter().filter(|held| held.counts).count();
        assert_eq!(snapshot.in_flight as usize, counts);
        over |= snapshot.exhausted && snapshot.retry_after.is_none();
        assert!(!over || snapshot.exhausted);
        assert_eq!(last.lock().unwrap().0, snapshot.state);
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
            let current =
                |held: &&Held| held.permit.is_probe() && held.generation == snapshot.generation;
            assert!(held.iter().filter(current).count() <= probes as usize);
        }
    }

    // Left alone for long enough and handed back to itself, it closes after good probes.
    held.clear();
    breaker.set_mode(Mode::ForcedOpen);
    breaker.set_mode(Mode::Auto);
    clock.advance(Duration::from_secs(366 * 86_400));
    for _ in 0..2 * u16::from(u8::MAX) {
        match breaker.try_acquire() {
            Ok(permit) => permit.success(),
            Err(rejected) => clock.advance(rejected.retry_after),
        }
    }
    assert_eq!(breaker.snapshot().state, State::Closed);
});
