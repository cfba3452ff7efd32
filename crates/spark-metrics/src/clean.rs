//! Names and labels as Prometheus wants them.

use std::{borrow::Cow, collections::HashSet};

use metrics::{Key, Label};

/// Bytes of a metric name or a label name.
const NAME_LEN: usize = 200;

/// `key` with a valid name, valid label names and values of bounded length: the same when it was
/// fit already, which costs one pass and nothing else.
pub(crate) fn key(key: &Key, value_len: usize, histogram: bool) -> Cow<'_, Key> {
    let reserved = |name: &str| histogram && matches!(name, "le" | "quantile");
    let fit = is_name(key.name(), true)
        && key.labels().all(|label| {
            is_name(label.key(), false)
                && !reserved(label.key())
                && label.value().len() <= value_len
        })
        && names_differ(key);
    if fit {
        return Cow::Borrowed(key);
    }
    let mut seen = HashSet::new();
    let mut labels = Vec::new();
    // The last of equal label names wins.
    for label in key.labels().collect::<Vec<_>>().into_iter().rev() {
        let mut label_name = name(label.key(), false);
        if reserved(&label_name) {
            label_name.insert_str(0, "label_");
        }
        if seen.insert(label_name.clone()) {
            labels.push(Label::new(label_name, value(label.value(), value_len)));
        }
    }
    labels.reverse();
    Cow::Owned(Key::from_parts(name(key.name(), true), labels))
}

fn names_differ(key: &Key) -> bool {
    let mut labels = key.labels();
    while let Some(label) = labels.next() {
        if labels.clone().any(|other| other.key() == label.key()) {
            return false;
        }
    }
    true
}

/// `[a-zA-Z_:][a-zA-Z0-9_:]*`, the colon in metric names alone.
fn is_name(name: &str, colon: bool) -> bool {
    let bytes = name.as_bytes();
    (1..=NAME_LEN).contains(&bytes.len())
        && !bytes[0].is_ascii_digit()
        && bytes.iter().all(|byte| is_name_byte(*byte, colon))
}

fn is_name_byte(byte: u8, colon: bool) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || (colon && byte == b':')
}

fn name(raw: &str, colon: bool) -> String {
    let mut name = String::with_capacity(raw.len().min(NAME_LEN) + 1);
    if raw.is_empty() || raw.as_bytes()[0].is_ascii_digit() {
        name.push('_');
    }
    for character in raw.chars().take(NAME_LEN - 1) {
        let fit = u8::try_from(character).is_ok_and(|byte| is_name_byte(byte, colon));
        name.push(if fit { character } else { '_' });
    }
    name
}

fn value(raw: &str, len: usize) -> String {
    let mut end = len.min(raw.len());
    while !raw.is_char_boundary(end) {
        end -= 1;
    }
    raw[..end].to_owned()
}

/// `key` as the Prometheus exporter must be told it to write it exactly: it takes two backslashes
/// for one that was escaped already, and loses one before a quote.
pub(crate) fn with_backslashes_doubled(key: &Key) -> Cow<'_, Key> {
    if key.labels().all(|label| !label.value().contains('\\')) {
        return Cow::Borrowed(key);
    }
    let label =
        |label: &Label| Label::new(label.key().to_owned(), label.value().replace('\\', r"\\"));
    let labels: Vec<_> = key.labels().map(label).collect();
    Cow::Owned(Key::from_parts(key.name().to_owned(), labels))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clean(name: &str, labels: &[(&str, &str)]) -> String {
        let labels: Vec<_> = labels
            .iter()
            .map(|(k, v)| Label::new((*k).to_owned(), (*v).to_owned()))
            .collect();
        let raw = Key::from_parts(name.to_owned(), labels);
        let key = key(&raw, 4, true);
        let labels: Vec<_> = key
            .labels()
            .map(|l| format!("{}={}", l.key(), l.value()))
            .collect();
        format!("{}{{{}}}", key.name(), labels.join(","))
    }

    #[test]
    fn what_is_fit_is_left_alone() {
        let fit = Key::from_parts("a:b_c", vec![Label::new("k", "v")]);
        assert!(matches!(key(&fit, 4, true), Cow::Borrowed(_)));
    }

    #[test]
    fn names_and_values_are_mended() {
        assert_eq!(clean("a.b-c", &[("x y", "12345678")]), "a_b_c{x_y=1234}");
        assert_eq!(clean("9", &[("9:", "é€")]), "_9{_9_=é}");
        assert_eq!(clean("", &[("", "")]), "_{_=}");
        assert_eq!(
            clean("h", &[("le", "1"), ("ok", "2")]),
            "h{label_le=1,ok=2}"
        );
        assert_eq!(clean("h", &[("a.b", "1"), ("a_b", "2")]), "h{a_b=2}");
        assert_eq!(clean("h", &[("k", "1"), ("k", "2")]), "h{k=2}");
        let key = Key::from_parts("h", vec![Label::new("k", r#"\""#)]);
        assert_eq!(
            with_backslashes_doubled(&key)
                .labels()
                .next()
                .unwrap()
                .value(),
            r#"\\""#
        );
    }

    #[test]
    fn long_names_are_cut() {
        let long = "é".repeat(1_000);
        assert!(is_name(&name(&long, true), true));
    }
}
