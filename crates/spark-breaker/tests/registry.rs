//! Breakers by name: who has a place, who makes room, and who shares.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::Duration;

use spark_breaker::{Config, FailKind, IgnoreKind, Mode, OVERFLOW, Permit, Registry, State};
use spark_core::Clock;
use spark_core::testing::TestClock;

#[test]
fn invented_names_cannot_push_out_a_breaker_that_remembers_trouble() {
    let registry = Registry::new(4, Config::standard(), Clock::system()).unwrap();
    for _ in 0..3 {
        let real = registry.get_or_create("real").unwrap();
        real.try_acquire().unwrap().failure(FailKind::Transport);
        for junk in 0..100 {
            let junk = registry.get_or_create(&format!("junk-{junk}")).unwrap();
            junk.try_acquire().unwrap().ignore(IgnoreKind::Client);
        }
    }
    assert_eq!(registry.get("real").unwrap().snapshot().failures, 3);
    assert_eq!(registry.iter().count(), 4 + 1, "and the shared one");
}

#[test]
fn b12_one_that_is_in_use_keeps_its_place_and_one_that_is_not_makes_room() {
    let clock = TestClock::new();
    let rules = Config::standard().window(Duration::from_secs(30));
    let registry = Registry::new(2, rules, clock.clock()).unwrap();
    let name = |name| registry.get_or_create(name).unwrap().name().to_string();
    assert_eq!((name("used"), name("left")), ("used".into(), "left".into()));
    for _ in 0..6 {
        assert_eq!(
            (name("used"), name("new")),
            ("used".into(), OVERFLOW.into())
        );
        clock.advance(Duration::from_secs(5));
    }
    assert_eq!((name("new"), name("used")), ("new".into(), "used".into()));
    assert_eq!(name("left"), OVERFLOW);
}

#[test]
fn b12_one_that_an_operator_has_in_hand_keeps_its_place() {
    for mode in [
        Mode::ForcedOpen,
        Mode::ForcedClosed,
        Mode::MetricsOnly,
        Mode::Disabled,
    ] {
        let clock = TestClock::new();
        let registry = Registry::new(1, Config::standard(), clock.clock()).unwrap();
        registry.get_or_create("in-hand").unwrap().set_mode(mode);
        clock.advance(Duration::from_secs(100_000));
        let new = registry.get_or_create("new").unwrap();
        assert_eq!(&**new.name(), OVERFLOW, "{mode:?}");
    }
}

#[test]
fn room_is_looked_for_once_a_second() {
    let clock = TestClock::new();
    let registry = Registry::new(1, Config::standard(), clock.clock()).unwrap();
    let name = || registry.get_or_create("new").unwrap().name().to_string();
    let held = registry.get_or_create("held").unwrap();
    clock.advance(Duration::from_secs(60));
    assert_eq!(name(), OVERFLOW);
    drop(held);
    assert_eq!(name(), OVERFLOW, "not yet again");
    clock.advance(Duration::from_secs(1));
    assert_eq!(name(), "new");
}

#[test]
fn b12_invented_names_that_fail_do_not_fill_it_for_good() {
    let clock = TestClock::new();
    clock.advance(Duration::from_secs(1_000));
    let registry = Registry::new(4, Config::standard(), clock.clock()).unwrap();
    let real = registry.get_or_create("real").unwrap();
    for n in 0..10 {
        for _ in 0..5 {
            real.try_acquire().map_or_else(drop, Permit::success);
            real.try_acquire().unwrap().failure(FailKind::Transport);
            let junk = registry.get_or_create(&format!("junk-{n}")).unwrap();
            let _ = junk.try_acquire().map(|it| it.failure(FailKind::Transport));
        }
        real.reset();
        real.try_acquire().unwrap().failure(FailKind::Transport);
        // By then the trouble of whoever was not called again is long over.
        clock.advance(Duration::from_secs(20));
        real.try_acquire().unwrap().failure(FailKind::Transport);
        clock.advance(Duration::from_secs(20));
    }
    drop(real);
    let kept = registry.get("real").unwrap().snapshot().failures;
    assert_eq!(kept, 1, "the one in trouble stays");
    let names: Vec<_> = registry.iter().map(|it| it.name().to_string()).collect();
    assert_eq!(names.len(), 4, "{names:?}");
    assert!(names.contains(&"junk-9".to_owned()), "{names:?}");
    assert!(!names.contains(&OVERFLOW.to_owned()), "{names:?}");
}

#[test]
fn a_full_registry_shares_one_breaker() {
    let registry = Registry::new(1, Config::standard(), Clock::system()).unwrap();
    let held = registry.get_or_create("held").unwrap();
    let more = registry.get_or_create("more").unwrap();
    let again = registry.get_or_create("again").unwrap();
    assert_eq!((&**more.name(), &**again.name()), (OVERFLOW, OVERFLOW));
    assert_eq!(&**held.name(), "held");

    for _ in 0..5 {
        more.try_acquire().unwrap().failure(FailKind::Transport);
    }
    assert!(again.try_acquire().is_err(), "it is one breaker");
    let shown: Vec<_> = registry.snapshots().into_iter().map(|s| s.state).collect();
    assert_eq!(shown, [State::Closed, State::Open], "held, other");
    registry.get(OVERFLOW).unwrap().reset();
    assert!(again.try_acquire().is_ok(), "an operator can reach it");
    let by_name = registry.get_or_create(OVERFLOW).unwrap();
    by_name.set_mode(Mode::ForcedOpen);
    assert!(more.try_acquire().is_err(), "no second one has its name");
}

#[test]
fn what_is_taken_out_makes_room_at_once_and_is_made_anew() {
    let registry = Registry::new(1, Config::standard(), Clock::system()).unwrap();
    let old = registry.get_or_create("key").unwrap();
    old.exhaust(None);
    let shared = registry.get_or_create("next").unwrap();
    assert_eq!(&**shared.name(), OVERFLOW, "it is full");
    assert!(registry.remove("key").is_some());
    assert!(registry.remove("key").is_none() && registry.remove(OVERFLOW).is_none());
    assert!(old.try_acquire().is_err(), "who holds it goes on with it");
    let next = registry.get_or_create("next").unwrap();
    assert_eq!(&**next.name(), "next");
    assert!(next.try_acquire().is_ok());
    assert!(registry.get(OVERFLOW).is_some());
}
