//! Quotas that change under a caller: its tier, its own quota, the configuration. What is used up
//! stays used up, in proportion.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{MINUTE, SECOND, limiter, quota, remaining};
use proptest::prelude::*;
use spark_core::testing::TestClock;
use spark_ratelimit::{ConfigError, Key, Limiter, Policy, Quota};

fn acme() -> Key {
    Key::of("acme")
}

/// 20 for everybody, 100 for a tier, 400 for one key.
fn everything() -> Policy {
    basic()
        .tier("pro", quota(600, MINUTE, 100))
        .key(acme(), quota(1_200, MINUTE, 400))
}

fn basic() -> Policy {
    Policy::new("p", quota(60, MINUTE, 20)).unwrap()
}

#[test]
fn r12_a_key_has_its_own_quota_whatever_its_tier() {
    let limiter = limiter(&TestClock::new(), [everything()]);
    for tier in [None, Some("pro"), Some("gold")] {
        let decision = limiter.peek(&acme(), tier, 1);
        assert_eq!(
            (decision.tightest().limit, decision.tightest().burst),
            (1_200, 400)
        );
        let told = decision.rate_limit_policy_field().unwrap();
        assert_eq!(told, r#""p";q=1200;w=60"#, "{tier:?}");
    }
    assert!(limiter.check(&acme(), None, 300).allowed());
    for tier in [None, Some("pro")] {
        assert_eq!(
            remaining(&limiter, acme(), tier),
            100,
            "one bucket: {tier:?}"
        );
    }
    assert!(!limiter.check(&acme(), Some("pro"), 101).allowed());
    assert_eq!(remaining(&limiter, Key::of("other"), None), 20);
    assert_eq!(remaining(&limiter, Key::of("other"), Some("pro")), 100);
}

#[test]
fn r12_a_key_given_twice_is_refused() {
    let one = quota(1, SECOND, 1);
    let error = Limiter::builder()
        .policy(everything().key(acme(), one))
        .build()
        .unwrap_err();
    assert!(matches!(error, ConfigError::DuplicateKey { .. }), "{error}");
    assert!(!error.to_string().contains("acme"));
}

#[test]
fn r12_reloads_that_add_and_remove_quotas_keep_the_share() {
    let limiter = limiter(&TestClock::new(), [basic()]);
    let other = Key::of("other");
    assert!(limiter.check(&acme(), None, 10).allowed());
    assert!(limiter.check(&other, Some("pro"), 5).allowed());
    let shares = |own: u64, pro: u64| {
        assert_eq!(remaining(&limiter, acme(), None), own);
        assert_eq!(remaining(&limiter, other, Some("pro")), pro);
    };
    shares(10, 15);
    // A quota for the key alone, and a tier: both keep the share that is left.
    limiter.reconfigure(vec![everything()]).unwrap();
    shares(200, 75);
    // The key's quota goes, the tier stays.
    limiter
        .reconfigure(vec![basic().tier("pro", quota(600, MINUTE, 100))])
        .unwrap();
    shares(10, 75);
    // The tier goes, the key's comes, and another key's before it, so that all tags move.
    let moved = basic()
        .tier("a-new-one", quota(1, MINUTE, 1))
        .key(Key::of("somebody"), quota(1, MINUTE, 1))
        .key(acme(), quota(60, MINUTE, 40));
    limiter.reconfigure(vec![moved]).unwrap();
    shares(20, 15);
    limiter.reconfigure(vec![basic()]).unwrap();
    shares(10, 15);
}

/// A debt that a reload brings over is still that of a tier, or of a key, and paid at its speed.
#[test]
fn r12_after_a_reload_a_debt_is_paid_at_its_own_speed() {
    let clock = TestClock::new();
    let limiter = limiter(&clock, [everything()]);
    let other = Key::of("other");
    // Refilled in 10 seconds by tier, in 20 by key; everybody's in 20, and after the reload in 40.
    assert!(limiter.check(&other, Some("pro"), 100).allowed());
    assert!(limiter.check(&acme(), None, 400).allowed());
    let moved = Policy::new("p", quota(60, MINUTE, 40))
        .unwrap()
        .tier("a-new-one", quota(1, MINUTE, 1))
        .tier("pro", quota(600, MINUTE, 100))
        .key(Key::of("somebody"), quota(1, MINUTE, 1))
        .key(acme(), quota(1_200, MINUTE, 400));
    limiter.reconfigure(vec![moved]).unwrap();
    clock.advance(SECOND * 5);
    assert_eq!(remaining(&limiter, other, Some("pro")), 50);
    assert_eq!(remaining(&limiter, acme(), None), 100);
}

#[test]
fn r12_the_exhausted_stay_exhausted_through_every_reload() {
    let limiter = limiter(&TestClock::new(), [basic()]);
    let steps = [
        everything(),
        basic(),
        basic().key(acme(), quota(1, MINUTE, 100_000)),
        basic().tier("pro", quota(100_000, SECOND, 100_000)),
        everything(),
    ];
    assert!(limiter.check(&acme(), None, 20).allowed());
    for policy in steps {
        limiter.reconfigure(vec![policy]).unwrap();
        for tier in [None, Some("pro")] {
            assert!(!limiter.check(&acme(), tier, 1).allowed());
        }
    }
}

#[test]
fn r12_a_policy_that_went_and_came_again_begins_anew() {
    let other = Policy::new("other", quota(5, MINUTE, 5)).unwrap();
    let limiter = limiter(&TestClock::new(), [basic(), other.clone()]);
    assert!(limiter.check(&acme(), None, 5).allowed());
    limiter.reconfigure(vec![other]).unwrap();
    assert_eq!(remaining(&limiter, acme(), None), 0);
    limiter.reconfigure(vec![basic()]).unwrap();
    assert_eq!(remaining(&limiter, acme(), None), 20);
}

fn a_quota() -> impl Strategy<Value = Quota> {
    (1u64..200, 1u64..100).prop_map(|(n, burst)| quota(n, MINUTE, burst))
}

#[derive(Clone, Copy)]
struct Quotas {
    tier: Option<Quota>,
    key: Option<Quota>,
    all: Quota,
}

impl Quotas {
    fn policy(&self) -> Policy {
        let policy = Policy::new("p", self.all).unwrap();
        let policy = self
            .tier
            .into_iter()
            .fold(policy, |policy, it| policy.tier("pro", it));
        self.key
            .into_iter()
            .fold(policy, |policy, it| policy.key(acme(), it))
    }

    /// What is acme's, with the tier or without.
    fn of(&self, pro: bool) -> Quota {
        let tier = self.tier.filter(|_| pro);
        self.key.or(tier).unwrap_or(self.all)
    }
}

/// The share of its burst that acme has used up.
fn share(limiter: &Limiter, quota: Quota, pro: bool) -> f64 {
    let decision = limiter.peek(&acme(), pro.then_some("pro"), 0);
    let whole = quota.interval().as_nanos() * u128::from(quota.burst_size());
    decision.tightest().full_in.as_nanos() as f64 / whole as f64
}

#[derive(Clone, Debug)]
enum Step {
    Check(bool, u64),
    Reload {
        tier: Option<Quota>,
        key: Option<Quota>,
        all: Quota,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (any::<bool>(), 1u64..20).prop_map(|(pro, cost)| Step::Check(pro, cost)),
        1 => (prop::option::of(a_quota()), prop::option::of(a_quota()), a_quota())
            .prop_map(|(tier, key, all)| Step::Reload { tier, key, all }),
    ]
}

proptest! {
    /// Without time, and however tiers change and quotas are reloaded, nobody gets more than one
    /// burst, each unit counted as the share of the burst that it was when it was used.
    #[test]
    fn r12_no_reload_and_no_tier_gives_a_second_burst(steps in prop::collection::vec(step(), 1..80)) {
        let mut now = Quotas { tier: None, key: None, all: quota(60, MINUTE, 20) };
        let limiter = limiter(&TestClock::new(), [now.policy()]);
        let mut used = 0.0;
        for step in steps {
            match step {
                Step::Check(pro, cost) => {
                    let decision = limiter.check(&acme(), pro.then_some("pro"), cost);
                    if decision.allowed() {
                        used += cost as f64 / decision.tightest().burst as f64;
                    }
                }
                Step::Reload { tier, key, all } => {
                    let before = [false, true].map(|pro| share(&limiter, now.of(pro), pro));
                    now = Quotas { tier, key, all };
                    limiter.reconfigure(vec![now.policy()]).unwrap();
                    let after = [false, true].map(|pro| share(&limiter, now.of(pro), pro));
                    for (before, after) in before.into_iter().zip(after) {
                        prop_assert!((before - after).abs() < 1e-6, "{} {}", before, after);
                    }
                }
            }
            prop_assert!(used < 1.0 + 1e-6, "{} of the burst", used);
        }
    }
}
