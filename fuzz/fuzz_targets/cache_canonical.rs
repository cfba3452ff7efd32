//! `Canonical`: one meaning, one digest; two meanings, two digests; in doubt, the bytes.

#![no_main]

use std::collections::HashSet;

use libfuzzer_sys::fuzz_target;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use spark_cache::Canonical;

/// Below it, every integer is one `f64` and one only.
const EXACT: f64 = 9_007_199_254_740_992.0;

fuzz_target!(|data: &[u8]| {
    // No JSON text holds the byte 0xff: it parts two documents.
    let mut documents = data.splitn(2, |byte| *byte == 0xff);
    let (a, b) = (
        documents.next().unwrap_or_default(),
        documents.next().unwrap_or_default(),
    );
    let (digest_a, digest_b) = (Canonical::of(a).digest(), Canonical::of(b).digest());
    assert_eq!(digest_a, Canonical::of(a).digest());

    let values = (parse(a), parse(b));
    if digest_a == digest_b && a != b {
        let (Some(a), Some(b)) = values else {
            panic!("bytes meet bytes")
        };
        assert!(same(&a, &b), "{a} is not {b}");
    }
    for (bytes, digest) in [(a, digest_a), (b, digest_b)] {
        let Some(value) = parse(bytes) else { continue };
        assert!(Canonical::of(bytes).is_json());
        if !plain(&value) {
            continue;
        }
        let pretty = serde_json::to_vec_pretty(&value).unwrap();
        let respelled = Canonical::of(&pretty).digest();
        let certain = serde_json::from_slice::<NoNameTwice>(bytes).is_ok();
        assert_eq!(
            digest == respelled,
            certain,
            "{}",
            String::from_utf8_lossy(bytes)
        );
    }
});

fn parse(bytes: &[u8]) -> Option<Value> {
    serde_json::from_slice(bytes).ok()
}

/// No number in it is beyond doubt's edge.
fn plain(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.as_f64().is_some_and(|number| number.abs() < EXACT),
        Value::Array(values) => values.iter().all(plain),
        Value::Object(members) => members.values().all(plain),
        _ => true,
    }
}

/// Equal, with numbers by their value: `1` is `1.0`.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

/// Fails to read a document in which an object names a member twice.
struct NoNameTwice;

impl<'de> Deserialize<'de> for NoNameTwice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Look)
    }
}

struct Look;

impl<'de> Visitor<'de> for Look {
    type Value = NoNameTwice;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<NoNameTwice, E> {
        Ok(NoNameTwice)
    }

    fn visit_bool<E>(self, _: bool) -> Result<NoNameTwice, E> {
        Ok(NoNameTwice)
    }

    fn visit_u64<E>(self, _: u64) -> Result<NoNameTwice, E> {
        Ok(NoNameTwice)
    }

    fn visit_i64<E>(self, _: i64) -> Result<NoNameTwice, E> {
        Ok(NoNameTwice)
    }

    fn visit_f64<E>(self, _: f64) -> Result<NoNameTwice, E> {
        Ok(NoNameTwice)
    }

    fn visit_str<E>(self, _: &str) -> Result<NoNameTwice, E> {
        Ok(NoNameTwice)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<NoNameTwice, A::Error> {
        while seq.next_element::<NoNameTwice>()?.is_some() {}
        Ok(NoNameTwice)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<NoNameTwice, A::Error> {
        let mut names = HashSet::new();
        while let Some((name, NoNameTwice)) = map.next_entry::<String, NoNameTwice>()? {
            if !names.insert(name) {
                return Err(A::Error::custom("a name twice"));
            }
        }
        Ok(NoNameTwice)
    }
}
