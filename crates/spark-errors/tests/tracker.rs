//! The tracker: grouping, bounds, sampling, and secrets.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "helpers of tests")]

use std::{error::Error, fmt, time::Duration};

use proptest::prelude::*;
use spark_core::testing::TestClock;
use spark_errors::{BuildError, ErrorTracker, Fingerprint, MemoryHook, Severity};

#[derive(Debug)]
struct Outer(std::io::Error);

impl fmt::Display for Outer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("could not ask the provider")
    }
}

impl Error for Outer {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

fn tracker() -> ErrorTracker {
    ErrorTracker::builder().log(false).build().unwrap()
}

#[test]
fn an_error_is_kept_with_its_sources_its_type_and_its_place() {
    let tracker = tracker();
    let error = Outer(std::io::Error::other("refused, token=abcdef"));
    let id = tracker
        .event("provider")
        .error(&error)
        .route("/v1/x")
        .tag("attempt", 2)
        .send();
    let event = &tracker.recent(10)[0];
    assert_eq!(event.id, id);
    assert_eq!(event.message, "could not ask the provider");
    assert_eq!(event.causes, ["refused, token=[redacted]"]);
    assert!(event.type_name.unwrap().ends_with("Outer"));
    assert!(
        event.location.contains("tests/tracker.rs:"),
        "{}",
        event.location
    );
    let json = serde_json::to_value(&**event).unwrap();
    assert_eq!(json["tags"]["attempt"], "2");
    assert_eq!(json["severity"], "error");
    assert_eq!(json["id"], id.to_string());
    assert!(json["fingerprint"].as_str().unwrap().starts_with("v1:"));
}

#[test]
fn like_errors_are_one_group_and_others_are_not() {
    let tracker = tracker();
    for n in 0..4 {
        let message = format!(
            "order {n} from 10.0.0.{n} took {n}.5s, id 6f9619ff-8b86-d011-b42d-00cf4fc964f{n}"
        );
        tracker.capture("billing", &std::io::Error::other(message));
    }
    assert_eq!(tracker.groups().len(), 1);
    assert_eq!(tracker.groups()[0].count, 4);
    tracker.capture("billing", &std::io::Error::other("order 1")); // another place
    let boxed: Box<dyn Error> = "order 1".into();
    tracker.capture("billing", &*boxed);
    tracker.capture("search", &fmt::Error);
    assert_eq!(tracker.groups().len(), 4);
    assert_eq!(tracker.groups()[0].sample.kind, "search", "last seen first");
}

#[test]
fn a_group_keeps_its_share_of_a_window_and_counts_the_rest() {
    let clock = TestClock::new();
    let tracker = ErrorTracker::builder()
        .log(false)
        .clock(clock.clock())
        .per_group(3, Duration::from_secs(60))
        .build()
        .unwrap();
    let send = || {
        tracker
            .event("storm")
            .group(Fingerprint::chosen("storm"))
            .message("x")
            .send()
    };
    for _ in 0..1_000 {
        send();
    }
    assert_eq!(
        (tracker.recent(99).len(), tracker.stats().suppressed),
        (3, 997)
    );
    clock.advance(Duration::from_secs(60));
    send();
    assert_eq!(tracker.recent(99).len(), 4);
    let group = &tracker.groups()[0];
    assert_eq!((group.count, group.suppressed), (1_001, 997));
}

#[test]
fn memory_is_bounded_by_number_and_by_bytes() {
    let tracker = ErrorTracker::builder()
        .log(false)
        .ring(16)
        .max_groups(50)
        .max_bytes(1 << 16, 1 << 17)
        .build()
        .unwrap();
    for n in 0..2_000 {
        let name = format!("group {n}");
        let draft = tracker.event("flood").group(Fingerprint::chosen(&name));
        draft
            .message("y".repeat(1 << 20))
            .tag("a", "z".repeat(1 << 20))
            .send();
    }
    let stats = tracker.stats();
    assert!(stats.events <= 16 && stats.groups <= 50, "{stats:?}");
    assert!(stats.bytes <= (1 << 16) + (1 << 17), "{stats:?}");
    assert!(stats.groups > 10);
    assert_eq!(stats.evicted_groups, 2_000 - stats.groups as u64);
    assert_eq!(stats.captured, 2_000);
    // The one touched last is there.
    assert_eq!(
        tracker.groups()[0].fingerprint,
        Fingerprint::chosen("group 1999")
    );
}

#[test]
fn events_have_names_of_their_own() {
    let tracker = tracker();
    let mut names: Vec<_> = (0..10_000)
        .map(|_| tracker.event("x").send().to_string())
        .collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 10_000);
}

#[test]
fn an_error_whose_display_captures_or_never_ends_is_taken() {
    struct Greedy(ErrorTracker);
    impl fmt::Display for Greedy {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.event("inner").message("from inside").send();
            loop {
                f.write_str("more ")?;
            }
        }
    }
    let tracker = tracker();
    tracker
        .event("outer")
        .message(Greedy(tracker.clone()))
        .send();
    let kinds: Vec<_> = tracker.recent(9).iter().map(|event| event.kind).collect();
    assert_eq!(kinds, ["outer", "inner"]);
    assert!(tracker.recent(1)[0].message.len() <= 4_096);
}

#[test]
fn threads_share_one_tracker() {
    let tracker = tracker();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for n in 0..500 {
                    tracker.event("busy").message(n).send();
                }
            });
        }
    });
    assert_eq!(tracker.stats().captured, 4_000);
    assert_eq!(tracker.groups().len(), 1);
}

#[test]
fn bad_settings_are_named_when_built() {
    let builder = ErrorTracker::builder;
    for (builder, field) in [
        (builder().ring(0), "ring"),
        (builder().max_groups(0), "max_groups"),
        (builder().max_bytes(1, 1), "max_bytes"),
        (builder().per_group(0, Duration::from_secs(1)), "per_group"),
        (builder().per_group(1, Duration::ZERO), "per_group"),
        (builder().hook_queue(0), "hook_queue"),
        (
            builder().hook_queue(usize::MAX).hook(MemoryHook::new(1)),
            "hook_queue",
        ),
        (builder().hook_timeout(Duration::ZERO), "hook_timeout"),
        (builder().hook_attempts(0, Duration::ZERO), "hook_attempts"),
    ] {
        assert!(
            builder.build().unwrap_err().to_string().contains(field),
            "{field}"
        );
    }
    let hooked = builder().hook(MemoryHook::new(1)).build();
    assert!(matches!(hooked, Err(BuildError::NoRuntime)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn planted_secrets_are_in_nothing_that_is_kept(
        secret in "[A-Za-z0-9]{16,32}",
        noise in r"[a-z \n{},]{0,40}",
    ) {
        let tracker = tracker();
        let dressed = [
            format!("password={secret}"),
            format!("Authorization: Bearer {secret}"),
            format!("{{\"api_key\": \"{secret}\"}}"),
            format!("sk-{secret}"),
            format!("spark_mk_live_{secret}"),
            format!("https://u:{secret}@h/p"),
        ];
        for text in &dressed {
            let text = format!("{noise} {text} {noise}");
            let error = Outer(std::io::Error::other(text.clone()));
            tracker.event("x").error(&error).route(&text).tag("note", &text).send();
            tracker.event("x").message(&text).severity(Severity::Warning).send();
        }
        tracker.event("x").tag("password", &secret).send();
        let kept = serde_json::to_string(&(tracker.recent(99), tracker.groups())).unwrap();
        prop_assert!(!kept.contains(&secret), "{}", kept);
        let debug = format!("{tracker:?}{:?}", tracker.recent(99));
        prop_assert!(!debug.contains(&secret), "{}", debug);
    }

    #[test]
    fn any_text_is_taken(text in "(?s).{0,200}") {
        let tracker = tracker();
        tracker.event("x").message(&text).route(&text).tag("t", &text).send();
        prop_assert!(serde_json::to_string(&tracker.groups()).is_ok());
    }
}
