//! The breaker by itself, under a clock that the tests move.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(
    clippy::mem_forget,
    reason = "a forgotten permit is one of the hazards"
)]

#[path = "common/timed.rs"]
mod timed;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use spark_breaker::{
    Breaker, CallError, Config, FailKind, IgnoreKind, Mode, Outcome, Permit, Phase, Reason,
    RejectReason, State, Window,
};
use spark_core::testing::TestClock;
use timed::{breaker, config, fail, secs, state, succeed};

fn ignore(breaker: &Breaker, why: IgnoreKind) {
    breaker.try_acquire().unwrap().ignore(why);
}

/// Open, and its time is over.
fn due_for_probes(config: Config) -> (Breaker, TestClock) {
    let (breaker, clock) = breaker(config);
    fail(&breaker, 10);
    assert_eq!(state(&breaker), State::Open);
    clock.advance(secs(10));
    (breaker, clock)
}

#[test]
fn b1_half_open_admits_exactly_its_probes_of_1000_concurrent_callers() {
    let (breaker, _clock) = due_for_probes(config().probes(7));
    let admitted = AtomicUsize::new(0);
    let barrier = std::sync::Barrier::new(8);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                barrier.wait();
                let permits: Vec<Permit> = (0..125)
                    .filter_map(|_| breaker.try_acquire().ok())
                    .collect();
                admitted.fetch_add(permits.len(), Ordering::SeqCst);
                // Held until all have asked, so that no slot is given out twice.
                barrier.wait();
                drop(permits);
            });
        }
    });
    assert_eq!(admitted.into_inner(), 7);
    assert_eq!(breaker.snapshot().in_flight, 0);
}

#[test]
fn b1_permits_of_an_earlier_state_free_no_probe() {
    let (breaker, clock) = breaker(config().probes(1).abandon_after(secs(3_600)));
    let old: Vec<_> = (0..3).map(|_| breaker.try_acquire().unwrap()).collect();
    fail(&breaker, 10);
    clock.advance(secs(10));
    let probe = breaker.try_acquire().unwrap();
    let mut old = old.into_iter();
    drop(old.next());
    old.next().unwrap().ignore(IgnoreKind::Client);
    old.next().unwrap().throttled(None);
    assert!(breaker.try_acquire().is_err(), "the probe is still out");
    probe.success();
    assert_eq!(state(&breaker), State::Closed);
}

#[test]
fn b3_fifty_failures_after_ten_thousand_successes_open_it() {
    let (breaker, _clock) = breaker(config().window(Window::Count(100)));
    succeed(&breaker, 10_000);
    fail(&breaker, 49);
    assert_eq!(state(&breaker), State::Closed);
    fail(&breaker, 1);
    assert_eq!(state(&breaker), State::Open);
}

#[test]
fn b3_a_time_window_slides() {
    let (breaker, clock) = breaker(config().window(secs(10)));
    succeed(&breaker, 10_000);
    clock.advance(secs(9));
    fail(&breaker, 9);
    assert_eq!(state(&breaker), State::Closed, "the successes still count");
    assert_eq!(breaker.snapshot().calls, 10_009);
    clock.advance(secs(1));
    assert_eq!(breaker.snapshot().calls, 9, "they have slid out");
    fail(&breaker, 1);
    assert_eq!(state(&breaker), State::Open);
}

#[test]
fn b3_at_the_threshold_it_opens_and_below_the_minimum_it_does_not() {
    let (below, _clock) = breaker(config().min_calls(10));
    fail(&below, 9);
    assert_eq!(state(&below), State::Closed);

    let (at, _clock) = breaker(config().min_calls(10).failure_rate(0.5));
    succeed(&at, 5);
    fail(&at, 5);
    assert_eq!(state(&at), State::Open);
    let snapshot = at.snapshot();
    let trip = snapshot.last_trip.unwrap();
    assert_eq!(
        trip.reason,
        Reason::FailureRate {
            rate: 0.5,
            calls: 10
        }
    );
    assert_eq!(trip.reason.to_string(), "50 % of 10 calls failed");
}

#[test]
fn consecutive_failures_open_and_a_success_ends_the_run() {
    let (breaker, _clock) = breaker(config().consecutive(3).min_calls(1_000));
    fail(&breaker, 2);
    succeed(&breaker, 1);
    fail(&breaker, 2);
    // The callee was not asked, so it neither adds to the run nor ends it.
    ignore(&breaker, IgnoreKind::Local);
    assert_eq!(state(&breaker), State::Closed);
    fail(&breaker, 1);
    assert_eq!(state(&breaker), State::Open);
}

/// A failure now and then among a thousand questions that nobody can answer is no run.
#[test]
fn an_answer_that_the_request_was_wrong_ends_a_run_and_is_in_no_rate() {
    let (breaker, _clock) = breaker(config().consecutive(3).min_calls(10));
    for _ in 0..4 {
        fail(&breaker, 2);
        ignore(&breaker, IgnoreKind::Client);
    }
    let snapshot = breaker.snapshot();
    assert_eq!(snapshot.state, State::Closed);
    assert_eq!((snapshot.calls, snapshot.failures), (8, 8));
    // So requests that are wrong hide no failures from the rate.
    fail(&breaker, 2);
    let reason = breaker.snapshot().last_trip.unwrap().reason;
    assert!(matches!(reason, Reason::FailureRate { calls: 10, .. }));
}

#[test]
fn a_late_answer_that_the_request_was_wrong_ends_no_run() {
    let (breaker, _clock) = breaker(config().consecutive(3));
    let old = breaker.try_acquire().unwrap();
    breaker.reset();
    fail(&breaker, 2);
    old.ignore(IgnoreKind::Client);
    fail(&breaker, 1);
    assert_eq!(state(&breaker), State::Open);
}

#[test]
fn slow_calls_open_and_a_slow_probe_does_not_close() {
    let rules = config().slow_threshold(secs(2)).slow_rate(0.5);
    let (breaker, clock) = breaker(rules);
    for _ in 0..10 {
        let permit = breaker.try_acquire().unwrap();
        clock.advance(secs(2));
        permit.success();
    }
    assert_eq!(state(&breaker), State::Open);
    clock.advance(secs(10));
    let probe = breaker.try_acquire().unwrap();
    clock.advance(secs(2));
    probe.success();
    assert_eq!(state(&breaker), State::Open);
}

#[test]
fn an_answer_that_is_long_but_began_in_time_is_not_slow() {
    let (breaker, clock) = breaker(config().slow_threshold(secs(2)).slow_rate(0.1));
    for _ in 0..20 {
        let mut permit = breaker.try_acquire().unwrap();
        clock.advance(secs(1));
        permit.first_byte();
        clock.advance(secs(60));
        permit.first_byte(); // only the first counts
        permit.success();
    }
    assert_eq!(breaker.snapshot().slow, 0);
}

#[test]
fn b4_dropped_early_is_neutral_and_gives_back_the_place() {
    let (breaker, _clock) = due_for_probes(config().probes(1));
    for _ in 0..100 {
        let probe = breaker.try_acquire().unwrap();
        assert!(probe.is_probe());
        assert_eq!(
            breaker.try_acquire().unwrap_err().reason,
            RejectReason::ProbesBusy
        );
        drop(probe);
    }
    assert_eq!(state(&breaker), State::HalfOpen);
    succeed(&breaker, 1);
    assert_eq!(state(&breaker), State::Closed);
}

#[test]
fn b4_a_probe_that_never_left_gives_back_its_place() {
    let (breaker, _clock) = due_for_probes(config().probes(1));
    for _ in 0..100 {
        ignore(&breaker, IgnoreKind::Local);
    }
    assert_eq!(state(&breaker), State::HalfOpen);
    succeed(&breaker, 1);
    assert_eq!(state(&breaker), State::Closed);
}

/// Else callers whose requests are all wrong would keep it half open for ever.
#[test]
fn a_probe_that_is_answered_closes_it_though_the_request_was_wrong() {
    let (breaker, _clock) = due_for_probes(config().probes(2));
    ignore(&breaker, IgnoreKind::Client);
    assert_eq!(state(&breaker), State::HalfOpen);
    ignore(&breaker, IgnoreKind::Client);
    assert_eq!(state(&breaker), State::Closed);
    let totals = breaker.snapshot().totals;
    assert_eq!((totals.ignored, totals.successes), (2, 0));
}

#[test]
fn nor_does_a_wrong_request_make_up_for_a_slow_answer() {
    let rules = config().slow_threshold(secs(2)).slow_rate(1.0).probes(1);
    let (breaker, clock) = due_for_probes(rules);
    let probe = breaker.try_acquire().unwrap();
    clock.advance(secs(2));
    probe.ignore(IgnoreKind::Client);
    let snapshot = breaker.snapshot();
    assert_eq!(snapshot.state, State::Open);
    assert_eq!(
        snapshot.last_trip.unwrap().reason,
        Reason::ProbeFailed(FailKind::Slow)
    );
    assert_eq!(snapshot.totals.ignored, 1);
}

#[test]
fn b4_forgotten_probes_do_not_wedge() {
    let (breaker, clock) = due_for_probes(config().probes(2).probe_timeout(secs(30)));
    std::mem::forget(breaker.try_acquire().unwrap());
    std::mem::forget(breaker.try_acquire().unwrap());
    assert!(breaker.try_acquire().is_err());
    clock.advance(secs(30));
    succeed(&breaker, 2);
    assert_eq!(state(&breaker), State::Closed);
}

#[test]
fn b5_timeouts_further_out_open_it_and_early_disconnects_do_not() {
    let (breaker, clock) = breaker(config().slow_threshold(secs(5)));
    for _ in 0..200 {
        let permit = breaker.try_acquire().unwrap();
        clock.advance(Duration::from_millis(5));
        drop(permit);
    }
    assert_eq!(state(&breaker), State::Closed);
    assert_eq!(breaker.snapshot().calls, 0);
    let permits: Vec<_> = (0..200).map(|_| breaker.try_acquire().unwrap()).collect();
    clock.advance(secs(5));
    drop(permits);
    assert_eq!(state(&breaker), State::Open);
    assert_eq!(breaker.snapshot().in_flight, 0);
}

#[test]
fn b5_a_stream_that_has_begun_may_be_dropped_at_any_age() {
    let (breaker, clock) = breaker(config().abandon_after(secs(1)));
    for _ in 0..50 {
        let mut permit = breaker.try_acquire().unwrap();
        permit.first_byte();
        clock.advance(secs(5));
        drop(permit);
    }
    assert_eq!(breaker.snapshot().totals.failures, 0);
}

#[test]
fn b6_a_hung_probe_frees_its_place_and_its_late_result_is_nothing() {
    let (breaker, clock) = due_for_probes(config().probes(1).probe_timeout(secs(30)));
    let hung = breaker.try_acquire().unwrap();
    clock.advance(secs(29));
    assert!(breaker.try_acquire().is_err());
    clock.advance(secs(1));
    let fresh = breaker.try_acquire().unwrap();
    assert!(
        breaker.try_acquire().is_err(),
        "the new episode has one probe too"
    );
    hung.success();
    assert_eq!(
        state(&breaker),
        State::HalfOpen,
        "the late result is nothing"
    );
    assert!(breaker.try_acquire().is_err(), "and gives no place back");
    fresh.success();
    assert_eq!(state(&breaker), State::Closed);
    assert_eq!(breaker.snapshot().totals.late, 1);
}

#[test]
fn b6_a_late_failure_of_a_hung_probe_is_nothing_either() {
    let (breaker, clock) = due_for_probes(config().probes(1).probe_timeout(secs(30)));
    let hung = breaker.try_acquire().unwrap();
    clock.advance(secs(30));
    // Nobody has asked since: its time is over all the same.
    hung.failure(FailKind::Timeout(Phase::Total));
    assert_eq!(state(&breaker), State::HalfOpen);
    assert_eq!(breaker.snapshot().totals.late, 1);
    let hung = breaker.try_acquire().unwrap();
    clock.advance(secs(31));
    let fresh = breaker.try_acquire().unwrap();
    let reason = Outcome::exhausted().with_retry_after(secs(3_600));
    hung.record(reason);
    assert_eq!(
        state(&breaker),
        State::HalfOpen,
        "of an episode that is over"
    );
    fresh.success();
    assert_eq!(state(&breaker), State::Closed);
}

#[test]
fn b7_panics_open_it() {
    let (breaker, _clock) = breaker(config().consecutive(3));
    for _ in 0..3 {
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _permit = breaker.try_acquire().unwrap();
            panic!("in the call");
        }));
        assert!(panicked.is_err());
    }
    assert_eq!(state(&breaker), State::Open);
    let trip = breaker.snapshot().last_trip.unwrap();
    assert!(matches!(
        trip.reason,
        Reason::Consecutive {
            last: FailKind::Panic,
            ..
        }
    ));
}

#[test]
fn b8_a_success_from_before_the_outage_cannot_close() {
    let (breaker, clock) = breaker(config().probes(1));
    let old = breaker.try_acquire().unwrap();
    fail(&breaker, 10);
    clock.advance(secs(10));
    let probe = breaker.try_acquire().unwrap();
    old.success();
    assert_eq!(state(&breaker), State::HalfOpen);
    probe.failure(FailKind::Timeout(Phase::Total));
    assert_eq!(state(&breaker), State::Open);
}

#[test]
fn b8_a_failure_from_before_cannot_open_again() {
    let (breaker, clock) = breaker(config().probes(1).consecutive(1));
    let old: Vec<_> = (0..5).map(|_| breaker.try_acquire().unwrap()).collect();
    fail(&breaker, 1);
    clock.advance(secs(10));
    succeed(&breaker, 1);
    assert_eq!(state(&breaker), State::Closed);
    for permit in old {
        permit.failure(FailKind::Timeout(Phase::Total));
    }
    assert_eq!(state(&breaker), State::Closed);
    assert_eq!(breaker.snapshot().calls, 0);
}

#[test]
fn b15_a_flap_of_long_ago_does_not_lengthen_the_next_open_time() {
    let (breaker, clock) = breaker(config().probes(1));
    fail(&breaker, 10);
    for expected in [10, 20, 40] {
        clock.advance(secs(expected));
        fail(&breaker, 1);
    }
    clock.advance(secs(80));
    succeed(&breaker, 1);
    // A calm hour; then the callee asks for a pause, and the probe after it fails.
    clock.advance(secs(3_600));
    breaker.try_acquire().unwrap().throttled(Some(secs(1)));
    clock.advance(secs(1));
    fail(&breaker, 1);
    assert_eq!(breaker.snapshot().retry_after, Some(secs(10)));
}

#[test]
fn b15_jitter_spreads_within_the_longest_open_time() {
    let mut times = std::collections::BTreeSet::new();
    for _ in 0..50 {
        let (breaker, clock) = breaker(config().jitter(1.0).max_open_for(secs(30)).probes(1));
        fail(&breaker, 10);
        let mut wait = Duration::ZERO;
        for _ in 0..5 {
            wait = breaker.snapshot().retry_after.unwrap();
            assert!(wait <= secs(30), "{wait:?}");
            clock.advance(wait);
            fail(&breaker, 1);
        }
        times.insert(wait);
    }
    assert!(times.len() > 40, "{times:?}");
}

#[test]
fn b15_an_open_time_that_cannot_double_is_spread_too() {
    let mut times = std::collections::BTreeSet::new();
    for _ in 0..50 {
        let (breaker, _clock) = breaker(config().jitter(0.5).max_open_for(secs(10)));
        fail(&breaker, 10);
        let wait = breaker.snapshot().retry_after.unwrap();
        assert!((secs(10)..=secs(15)).contains(&wait), "{wait:?}");
        times.insert(wait);
    }
    assert!(times.len() > 40, "{times:?}");
}

#[test]
fn b15_replicas_that_were_told_one_moment_do_not_probe_at_it() {
    let mut times = std::collections::BTreeSet::new();
    for _ in 0..50 {
        let (breaker, _clock) = breaker(config().jitter(0.5));
        let late = breaker.try_acquire().unwrap();
        fail(&breaker, 10);
        late.throttled(Some(secs(100)));
        let wait = breaker.snapshot().retry_after.unwrap();
        assert!((secs(100)..=secs(150)).contains(&wait), "{wait:?}");
        times.insert(wait);
    }
    assert!(times.len() > 40);
}

#[test]
fn b15_open_times_double_up_to_the_longest_and_start_afresh_after_a_calm() {
    let (breaker, clock) = breaker(config().max_open_for(secs(50)).probes(1));
    fail(&breaker, 10);
    for expected in [10, 20, 40, 50, 50] {
        assert_eq!(breaker.snapshot().retry_after, Some(secs(expected)));
        clock.advance(secs(expected));
        fail(&breaker, 1);
    }
    clock.advance(secs(50));
    succeed(&breaker, 1);
    assert_eq!(state(&breaker), State::Closed);
    // It flaps: the long time stays.
    fail(&breaker, 10);
    assert_eq!(breaker.snapshot().retry_after, Some(secs(50)));
    clock.advance(secs(50));
    succeed(&breaker, 1);
    clock.advance(secs(30));
    fail(&breaker, 10);
    assert_eq!(breaker.snapshot().retry_after, Some(secs(10)));
}

#[test]
fn b15_replicas_do_not_probe_at_one_moment() {
    let times: std::collections::BTreeSet<_> = (0..50)
        .map(|_| {
            let (breaker, _clock) = breaker(config().jitter(0.5));
            fail(&breaker, 10);
            let wait = breaker.snapshot().retry_after.unwrap();
            assert!(wait >= secs(10) && wait <= secs(15));
            wait
        })
        .collect();
    assert!(times.len() > 40);
}

#[test]
fn fewer_probes_than_have_succeeded_close_it() {
    let (breaker, _clock) = due_for_probes(config().probes(5));
    succeed(&breaker, 3);
    assert_eq!(state(&breaker), State::HalfOpen);
    breaker.reconfigure(config().probes(2)).unwrap();
    assert_eq!(state(&breaker), State::Closed);
    succeed(&breaker, 1);
}

#[test]
fn background_calls_are_preferred_as_probes() {
    let (breaker, _clock) = due_for_probes(config().background_grace(secs(5)).probes(1));
    let rejected = breaker.try_acquire().unwrap_err();
    assert_eq!(rejected.reason, RejectReason::KeptForBackground);
    assert_eq!(rejected.retry_after, secs(5));
    let probe = breaker.try_acquire_background().unwrap();
    assert!(probe.is_probe());
    drop(probe);

    let (breaker, clock) = due_for_probes(config().background_grace(secs(5)).probes(1));
    clock.advance(secs(5));
    assert!(
        breaker.try_acquire().is_ok(),
        "nobody came from the background"
    );
}

#[test]
fn users_do_not_probe_until_one_from_the_background_has_succeeded() {
    let (breaker, clock) = due_for_probes(config().background_grace(secs(5)).probes(3));
    let kept = |breaker: &Breaker, wait| {
        let rejected = breaker.try_acquire().unwrap_err();
        let kept = (rejected.state, rejected.reason, rejected.retry_after);
        let reason = RejectReason::KeptForBackground;
        assert_eq!(kept, (State::HalfOpen, reason, wait));
    };
    let first = breaker.try_acquire_background().unwrap();
    clock.advance(secs(1));
    kept(&breaker, secs(4));
    let second = breaker.try_acquire_background().unwrap();
    drop(second);
    kept(&breaker, secs(4));
    first.success();
    assert!(breaker.try_acquire().unwrap().is_probe());

    let (breaker, clock) = due_for_probes(config().background_grace(secs(5)).probes(3));
    let _hangs = breaker.try_acquire_background().unwrap();
    clock.advance(secs(5));
    assert!(
        breaker.try_acquire().unwrap().is_probe(),
        "its time is over"
    );
}

#[test]
fn operators_decide() {
    let (breaker, _clock) = breaker(config().probes(1));
    let old = breaker.try_acquire().unwrap();
    breaker.set_mode(Mode::ForcedOpen);
    let rejected = breaker.try_acquire().unwrap_err();
    assert_eq!(rejected.reason, RejectReason::ForcedOpen);
    assert_eq!(rejected.retry_after, secs(10));
    assert_eq!(breaker.snapshot().retry_after, None);
    old.success();
    breaker.throttle(secs(9));

    breaker.set_mode(Mode::ForcedClosed);
    fail(&breaker, 100);
    breaker.try_acquire().unwrap().throttled(Some(secs(60)));
    assert_eq!(state(&breaker), State::Closed);
    assert_eq!(breaker.snapshot().failures, 101, "counted all the same");

    breaker.set_mode(Mode::ForcedOpen);
    breaker.set_mode(Mode::Auto);
    succeed(&breaker, 1);
    assert_eq!(state(&breaker), State::Closed, "one probe was enough");

    fail(&breaker, 10);
    breaker.reset();
    let snapshot = breaker.snapshot();
    assert_eq!((snapshot.state, snapshot.mode), (State::Closed, Mode::Auto));
    assert_eq!((snapshot.calls, snapshot.last_trip), (0, None));
}

#[test]
fn rules_change_while_it_runs() {
    let (breaker, _clock) = breaker(config());
    fail(&breaker, 4);
    breaker.reconfigure(config().min_calls(5)).unwrap();
    assert!(breaker.reconfigure(config().min_calls(0)).is_err());
    fail(&breaker, 1);
    assert_eq!(state(&breaker), State::Open, "the four still count");
}

#[test]
fn a_rejection_says_who_and_when() {
    let (breaker, clock) = breaker(config());
    fail(&breaker, 10);
    clock.advance(Duration::from_millis(8_500));
    let rejected = breaker.try_acquire().unwrap_err();
    assert_eq!(&*rejected.name, "provider");
    assert_eq!(rejected.retry_after, Duration::from_millis(1_500));
    assert_eq!(
        rejected.to_string(),
        "provider is not being called: it failed too often; try again in 1.5 s"
    );
}

#[tokio::test]
async fn call_counts_results() {
    let (breaker, _clock) = breaker(config().consecutive(1));
    let good = breaker.call(|| async { Ok::<_, String>(1) }).await;
    assert_eq!(good, Ok(1));
    let bad = breaker
        .call(|| async { Err::<(), _>(String::from("no")) })
        .await;
    assert_eq!(bad, Err(CallError::Failed(String::from("no"))));
    let refused = breaker.call(|| async { Ok::<_, String>(1) }).await;
    assert!(matches!(refused, Err(CallError::Rejected(_))));
}

#[test]
fn threads_hammering_it_leave_no_permit_behind() {
    let rules = config().open_for(Duration::from_millis(1)).min_calls(3);
    let breaker = Breaker::new("busy", rules, spark_core::Clock::system()).unwrap();
    let breaker = Arc::new(breaker);
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let breaker = Arc::clone(&breaker);
            scope.spawn(move || {
                for call in 0..20_000_u64 {
                    let Ok(permit) = breaker.try_acquire() else {
                        std::thread::yield_now();
                        continue;
                    };
                    match (call ^ thread) % 5 {
                        0 | 1 => permit.failure(FailKind::Other),
                        2 => drop(permit),
                        3 => permit.ignore(IgnoreKind::Client),
                        _ => permit.success(),
                    }
                }
            });
        }
    });
    assert_eq!(breaker.snapshot().in_flight, 0);
    breaker.reset();
    succeed(&breaker, 10);
}
