//! Calls that hang, recovery in steps, modes, and rules that change: under a clock that the tests move.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::Duration;

use spark_breaker::{
    Breaker, CallError, Config, FailKind, Mode, Permit, Reason, RejectReason, State, Window,
};
use spark_core::testing::TestClock;

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// No jitter, so that times are exact; no trip by a run of failures unless a test wants it.
fn config() -> Config {
    Config::standard().jitter(0.0).consecutive(None)
}

fn breaker(config: Config) -> (Breaker, TestClock) {
    let clock = TestClock::new();
    clock.advance(secs(1_000));
    let breaker = Breaker::new("provider", config, clock.clock()).unwrap();
    (breaker, clock)
}

fn acquire(breaker: &Breaker, times: usize) -> Vec<Permit> {
    (0..times).map(|_| breaker.try_acquire().unwrap()).collect()
}

fn fail(breaker: &Breaker, times: usize) {
    for permit in acquire(breaker, times) {
        permit.failure(FailKind::Status(500));
    }
}

fn succeed(breaker: &Breaker, times: usize) {
    for _ in 0..times {
        breaker.try_acquire().unwrap().success();
    }
}

fn state(breaker: &Breaker) -> State {
    breaker.snapshot().state
}

/// Open, its time over, and closed again by its probes.
fn recovered(config: Config) -> (Breaker, TestClock) {
    let (breaker, clock) = breaker(config);
    fail(&breaker, 10);
    clock.advance(secs(10));
    succeed(&breaker, 2);
    assert_eq!(state(&breaker), State::Closed);
    (breaker, clock)
}

#[test]
fn calls_that_never_end_open_it() {
    let (breaker, clock) = breaker(config().in_flight_slow(200));
    let hung = acquire(&breaker, 199);
    clock.advance(secs(60));
    let last = breaker.try_acquire().unwrap();
    assert_eq!(breaker.snapshot().in_flight_slow, 199);
    clock.advance(secs(6));
    let rejected = breaker.try_acquire().unwrap_err();
    assert_eq!(rejected.reason, RejectReason::Open);
    let trip = breaker.snapshot().last_trip.unwrap();
    assert_eq!(trip.reason, Reason::InFlightSlow { calls: 200 });
    assert_eq!(
        trip.reason.to_string(),
        "200 calls wait for longer than is slow"
    );
    assert_eq!(breaker.snapshot().in_flight, 200);

    // They hang on, and do not open it again once its probes have closed it.
    clock.advance(secs(10));
    succeed(&breaker, 2);
    clock.advance(secs(100));
    succeed(&breaker, 1);
    assert_eq!(state(&breaker), State::Closed);
    assert_eq!(breaker.snapshot().in_flight_slow, 0);
    drop((hung, last));
    assert_eq!(breaker.snapshot().in_flight, 0);
}

#[test]
fn calls_that_are_answered_do_not_however_long_they_last() {
    let (breaker, clock) = breaker(config().in_flight_slow(10));
    let mut streams = acquire(&breaker, 50);
    for stream in &mut streams {
        stream.first_byte();
    }
    clock.advance(secs(600));
    for _ in 0..100 {
        clock.advance(secs(1));
        succeed(&breaker, 1);
    }
    assert_eq!(breaker.snapshot().in_flight_slow, 0);
    drop(streams);
    assert_eq!(state(&breaker), State::Closed);
}

#[test]
fn calls_that_hang_open_it_within_a_sixth_of_the_threshold() {
    let (breaker, clock) = breaker(config().in_flight_slow(5).slow_threshold(secs(12)));
    let mut hung = Vec::new();
    for second in 0..12 {
        hung.extend(acquire(&breaker, usize::from(second == 3) * 5));
        clock.advance(secs(1));
        succeed(&breaker, 1);
    }
    clock.advance(secs(3));
    succeed(&breaker, 1);
    clock.advance(secs(2));
    assert!(breaker.try_acquire().is_err());
}

/// Ticks of the shortest thresholds are milliseconds: 2³¹ of them are 25 days.
#[test]
fn calls_that_hang_open_it_however_long_nothing_has_happened() {
    let month = secs(30 * 24 * 3_600);
    for (threshold, idle) in [(12, month), (12, 200 * month), (100, 8 * month)] {
        let threshold = Duration::from_millis(threshold);
        let rules = config().slow_threshold(threshold).in_flight_slow(10);
        let (breaker, clock) = breaker(rules);
        let leaked = acquire(&breaker, 5);
        clock.advance(idle);
        succeed(&breaker, 1);
        let hung = acquire(&breaker, 4);
        for _ in 0..20 {
            clock.advance(threshold / 4);
            succeed(&breaker, 1);
        }
        assert_eq!(breaker.snapshot().in_flight_slow, 9, "{threshold:?}");
        drop(leaked);
        assert_eq!(breaker.snapshot().in_flight_slow, 4, "{threshold:?}");
        let more = acquire(&breaker, 6);
        clock.advance(2 * threshold);
        assert!(breaker.try_acquire().is_err(), "{threshold:?}");
        drop((hung, more));
    }
}

/// Whoever changes how many are too many has those in mind that hang now.
#[test]
fn calls_that_hang_open_it_again_after_it_has_closed_and_where_the_rule_is_new() {
    let (breaker, clock) = breaker(config().probes(1));
    let rules = config()
        .probes(1)
        .in_flight_slow(3)
        .slow_threshold(secs(12));
    breaker.reconfigure(rules).unwrap();
    for _ in 0..2 {
        let _hang = acquire(&breaker, 3);
        for _ in 0..20 {
            clock.advance(secs(1));
            drop(breaker.try_acquire());
        }
        assert_eq!(state(&breaker), State::Open);
        clock.advance(secs(100));
        breaker.try_acquire().unwrap().success();
        assert_eq!(state(&breaker), State::Closed);
    }
}

#[test]
fn another_limit_does_not_forget_the_calls_that_hang() {
    let rules = || config().slow_threshold(secs(1));
    let (breaker, clock) = breaker(rules().in_flight_slow(300));
    let hung = acquire(&breaker, 200);
    clock.advance(secs(10));
    breaker.reconfigure(rules().in_flight_slow(250)).unwrap();
    succeed(&breaker, 1);
    assert_eq!(breaker.snapshot().in_flight_slow, 200);
    breaker.reconfigure(rules().in_flight_slow(100)).unwrap();
    assert!(breaker.try_acquire().is_err());

    // Off and on, or another threshold: they are not asked about any more.
    breaker.reset();
    let more = acquire(&breaker, 50);
    breaker.reconfigure(rules()).unwrap();
    breaker.reconfigure(rules().in_flight_slow(10)).unwrap();
    clock.advance(secs(10));
    succeed(&breaker, 1);
    assert_eq!(breaker.snapshot().in_flight_slow, 0);
    drop((hung, more));
    assert_eq!(breaker.snapshot().in_flight_slow, 0);
}

#[test]
fn a_closed_breaker_lets_in_a_growing_share() {
    let (breaker, clock) = recovered(config().ramp(secs(10)));
    let mut admitted = Vec::new();
    for _ in 0..10 {
        let of_a_hundred = (0..100).filter(|_| match breaker.try_acquire() {
            Ok(permit) => {
                permit.success();
                true
            }
            Err(rejected) => {
                assert_eq!(rejected.reason, RejectReason::Ramping);
                assert_eq!(rejected.state, State::Closed);
                assert!(rejected.retry_after <= secs(1));
                false
            }
        });
        admitted.push(of_a_hundred.count());
        clock.advance(secs(1));
    }
    for (second, admitted) in admitted.iter().enumerate() {
        let expected = 10 + 9 * second;
        assert!(admitted.abs_diff(expected) <= 3, "{second}: {admitted}");
    }
    succeed(&breaker, 1_000);
}

#[test]
fn a_failing_ramp_opens_for_longer() {
    let (breaker, clock) = recovered(config().ramp(secs(10)));
    clock.advance(secs(9));
    while state(&breaker) == State::Closed {
        if let Ok(permit) = breaker.try_acquire() {
            permit.failure(FailKind::Other);
        }
    }
    assert_eq!(breaker.snapshot().retry_after, Some(secs(20)));
}

#[test]
fn an_operator_closes_without_a_ramp() {
    let (breaker, _clock) = breaker(config().ramp(secs(10)));
    fail(&breaker, 10);
    breaker.reset();
    succeed(&breaker, 100);
}

#[test]
fn it_may_need_more_successes_than_probes_at_once_or_fewer() {
    let (breaker, clock) = breaker(config().probes(2).success_needed(5));
    fail(&breaker, 10);
    clock.advance(secs(10));
    for _ in 0..2 {
        let probes = acquire(&breaker, 2);
        assert!(breaker.try_acquire().is_err());
        probes.into_iter().for_each(Permit::success);
        assert_eq!(state(&breaker), State::HalfOpen);
    }
    let last = breaker.try_acquire().unwrap();
    assert!(breaker.try_acquire().is_err(), "no more than are needed");
    last.success();
    assert_eq!(state(&breaker), State::Closed);

    let (breaker, clock) = self::breaker(config().probes(3).success_needed(1));
    fail(&breaker, 10);
    clock.advance(secs(10));
    let mut probes = acquire(&breaker, 3).into_iter();
    probes.next().unwrap().success();
    assert_eq!(state(&breaker), State::Closed);
    probes.for_each(|late| late.failure(FailKind::Other));
    assert_eq!(breaker.snapshot().totals.late, 2);
}

#[test]
fn watching_says_what_it_would_do_and_refuses_nothing() {
    let (breaker, clock) = breaker(config());
    breaker.set_mode(Mode::MetricsOnly);
    fail(&breaker, 9);
    assert_eq!(breaker.snapshot().would_trip, None);
    fail(&breaker, 20);
    let snapshot = breaker.snapshot();
    assert_eq!((snapshot.state, snapshot.last_trip), (State::Closed, None));
    assert_eq!(snapshot.failures, 29);
    let would = snapshot.would_trip.unwrap();
    assert!(matches!(
        would.reason,
        Reason::FailureRate { calls: 10, .. }
    ));
    // Once for each time that it would have been open.
    clock.advance(secs(9));
    fail(&breaker, 1);
    assert_eq!(breaker.snapshot().would_trip.unwrap().ago, secs(9));
    clock.advance(secs(1));
    fail(&breaker, 1);
    assert_eq!(breaker.snapshot().would_trip.unwrap().ago, secs(0));
    breaker.try_acquire().unwrap().throttled(Some(secs(60)));
    assert_eq!(state(&breaker), State::Closed);

    breaker.set_mode(Mode::Auto);
    fail(&breaker, 1);
    assert_eq!(state(&breaker), State::Open, "what it has seen counts");
}

#[test]
fn watching_anew_it_says_again_that_it_would_open() {
    let (breaker, _clock) = breaker(config());
    breaker.set_mode(Mode::MetricsOnly);
    breaker.exhaust(None);
    fail(&breaker, 10);
    let would = |breaker: &Breaker| breaker.snapshot().would_trip.map(|it| it.reason);
    let exhausted = Reason::Exhausted { retry_after: None };
    assert_eq!(would(&breaker), Some(exhausted), "until an operator acts");
    breaker.set_mode(Mode::ForcedClosed);
    breaker.set_mode(Mode::MetricsOnly);
    fail(&breaker, 10);
    assert!(matches!(
        would(&breaker),
        Some(Reason::FailureRate { calls: 10, .. })
    ));
}

/// Told with a time, it opens for that time at once: so would it have.
#[test]
fn watching_says_that_it_would_open_when_it_is_throttled() {
    let (breaker, clock) = breaker(config());
    let would = |breaker: &Breaker| breaker.snapshot().would_trip.map(|it| (it.reason, it.ago));
    let throttled = |seconds| Reason::Throttled {
        retry_after: secs(seconds),
    };
    breaker.set_mode(Mode::MetricsOnly);
    breaker.try_acquire().unwrap().throttled(None);
    assert_eq!(would(&breaker), None);
    breaker.try_acquire().unwrap().throttled(Some(secs(7)));
    assert_eq!(would(&breaker), Some((throttled(7), secs(0))));
    // Once for the time that it would have been open, which a later word lengthens.
    clock.advance(secs(6));
    breaker.throttle(secs(60));
    clock.advance(secs(59));
    breaker.throttle(secs(1));
    assert_eq!(would(&breaker), Some((throttled(7), secs(65))));
    clock.advance(secs(1));
    breaker.throttle(secs(5));
    assert_eq!(would(&breaker), Some((throttled(5), secs(0))));
    assert_eq!(state(&breaker), State::Closed);

    for mode in [Mode::ForcedClosed, Mode::Disabled] {
        breaker.reset();
        breaker.set_mode(mode);
        breaker.throttle(secs(5));
        breaker.try_acquire().unwrap().throttled(Some(secs(7)));
        assert_eq!(would(&breaker), None, "{mode:?}");
    }
}

#[test]
fn switched_off_it_neither_counts_nor_refuses() {
    let (breaker, clock) = breaker(config().in_flight_slow(1));
    fail(&breaker, 10);
    breaker.set_mode(Mode::Disabled);
    let before = breaker.snapshot();
    let held = acquire(&breaker, 3);
    fail(&breaker, 100);
    clock.advance(secs(60));
    drop(held);
    breaker.throttle(secs(60));
    assert!(breaker.run(|| Ok::<_, ()>(1)).is_ok());
    let after = breaker.snapshot();
    assert_eq!((after.state, after.mode), (State::Closed, Mode::Disabled));
    assert_eq!((after.calls, after.in_flight), (0, 0));
    assert_eq!(after.totals, before.totals);

    let held = acquire(&breaker, 1);
    breaker.set_mode(Mode::Auto);
    for permit in held {
        permit.failure(FailKind::Other);
    }
    assert_eq!(breaker.snapshot().totals, before.totals);
    fail(&breaker, 10);
    assert_eq!(state(&breaker), State::Open);
}

#[test]
fn simulations_see_the_same_times() {
    let waits = |seed: Option<u64>| {
        let (breaker, clock) = breaker(config().jitter(0.5).seed(seed).probes(1));
        fail(&breaker, 10);
        let mut waits = Vec::new();
        for _ in 0..4 {
            let wait = breaker.snapshot().retry_after.unwrap();
            waits.push(wait);
            clock.advance(wait);
            fail(&breaker, 1);
        }
        waits
    };
    assert_eq!(waits(Some(7)), waits(Some(7)));
    assert_ne!(waits(Some(7)), waits(Some(8)));
    assert_ne!(waits(None), waits(None));
}

#[test]
fn windows_change_while_it_runs() {
    let (breaker, clock) = breaker(config());
    let windows = [
        Window::Count(10),
        Window::Count(100_000),
        Window::from(secs(5)),
        Window::Time {
            length: secs(60),
            buckets: 60,
        },
        Window::Count(11),
        Window::from(secs(30)),
    ];
    let mut counted = 0;
    for window in windows {
        let held = breaker.try_acquire().unwrap();
        breaker.reconfigure(config().window(window)).unwrap();
        assert_eq!(breaker.snapshot().calls, 0, "it starts empty: {window:?}");
        held.success();
        fail(&breaker, 4);
        clock.advance(Duration::from_millis(1));
        let snapshot = breaker.snapshot();
        assert_eq!((snapshot.calls, snapshot.failures), (5, 4), "{window:?}");
        counted += 5;
        let totals = snapshot.totals;
        assert_eq!(totals.successes + totals.failures, counted);
        assert_eq!((totals.late, snapshot.in_flight), (0, 0));
    }
    fail(&breaker, 5);
    assert_eq!(state(&breaker), State::Open);
}

#[test]
fn a_hundred_thousand_calls_are_remembered_exactly() {
    let (breaker, _clock) = breaker(config().window(Window::Count(100_000)).failure_rate(0.5));
    for call in 0..250_000 {
        let permit = breaker.try_acquire().unwrap();
        match call % 10 {
            0 => permit.failure(FailKind::Other),
            _ => permit.success(),
        }
    }
    let snapshot = breaker.snapshot();
    assert_eq!((snapshot.calls, snapshot.failures), (100_000, 10_000));
    assert_eq!(snapshot.totals.successes, 225_000);
}

/// Fewer calls come than an episode of probes lasts: what was good stays good.
#[test]
fn good_calls_close_it_however_rarely_they_come() {
    let (breaker, clock) = breaker(config().probes(3));
    fail(&breaker, 10);
    for good in 0..3 {
        clock.advance(secs(31));
        assert_ne!(state(&breaker), State::Closed, "after {good}");
        succeed(&breaker, 1);
    }
    assert_eq!(state(&breaker), State::Closed);
}

/// Neither snapshots nor anything else that is done one at a time makes a due probe wait for the next
/// second.
#[test]
fn somebody_who_looks_on_does_not_take_the_probe_away() {
    let (breaker, clock) = breaker(config().probes(1));
    let ends = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ends.load(std::sync::atomic::Ordering::Relaxed) {
                breaker.snapshot();
            }
        });
        for _ in 0..500 {
            breaker.throttle(secs(1));
            std::thread::yield_now();
            clock.advance(secs(1));
            let probe = breaker.try_acquire().map(Permit::success);
            if probe.is_err() {
                ends.store(true, std::sync::atomic::Ordering::Relaxed);
            }
            assert_eq!(probe, Ok(()));
        }
        ends.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn a_call_that_blocks_counts_as_one_that_does_not() {
    let (breaker, _clock) = breaker(config().consecutive(1));
    assert_eq!(breaker.run(|| Ok::<_, String>(1)), Ok(1));
    let failed = breaker.run(|| Err::<(), _>(String::from("no")));
    assert_eq!(failed, Err(CallError::Failed(String::from("no"))));
    let refused = breaker.run(|| Ok::<_, String>(1));
    assert!(matches!(refused, Err(CallError::Rejected(_))));
    breaker.reset();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = breaker.run(|| -> Result<(), ()> { panic!("in the call") });
    }));
    assert!(panicked.is_err());
    assert_eq!(state(&breaker), State::Open);
}

#[test]
fn threads_lose_no_result() {
    for window in [Window::Count(100_000), Window::from(secs(60))] {
        let (breaker, _clock) = breaker(config().window(window).failure_rate(1.0));
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let breaker = &breaker;
                scope.spawn(move || {
                    for call in 0..10_000 {
                        let permit = breaker.try_acquire().unwrap();
                        match (call + thread) % 4 {
                            0 => permit.failure(FailKind::Other),
                            _ => permit.success(),
                        }
                    }
                });
            }
        });
        let snapshot = breaker.snapshot();
        assert_eq!((snapshot.calls, snapshot.failures), (40_000, 10_000));
        assert_eq!(snapshot.totals.successes, 30_000);
        assert_eq!(snapshot.in_flight, 0);
    }
}

/// Not even for a moment, and not after a reset in between.
#[test]
fn nobody_sees_more_successes_than_there_were() {
    let rules = config().window(Window::Count(100)).min_calls(100);
    let (breaker, _clock) = breaker(rules);
    std::thread::scope(|scope| {
        let failing = scope.spawn(|| {
            for _ in 0..100_000 {
                if let Ok(permit) = breaker.try_acquire() {
                    permit.failure(FailKind::Other);
                }
            }
        });
        while !failing.is_finished() {
            assert_eq!(breaker.snapshot().totals.successes, 0);
            breaker.reset();
        }
    });
    breaker.reset();
    succeed(&breaker, 3);
    fail(&breaker, 4);
    let held = acquire(&breaker, 2);
    let snapshot = breaker.snapshot();
    assert_eq!(
        (snapshot.totals.successes, snapshot.totals.failures),
        (3, 4)
    );
    assert_eq!(snapshot.in_flight, 2);
    drop(held);
    assert_eq!(breaker.snapshot().in_flight, 0);
}

/// More steps than words have room to tell apart.
#[test]
fn nor_after_tens_of_thousands_of_steps() {
    let (breaker, _clock) = breaker(config().window(Window::Count(100)).min_calls(100));
    for after_reset in [false, true] {
        for turn in 1..=70 {
            for _ in 0..500 {
                breaker.set_mode(Mode::ForcedClosed);
                breaker.set_mode(Mode::Auto);
            }
            fail(&breaker, 2);
            succeed(&breaker, 1);
            let snapshot = breaker.snapshot();
            let counted = (snapshot.totals.successes, snapshot.totals.failures);
            assert_eq!(counted, (turn, 2 * turn), "{after_reset}");
            assert_eq!(snapshot.in_flight, 0);
        }
        breaker.reset();
    }
}

#[tokio::test]
async fn a_call_that_was_let_go_counts_by_how_long_it_waited() {
    for (waited, failures) in [(secs(1), 0), (secs(5), 1)] {
        let (breaker, clock) = breaker(config());
        {
            let call = breaker.call(std::future::pending::<Result<(), ()>>);
            let mut call = std::pin::pin!(call);
            let poll = std::future::poll_fn(|cx| {
                std::task::Poll::Ready(call.as_mut().poll(cx).is_pending())
            });
            assert!(poll.await);
            clock.advance(waited);
        }
        assert_eq!(breaker.snapshot().totals.failures, failures);
        assert_eq!(breaker.snapshot().in_flight, 0);
    }
}
