//! What is emitted: one state series for each breaker, and it tells the truth.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(feature = "metrics")]

use std::time::Duration;

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use spark_breaker::{Breaker, Config, FailKind};
use spark_core::testing::TestClock;

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
        let _ = spark_breaker::Bulkhead::new("b", 1).unwrap().try_enter();
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

#[tokio::test(start_paused = true)]
async fn hops_attempts_and_waits_are_counted_by_how_they_ended() {
    use bytes::Bytes;
    use http::{Request, Response};
    use spark_breaker::{Failover, Hop, LastResort, RetryBudget, RetryLayer};
    use tower::{Layer, ServiceExt, service_fn};

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
