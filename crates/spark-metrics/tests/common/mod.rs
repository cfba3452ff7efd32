//! A reader of Prometheus's text format that is as strict as `promtool check metrics`.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::{BTreeMap, HashMap, HashSet};

use spark_metrics::Metrics;

#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) types: HashMap<String, String>,
    pub(crate) help: HashMap<String, String>,
    pub(crate) samples: BTreeMap<String, f64>,
}

pub(crate) fn page(metrics: &Metrics) -> Page {
    parse(&metrics.render())
}

impl Page {
    /// The value of a sample, written as on the page.
    pub(crate) fn get(&self, sample: &str) -> Option<f64> {
        self.samples.get(sample).copied()
    }

    pub(crate) fn count(&self, prefix: &str) -> usize {
        self.samples
            .keys()
            .filter(|sample| sample.starts_with(prefix))
            .count()
    }
}

/// Panics on whatever Prometheus or promtool would reject.
pub(crate) fn parse(text: &str) -> Page {
    let mut page = Page {
        types: HashMap::new(),
        help: HashMap::new(),
        samples: BTreeMap::new(),
    };
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a help text");
            assert!(
                page.help.insert(name.into(), help.into()).is_none(),
                "second HELP: {line}"
            );
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            assert!(matches!(kind, "counter" | "gauge" | "histogram"), "{line}");
            assert!(is_name(name), "{line}");
            assert!(
                page.types.insert(name.into(), kind.into()).is_none(),
                "second TYPE: {line}"
            );
        } else if !line.is_empty() {
            let (sample, value) = split_sample(line);
            let value: f64 = value
                .parse()
                .unwrap_or_else(|_| panic!("no number: {line}"));
            assert!(
                page.samples.insert(sample.into(), value).is_none(),
                "twice: {line}"
            );
        }
    }
    for sample in page.samples.keys() {
        let name = sample.split('{').next().unwrap();
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .filter_map(|suffix| name.strip_suffix(suffix))
            .find(|family| {
                page.types
                    .get(*family)
                    .is_some_and(|kind| kind == "histogram")
            })
            .unwrap_or(name);
        assert!(page.types.contains_key(family), "no TYPE: {sample}");
    }
    page
}

fn split_sample(line: &str) -> (&str, &str) {
    let Some(open) = line.find('{') else {
        let (name, value) = line.split_once(' ').expect("a value");
        assert!(is_name(name), "{line}");
        return (name, value);
    };
    assert!(is_name(&line[..open]), "{line}");
    let bytes = line.as_bytes();
    let mut at = open + 1;
    let mut seen = HashSet::new();
    loop {
        let equals = at + line[at..].find('=').expect("an equals sign");
        let key = &line[at..equals];
        assert!(
            is_name(key) && !key.contains(':'),
            "label name {key}: {line}"
        );
        assert!(seen.insert(key), "label {key} twice: {line}");
        assert_eq!(bytes[equals + 1], b'"', "{line}");
        at = equals + 2;
        while bytes[at] != b'"' {
            if bytes[at] == b'\\' {
                assert!(
                    matches!(bytes[at + 1], b'\\' | b'"' | b'n'),
                    "escape: {line}"
                );
                at += 1;
            }
            at += 1;
        }
        at += 1;
        match bytes[at] {
            b',' => at += 1,
            b'}' => break,
            other => panic!("{}: {line}", char::from(other)),
        }
    }
    assert_eq!(bytes[at + 1], b' ', "{line}");
    (&line[..=at], &line[at + 2..])
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || matches!(b, b'_' | b':'))
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':'))
}
