//! A breaker under a clock that the tests move.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test takes what it needs, and fails where it cannot go on"
)]

use std::time::Duration;

use spark_breaker::{Breaker, Config, FailKind, State};
use spark_core::testing::TestClock;

pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// No jitter, so that times are exact; no trip by a run of failures unless a test wants it.
pub(crate) fn config() -> Config {
    Config::standard().jitter(0.0).consecutive(None)
}

pub(crate) fn breaker(config: Config) -> (Breaker, TestClock) {
    let clock = TestClock::new();
    clock.advance(secs(1_000));
    let breaker = Breaker::new("provider", config, clock.clock()).unwrap();
    (breaker, clock)
}

pub(crate) fn succeed(breaker: &Breaker, times: usize) {
    for _ in 0..times {
        breaker.try_acquire().unwrap().success();
    }
}

pub(crate) fn fail(breaker: &Breaker, times: usize) {
    for _ in 0..times {
        let permit = breaker.try_acquire().unwrap();
        permit.failure(FailKind::Status(500));
    }
}

pub(crate) fn state(breaker: &Breaker) -> State {
    breaker.snapshot().state
}
