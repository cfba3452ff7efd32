//! The limiter by itself: against an exact oracle, against governor, by several policies and tiers.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::num::NonZeroU32;
use std::time::Duration;

use common::{MINUTE, SECOND, limiter, quota, remaining};
use governor::clock::FakeRelativeClock;
use proptest::prelude::*;
use spark_core::Instant;
use spark_core::testing::TestClock;
use spark_ratelimit::{Charge, ConfigError, Key, Limiter, Policy, Quota};

fn policy(name: &str, quota: Quota) -> Policy {
    Policy::new(name, quota).unwrap()
}

/// A token bucket in exact arithmetic: the level is kept in nanoseconds of refill.
struct Oracle {
    interval: u128,
    size: u128,
    level: u128,
}

impl Oracle {
    fn new(quota: &Quota) -> Self {
        let interval = quota.interval().as_nanos();
        let size = interval * u128::from(quota.burst_size());
        Self {
            interval,
            size,
            level: size,
        }
    }

    fn refill(&mut self, by: Duration) {
        self.level = (self.level + by.as_nanos()).min(self.size);
    }

    fn admits(&self, cost: u64) -> bool {
        self.level >= self.interval * u128::from(cost)
    }

    fn take(&mut self, cost: u64) {
        self.level -= self.interval * u128::from(cost);
    }
}

fn a_quota() -> impl Strategy<Value = Quota> {
    let pers = prop::sample::select(vec![1_000_000, 999_999_937, 1_000_000_000, 60_000_000_000]);
    (1u64..2_000, pers, 1u64..50)
        .prop_map(|(n, per, burst)| quota(n, Duration::from_nanos(per), burst))
}

/// Steps of time, as shares of the quota's interval, and costs.
fn arrivals() -> impl Strategy<Value = Vec<(u64, u64)>> {
    prop::collection::vec(
        (prop_oneof![Just(0), 0u64..300, 0u64..10_000], 0u64..12),
        1..80,
    )
}

fn step(quota: &Quota, percent: u64) -> Duration {
    Duration::from_nanos(
        u64::try_from(quota.interval().as_nanos() * u128::from(percent) / 100).unwrap(),
    )
}

proptest! {
    /// R6: the same answers as an exact bucket, and no window admits more than burst + rate × t.
    #[test]
    fn r6_never_more_and_never_less_than_the_exact_oracle(quota in a_quota(), arrivals in arrivals()) {
        let clock = TestClock::new();
        let limiter = limiter(&clock, [policy("p", quota)]);
        let mut oracle = Oracle::new(&quota);
        let mut admitted: Vec<(u128, u128)> = Vec::new();
        let mut now = 0;
        for (percent, cost) in arrivals {
            let pause = step(&quota, percent);
            clock.advance(pause);
            oracle.refill(pause);
            now += pause.as_nanos();

            let decision = limiter.check(&Key::shared(), None, cost);
            prop_assert_eq!(decision.allowed(), oracle.admits(cost));
            prop_assert_eq!(decision.exceeds_capacity(), cost > quota.burst_size());
            if decision.allowed() {
                oracle.take(cost);
                admitted.push((now, u128::from(cost)));
            }
            let left = u64::try_from(oracle.level / oracle.interval).unwrap();
            prop_assert_eq!(decision.tightest().remaining, left);
        }
        for (first, (start, _)) in admitted.iter().enumerate() {
            let mut sum = 0;
            for (end, cost) in &admitted[first..] {
                sum += cost;
                prop_assert!(sum * oracle.interval <= oracle.size + (end - start));
            }
        }
    }

    /// R6: governor, with its own store, says the same to the same requests.
    #[test]
    fn r6_governor_agrees(quota in a_quota(), arrivals in arrivals()) {
        let clock = TestClock::new();
        let ours = limiter(&clock, [policy("p", quota)]);
        let burst = NonZeroU32::new(u32::try_from(quota.burst_size()).unwrap()).unwrap();
        let theirs = governor::Quota::with_period(quota.interval()).unwrap().allow_burst(burst);
        let fake = FakeRelativeClock::default();
        let theirs = governor::RateLimiter::dashmap_with_clock(theirs, fake.clone());
        for (percent, cost) in arrivals {
            let pause = step(&quota, percent);
            clock.advance(pause);
            fake.advance(pause);
            let Some(weight) = NonZeroU32::new(u32::try_from(cost).unwrap()) else { continue };
            let decision = ours.check(&Key::shared(), None, cost);
            match theirs.check_key_n(&"shared", weight) {
                Err(_) => prop_assert!(decision.exceeds_capacity()),
                Ok(Ok(())) => prop_assert!(decision.allowed()),
                Ok(Err(not_until)) => {
                    use governor::clock::Clock;
                    prop_assert_eq!(decision.retry_after(), Some(not_until.wait_time_from(fake.now())));
                }
            }
        }
    }

    /// R5: waits are never zero, and whoever waits is admitted, with several policies and any cost.
    #[test]
    fn r5_a_client_that_waits_is_admitted(a in a_quota(), b in a_quota(), costs in prop::collection::vec(1u64..20, 1..60)) {
        let clock = TestClock::new();
        let limiter = limiter(&clock, [policy("a", a), policy("b", b)]);
        for cost in costs {
            let decision = limiter.check(&Key::shared(), None, cost);
            if decision.exceeds_capacity() {
                prop_assert_eq!(decision.retry_after(), None);
            } else if let Some(wait) = decision.retry_after() {
                prop_assert!(wait > Duration::ZERO);
                prop_assert!(wait >= decision.tightest().next_in);
                clock.advance(wait - Duration::from_nanos(1));
                prop_assert!(!limiter.check(&Key::shared(), None, cost).allowed());
                clock.advance(Duration::from_nanos(1));
                prop_assert!(limiter.check(&Key::shared(), None, cost).allowed());
            }
        }
    }

    /// R8, R9: what is refused changes nothing, in any policy.
    #[test]
    fn r8_r9_a_refusal_charges_nobody(a in a_quota(), b in a_quota(), costs in prop::collection::vec(0u64..30, 1..60)) {
        let clock = TestClock::new();
        let both = limiter(&clock, [policy("a", a), policy("b", b)]);
        let (only_a, only_b) = (limiter(&clock, [policy("a", a)]), limiter(&clock, [policy("b", b)]));
        let key = Key::shared();
        for cost in costs {
            let agree = only_a.peek(&key, None, cost).allowed() && only_b.peek(&key, None, cost).allowed();
            let decision = both.check(&key, None, cost);
            prop_assert_eq!(decision.allowed(), agree);
            prop_assert_eq!(decision.violated().count() == 0, agree);
            if agree {
                only_a.check(&key, None, cost);
                only_b.check(&key, None, cost);
            }
        }
    }

    /// R12: however a key changes between tiers, it gets no more than the share that is left.
    #[test]
    fn r12_changing_tiers_gains_nothing(tiers in prop::collection::vec(prop::bool::ANY, 1..400)) {
        let clock = TestClock::new();
        let limiter = limiter(
            &clock,
            [policy("p", quota(60, MINUTE, 20)).tier("pro", quota(600, MINUTE, 100))],
        );
        let mut used = 0.0;
        for pro in tiers {
            if limiter.check(&Key::shared(), pro.then_some("pro"), 1).allowed() {
                used += if pro { 0.01 } else { 0.05 };
            }
        }
        prop_assert!(used < 1.0 + 1e-6, "{used} of the burst");
    }
}

#[test]
fn everything_may_cross_threads() {
    fn check<T: Send + Sync>() {}
    check::<Limiter>();
    check::<spark_ratelimit::Decision<'_>>();
    check::<spark_ratelimit::KeyBy>();
}

#[test]
fn r8_a_cost_above_the_burst_is_refused_for_good() {
    let clock = TestClock::new();
    let limiter = limiter(&clock, [policy("p", quota(10, SECOND, 5))]);
    for cost in [6, u64::MAX] {
        let decision = limiter.check(&Key::shared(), None, cost);
        assert!(!decision.allowed() && decision.exceeds_capacity());
        assert_eq!(decision.retry_after(), None);
    }
    assert_eq!(remaining(&limiter, Key::shared(), None), 5);
    assert!(limiter.check(&Key::shared(), None, 0).allowed());
}

#[test]
fn r7_a_clock_that_steps_back_neither_panics_nor_locks_out_nor_gives_away() {
    let clock = TestClock::new();
    let limiter = limiter(&clock, [policy("p", quota(10, SECOND, 5))]);
    let key = Key::shared();
    clock.set(Instant::from_nanos(3_600_000_000_000));
    assert!(limiter.check(&key, None, 5).allowed());
    clock.set(Instant::from_nanos(0));
    assert!(!limiter.check(&key, None, 1).allowed(), "no free burst");
    let wait = limiter.check(&key, None, 1).retry_after().unwrap();
    assert!(wait <= SECOND, "two refills at most: {wait:?}");
    clock.set(Instant::from_nanos(u64::MAX));
    assert!(limiter.check(&key, None, 5).allowed());
}

#[test]
fn the_tightest_policy_is_reported() {
    let clock = TestClock::new();
    let day = Duration::from_secs(86_400);
    let limiter = limiter(
        &clock,
        [
            policy("second", quota(10, SECOND, 10)),
            policy("day", quota(25, day, 25)),
        ],
    );
    let key = Key::shared();
    assert_eq!(limiter.check(&key, None, 10).tightest().name, "second");
    assert_eq!(
        limiter.check(&key, None, 1).violated().collect::<Vec<_>>(),
        ["second"]
    );
    clock.advance(SECOND);
    let decision = limiter.check(&key, None, 9);
    assert_eq!(
        (
            decision.tightest().name.as_str(),
            decision.tightest().remaining
        ),
        ("second", 1)
    );
    clock.advance(SECOND);
    limiter.check(&key, None, 6);
    clock.advance(SECOND);
    let refused = limiter.check(&key, None, 9);
    assert_eq!(refused.violated().collect::<Vec<_>>(), ["day"]);
    assert_eq!(
        (refused.tightest().name.as_str(), refused.tightest().limit),
        ("day", 25)
    );
    assert!(refused.retry_after().unwrap() > Duration::from_secs(86_400 / 25 * 8));

    // Both refuse: the longer wait is the one that is told.
    limiter.penalize(&key, None, 10);
    let refused = limiter.check(&key, None, 5);
    assert_eq!(refused.violated().count(), 2);
    assert_eq!(refused.tightest().name, "day");
}

#[test]
fn tiers_have_their_own_quota_and_unknown_ones_everybodys() {
    let clock = TestClock::new();
    let limiter = limiter(
        &clock,
        [
            policy("a", quota(10, SECOND, 10)).tier("pro", quota(100, SECOND, 100)),
            policy("b", quota(20, SECOND, 20)).tier("free", quota(5, SECOND, 5)),
        ],
    );
    for (tier, most) in [
        (None, 10),
        (Some("pro"), 20),
        (Some("free"), 5),
        (Some("gold"), 10),
    ] {
        let decision = limiter.check(&Key::of(&tier), tier, most);
        assert!(decision.allowed(), "{tier:?}");
        assert!(
            !limiter.check(&Key::of(&tier), tier, 1).allowed(),
            "{tier:?}"
        );
    }
    let field = |tier| {
        limiter
            .peek(&Key::shared(), tier, 1)
            .rate_limit_policy_field()
            .unwrap()
    };
    assert_eq!(field(None), r#""a";q=10;w=1, "b";q=20;w=1"#);
    assert_eq!(field(Some("pro")), r#""a";q=100;w=1, "b";q=20;w=1"#);
    assert_eq!(field(Some("free")), r#""a";q=10;w=1, "b";q=5;w=1"#);
}

#[test]
fn a_reload_carries_debts_in_proportion_and_keeps_the_old_policies_when_it_fails() {
    let clock = TestClock::new();
    let a =
        |burst| policy("a", quota(60, MINUTE, burst)).tier("pro", quota(600, MINUTE, burst * 10));
    let limiter = limiter(&clock, [a(20), policy("b", quota(1_000, MINUTE, 1_000))]);
    let (user, pro, idle) = (Key::of("user"), Key::of("pro"), Key::of("idle"));
    limiter.check(&user, None, 5);
    limiter.check(&pro, Some("pro"), 150);

    assert_eq!(limiter.reconfigure(vec![]), Err(ConfigError::NoPolicy));
    assert_eq!(remaining(&limiter, user, None), 15);

    // Another order, another burst, one policy gone and one new.
    limiter
        .reconfigure(vec![policy("c", quota(5_000, MINUTE, 5_000)), a(40)])
        .unwrap();
    assert_eq!(remaining(&limiter, user, None), 30);
    assert_eq!(remaining(&limiter, pro, Some("pro")), 100);
    assert_eq!(remaining(&limiter, idle, None), 40);

    // The tier is gone: its callers keep the share that they used.
    limiter
        .reconfigure(vec![policy("a", quota(60, MINUTE, 8))])
        .unwrap();
    assert_eq!(remaining(&limiter, pro, Some("pro")), 2);
    assert_eq!(remaining(&limiter, user, None), 6);
    for _ in 0..300 {
        limiter
            .reconfigure(vec![policy("a", quota(60, MINUTE, 8))])
            .unwrap();
    }
    assert_eq!(
        remaining(&limiter, user, None),
        6,
        "reloading alone changes nothing"
    );

    // An exhausted key stays exhausted whatever it is reloaded to.
    assert!(limiter.check(&user, None, 6).allowed());
    limiter.reconfigure(vec![a(1_000)]).unwrap();
    assert!(!limiter.check(&user, None, 1).allowed());
    clock.advance(Duration::from_secs(1_000));
    assert_eq!(remaining(&limiter, user, None), 1_000);
}

#[test]
fn penalties_and_pardons() {
    let clock = TestClock::new();
    let limiter = limiter(&clock, [policy("p", quota(10, SECOND, 10))]);
    let key = Key::of("mallory");
    limiter.penalize(&key, None, u64::MAX);
    let wait = limiter.check(&key, None, 10).retry_after().unwrap();
    assert_eq!(wait, SECOND * 2, "never more than two bursts");
    limiter.reset(&key);
    assert!(limiter.check(&key, None, 10).allowed());
    limiter.reset(&Key::of("nobody"));
}

#[test]
fn configurations_that_cannot_work_are_refused_by_name() {
    let q = quota(1, SECOND, 1);
    let build = |policies: Vec<Policy>| {
        let builder = Limiter::builder().capacity(8);
        policies
            .into_iter()
            .fold(builder, |b, p| b.policy(p))
            .build()
            .map(drop)
    };
    assert_eq!(build(vec![]), Err(ConfigError::NoPolicy));
    let twice = build(vec![policy("a", q), policy("a", q)]);
    assert!(
        twice
            .unwrap_err()
            .to_string()
            .contains("policy a is given twice")
    );
    let tiers = build(vec![policy("a", q).tier("t", q).tier("t", q)]);
    assert!(matches!(tiers, Err(ConfigError::DuplicateTier { .. })));
    let bad_tier = build(vec![policy("a", q).tier("no spaces", q)]);
    assert!(matches!(bad_tier, Err(ConfigError::Name { .. })));
    let many = build((0..33).map(|n| policy(&format!("p{n}"), q)).collect());
    assert!(matches!(
        many,
        Err(ConfigError::TooManyPolicies { got: 33, .. })
    ));
    for slots in [0, usize::MAX] {
        let limiter = Limiter::builder()
            .policy(policy("a", q))
            .capacity(slots)
            .build();
        assert!(matches!(limiter, Err(ConfigError::Capacity { .. })));
    }
    for name in ["", "a\"b", "a\r\nx: y", "a b", "\u{e9}"] {
        assert!(matches!(
            Policy::new(name, q),
            Err(ConfigError::Name { .. })
        ));
    }
}

#[test]
fn a_decision_speaks_of_its_own_policies_after_a_reload_and_of_none_after_two() {
    let limiter = common::limiter(&TestClock::new(), [common::policy("old", 1, SECOND * 9)]);
    limiter.check(&Key::shared(), None, 1);
    let refused = limiter.check(&Key::shared(), None, 1);
    let reload = || {
        let new = common::policy("new", 1, SECOND).shadow();
        limiter.reconfigure(vec![new]).unwrap();
        // From now on this thread knows that one.
        limiter.check(&Key::shared(), None, 1);
    };
    reload();
    assert_eq!(refused.violated().collect::<Vec<_>>(), ["old"]);
    assert_eq!(refused.tightest().name, "old");
    assert_eq!(refused.rate_limit_field().unwrap(), r#""old";r=0;t=9"#);
    let field = refused.rate_limit_policy_field();
    assert_eq!(field.unwrap(), r#""old";q=1;w=9"#);
    reload();
    assert_eq!(refused.violated().count(), 0);
    assert_eq!(refused.rate_limit_field(), None);
    assert_eq!(refused.rate_limit_policy_field(), None);
    assert_eq!(refused.retry_after(), Some(SECOND * 9));
    assert!(!refused.allowed());
}

#[test]
fn the_key_whose_quotas_are_told_is_the_first_given_policys() {
    let own =
        |name| common::policy(name, 5, SECOND).key(Key::of(name), common::quota(7, SECOND, 7));
    let limiter = common::limiter(&TestClock::new(), [own("a")]);
    let told = || {
        let decision = limiter.peek_each(None, |name| Charge::new(Key::of(name), 1));
        let field = decision.rate_limit_policy_field().unwrap();
        field.to_str().unwrap().to_owned()
    };
    assert_eq!(told(), r#""a";q=7;w=1"#);
    // Their tables stand in another order.
    limiter.reconfigure(vec![own("b"), own("a")]).unwrap();
    assert_eq!(told(), r#""b";q=7;w=1, "a";q=5;w=1"#);
}
