//! Many calls in the window, or few: it should not matter.

use std::time::Duration;

use spark_benches::{Races, call};
use spark_breaker::{Breaker, Config, Window};
use spark_core::Clock;
use tower::{Layer, service_fn};
use tower_resilience_circuitbreaker::{CircuitBreakerLayer, SlidingWindowType};

use crate::core::{
    Failed, RECLOSER, RESILIENCE, SLOW, SPARK, echo, full, lean, reclosing, run, watched,
};

pub(crate) const FEW_BY_COUNT: &str = "core, 100 calls in a window by count";
pub(crate) const MANY_BY_COUNT: &str = "core, 100,000 calls in a window by count";
pub(crate) const FEW_BY_TIME: &str = "core, 100 calls in a window by time";
pub(crate) const MANY_BY_TIME: &str = "core, 100,000 calls in a window by time";

pub(crate) const FLAT_BY_TIME: &str = "core, flat, by time and with calls in flight";
pub(crate) const FLAT_BY_COUNT: &str = "core, flat, by count";
pub(crate) const MANY: &str = "spark run, 100,000 calls in the window";
pub(crate) const FEW: &str = "spark run, 100 calls in the window";

/// The breakers that hold few take turns, each for so many calls, since calls are added to those held.
const STAY: usize = 100;

pub(crate) fn all(races: &Races) {
    for (name, held) in [(FEW_BY_COUNT, 100), (MANY_BY_COUNT, 100_000)] {
        by_count(races, name, held);
    }
    for (name, held) in [(FEW_BY_TIME, 100), (MANY_BY_TIME, 100_000)] {
        by_time(races, name, held);
    }
    flat(races, FLAT_BY_TIME, |_| watched());
    flat(races, FLAT_BY_COUNT, lean);
}

/// Ours against ours: `benches/instructions breaker flat` counts the same for both.
fn flat(races: &Races, name: &str, make: impl Fn(u32) -> Breaker) {
    races.race(name, |race| {
        let side = |held: u32, breakers: u32| {
            let held = races.many(held);
            let full = |_| {
                let breaker = make(held);
                (0..held).for_each(|_| assert!(breaker.run(|| Ok::<u64, Failed>(1)).is_ok()));
                assert_eq!(breaker.snapshot().calls, held);
                breaker
            };
            let breakers: Vec<_> = (0..breakers).map(full).collect();
            let mut asked = 0;
            move || {
                let breaker = &breakers[asked / STAY % breakers.len()];
                asked += 1;
                let answer = breaker.run(|| Ok::<u64, Failed>(1));
                assert!(answer.is_ok());
                answer
            }
        };
        race.side(MANY, side(100_000, 1))
            .side(FEW, side(100, 1_200))
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
        let recloser = reclosing(held);
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
