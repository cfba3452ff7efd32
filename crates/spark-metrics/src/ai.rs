//! What model providers reported, under bounded labels.

use std::{collections::HashSet, sync::Arc};

use metrics::{Counter, Histogram, Label, SharedString};
use spark_core::UsageReport;

use crate::{
    instruments::{Sink, Table},
    metrics::{AI_REQUESTS, AI_TOKENS, AI_UPSTREAM},
};

/// Pairs of provider and model that have handles of their own.
const MAX_PAIRS: usize = 256;
/// The label of a model that is not listed, or of a pair too many.
const OTHER: &str = "other";

/// The handles for usage reports, and the models that may be labels.
#[derive(Debug, Default)]
pub(crate) struct Ai {
    pairs: Table<(Arc<str>, Arc<str>), Arc<AiInstruments>>,
}

impl Ai {
    pub(crate) fn record(&self, sink: &Sink, models: &HashSet<Arc<str>>, report: &UsageReport) {
        let other = || models.get(OTHER).cloned().unwrap_or_else(|| OTHER.into());
        let model = models.get(&report.model).cloned().unwrap_or_else(other);
        let pair = (report.provider.clone(), model);
        let make = || Arc::new(AiInstruments::new(sink, &pair.0, &pair.1));
        let instruments = self
            .pairs
            .get_or_insert(&pair, MAX_PAIRS, || pair.clone(), make)
            .unwrap_or_else(|| Arc::new(AiInstruments::new(sink, OTHER, OTHER)));
        instruments.requests.increment(1);
        instruments.input.increment(report.input_tokens);
        instruments.output.increment(report.output_tokens);
        instruments.upstream.record(report.upstream);
    }
}

#[derive(Debug)]
struct AiInstruments {
    requests: Counter,
    input: Counter,
    output: Counter,
    upstream: Histogram,
}

impl AiInstruments {
    fn new(sink: &Sink, provider: &str, model: &str) -> Self {
        let labels = |kind: Option<&'static str>| {
            let label = |key: &'static str, value: &str| {
                Label::new(key, SharedString::from_shared(value.into()))
            };
            let mut labels = vec![label("provider", provider), label("model", model)];
            labels.extend(kind.map(|kind| Label::from_static_parts("type", kind)));
            labels
        };
        Self {
            requests: sink.counter(AI_REQUESTS, labels(None)),
            input: sink.counter(AI_TOKENS, labels(Some("input"))),
            output: sink.counter(AI_TOKENS, labels(Some("output"))),
            upstream: sink.histogram(AI_UPSTREAM, labels(None)),
        }
    }
}
