//! Several breakers for one call: who is asked, who is blamed, and what is given back.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use spark_breaker::{
    Breaker, Breakers, Config, ConfigError, FailKind, IgnoreKind, Mode, Outcome, ProviderKey,
    Registry, Scope, State, Totals,
};
use spark_core::testing::TestClock;

const SCOPES: [Scope; 3] = [Scope::Provider, Scope::Model, Scope::Credential];

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn registry(config: Config) -> (Registry, TestClock) {
    let clock = TestClock::new();
    clock.advance(secs(1_000));
    let registry = Registry::new(16, config.jitter(0.0), clock.clock()).unwrap();
    (registry, clock)
}

fn key() -> ProviderKey {
    ProviderKey::new("openai")
        .model("gpt-x")
        .credential("key-1")
}

fn all(config: Config) -> (Breakers, TestClock) {
    let (registry, clock) = registry(config);
    (registry.breakers(&key()).unwrap(), clock)
}

fn of(breakers: &Breakers, scope: Scope) -> &Breaker {
    breakers.of(scope).unwrap()
}

/// What provider, model and credential have counted.
fn totals(breakers: &Breakers) -> [Totals; 3] {
    SCOPES.map(|scope| of(breakers, scope).snapshot().totals)
}

fn in_flight(breakers: &Breakers) -> [u32; 3] {
    SCOPES.map(|scope| of(breakers, scope).snapshot().in_flight)
}

#[test]
fn the_one_that_is_blamed_counts_and_the_others_ignore() {
    let cases = [
        (Outcome::failure(FailKind::Transport), [1, 0, 0]),
        (Outcome::failure(FailKind::Status(500)), [0, 1, 0]),
        (Outcome::failure(FailKind::Truncated), [0, 1, 0]),
        (Outcome::failure(FailKind::Auth), [0, 0, 1]),
    ];
    for (outcome, failures) in cases {
        let (breakers, _clock) = all(Config::llm());
        breakers.try_acquire().unwrap().record(outcome);
        assert_eq!(totals(&breakers).map(|it| it.failures), failures);
        assert_eq!(
            totals(&breakers).map(|it| it.ignored),
            failures.map(|it| 1 - it)
        );
        assert_eq!(in_flight(&breakers), [0; 3]);
    }
    let (breakers, _clock) = all(Config::llm());
    breakers.try_acquire().unwrap().throttled(Some(secs(7)));
    let open = SCOPES.map(|scope| of(&breakers, scope).snapshot().state == State::Open);
    assert_eq!(open, [false, false, true]);

    let (breakers, _clock) = all(Config::llm());
    breakers.try_acquire().unwrap().success();
    assert_eq!(totals(&breakers).map(|it| it.successes), [1, 1, 1]);
    breakers.try_acquire().unwrap().ignore(IgnoreKind::Client);
    assert_eq!(totals(&breakers).map(|it| it.ignored), [1, 1, 1]);
}

#[test]
fn b13_a_thousand_401s_of_one_key_leave_the_provider_open_to_all() {
    let (registry, _clock) = registry(Config::llm());
    let with = |credential| {
        let key = ProviderKey::new("openai").model("gpt-x");
        registry.breakers(&key.credential(credential)).unwrap()
    };
    let mut asked = 0;
    for _ in 0..1_000 {
        if let Ok(permits) = with("bad").try_acquire() {
            asked += 1;
            permits.failure(FailKind::Auth);
        }
        with("good").try_acquire().unwrap().success();
    }
    assert_eq!(asked, 5, "its own breaker opens");
    assert_eq!(&*with("bad").try_acquire().unwrap_err().name, "openai#bad");
    assert_eq!(registry.get("openai").unwrap().snapshot().failures, 0);
    assert_eq!(registry.get("openai/gpt-x").unwrap().snapshot().failures, 0);
}

#[test]
fn all_must_admit_and_the_one_that_refuses_says_so() {
    for scope in SCOPES {
        let (breakers, _clock) = all(Config::llm());
        of(&breakers, scope).set_mode(Mode::ForcedOpen);
        let rejected = breakers.try_acquire().unwrap_err();
        assert_eq!(&*rejected.name, &**of(&breakers, scope).name());
        assert_eq!(in_flight(&breakers), [0; 3], "{scope:?}");
        assert_eq!(totals(&breakers), [Totals::default(); 3], "{scope:?}");
    }
}

/// The breaker of this name refuses in a way that only asking it shows: its first probe is kept for
/// background calls.
fn kept_for_background(config: &Config, name: &str) -> (Breakers, TestClock) {
    let (registry, clock) = registry(config.clone());
    let keeps = config.clone().background_grace(secs(3_600)).jitter(0.0);
    let keeps = registry.get_or_create_with(name, &keeps).unwrap();
    keeps.throttle(secs(5));
    clock.advance(secs(6));
    (registry.breakers(&key()).unwrap(), clock)
}

#[test]
fn what_was_taken_before_a_refusal_is_given_back_with_the_places_of_probes() {
    const HALF: State = State::HalfOpen;
    for (keeper, states) in [
        ("openai/gpt-x", [HALF, State::Open, State::Open]),
        ("openai#key-1", [HALF, HALF, State::Open]),
    ] {
        for in_flight_slow in [None, Some(9)] {
            let rules = Config::llm().probes(1).in_flight_slow(in_flight_slow);
            let (breakers, clock) = kept_for_background(&rules, keeper);
            for scope in SCOPES {
                of(&breakers, scope).throttle(secs(5));
            }
            clock.advance(secs(6));
            for _ in 0..100 {
                let rejected = breakers.try_acquire().unwrap_err();
                assert_eq!(&*rejected.name, keeper);
            }
            let found = SCOPES.map(|scope| of(&breakers, scope).snapshot().state);
            assert_eq!(found, states, "those after it are not asked");
            assert_eq!(in_flight(&breakers), [0; 3]);
            assert_eq!(totals(&breakers), [Totals::default(); 3]);
            let probe = breakers.try_acquire_background().unwrap();
            assert!(probe.is_probe());
            assert!(breakers.try_acquire().is_err(), "the places are taken");
            probe.success();
            let found = SCOPES.map(|scope| of(&breakers, scope).snapshot().state);
            assert_eq!(found, [State::Closed; 3]);
        }
    }
}

#[test]
fn calls_that_are_taken_back_do_not_wait() {
    let rules = Config::llm().in_flight_slow(3).slow_threshold(secs(5));
    let (breakers, clock) = kept_for_background(&rules, "openai#key-1");
    for _ in 0..100 {
        breakers.try_acquire().unwrap_err();
    }
    clock.advance(secs(60));
    breakers.try_acquire().unwrap_err();
    for scope in [Scope::Provider, Scope::Model] {
        let snapshot = of(&breakers, scope).snapshot();
        assert_eq!(
            (snapshot.state, snapshot.in_flight_slow),
            (State::Closed, 0)
        );
    }
}

#[test]
fn calls_that_will_not_be_made_do_not_begin_to_probe_or_take_the_places_of_probes() {
    let (breakers, clock) = all(Config::llm().probes(1));
    of(&breakers, Scope::Provider).throttle(secs(5));
    clock.advance(secs(6));
    of(&breakers, Scope::Model).set_mode(Mode::ForcedOpen);
    let rejected = breakers.try_acquire().unwrap_err();
    assert_eq!(&*rejected.name, "openai/gpt-x");
    let provider = of(&breakers, Scope::Provider);
    assert_eq!(provider.snapshot().state, State::Open, "as it was");

    // The widest one that refuses is the one that says so.
    of(&breakers, Scope::Credential).set_mode(Mode::ForcedOpen);
    assert_eq!(&*breakers.try_acquire().unwrap_err().name, "openai/gpt-x");
    provider.throttle(secs(5));
    assert_eq!(&*breakers.try_acquire().unwrap_err().name, "openai");
}

#[test]
fn a_breaker_that_is_switched_off_gives_back_nothing() {
    let (breakers, _clock) = kept_for_background(&Config::llm(), "openai#key-1");
    let provider = of(&breakers, Scope::Provider);
    let under_way = provider.try_acquire().unwrap();
    provider.set_mode(Mode::Disabled);
    for _ in 0..10 {
        breakers.try_acquire().unwrap_err();
    }
    assert_eq!(in_flight(&breakers), [1, 0, 0]);
    drop(under_way);
    breakers.try_acquire_background().unwrap().success();
    assert_eq!(totals(&breakers).map(|it| it.successes), [0, 1, 1]);
}

#[test]
fn a_call_that_is_given_up_after_long_is_the_models_failure() {
    let rules = || Config::llm().abandon_after(secs(5));
    let (breakers, clock) = all(rules());
    let permits = breakers.try_acquire().unwrap();
    clock.advance(secs(6));
    drop(permits);
    assert_eq!(totals(&breakers).map(|it| it.failures), [0, 1, 0]);
    assert_eq!(totals(&breakers).map(|it| it.cancelled), [1, 0, 1]);

    // Before that, the caller went away; and after the first byte too.
    drop(breakers.try_acquire().unwrap());
    let mut permits = breakers.try_acquire().unwrap();
    permits.first_byte();
    clock.advance(secs(6));
    drop(permits);
    assert_eq!(totals(&breakers).map(|it| it.failures), [0, 1, 0]);
    assert_eq!(totals(&breakers).map(|it| it.cancelled), [3, 2, 3]);

    let (registry, clock) = registry(rules());
    let breakers = registry.breakers(&ProviderKey::new("openai")).unwrap();
    let permits = breakers.try_acquire().unwrap();
    clock.advance(secs(6));
    drop(permits);
    let provider = of(&breakers, Scope::Provider).snapshot();
    assert_eq!(provider.failures, 1, "where there is no model");
}

#[test]
fn a_panic_is_the_providers_failure() {
    let (breakers, clock) = all(Config::llm().abandon_after(secs(5)));
    let caught = catch_unwind(AssertUnwindSafe(|| {
        let _permits = breakers.try_acquire().unwrap();
        clock.advance(secs(6));
        panic!("the call panics");
    }));
    assert!(caught.is_err());
    assert_eq!(totals(&breakers).map(|it| it.failures), [1, 0, 0]);
    assert_eq!(totals(&breakers).map(|it| it.cancelled), [0, 1, 1]);
}

#[test]
fn keys_that_are_none_are_refused_when_they_are_made() {
    let (registry, _clock) = registry(Config::llm());
    let refused = [
        ProviderKey::new("open/ai"),
        ProviderKey::new("open#ai"),
        ProviderKey::new(""),
        ProviderKey::new("openai").model("two words"),
        ProviderKey::new("openai").model(""),
        ProviderKey::new("openai").credential("quo\"te"),
        ProviderKey::new("openai").model("m".repeat(122)),
    ];
    for key in refused {
        let error = registry.breakers(&key).unwrap_err();
        assert_eq!(error, ConfigError::Key, "{key:?}");
    }
    let longest = ProviderKey::new("openai").model("m".repeat(121));
    assert!(registry.breakers(&longest).is_ok());
}

#[test]
fn b12_models_that_an_attacker_makes_up_touch_nothing_real() {
    let (registry, clock) = registry(Config::llm());
    let real = key();
    for round in 0..3_u64 {
        let breakers = registry.breakers(&real).unwrap();
        breakers
            .try_acquire()
            .unwrap()
            .failure(FailKind::Status(500));
        drop(breakers);
        for junk in 0..200 {
            let junk = ProviderKey::new("openai").model(format!("junk-{round}-{junk}"));
            let breakers = registry.breakers(&junk).unwrap();
            if let Ok(permits) = breakers.try_acquire() {
                permits.failure(FailKind::Status(500));
            }
            // The real model works in between as often as not.
            let breakers = registry.breakers(&real).unwrap();
            let permits = breakers.try_acquire().unwrap();
            assert_eq!(
                breakers.of(Scope::Model).unwrap().name().as_ref(),
                "openai/gpt-x"
            );
            permits.ignore(IgnoreKind::Local);
        }
        clock.advance(Duration::from_millis(1_500));
    }
    let failures = |name| registry.get(name).unwrap().snapshot().failures;
    assert_eq!(failures("openai/gpt-x"), 3, "the real one is remembered");
    assert_eq!(failures("openai"), 0, "and the provider is not to blame");
    assert_eq!(failures("openai#key-1"), 0);
    let models = registry.iter().filter(|it| it.name().contains('/')).count();
    assert_eq!(models, 16 + 1, "as many as may be, and the shared one");
    assert_eq!(
        registry.get("other/other").unwrap().snapshot().state,
        State::Open
    );
    assert_eq!(
        registry.get("other").unwrap().snapshot().totals,
        Totals::default()
    );
    assert!(
        registry
            .get_or_create("another-provider")
            .unwrap()
            .try_acquire()
            .is_ok()
    );
    let other_key = ProviderKey::new("openai").credential("key-2");
    assert_eq!(
        &**registry
            .breakers(&other_key)
            .unwrap()
            .of(Scope::Credential)
            .unwrap()
            .name(),
        "openai#key-2",
        "models take no room from credentials"
    );
}

#[test]
fn b12_models_that_were_made_up_are_forgotten_once_they_are_calm() {
    let (registry, clock) = registry(Config::standard());
    for n in 0..16 {
        let junk = ProviderKey::new("openai").model(format!("junk-{n}"));
        let breakers = registry.breakers(&junk).unwrap();
        breakers
            .try_acquire()
            .unwrap()
            .failure(FailKind::Status(500));
    }
    let name = || {
        let breakers = registry.breakers(&key()).unwrap();
        of(&breakers, Scope::Model).name().to_string()
    };
    assert_eq!(name(), "other/other");
    clock.advance(secs(31));
    assert_eq!(name(), "openai/gpt-x");
}

#[test]
fn health_names_those_that_are_not_well() {
    let (registry, clock) = registry(Config::llm());
    let breakers = registry.breakers(&key()).unwrap();
    let health = registry.health();
    assert_eq!((health.worst, health.breakers), (State::Closed, 3));
    assert!(health.unwell.is_empty());

    of(&breakers, Scope::Credential).throttle(secs(7));
    of(&breakers, Scope::Model).set_mode(Mode::ForcedOpen);
    clock.advance(secs(2));
    let health = registry.health();
    assert_eq!(health.worst, State::Open);
    let lines: Vec<_> = health.unwell.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "openai#key-1 is open: throttled for 7.0 s; since 2.0 s; for 5.0 s more",
            "openai/gpt-x is open: an operator said so",
        ]
    );
    of(&breakers, Scope::Model).reset();
    clock.advance(secs(6));
    let probe = breakers.try_acquire().unwrap();
    assert_eq!(registry.health().worst, State::HalfOpen);
    probe.success();
    of(&breakers, Scope::Model).set_mode(Mode::ForcedClosed);
    let health = registry.health();
    let lines: Vec<_> = health.unwell.iter().map(ToString::to_string).collect();
    assert!(
        lines.contains(&"openai/gpt-x is closed: an operator said so".to_owned()),
        "{lines:?}"
    );
}

#[test]
fn health_does_not_say_that_one_opened_by_itself_that_an_operator_had_opened() {
    let (registry, clock) = registry(Config::standard().jitter(0.0).probes(1));
    let breaker = registry.get_or_create("db").unwrap();
    breaker.throttle(secs(7));
    clock.advance(secs(7));
    breaker.try_acquire().unwrap().success();
    breaker.set_mode(Mode::ForcedOpen);
    breaker.set_mode(Mode::Auto);
    let line = registry.health().unwell[0].to_string();
    assert_eq!(
        line,
        "db is open: an operator said so; since 0.0 s; for 0.0 s more"
    );

    // This one had, and what it was told outlasts the operator.
    breaker.reset();
    breaker.throttle(secs(7));
    breaker.set_mode(Mode::ForcedOpen);
    breaker.set_mode(Mode::Auto);
    let line = registry.health().unwell[0].to_string();
    assert_eq!(
        line,
        "db is open: throttled for 7.0 s; since 0.0 s; for 7.0 s more"
    );
}
