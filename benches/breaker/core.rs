//! The core alone: may it be called, the call, which does nothing, and how it ended.

use std::time::Duration;

use failsafe::{CircuitBreaker, backoff, failure_policy};
use recloser::Recloser;
use spark_benches::{Races, call, turn};
use spark_breaker::{Breaker, CallError, Config, FailKind, State, Window};
use spark_core::Clock;
use tower::{Layer, service_fn};
use tower_resilience_circuitbreaker::{
    CircuitBreakerError, CircuitBreakerLayer, SlidingWindowType,
};

use crate::HOUR;

pub(crate) const ALLOWED: &str = "core, allowed";
pub(crate) const TWO_THREADS: &str = "core, allowed, two threads";
pub(crate) const REFUSED: &str = "core, refused";
pub(crate) const FEW_BY_COUNT: &str = "core, 100 calls in a window by count";
pub(crate) const MANY_BY_COUNT: &str = "core, 100,000 calls in a window by count";
pub(crate) const FEW_BY_TIME: &str = "core, 100 calls in a window by time";
pub(crate) const MANY_BY_TIME: &str = "core, 100,000 calls in a window by time";

pub(crate) const FULL: &str = "spark run, by time, slow calls";
pub(crate) const LEAN: &str = "spark run, by count";
pub(crate) const SPARK: &str = "spark run";
pub(crate) const RECLOSER: &str = "recloser call";
pub(crate) const FAILSAFE: &str = "failsafe call, default policy";
pub(crate) const IN_A_ROW: &str = "failsafe call, failures in a row only";
pub(crate) const RESILIENCE: &str = "tower-resilience service";

const SLOW: Duration = Duration::from_secs(5);

pub(crate) fn all(races: &Races) {
    allowed(races);
    two_threads(races);
    for (name, held) in [(FEW_BY_COUNT, 100), (MANY_BY_COUNT, 100_000)] {
        by_count(races, name, held);
    }
    for (name, held) in [(FEW_BY_TIME, 100), (MANY_BY_TIME, 100_000)] {
        by_time(races, name, held);
    }
    refused(races);
}

/// A call that succeeds, through a breaker that is closed.
fn allowed(races: &Races) {
    races.race(ALLOWED, |race| {
        let [run_full, run_lean] = [full(), lean(100)].map(run);
        let [called_full, called_lean] = [full(), lean(100)];
        let counted = called_full.clone();
        let recloser = recloser();
        let default = failsafe::Config::new().build();
        let consecutive = consecutive();
        let resilience = resilience();

        assert!(matches!(turn(counted.call(succeed)), Ok(1)));
        assert_eq!(counted.snapshot().totals.successes, 1, "it counts");
        race.side(FULL, run_full)
            .side(LEAN, run_lean)
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

fn two_threads(races: &Races) {
    races.race(TWO_THREADS, |race| {
        let (full, lean) = (full(), lean(100));
        let spark = |breaker: &Breaker| vec![run(breaker.clone()), run(breaker.clone())];
        let recloser = std::sync::Arc::new(recloser());
        let shared = || {
            let recloser = std::sync::Arc::clone(&recloser);
            move || {
                let answer = recloser.call(|| Ok::<u64, Failed>(1));
                assert!(answer.is_ok());
                answer
            }
        };
        let default = failsafe::Config::new().build();
        let failsafe = || {
            let default = default.clone();
            move || {
                let answer = default.call(|| Ok::<u64, Failed>(1));
                assert!(answer.is_ok());
                answer
            }
        };
        race.threads(FULL, spark(&full))
            .threads(LEAN, spark(&lean))
            .threads(RECLOSER, vec![shared(), shared()])
            .threads(FAILSAFE, vec![failsafe(), failsafe()])
    });
}

/// The window is full before the first turn, of as many calls as it holds.
fn by_count(races: &Races, name: &str, held: u32) {
    races.race(name, |race| {
        let held = races.many(held);
        let breaker = lean(held);
        let slow = Config::standard()
            .window(Window::Count(held))
            .slow_threshold(SLOW)
            .slow_rate(0.5);
        let slow = Breaker::new("peer", slow, Clock::system()).unwrap();
        let recloser = Recloser::custom()
            .error_rate(0.5)
            .closed_len(held as usize)
            .build();
        for _ in 0..held {
            assert!(breaker.run(|| Ok::<u64, Failed>(1)).is_ok());
            assert!(slow.run(|| Ok::<u64, Failed>(1)).is_ok());
            assert!(recloser.call(|| Ok::<u64, Failed>(1)).is_ok());
        }
        assert_eq!(breaker.snapshot().calls, held);
        race.side(SPARK, run(breaker))
            .side("spark run, slow calls", run(slow))
            .side(RECLOSER, move || {
                let answer = recloser.call(|| Ok::<u64, Failed>(1));
                assert!(answer.is_ok());
                answer
            })
    });
}

/// So many calls are in the window before the first turn; each turn adds its own.
fn by_time(races: &Races, name: &str, held: u32) {
    races.race(name, |race| {
        let held = races.many(held);
        let spark = full();
        let peer = CircuitBreakerLayer::builder()
            .sliding_window_type(SlidingWindowType::TimeBased)
            .sliding_window_duration(Duration::from_secs(60))
            .build()
            .unwrap();
        let mut peer = peer.layer(service_fn(echo));
        for _ in 0..held {
            assert!(spark.run(|| Ok::<u64, Failed>(1)).is_ok());
        }
        if held <= 2_000 {
            for _ in 0..held {
                assert!(call(&mut peer, 1).is_ok());
            }
        }
        assert_eq!(spark.snapshot().calls, held);
        let race = race.side(SPARK, run(spark));
        // With a hundred thousand it takes tens of microseconds for a call, and minutes to get there.
        if held > 2_000 {
            return race;
        }
        race.side(RESILIENCE, move || {
            let answer = call(&mut peer, 1);
            assert!(answer.is_ok());
            answer.map_err(drop)
        })
        .times(2_000)
    });
}

/// A call that is not made, since the breaker is open.
fn refused(races: &Races) {
    races.race(REFUSED, |race| {
        let spark = open_breaker();
        let recloser = Recloser::custom()
            .error_rate(0.5)
            .closed_len(10)
            .open_wait(HOUR)
            .build();
        let failsafe = consecutive();
        for _ in 0..20 {
            let _ = recloser.call(|| Err::<u64, Failed>(Failed));
            let _ = failsafe.call(|| Err::<u64, Failed>(Failed));
        }
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

fn echo(n: u64) -> std::future::Ready<Result<u64, Failed>> {
    std::future::ready(Ok(n))
}

/// All that it looks at: a failure rate and slow calls over time, failures in a row.
fn full() -> Breaker {
    let config = Config::standard().slow_threshold(SLOW).slow_rate(0.5);
    Breaker::new("peer", config, Clock::system()).unwrap()
}

/// A failure rate over so many calls, failures in a row.
fn lean(calls: u32) -> Breaker {
    let config = Config::standard().window(Window::Count(calls));
    Breaker::new("peer", config, Clock::system()).unwrap()
}

fn run(breaker: Breaker) -> impl FnMut() -> Result<u64, CallError<Failed>> + Send {
    move || {
        let answer = breaker.run(|| Ok(1));
        assert!(answer.is_ok());
        answer
    }
}

fn recloser() -> Recloser {
    Recloser::custom().error_rate(0.5).closed_len(100).build()
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

fn consecutive()
-> failsafe::StateMachine<failure_policy::ConsecutiveFailures<backoff::Constant>, ()> {
    let policy = failure_policy::consecutive_failures(5, backoff::constant(HOUR));
    failsafe::Config::new().failure_policy(policy).build()
}
