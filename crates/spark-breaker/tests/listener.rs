//! Events for code outside.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use spark_breaker::{
    Breaker, CallError, Config, Event, EventKind, FailKind, IgnoreKind, Listener, Mode, OVERFLOW,
    Outcome, Permit, Reason, Registry, RejectReason, State,
};
use spark_core::testing::TestClock;

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn config() -> Config {
    Config::standard().jitter(0.0).probes(1).consecutive(3)
}

/// Writes down what it is told.
#[derive(Default)]
struct Record(Mutex<Vec<(u64, EventKind)>>);

impl Listener for Record {
    fn on_event(&self, event: &Event<'_>) {
        assert_eq!(&**event.name, "provider");
        self.0.lock().unwrap().push((event.generation, event.kind));
    }
}

impl Record {
    /// What it was told since it was asked last.
    fn take(&self) -> Vec<(u64, EventKind)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn listened(config: Config) -> (Breaker, TestClock, Arc<Record>) {
    let record = Arc::new(Record::default());
    let (breaker, clock) = with(config, record.clone());
    (breaker, clock, record)
}

fn with(config: Config, listener: Arc<dyn Listener>) -> (Breaker, TestClock) {
    let clock = TestClock::new();
    clock.advance(secs(1_000));
    let breaker = Breaker::with_listener("provider", config, clock.clock(), listener).unwrap();
    (breaker, clock)
}

fn fail(breaker: &Breaker, times: usize) {
    for _ in 0..times {
        breaker.try_acquire().unwrap().failure(FailKind::Transport);
    }
}

fn moved(from: State, to: State, reason: Reason) -> EventKind {
    EventKind::Transition { from, to, reason }
}

#[test]
fn transitions_are_told_once_with_their_generation_and_reason() {
    use State::{Closed, HalfOpen, Open};
    let (breaker, clock, record) = listened(config());
    fail(&breaker, 3);
    let reason = Reason::Consecutive {
        failures: 3,
        last: FailKind::Transport,
    };
    assert_eq!(record.take(), [(1, moved(Closed, Open, reason))]);

    clock.advance(secs(10));
    let hung = breaker.try_acquire().unwrap();
    let begins = (2, moved(Open, HalfOpen, Reason::OpenTimeOver));
    assert_eq!(record.take(), [begins, (2, EventKind::ProbeStarted)]);
    clock.advance(secs(30));
    let probe = breaker.try_acquire().unwrap();
    let again = (3, moved(HalfOpen, HalfOpen, Reason::ProbesLost));
    assert_eq!(record.take(), [again, (3, EventKind::ProbeStarted)]);
    hung.success();
    let outcome = Outcome::Success;
    assert_eq!(record.take(), [(2, EventKind::Late { outcome })]);
    probe.ignore(IgnoreKind::Client);
    assert_eq!(
        record.take(),
        [(4, moved(HalfOpen, Closed, Reason::Recovered))]
    );

    breaker.set_mode(Mode::ForcedOpen);
    assert_eq!(record.take(), [(5, moved(Closed, Open, Reason::Operator))]);
    breaker.reset();
    assert_eq!(record.take(), [(6, moved(Open, Closed, Reason::Operator))]);
}

#[test]
fn an_open_one_says_when_it_hears_that_waiting_does_not_help() {
    let (breaker, _clock, record) = listened(config());
    breaker.throttle(secs(5));
    let throttled = |retry_after, terminal| EventKind::Throttled {
        retry_after,
        terminal,
    };
    let retry_after = secs(5);
    let opens = moved(
        State::Closed,
        State::Open,
        Reason::Throttled { retry_after },
    );
    let told = throttled(Some(secs(5)), false);
    assert_eq!(record.take(), [(1, opens), (1, told)]);
    breaker.exhaust(None);
    let reason = Reason::Exhausted { retry_after: None };
    let worse = moved(State::Open, State::Open, reason);
    assert_eq!(record.take(), [(1, worse), (1, throttled(None, true))]);
    // It does not get worse than that.
    breaker.exhaust(secs(9));
    assert_eq!(record.take(), [(1, throttled(Some(secs(9)), true))]);
}

#[test]
fn calls_that_pass_and_succeed_are_no_event() {
    let (breaker, _clock, record) = listened(config().slow_rate(0.5));
    for call in 0..1_000 {
        let permit = breaker.try_acquire().unwrap();
        match call % 3 {
            0 => permit.success(),
            1 => drop(permit),
            _ => permit.ignore(IgnoreKind::Client),
        }
    }
    fail(&breaker, 2);
    breaker.snapshot();
    breaker.reconfigure(config()).unwrap();
    assert_eq!(record.take(), []);
}

#[test]
fn what_was_refused_throttled_or_late_is_told() {
    let (breaker, _clock, record) = listened(config());
    let old = breaker.try_acquire().unwrap();
    let throttled = breaker.try_acquire().unwrap();
    throttled.record(Outcome::throttled());
    let retry_after = None;
    let terminal = false;
    assert_eq!(
        record.take(),
        [(
            0,
            EventKind::Throttled {
                retry_after,
                terminal
            }
        )]
    );
    fail(&breaker, 3);
    record.take();
    assert!(breaker.try_acquire().is_err());
    let refused = EventKind::Rejected {
        state: State::Open,
        reason: RejectReason::Open,
        retry_after: secs(10),
    };
    assert_eq!(record.take(), [(1, refused)]);
    let outcome = Outcome::throttled().with_retry_after(secs(1));
    old.record(outcome);
    assert_eq!(record.take(), [(0, EventKind::Late { outcome })]);
}

#[test]
fn who_only_watches_tells_when_it_would_open() {
    let (breaker, _clock, record) = listened(config());
    breaker.set_mode(Mode::MetricsOnly);
    record.take();
    fail(&breaker, 5);
    let reason = Reason::Consecutive {
        failures: 3,
        last: FailKind::Transport,
    };
    assert_eq!(record.take(), [(1, EventKind::WouldOpen { reason })]);
}

/// Opens, refuses, probes, closes and throttles; what callers got and how it stands after each step.
fn a_history(breaker: &Breaker, clock: &TestClock) -> Vec<String> {
    let mut seen = Vec::new();
    for step in 0..200_u64 {
        let got = breaker.run(|| match step % 7 {
            0..=2 => Err(step),
            _ => Ok(step),
        });
        seen.push(format!("{got:?}"));
        match breaker.try_acquire() {
            Ok(permit) if step % 5 == 0 => permit.throttled(Some(secs(step % 3))),
            Ok(permit) if step % 31 == 0 => permit.exhausted(Some(secs(40))),
            Ok(permit) => drop(permit),
            Err(rejected) => seen.push(rejected.to_string()),
        }
        clock.advance(secs(step % 4));
        seen.push(format!("{:?}", breaker.snapshot()));
    }
    seen
}

#[test]
fn b7_a_listener_that_panics_changes_nothing_for_the_callers() {
    let told = Arc::new(AtomicUsize::new(0));
    let panics = {
        let told = Arc::clone(&told);
        Arc::new(move |_: &Event<'_>| {
            told.fetch_add(1, Relaxed);
            panic!("in the listener");
        })
    };
    let quietly = with(config(), Arc::new(|_: &Event<'_>| {}));
    let loudly = with(config(), panics);
    let expected = a_history(&quietly.0, &quietly.1);
    assert_eq!(a_history(&loudly.0, &loudly.1), expected);
    assert!(told.load(Relaxed) > 50);
    assert_eq!(loudly.0.snapshot().in_flight, 0);
}

#[test]
fn b7_a_listener_that_panics_while_a_call_panics_aborts_nothing() {
    let (breaker, _clock) = with(
        config().consecutive(1),
        Arc::new(|_: &Event<'_>| panic!("in the listener")),
    );
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _ = breaker.run(|| -> Result<(), ()> { panic!("in the call") });
    }));
    let what = panicked.unwrap_err();
    assert_eq!(what.downcast_ref(), Some(&"in the call"));
    assert_eq!(breaker.snapshot().state, State::Open);
    let refused = breaker.run(|| Ok::<_, ()>(1));
    assert!(matches!(refused, Err(CallError::Rejected(_))));
}

/// Else one that asks how the breaker stands, or that waits for somebody who does, would hang.
#[test]
fn b7_no_lock_is_held_while_a_listener_runs() {
    let breaker: Arc<OnceLock<Breaker>> = Arc::default();
    let asked = Arc::new(AtomicUsize::new(0));
    let listener = {
        let (breaker, asked) = (Arc::clone(&breaker), Arc::clone(&asked));
        Arc::new(move |_: &Event<'_>| {
            let Some(breaker) = breaker.get() else {
                return;
            };
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    breaker.snapshot();
                    breaker.reconfigure(config()).unwrap();
                });
            });
            asked.fetch_add(1, Relaxed);
        })
    };
    let (made, clock) = with(config(), listener);
    let made = breaker.get_or_init(|| made);
    a_history(made, &clock);
    assert!(asked.load(Relaxed) > 50);
}

#[test]
fn a_listener_may_change_the_breaker_and_is_told_of_that_too() {
    let breaker: Arc<OnceLock<Breaker>> = Arc::default();
    let told = Arc::new(Mutex::new(Vec::new()));
    let listener = {
        let (breaker, told) = (Arc::clone(&breaker), Arc::clone(&told));
        Arc::new(move |event: &Event<'_>| {
            let EventKind::Transition { to, .. } = event.kind else {
                return;
            };
            told.lock().unwrap().push(to);
            if to == State::Open
                && let Some(breaker) = breaker.get()
            {
                breaker.reset();
            }
        })
    };
    let (made, _clock) = with(config(), listener);
    let made = breaker.get_or_init(|| made);
    fail(made, 9);
    assert_eq!(made.snapshot().state, State::Closed);
    let [opens, closes] = [State::Open, State::Closed];
    let thrice = [opens, closes, opens, closes, opens, closes];
    assert_eq!(*told.lock().unwrap(), thrice);
}

#[test]
fn all_breakers_of_a_registry_have_its_listener() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let listener = {
        let told = Arc::clone(&told);
        Arc::new(move |event: &Event<'_>| {
            if let EventKind::Transition { .. } = event.kind {
                told.lock().unwrap().push(event.name.to_string());
            }
        })
    };
    let clock = TestClock::new().clock();
    let registry = Registry::with_listener(1, config(), clock, listener).unwrap();
    let held = registry.get_or_create("one").unwrap();
    held.exhaust(None);
    registry.get_or_create("two").unwrap().exhaust(None);
    assert_eq!(*told.lock().unwrap(), ["one", OVERFLOW]);
}

#[test]
fn threads_tell_of_each_transition_once() {
    let (breaker, clock, record) = listened(config());
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (breaker, clock) = (&breaker, &clock);
            scope.spawn(move || {
                for call in 0..2_000_u64 {
                    match breaker.try_acquire() {
                        Ok(permit) if (call ^ thread) % 3 == 0 => permit.failure(FailKind::Other),
                        Ok(permit) => Permit::success(permit),
                        Err(_) => clock.advance(secs(1)),
                    }
                }
            });
        }
    });
    let mut generations: Vec<_> = record.take();
    generations.retain(|(_, kind)| matches!(kind, EventKind::Transition { .. }));
    generations.sort_by_key(|(generation, _)| *generation);
    let last = breaker.snapshot().generation;
    let told: Vec<_> = generations.iter().map(|(it, _)| *it).collect();
    assert_eq!(told, (1..=last).collect::<Vec<_>>());
    // In the order of their generations they follow from each other.
    let mut at = State::Closed;
    for (_, kind) in generations {
        if let EventKind::Transition { from, to, .. } = kind {
            assert_eq!(from, at);
            at = to;
        }
    }
}
