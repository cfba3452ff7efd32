//! What a permit gives back: never more than was reserved, and nothing of what came later.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{SECOND, limiter, policy, quota, remaining};
use spark_core::testing::TestClock;
use spark_ratelimit::{Key, Limiter};

#[test]
fn r11_a_refund_is_at_most_the_reservation_and_bound_to_its_permit() {
    let clock = TestClock::new();
    let limiter = limiter(&clock, [policy("p", 100, SECOND * 100)]);
    let key = Key::shared();
    assert!(limiter.check(&key, None, 50).allowed());
    let small = limiter.acquire(&key, None, 10).unwrap();
    let large = limiter.acquire(&key, None, 30).unwrap();
    assert_eq!(remaining(&limiter, key, None), 10);
    small.settle(0);
    assert_eq!(remaining(&limiter, key, None), 20, "10 and no more");
    // Another key has nothing of it, and nothing changes when time has refilled it anyway.
    assert_eq!(remaining(&limiter, Key::of("other"), None), 100);
    clock.advance(SECOND * 75);
    assert_eq!(remaining(&limiter, key, None), 95);
    large.settle(0);
    assert_eq!(remaining(&limiter, key, None), 100);
    assert!(limiter.check(&key, None, 100).allowed());
    assert!(!limiter.check(&key, None, 1).allowed());
}

#[test]
fn r11_what_was_charged_later_stays() {
    let clock = TestClock::new();
    let limiter = limiter(&clock, [policy("p", 10, SECOND * 10)]);
    let key = Key::shared();
    let permit = limiter.acquire(&key, None, 10).unwrap();
    clock.advance(SECOND * 9);
    assert!(limiter.check(&key, None, 9).allowed());
    permit.settle(0);
    // Of the ten, nine have come back by themselves.
    assert_eq!(remaining(&limiter, key, None), 1);
}

#[test]
fn r11_after_a_reset_an_entry_below_is_not_touched() {
    let limiter = limiter(&TestClock::new(), [policy("p", 10, SECOND * 10)]);
    let key = Key::shared();
    let permit = limiter.acquire(&key, None, 6).unwrap();
    limiter.reset(&key);
    assert!(limiter.check(&key, None, 5).allowed());
    permit.settle(0);
    assert_eq!(remaining(&limiter, key, None), 5);
}

#[test]
fn r11_after_an_eviction_an_entry_below_is_not_touched() {
    let limiter = Limiter::builder()
        .clock(TestClock::new().clock())
        .policy(policy("p", 10, SECOND * 10))
        .capacity(8)
        .build()
        .unwrap();
    let key = Key::shared();
    let permit = limiter.acquire(&key, None, 6).unwrap();
    for other in 0..8 {
        assert!(limiter.check(&Key::of(&other), None, 9).allowed());
    }
    assert_eq!(remaining(&limiter, key, None), 10, "forgotten");
    permit.settle(0);
    assert_eq!(limiter.stats()[0].occupied, 8, "it does not come back");

    let permit = limiter.acquire(&key, None, 9).unwrap();
    for other in 8..16 {
        assert!(limiter.check(&Key::of(&other), None, 10).allowed());
    }
    assert!(limiter.check(&key, None, 5).allowed());
    permit.settle(0);
    assert_eq!(remaining(&limiter, key, None), 5);
}

#[test]
fn r11_after_a_reload_or_a_change_of_tier_nothing_is_given_back() {
    let roomier = || policy("p", 10, SECOND * 10).tier("pro", quota(10, SECOND, 100));
    for changes_tier in [false, true] {
        let limiter = limiter(&TestClock::new(), [roomier()]);
        let key = Key::shared();
        let permit = limiter.acquire(&key, None, 6).unwrap();
        let over = limiter.acquire(&key, None, 1).unwrap();
        if changes_tier {
            assert!(limiter.check(&key, Some("pro"), 1).allowed());
        } else {
            limiter.reconfigure(vec![roomier()]).unwrap();
        }
        let before = limiter.peek(&key, None, 0).tightest().full_in;
        permit.settle(0);
        assert_eq!(limiter.peek(&key, None, 0).tightest().full_in, before);
        over.settle(3);
        assert!(
            limiter.peek(&key, None, 0).tightest().full_in > before,
            "two more"
        );
    }
}
