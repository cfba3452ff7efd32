//! What a breaker writes to the log: each step once, with its reason, and nothing for each call.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use spark_breaker::{Breaker, Config, FailKind, Mode};
use spark_core::testing::TestClock;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {field}={value:?}").unwrap();
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        write!(self.0, " {field}={value}").unwrap();
    }
}

impl Subscriber for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[test]
fn each_step_is_logged_once_with_its_reason_and_no_call_is() {
    let lines = Lines::default();
    let logged = |expected: &[&str]| {
        let lines = std::mem::take(&mut *lines.0.lock().unwrap());
        assert_eq!(lines, expected);
    };
    tracing::subscriber::with_default(lines.clone(), || {
        let clock = TestClock::new();
        let rules = Config::standard().jitter(0.0).probes(1);
        let breaker = Breaker::new("db", rules, clock.clock()).unwrap();
        let fail = || {
            let permit = breaker.try_acquire().unwrap();
            permit.failure(FailKind::Transport);
        };
        breaker.try_acquire().unwrap().success();
        (0..4).for_each(|_| fail());
        logged(&[]);
        fail();
        for _ in 0..1_000 {
            breaker.try_acquire().unwrap_err();
        }
        logged(&[
            "WARN message=breaker opened breaker=db from=closed to=open \
             reason=5 failures in a row, the last: transport error",
        ]);
        clock.advance(Duration::from_secs(10));
        let probe = breaker.try_acquire().unwrap();
        breaker.try_acquire().unwrap_err();
        logged(&[
            "INFO message=breaker probes breaker=db from=open to=half_open \
                 reason=the open time is over",
        ]);
        probe.success();
        logged(&[
            "INFO message=breaker closed breaker=db from=half_open to=closed \
                 reason=the probes succeeded",
        ]);
        breaker.set_mode(Mode::MetricsOnly);
        (0..50).for_each(|_| fail());
        logged(&["WARN message=breaker would open breaker=db \
                 reason=5 failures in a row, the last: transport error"]);
        breaker.set_mode(Mode::ForcedOpen);
        logged(&[
            "WARN message=breaker opened breaker=db from=closed to=open \
                 reason=an operator said so",
        ]);
    });
}
