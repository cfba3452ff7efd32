//! An adaptive limit in front of a provider that copes with so many calls at a time, step by step.

use spark_breaker::{Aimd, Bulkhead, Place};
use spark_core::testing::TestClock;

use super::{Dice, adaptive, millis};

/// Beyond its capacity it throttles, or it slows down.
struct Provider {
    capacity: usize,
    throttles: bool,
    calls: Vec<Call>,
    dice: Dice,
    answered: usize,
    throttled: usize,
}

struct Call {
    place: Place,
    /// In hundredths of a step, so that an overloaded provider gets on by less than one.
    to_first_byte: u64,
    to_end: u64,
}

impl Provider {
    fn new(capacity: usize, throttles: bool) -> Self {
        Self {
            capacity,
            throttles,
            calls: Vec::new(),
            dice: Dice(7),
            answered: 0,
            throttled: 0,
        }
    }

    fn call(&mut self, mut place: Place) {
        if self.throttles && self.calls.len() >= self.capacity {
            self.throttled += 1;
            return place.throttled();
        }
        self.calls.push(Call {
            place,
            to_first_byte: 500,
            to_end: 5_000 + self.dice.below(10_000),
        });
    }

    /// 10 ms.
    fn step(&mut self, clock: &TestClock) {
        clock.advance(millis(10));
        let load = self.calls.len().max(1);
        let speed = (100 * self.capacity / load).min(100) as u64;
        for call in &mut self.calls {
            if call.to_first_byte > 0 {
                call.to_first_byte = call.to_first_byte.saturating_sub(speed);
                if call.to_first_byte == 0 {
                    call.place.first_byte();
                }
            } else {
                call.to_end = call.to_end.saturating_sub(speed);
            }
        }
        let answered = &mut self.answered;
        self.calls.retain_mut(|call| {
            if call.to_end == 0 {
                call.place.succeeded();
                *answered += 1;
            }
            call.to_end > 0
        });
    }
}

/// More callers than any provider copes with; the lowest, the mean and the highest limit.
fn storm(bulkhead: &Bulkhead, clock: &TestClock, provider: &mut Provider, steps: u32) -> [f64; 3] {
    let (mut lowest, mut sum, mut highest) = (usize::MAX, 0, 0);
    for _ in 0..steps {
        for _ in 0..200 {
            let Ok(place) = bulkhead.try_enter() else {
                break;
            };
            provider.call(place);
        }
        provider.step(clock);
        let limit = bulkhead.limit();
        lowest = lowest.min(limit);
        sum += limit;
        highest = highest.max(limit);
    }
    [lowest as f64, sum as f64 / f64::from(steps), highest as f64]
}

#[test]
fn it_comes_near_to_what_a_provider_that_throttles_copes_with_and_follows_it() {
    let (bulkhead, clock) = adaptive(Aimd::new(2, 200));
    let mut provider = Provider::new(20, true);
    storm(&bulkhead, &clock, &mut provider, 1);
    // 200, 140, 98, 68, 47, 32, 22, 15.
    assert_eq!((bulkhead.limit(), provider.throttled), (15, 7));
    for capacity in [20, 60, 10, 20] {
        provider.capacity = capacity;
        // To find it: a round is about a second.
        storm(&bulkhead, &clock, &mut provider, 6_000);
        (provider.answered, provider.throttled) = (0, 0);
        let [lowest, mean, highest] = storm(&bulkhead, &clock, &mut provider, 8_000);
        let most = capacity as f64 + 1.0;
        assert!(highest <= most, "{highest} for {capacity}");
        assert!(lowest >= (most * 0.7).floor(), "{lowest} for {capacity}");
        assert!(mean >= 0.72 * most, "{mean} for {capacity}");
        let refused = provider.throttled as f64 / provider.answered as f64;
        assert!(refused < 0.03, "{refused} for {capacity}");
    }
}

#[test]
fn it_comes_near_to_what_a_provider_that_slows_down_copes_with() {
    // 50 ms to the first byte up to its capacity; late from 75 ms on, at 1.5 times that.
    let (bulkhead, clock) = adaptive(Aimd::new(2, 200).latency(millis(75)));
    let mut provider = Provider::new(20, false);
    storm(&bulkhead, &clock, &mut provider, 10_000);
    for capacity in [20, 40, 10] {
        provider.capacity = capacity;
        storm(&bulkhead, &clock, &mut provider, 6_000);
        let [lowest, mean, highest] = storm(&bulkhead, &clock, &mut provider, 8_000);
        let most = capacity as f64 * 1.6 + 2.0;
        assert!(highest <= most, "{highest} for {capacity}");
        assert!(lowest >= capacity as f64 * 0.7, "{lowest} for {capacity}");
        assert!(mean >= capacity as f64, "{mean} for {capacity}");
    }
}

#[test]
fn it_is_the_same_each_time() {
    let run = || {
        let (bulkhead, clock) = adaptive(Aimd::new(2, 50).latency(millis(80)));
        let mut provider = Provider::new(15, true);
        let limits = storm(&bulkhead, &clock, &mut provider, 5_000);
        (limits, provider.answered, provider.throttled)
    };
    assert_eq!(run(), run());
}
