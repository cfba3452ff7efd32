//! The core alone: may it be called, the call, which does nothing, and how it ended.

use std::time::Duration;

use failsafe::{CircuitBreaker, backoff, failure_policy};
use recloser::Recloser;
use spark_benches::{Races, call, turn};
use spark_breaker::{Breaker, CallError, Config, FailKind, State, Window};
use spark_core::Clock;
use tower::{Layer, service_fn};
use tower_resilience_circuitbreaker::{CircuitBreakerError, CircuitBreakerLayer};

use crate::HOUR;

pub(crate) const ALLOWED: &str = "core, allowed";
pub(crate) const REFUSED: &str = "core, refused";

pub(crate) const FULL: &str = "spark run, by time, slow calls";
pub(crate) const WATCHED: &str = "spark run, by time, slow calls, in flight too";
pub(crate) const LEAN: &str = "spark run, by count";
pub(crate) const SPARK: &str = "spark run";
pub(crate) const RECLOSER: &str = "recloser call";
pub(crate) const FAILSAFE: &str = "failsafe call, default policy";
pub(crate) const IN_A_ROW: &str = "failsafe call, failures in a row only";
pub(crate) const RESILIENCE: &str = "tower-resilience service";

pub(crate) const SLOW: Duration = Duration::from_secs(5);

pub(crate) fn all(races: &Races) {
    allowed(races);
    refused(races);
}

/// A call that succeeds, through a breaker that is closed.
fn allowed(races: &Races) {
    races.race(ALLOWED, |race| {
        let [run_full, run_watched, run_lean] = [full(), watched(), lean(100)].map(run);
        let permits = full();
        let [called_full, called_lean] = [full(), lean(100)];
        let counted = called_full.clone();
        let recloser = recloser();
        let default = failsafe::Config::new().build();
        let consecutive = consecutive();
        let resilience = resilience();

        assert!(matches!(turn(counted.call(succeed)), Ok(1)));
        assert_eq!(counted.snapshot().totals.successes, 1, "it counts");
        race.side(FULL, run_full)
            .side(WATCHED, run_watched)
            .side(LEAN, run_lean)
            .side("spark try_acquire and success", move || {
                permits.try_acquire().unwrap().success();
            })
            .side("spark call, by time, slow calls", move || {
                let answer = turn(called_full.call(succeed));
                assert!(answer.is_ok());
                answer
            })
            .side("spark call, by count", move || {
                let answer = turn(called_lean.call(succeed));
                assert!(answer.is_ok());
                answer
            })
            .side(RECLOSER, move || {
                let answer = recloser.call(|| Ok::<u64, Failed>(1));
                assert!(answer.is_ok());
                answer
            })
            .side(FAILSAFE, move || {
                let answer = default.call(|| Ok::<u64, Failed>(1));
                assert!(answer.is_ok());
                answer
            })
            .side(IN_A_ROW, move || {
                let answer = consecutive.call(|| Ok::<u64, Failed>(1));
                assert!(answer.is_ok());
                answer
            })
            .side(RESILIENCE, resilience)
    });
}

/// A call that is not made, since the breaker is open.
fn refused(races: &Races) {
    races.race(REFUSED, |race| {
        let spark = open_breaker();
        let recloser = open_recloser();
        let failsafe = open_failsafe();
        let (peer, handle) = CircuitBreakerLayer::builder()
            .wait_duration_in_open(HOUR)
            .build_with_handle()
            .unwrap();
        turn(handle.force_open());
        let mut peer = peer.layer(service_fn(echo));
        race.side(SPARK, move || {
            let answer = spark.run(|| Ok::<u64, Failed>(1));
            assert!(matches!(answer, Err(CallError::Rejected(_))));
            answer
        })
        .side(RECLOSER, move || {
            let answer = recloser.call(|| Ok::<u64, Failed>(1));
            assert!(matches!(answer, Err(recloser::Error::Rejected)));
            answer
        })
        .side(IN_A_ROW, move || {
            let answer = failsafe.call(|| Ok::<u64, Failed>(1));
            assert!(matches!(answer, Err(failsafe::Error::Rejected)));
            answer
        })
        .side(RESILIENCE, move || {
            let answer = call(&mut peer, 1);
            assert!(matches!(answer, Err(CircuitBreakerError::OpenCircuit)));
            answer
        })
    });
}

#[derive(Debug)]
pub(crate) struct Failed;

async fn succeed() -> Result<u64, Failed> {
    Ok(1)
}

pub(crate) fn echo(n: u64) -> std::future::Ready<Result<u64, Failed>> {
    std::future::ready(Ok(n))
}

/// All that it looks at: a failure rate and slow calls over time, failures in a row.
pub(crate) fn full() -> Breaker {
    let config = Config::standard().slow_threshold(SLOW).slow_rate(0.5);
    Breaker::new("peer", config, Clock::system()).unwrap()
}

/// That, and calls that are under way for too long.
pub(crate) fn watched() -> Breaker {
    let config = Config::standard()
        .slow_threshold(SLOW)
        .slow_rate(0.5)
        .in_flight_slow(100);
    Breaker::new("peer", config, Clock::system()).unwrap()
}

/// A failure rate over so many calls, failures in a row.
pub(crate) fn lean(calls: u32) -> Breaker {
    let config = Config::standard().window(Window::Count(calls));
    Breaker::new("peer", config, Clock::system()).unwrap()
}

pub(crate) fn run(breaker: Breaker) -> impl FnMut() -> Result<u64, CallError<Failed>> + Send {
    move || {
        let answer = breaker.run(|| Ok(1));
        assert!(answer.is_ok());
        answer
    }
}

fn recloser() -> Recloser {
    reclosing(100)
}

pub(crate) fn reclosing(held: u32) -> Recloser {
    Recloser::custom()
        .error_rate(0.5)
        .closed_len(held as usize)
        .build()
}

pub(crate) fn open_recloser() -> Recloser {
    let recloser = Recloser::custom()
        .error_rate(0.5)
        .closed_len(10)
        .open_wait(HOUR)
        .build();
    for _ in 0..20 {
        assert!(recloser.call(|| Err::<u64, Failed>(Failed)).is_err());
    }
    recloser
}

type InARow = failsafe::StateMachine<failure_policy::ConsecutiveFailures<backoff::Constant>, ()>;

pub(crate) fn open_failsafe() -> InARow {
    let failsafe = consecutive();
    for _ in 0..5 {
        assert!(failsafe.call(|| Err::<u64, Failed>(Failed)).is_err());
    }
    failsafe
}

/// A window of 100 calls, slow ones looked for.
fn resilience() -> impl FnMut() -> Result<u64, ()> {
    let peer = CircuitBreakerLayer::builder()
        .sliding_window_size(100)
        .slow_call_duration_threshold(SLOW)
        .slow_call_rate_threshold(0.5)
        .build()
        .unwrap();
    let mut peer = peer.layer(service_fn(echo));
    move || {
        let answer = call(&mut peer, 1);
        assert!(answer.is_ok());
        answer.map_err(drop)
    }
}

pub(crate) fn open_breaker() -> Breaker {
    let config = Config::standard().open_for(HOUR).max_open_for(HOUR);
    let breaker = Breaker::new("peer", config, Clock::system()).unwrap();
    for _ in 0..5 {
        breaker.try_acquire().unwrap().failure(FailKind::Transport);
    }
    assert_eq!(breaker.snapshot().state, State::Open);
    breaker
}

fn consecutive() -> InARow {
    let policy = failure_policy::consecutive_failures(5, backoff::constant(HOUR));
    failsafe::Config::new().failure_policy(policy).build()
}
