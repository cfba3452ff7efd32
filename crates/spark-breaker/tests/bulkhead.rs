//! The bulkhead: what it lets in, what it refuses, what moves its limit.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "bulkhead/layer.rs"]
mod layer;
#[path = "bulkhead/limit.rs"]
mod limit;
#[path = "bulkhead/provider.rs"]
mod provider;
#[path = "bulkhead/share.rs"]
mod share;

use std::time::Duration;

use spark_breaker::{Aimd, Bulkhead};
use spark_core::Name;
use spark_core::testing::TestClock;

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn adaptive(rules: Aimd) -> (Bulkhead, TestClock) {
    let clock = TestClock::new();
    let bulkhead = Bulkhead::adaptive("primary", rules, clock.clock()).unwrap();
    (bulkhead, clock)
}

/// Numbers that look random, the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % n
    }
}
