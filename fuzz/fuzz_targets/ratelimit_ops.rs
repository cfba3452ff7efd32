//! The limiter: never more than the quota, and whoever waits as long as told is admitted.

#![no_main]

use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use spark_core::Instant;
use spark_core::testing::TestClock;
use spark_ratelimit::{Key, Limiter, Policy, Quota};

#[derive(Debug, Arbitrary)]
struct Input {
    start: u64,
    quota: u16,
    per_micros: u32,
    burst: Option<u16>,
    ops: Vec<Op>,
}

#[derive(Debug, Arbitrary)]
enum Op {
    Check { key: u8, cost: u16 },
    Wait { nanos: u32 },
    WaitLong { seconds: u16 },
    WaitAsTold { key: u8, cost: u16 },
    Acquire { key: u8, estimate: u16 },
    Observe { permit: u8, units: u16 },
    Settle { permit: u8, actual: u16 },
    Drop { permit: u8 },
    Penalize { key: u8, cost: u16 },
    Reset { key: u8 },
}

const KEYS: usize = 3;

fuzz_target!(|input: Input| {
    let quota = Quota::new(
        input.quota.into(),
        Duration::from_micros(input.per_micros.into()),
    );
    let quota = quota.and_then(|quota| match input.burst {
        Some(burst) => quota.burst(burst.into()),
        None => Ok(quota),
    });
    let Ok(quota) = quota else { return };
    let clock = TestClock::new();
    clock.set(Instant::from_nanos(input.start >> 2));
    let limiter = Limiter::builder()
        .clock(clock.clock())
        .policy(Policy::new("fuzzed", quota).unwrap())
        .capacity(1_000)
        .build()
        .unwrap();
    let key = |key: u8| Key::of(&(usize::from(key) % KEYS));
    let burst = quota.burst_size();
    // For each key: units admitted, and since when.
    let mut admitted = [(0_u128, clock.clock().now()); KEYS];
    let mut permits = Vec::new();

    for op in &input.ops {
        match op {
            Op::Check { key: at, cost } => {
                let cost = u64::from(*cost);
                let before = limiter.peek(&key(*at), None, 0);
                let decision = limiter.check(&key(*at), None, cost);
                assert_eq!(decision.exceeds_capacity(), cost > burst);
                assert_eq!(
                    decision.retry_after().is_some(),
                    !decision.allowed() && cost <= burst
                );
                if cost > 0 {
                    assert_eq!(decision.allowed(), cost <= before.tightest().remaining);
                }
                assert!(decision.tightest().remaining <= burst);
                if decision.allowed() {
                    let (units, since) = &mut admitted[usize::from(*at) % KEYS];
                    *units += u128::from(cost);
                    let elapsed = clock.clock().now().saturating_duration_since(*since);
                    let refilled = elapsed.as_nanos() / quota.interval().as_nanos();
                    assert!(
                        *units <= u128::from(burst) + refilled,
                        "{units} of {burst} + {refilled}"
                    );
                }
            }
            Op::Wait { nanos } => clock.advance(Duration::from_nanos((*nanos).into())),
            Op::WaitLong { seconds } => clock.advance(Duration::from_secs((*seconds).into())),
            Op::WaitAsTold { key: at, cost } => {
                let cost = u64::from(*cost).min(burst);
                let Some(wait) = limiter.peek(&key(*at), None, cost).retry_after() else {
                    continue;
                };
                assert!(!wait.is_zero());
                clock.advance(wait - Duration::from_nanos(1));
                assert!(
                    !limiter.peek(&key(*at), None, cost).allowed(),
                    "told to wait too long"
                );
                clock.advance(Duration::from_nanos(1));
                assert!(
                    limiter.peek(&key(*at), None, cost).allowed(),
                    "told to wait too short"
                );
            }
            Op::Penalize { key: at, cost } => limiter.penalize(&key(*at), None, (*cost).into()),
            Op::Acquire { key: at, estimate } => {
                let estimate = u64::from(*estimate);
                let left = limiter.peek(&key(*at), None, 0).tightest().remaining;
                let Ok(permit) = limiter.acquire(&key(*at), None, estimate) else {
                    assert!(estimate > left || left == 0);
                    continue;
                };
                assert!(estimate <= left || estimate == 0);
                let (units, since) = &mut admitted[usize::from(*at) % KEYS];
                *units += u128::from(estimate);
                let elapsed = clock.clock().now().saturating_duration_since(*since);
                let refilled = elapsed.as_nanos() / quota.interval().as_nanos();
                assert!(*units <= u128::from(burst) + refilled);
                permits.push((*at, permit));
            }
            Op::Observe { permit, units } => {
                let at = usize::from(*permit);
                if let Some((_, permit)) = permits.get_mut(at) {
                    permit.observe((*units).into());
                }
            }
            Op::Settle { permit, .. } | Op::Drop { permit } => {
                let at = usize::from(*permit);
                if at >= permits.len() {
                    continue;
                }
                let (at, permit) = permits.swap_remove(at);
                let (reserved, observed) = (permit.reserved(), permit.observed());
                let left = || limiter.peek(&key(at), None, 0).tightest().remaining;
                let before = left();
                let used = if let Op::Settle { actual, .. } = op {
                    permit.settle((*actual).into());
                    u64::from(*actual)
                } else {
                    drop(permit);
                    observed.unwrap_or(reserved)
                };
                let after = left();
                let (units, since) = &mut admitted[usize::from(at) % KEYS];
                if let Some(unused) = reserved.checked_sub(used) {
                    assert!((before..=before + unused).contains(&after));
                    *units = units.saturating_sub(unused.into());
                } else {
                    assert!(after <= before);
                    (*units, *since) = (0, clock.clock().now());
                }
            }
            Op::Reset { key: at } => {
                limiter.reset(&key(*at));
                admitted[usize::from(*at) % KEYS] = (0, clock.clock().now());
            }
        }
    }
});
