//! What an operator and a caller are told.

use std::time::Duration;

use metrics_util::debugging::{DebugValue, DebuggingRecorder};

use crate::block_on;
use crate::breakers::{Contender, Met, RESILIENCE, RULES, Rules};
use crate::found::Found;

/// After it was open, half open and closed again, the series of its state gauge that are not 0.
pub(crate) fn one_series_says_the_state(found: &mut Found) {
    for contender in Contender::all(RULES) {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        metrics::with_local_recorder(&recorder, || {
            block_on(async {
                contender.trip_and_wait(RULES).await;
                assert_eq!(contender.succeed().await, Met::Served);
                assert_eq!(contender.succeed().await, Met::Served);
            });
        });
        let series: Vec<_> = snapshotter
            .snapshot()
            .into_vec()
            .into_iter()
            .filter(|(key, ..)| key.key().name().contains("state"))
            .filter_map(|(key, _, _, value)| match value {
                DebugValue::Gauge(value) => Some((key, value.0)),
                DebugValue::Counter(_) | DebugValue::Histogram(_) => None,
            })
            .collect();
        let ones = series.iter().filter(|(_, value)| *value == 1.0).count();
        let words = match (series.len(), contender.name) {
            (0, RESILIENCE) => "not looked at: it takes `--features peer-metrics`".to_owned(),
            (0, _) => "has no gauge".to_owned(),
            (all, _) => format!("{all} series, of which {ones} are 1"),
        };
        if contender.is_ours() {
            assert_eq!(series.len(), 1, "{series:?}");
            assert_eq!(series[0].1, 0.0, "closed");
            found.note(
                contender.name,
                "one series, of which the value is the state",
            );
        } else {
            found.note(contender.name, words);
        }
    }
}

pub(crate) fn a_refusal_says_whose_it_is_and_when_to_come_back(found: &mut Found) {
    let rules = Rules {
        open_for: Duration::from_secs(10),
        ..RULES
    };
    for contender in Contender::all(rules) {
        let Met::Refused(words) = block_on(async {
            contender.trip().await;
            contender.succeed().await
        }) else {
            panic!("{} is open", contender.name)
        };
        if contender.is_ours() {
            assert!(words.starts_with("peer is not being called"), "{words}");
            assert!(words.ends_with("try again in 10.0 s"), "{words}");
        }
        found.note(contender.name, format!("“{words}”"));
    }
}
