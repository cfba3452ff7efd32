//! The recorder: what it holds, what its page looks like, and how its upkeep ends.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::time::Duration;

use common::{page, parse};
use metrics::{counter, gauge, histogram, with_local_recorder};
use proptest::prelude::*;
use spark_core::testing::TestClock;
use spark_metrics::{InstallError, Metrics};

fn metrics() -> Metrics {
    Metrics::builder()
        .max_series_per_metric(100)
        .build()
        .unwrap()
}

#[test]
fn a_fresh_page_is_described_and_has_the_build() {
    let metrics = Metrics::builder().version("1.2.3").build().unwrap();
    let page = page(&metrics);
    assert_eq!(page.get(r#"spark_build_info{version="1.2.3"}"#), Some(1.0));
    assert!(page.get("process_start_time_seconds").is_some());
    for name in page.types.keys() {
        assert!(page.help.contains_key(name), "{name} has no HELP");
    }
}

#[test]
fn series_are_capped_per_metric_and_the_rest_is_counted() {
    let metrics = metrics();
    with_local_recorder(metrics.recorder(), || {
        for n in 0..20_000 {
            counter!("logins_total", "user" => n.to_string()).increment(1);
            histogram!("wait_seconds", "user" => n.to_string()).record(0.1);
        }
        gauge!("queue_length", "user" => "quiet").set(7);
    });
    let page = page(&metrics);
    assert_eq!(page.count("logins_total{"), 101);
    assert_eq!(page.get(r#"logins_total{overflow="true"}"#), Some(19_900.0));
    assert_eq!(
        page.get(r#"wait_seconds_count{overflow="true"}"#),
        Some(19_900.0)
    );
    assert_eq!(
        page.get(r#"spark_metrics_overflow_total{metric="logins_total"}"#),
        Some(19_900.0)
    );
    assert_eq!(page.get(r#"queue_length{user="quiet"}"#), Some(7.0));
    assert_eq!(metrics.stats().overflowed, 39_800);
    assert!(metrics.series() < 220, "{}", metrics.series());
    assert_eq!(
        page.get("spark_metrics_series"),
        Some(metrics.series() as f64)
    );
}

#[test]
fn the_order_of_labels_makes_no_second_series() {
    let metrics = metrics();
    let before = metrics.series();
    with_local_recorder(metrics.recorder(), || {
        counter!("jobs_total", "b" => "2", "a" => "1", "c" => "3").increment(1);
        counter!("jobs_total", "a" => "1", "b" => "2", "c" => "3").increment(1);
        counter!("jobs_total", "c" => "3", "b" => "2", "a" => "1").increment(1);
        counter!("jobs_total", "b" => "2", "a" => "1", "c" => "3").increment(1);
    });
    let page = page(&metrics);
    assert_eq!(page.count("jobs_total{"), 1);
    assert_eq!(
        page.get(r#"jobs_total{b="2",a="1",c="3"}"#),
        Some(4.0),
        "in the order in which it came first"
    );
    assert_eq!(metrics.series(), before + 1);
}

/// Counts each log line in the very metric that the line is about.
struct CountingLog;

impl tracing::Subscriber for CountingLog {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        counter!("lines_total", "target" => "another").increment(1);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn a_log_that_counts_its_lines_does_not_lock_up_at_the_cap() {
    let (done, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let metrics = Metrics::builder().max_series_per_metric(1).build().unwrap();
        tracing::subscriber::with_default(CountingLog, || {
            with_local_recorder(metrics.recorder(), || {
                for target in ["a", "b", "c"] {
                    counter!("lines_total", "target" => target).increment(1);
                }
            });
        });
        // The two that are over the cap, and the line that says so.
        let overflow = page(&metrics).get(r#"lines_total{overflow="true"}"#);
        done.send(overflow).unwrap();
    });
    let overflow = end.recv_timeout(Duration::from_secs(20));
    assert_eq!(overflow, Ok(Some(3.0)));
}

#[test]
fn known_series_keep_counting_at_the_cap() {
    let metrics = metrics();
    with_local_recorder(metrics.recorder(), || {
        for _ in 0..3 {
            for n in 0..200 {
                counter!("logins_total", "user" => n.to_string()).increment(1);
            }
        }
    });
    assert_eq!(page(&metrics).get(r#"logins_total{user="7"}"#), Some(3.0));
}

#[test]
fn metric_names_are_capped() {
    let metrics = Metrics::builder().max_metrics(50).build().unwrap();
    with_local_recorder(metrics.recorder(), || {
        for n in 0..1_000 {
            counter!(format!("made_up_{n}_total")).increment(1);
        }
    });
    assert!(metrics.stats().metrics <= 50);
    let refused = page(&metrics)
        .get(r#"spark_metrics_refused_total{reason="names"}"#)
        .unwrap();
    assert!(refused > 900.0);
}

#[test]
fn one_name_never_has_two_types() {
    let metrics = metrics();
    with_local_recorder(metrics.recorder(), || {
        counter!("jobs.done").increment(1);
        gauge!("jobs_done").set(5);
        histogram!("jobs-done").record(5.0);
        counter!("jobs_done").increment(1);
    });
    let page = page(&metrics);
    assert_eq!(page.get("jobs_done"), Some(2.0));
    assert_eq!(metrics.stats().refused, 2);
}

#[test]
fn hostile_label_values_leave_the_page_readable() {
    let metrics = metrics();
    with_local_recorder(metrics.recorder(), || {
        let long = "x".repeat(1 << 20);
        for value in [
            "\"",
            "\\",
            "\\\"",
            "\\\\",
            "a\nb",
            "\\\nb",
            "",
            "é",
            "}",
            "{a=\"b\"} 1\n",
            &long,
        ] {
            counter!("seen_total", "value" => value.to_owned()).increment(1);
        }
        histogram!("odd_seconds", "le" => "1", "quantile" => "2").record(1.0);
        counter!("9 odd\nname", "9 odd\nkey" => "v").increment(1);
        counter!("twice_total", "k" => "1", "k" => "2").increment(1);
    });
    let text = metrics.render();
    assert!(text.len() < 20_000, "{}", text.len());
    let page = parse(&text);
    assert_eq!(page.count("seen_total{"), 11);
    assert_eq!(page.get(r#"seen_total{value="\""}"#), Some(1.0));
    assert_eq!(page.get(r#"seen_total{value="\\"}"#), Some(1.0));
    assert_eq!(page.get(r#"seen_total{value="\\\""}"#), Some(1.0));
    assert_eq!(page.get(r#"seen_total{value="\\\\"}"#), Some(1.0));
    assert_eq!(page.get(r#"seen_total{value="\\\nb"}"#), Some(1.0));
    assert_eq!(page.get(r#"_9_odd_name{_9_odd_key="v"}"#), Some(1.0));
}

proptest! {
    #[test]
    fn any_name_and_labels_make_a_page_that_can_be_read(
        names in proptest::collection::vec((".{0,12}", 0_u8..3), 1..12),
        labels in proptest::collection::vec((".{0,8}", ".{0,40}"), 0..4),
    ) {
        let metrics = metrics();
        with_local_recorder(metrics.recorder(), || {
            for (name, kind) in names {
                let labels = labels.clone();
                match kind {
                    0 => counter!(name, &labels).increment(1),
                    1 => gauge!(name, &labels).set(1.5),
                    // Apart from the others: a histogram `a` and a counter `a_sum` do meet.
                    _ => histogram!(format!("h_{name}_seconds"), &labels).record(1.5),
                }
            }
        });
        page(&metrics);
    }
}

#[test]
fn histograms_have_buckets_whatever_their_name() {
    let metrics = Metrics::builder()
        .buckets("_bytes", &[10.0, 20.0])
        .buckets_of("dns_seconds", &[0.5])
        .build()
        .unwrap();
    with_local_recorder(metrics.recorder(), || {
        for name in ["a_seconds", "dns_seconds", "b_bytes", "c_tokens", "d"] {
            histogram!(name).record(15.0);
        }
    });
    let page = page(&metrics);
    assert_eq!(
        page.count("a_seconds_bucket"),
        spark_metrics::SECONDS.len() + 1
    );
    assert_eq!(page.count("dns_seconds_bucket"), 2);
    assert_eq!(page.get(r#"b_bytes_bucket{le="20"}"#), Some(1.0));
    assert_eq!(
        page.count("c_tokens_bucket"),
        spark_metrics::TOKENS.len() + 1
    );
    assert_eq!(page.types["d"], "histogram");
}

#[test]
fn bad_settings_are_named_when_built() {
    let message = |builder: spark_metrics::MetricsBuilder| builder.build().unwrap_err().to_string();
    let builder = Metrics::builder;
    assert!(message(builder().max_series_per_metric(0)).contains("max_series_per_metric"));
    assert!(message(builder().max_label_value_len(0)).contains("max_label_value_len"));
    assert!(message(builder().max_metrics(0)).contains("max_metrics"));
    assert!(message(builder().upkeep_every(Duration::ZERO)).contains("upkeep_every"));
    assert!(message(builder().buckets("_x", &[2.0, 1.0])).contains("_x"));
    assert!(message(builder().buckets("first_seconds", &[1.0])).contains("buckets_of"));
}

#[test]
fn installing_needs_a_runtime() {
    assert!(matches!(
        Metrics::builder().install(),
        Err(InstallError::NoRuntime)
    ));
}

#[test]
fn two_recorders_do_not_meet() {
    let (one, two) = (metrics(), metrics());
    with_local_recorder(one.recorder(), || counter!("jobs_total").increment(1));
    with_local_recorder(two.recorder(), || counter!("jobs_total").increment(2));
    assert_eq!(page(&one).get("jobs_total"), Some(1.0));
    assert_eq!(page(&two).get("jobs_total"), Some(2.0));
}

#[tokio::test(start_paused = true)]
async fn upkeep_runs_until_the_last_clone_is_dropped() {
    let clock = TestClock::new();
    let metrics = Metrics::builder()
        .clock(clock.clock())
        .upkeep_every(Duration::from_secs(5))
        .build()
        .unwrap();
    clock.advance(Duration::from_secs(60));
    assert_eq!(metrics.stats().upkeep_age, Duration::from_secs(60));
    assert!(metrics.stats().upkeep_running);
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if metrics.stats().upkeep_age.is_zero() {
            break;
        }
    }
    assert_eq!(metrics.stats().upkeep_age, Duration::ZERO);

    let alive = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    assert_eq!(alive(), 1);
    let clone = metrics.clone();
    drop(metrics);
    tokio::task::yield_now().await;
    assert_eq!(alive(), 1);
    drop(clone);
    tokio::task::yield_now().await;
    assert_eq!(alive(), 0);
}

#[test]
fn without_a_runtime_a_scrape_drains_the_samples() {
    let metrics = metrics();
    assert!(!metrics.stats().upkeep_running);
    with_local_recorder(metrics.recorder(), || histogram!("a_seconds").record(1.0));
    metrics.upkeep();
    assert_eq!(page(&metrics).get("a_seconds_count"), Some(1.0));
}
