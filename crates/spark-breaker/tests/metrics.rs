//! What is emitted: one state series for each breaker, and it tells the truth.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(feature = "metrics")]

use std::collections::BTreeMap;
use std::time::Duration;

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use spark_breaker::{
    Aimd, Breaker, BreakerLayer, Bulkhead, Config, FailKind, OVERFLOW, ProviderKey, Registry,
};
use spark_core::testing::{Probe, TestClock};
use tower::{Layer, ServiceExt};

fn values(snapshotter: &Snapshotter, name: &str) -> Vec<(Vec<(String, String)>, f64)> {
    let mut values: Vec<_> = snapshotter
        .snapshot()
        .into_vec()
        .into_iter()
        .filter(|(key, ..)| key.key().name() == name)
        .map(|(key, _, _, value)| {
            let labels = key.key().labels();
            let labels = labels.map(|l| (l.key().to_owned(), l.value().to_owned()));
            let value = match value {
                DebugValue::Counter(value) => value as f64,
                DebugValue::Gauge(value) => value.into_inner(),
                DebugValue::Histogram(_) => panic!("no histograms here"),
            };
            (labels.collect(), value)
        })
        .collect();
    values.sort_by(|a, b| a.partial_cmp(b).unwrap());
    values
}

fn label(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

#[test]
fn a_whole_cycle() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        spark_breaker::metrics::describe();
        let clock = TestClock::new();
        let rules = Config::standard().jitter(0.0).consecutive(2).probes(1);
        let breaker = Breaker::new("a", rules, clock.clock()).unwrap();
        let state = || {
            let states = values(&snapshotter, "spark_breaker_state");
            assert_eq!(states.len(), 1, "exactly one series");
            assert_eq!(states[0].0, [label("breaker", "a")]);
            states[0].1
        };
        breaker.try_acquire().unwrap().success();
        assert_eq!(state(), 0.0);
        for _ in 0..2 {
            breaker.try_acquire().unwrap().failure(FailKind::Transport);
        }
        assert_eq!(state(), 2.0);
        assert!(breaker.try_acquire().is_err());
        assert_eq!(
            values(&snapshotter, "spark_breaker_rejections_total")[0].1,
            1.0
        );
        clock.advance(Duration::from_secs(10));
        let probe = breaker.try_acquire().unwrap();
        assert_eq!(state(), 1.0);
        probe.success();
        assert_eq!(state(), 0.0);
    });
    // A snapshot takes the counters with it, so the rest is read from a second cycle.
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        spark_breaker::metrics::describe();
        let _ = Bulkhead::new("b", 1).unwrap().try_enter();
        let clock = TestClock::new();
        let rules = Config::standard().jitter(0.0).consecutive(2);
        let breaker = Breaker::new("b", rules, clock.clock()).unwrap();
        let late = breaker.try_acquire().unwrap();
        for _ in 0..2 {
            breaker.try_acquire().unwrap().failure(FailKind::Transport);
        }
        late.success();
    });
    let series = snapshotter.snapshot().into_vec();
    for (key, _, description, _) in &series {
        assert!(
            description.is_some(),
            "{} is not described",
            key.key().name()
        );
    }
    let count = |name: &str, labels: &[(&str, &str)]| {
        series
            .iter()
            .find(|(key, ..)| {
                key.key().name() == name
                    && labels.iter().all(|(name, value)| {
                        key.key()
                            .labels()
                            .any(|l| l.key() == *name && l.value() == *value)
                    })
            })
            .map(|(.., value)| match value {
                DebugValue::Counter(value) => *value,
                _ => panic!("a counter"),
            })
    };
    let outcome = |of| {
        count(
            "spark_breaker_outcomes_total",
            &[("breaker", "b"), ("outcome", of)],
        )
    };
    assert_eq!(outcome("failure"), Some(2));
    assert_eq!(outcome("late"), Some(1));
    assert_eq!(outcome("success"), Some(0));
    let to = |to| {
        count(
            "spark_breaker_transitions_total",
            &[("breaker", "b"), ("to", to)],
        )
    };
    assert_eq!(to("open"), Some(1));
    assert_eq!(to("closed"), Some(0));
}

#[test]
fn an_adaptive_bulkhead_with_shares() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let gauge = |name| {
        let values = values(&snapshotter, name);
        assert_eq!(values[0].0, [label("bulkhead", "b")]);
        values[0].1
    };
    metrics::with_local_recorder(&recorder, || {
        let clock = TestClock::new();
        let rules = Aimd::new(1, 8)
            .start(4)
            .backoff(0.5)
            .latency(Duration::from_secs(1));
        let bulkhead = Bulkhead::adaptive("b", rules, clock.clock()).unwrap();
        let bulkhead = bulkhead.tenant_share(0.5).unwrap();
        let mut place = bulkhead.try_enter().unwrap();
        assert_eq!(gauge("spark_bulkhead_limit"), 4.0);
        place.throttled();
        assert_eq!(gauge("spark_bulkhead_limit"), 2.0);
        // It holds one of two, and the last is for another tenant.
        assert!(bulkhead.try_enter().is_err());
        let other = spark_core::Name::new("other").unwrap();
        let mut second = bulkhead.try_enter_for(&other).unwrap();
        assert!(bulkhead.try_enter_for(&other).is_err());
        second.succeeded();
        clock.advance(Duration::from_secs(2));
        drop((place, second));
        bulkhead.try_enter().unwrap().failed();
        let mut late = bulkhead.try_enter().unwrap();
        clock.advance(Duration::from_secs(2));
        late.first_byte();
        drop(late);
        assert_eq!(gauge("spark_bulkhead_limit"), 1.0);
    });
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _inside = metrics::with_local_recorder(&recorder, || {
        let clock = TestClock::new();
        let rules = Aimd::new(1, 8).start(2).latency(Duration::from_secs(1));
        let bulkhead = Bulkhead::adaptive("b", rules, clock.clock()).unwrap();
        let bulkhead = bulkhead.tenant_share(0.5).unwrap();
        let mut held = bulkhead.try_enter().unwrap();
        let _share = bulkhead.try_enter().unwrap_err();
        let other = spark_core::Name::new("other").unwrap();
        let mut last = bulkhead.try_enter_for(&other).unwrap();
        for _ in 0..2 {
            let _full = bulkhead.try_enter_for(&other).unwrap_err();
        }
        clock.advance(Duration::from_secs(2));
        held.first_byte();
        drop(held);
        last.throttled();
        drop(last);
        bulkhead.try_enter().unwrap().throttled();
        bulkhead.try_enter().unwrap()
    });
    // A snapshot takes the values with it: one for all.
    let snapshot = snapshotter.snapshot().into_vec();
    let count = |of: &str, value: &str| {
        let series = snapshot.iter().find(|(key, ..)| {
            let labels: Vec<_> = key.key().labels().map(|l| (l.key(), l.value())).collect();
            key.key().name() == of
                && labels.contains(&("bulkhead", "b"))
                && labels.iter().any(|l| l.1 == value)
        });
        match &series.unwrap().3 {
            DebugValue::Counter(value) => *value as f64,
            DebugValue::Gauge(value) => value.into_inner(),
            DebugValue::Histogram(_) => panic!("no histograms here"),
        }
    };
    assert_eq!(count("spark_bulkhead_in_flight", "b"), 1.0);
    assert_eq!(count("spark_bulkhead_rejections_total", "full"), 2.0);
    assert_eq!(
        count("spark_bulkhead_rejections_total", "tenant_share"),
        1.0
    );
    assert_eq!(count("spark_bulkhead_backoffs_total", "late"), 1.0);
    assert_eq!(count("spark_bulkhead_backoffs_total", "throttled"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn hops_attempts_and_waits_are_counted_by_how_they_ended() {
    use bytes::Bytes;
    use http::{Request, Response};
    use spark_breaker::{Failover, Hop, LastResort, RetryBudget, RetryLayer};
    use tower::service_fn;

    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _local = metrics::set_default_local_recorder(&recorder);
    let hop = |name: &'static str, status: u16, wait: &'static str| {
        let client = service_fn(move |_: Request<Bytes>| async move {
            let response = Response::builder()
                .status(status)
                .header("retry-after", wait);
            Ok::<_, std::io::Error>(response.body(String::new()).unwrap())
        });
        let retry = RetryLayer::new(RetryBudget::new(0.0, 1).unwrap());
        Hop::new(name, retry.layer(client))
    };
    let hops = vec![hop("a", 401, ""), hop("b", 503, "1"), hop("c", 503, "9")];
    let failover = Failover::new(hops)
        .budget(RetryBudget::new(0.0, 4).unwrap())
        .last_resort(LastResort::wait_for_earliest(Duration::from_secs(2), 1));
    for _ in 0..2 {
        failover.clone().oneshot(Request::default()).await.unwrap();
    }
    // Counters are emptied by being read.
    let mut counted = Vec::new();
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let DebugValue::Counter(value @ 1..) = value else {
            continue;
        };
        let labels = key.key().labels().map(|label| label.value().to_owned());
        let labels = labels.collect::<Vec<_>>().join(" ");
        counted.push(format!("{} {labels} {value}", key.key().name()));
    }
    counted.sort();
    assert_eq!(
        counted,
        [
            "spark_failover_hops_total a credential 2",
            "spark_failover_hops_total b status 3",
            "spark_failover_hops_total c no_budget 1",
            "spark_failover_hops_total c status 1",
            "spark_failover_waits_total waited 1",
            "spark_retry_attempts_total made 1",
            "spark_retry_attempts_total no_budget 2",
        ]
    );
}

#[test]
fn names_that_are_made_up_leave_a_bounded_number_of_series() {
    const CAPACITY: usize = 8;
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let state = |name: &str| {
        let states = values(&snapshotter, "spark_breaker_state");
        let of = |(labels, value)| (labels == [label("breaker", name)]).then_some(value);
        states.into_iter().find_map(of)
    };
    metrics::with_local_recorder(&recorder, || {
        let clock = TestClock::new();
        let rules = Config::standard().jitter(0.0).consecutive(1);
        let registry = Registry::new(CAPACITY, rules, clock.clock()).unwrap();
        for n in 0..10_000 {
            let key = ProviderKey::new(format!("p{n}"));
            let key = key.model(format!("m{n}")).credential(format!("c{n}"));
            let breakers = registry.breakers(&key).unwrap();
            match n % 100 {
                // Some open, and are forgotten when that is long over.
                99 => breakers.try_acquire().unwrap().failure(FailKind::Transport),
                _ => breakers.try_acquire().unwrap().success(),
            }
            clock.advance(Duration::from_secs(10));
        }
        assert_eq!(registry.iter().count(), 3 * CAPACITY, "others made room");

        let mut opened = BTreeMap::new();
        for (labels, value) in values(&snapshotter, "spark_breaker_transitions_total") {
            let of: &mut f64 = opened.entry(labels[0].1.clone()).or_default();
            if labels[1] == label("to", "open") {
                *of += value;
            }
        }
        assert_eq!(opened.len(), 3 * (CAPACITY + 1), "{opened:?}");
        assert!(opened.contains_key("p7") && !opened.contains_key("p8"));
        assert_eq!(opened[OVERFLOW], 100.0, "none is lost");

        clock.advance(Duration::from_secs(100));
        // The shared series tell of the shared breaker, and of no other one's state.
        let held: Vec<_> = (0..CAPACITY)
            .map(|n| registry.get_or_create(&format!("held{n}")).unwrap())
            .collect();
        let fail = |breaker: &Breaker| {
            let permit = breaker.try_acquire().unwrap();
            permit.failure(FailKind::Transport);
            assert!(breaker.try_acquire().is_err());
        };
        let shared = registry.get_or_create("more").unwrap();
        assert_eq!(&**shared.name(), OVERFLOW);
        shared.try_acquire().unwrap().success();
        // A look takes the value with it: zero is closed, or nothing written since the last one.
        fail(&held[0]);
        assert_eq!(state(OVERFLOW), Some(0.0), "held0 opens in silence");
        fail(&shared);
        assert_eq!(state(OVERFLOW), Some(2.0));
        fail(&held[1]);
        assert_eq!(state(OVERFLOW), Some(0.0), "held1 opens in silence");
    });
}

#[test]
fn a_breaker_that_is_forgotten_while_it_is_open_is_not_shown_as_open_for_ever() {
    for (is_forgotten, shown) in [(false, 2.0), (true, 0.0)] {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        metrics::with_local_recorder(&recorder, || {
            let clock = TestClock::new();
            let rules = Config::standard().jitter(0.0).consecutive(1);
            let registry = Registry::new(1, rules, clock.clock()).unwrap();
            let old = registry.get_or_create("old").unwrap();
            old.try_acquire().unwrap().failure(FailKind::Transport);
            drop(old);
            if is_forgotten {
                clock.advance(Duration::from_secs(500));
                let new = registry.get_or_create("new").unwrap();
                assert_eq!(&**new.name(), "new");
            }
        });
        let states = values(&snapshotter, "spark_breaker_state");
        assert_eq!(states, [(vec![label("breaker", "old")], shown)]);
    }
}

#[test]
fn a_request_without_a_key_is_counted_as_miswired() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    metrics::with_local_recorder(&recorder, || {
        let registry = Registry::new(1, Config::llm(), TestClock::new().clock()).unwrap();
        let service = BreakerLayer::keyed(registry, |_| None).layer(Probe::new());
        let response = service.oneshot(http::Request::new(()));
        assert_eq!(runtime.unwrap().block_on(response).unwrap().status(), 200);
    });
    let miswired = values(&snapshotter, "spark_miswired_total");
    assert_eq!(miswired, [(vec![label("layer", "breaker")], 1.0)]);
}
