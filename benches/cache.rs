//! `cargo bench -p spark-benches --bench cache`: was that asked before?
#![allow(clippy::unwrap_used, reason = "a bench stops where its claim is wrong")]

use std::time::Duration;

use bytes::Bytes;
use moka::sync::Cache as Moka;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use spark_benches::Races;
use spark_cache::{Answer, Cache, CacheKey, Scope};
use spark_core::Name;

const HOUR: Duration = Duration::from_secs(3_600);

fn main() {
    let races = Races::from_args();
    let questions: Vec<Bytes> = (0..10_000).map(question).collect();
    let len = questions[0].len();
    assert!((2_000..2_100).contains(&len), "{len}");
    hit(&races, "hit, 2 KB JSON, 1 question", &questions[..1]);
    hit(&races, "hit, 2 KB JSON, 10,000 questions", &questions);
    key(&races, &questions[0]);
}

/// Each side takes the bytes of the next request, makes its key and finds the answer of 1 KB.
///
/// Ours reads the JSON, so that two spellings of a question are one, and binds the key to a tenant.
/// The first peer takes the bytes as they are, for whoever asks; the second reads the JSON too.
fn hit(races: &Races, name: &str, questions: &[Bytes]) {
    races.race(name, |race| {
        let spark = Cache::builder()
            .max_bytes(256 << 20)
            .ttl(HOUR)
            .build()
            .unwrap();
        let of_bytes: Moka<String, Bytes> = moka();
        let of_meaning: Moka<String, Bytes> = moka();
        for it in questions {
            assert!(spark.put(spark_key(it), Answer::new(vec![b'a'; 1_024])));
            of_bytes.insert(hex_key(it), vec![b'a'; 1_024].into());
            of_meaning.insert(canonical_key(it), vec![b'a'; 1_024].into());
        }
        spark.run_pending();
        of_bytes.run_pending_tasks();
        of_meaning.run_pending_tasks();
        let found = spark.get(&spark_key(&questions[0])).unwrap();
        assert_eq!(
            found.frames()[0],
            of_bytes.get(&hex_key(&questions[0])).unwrap()
        );

        let [mut a, mut b, mut c] = [0; 3].map(|_| questions.iter().cycle());
        race.side("spark CacheKey + Cache::get", move || {
            let found = spark.get(&spark_key(a.next().unwrap()));
            assert!(found.is_some());
            found
        })
        .side("sha256 + hex + moka", move || {
            let found = of_bytes.get(&hex_key(b.next().unwrap()));
            assert!(found.is_some());
            found
        })
        .side("parse + write + sha256 + hex + moka", move || {
            let found = of_meaning.get(&canonical_key(c.next().unwrap()));
            assert!(found.is_some());
            found
        })
    });
}

/// The key alone.
fn key(races: &Races, question: &Bytes) {
    races.race("key alone, 2 KB JSON", |race| {
        let loose: Value = serde_json::from_slice(question).unwrap();
        let loose = serde_json::to_vec_pretty(&loose).unwrap();
        assert_eq!(
            spark_key(question),
            spark_key(&loose),
            "one meaning, one key"
        );
        assert_eq!(canonical_key(question), canonical_key(&loose));
        assert_ne!(hex_key(question), hex_key(&loose));

        let bytes = question.clone();
        let (a, b) = (question.clone(), question.clone());
        race.side("spark CacheKey", move || spark_key(&bytes))
            .side("sha256 + hex", move || hex_key(&a))
            .side("parse + write + sha256 + hex", move || canonical_key(&b))
    });
}

fn spark_key(body: &[u8]) -> CacheKey {
    let tenant = Name::new("acme").unwrap();
    CacheKey::builder(Scope::Tenant(tenant)).json(body).build()
}

fn hex_key(body: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(body) {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// `serde_json` keeps the keys of an object sorted, and writes no white space.
fn canonical_key(body: &[u8]) -> String {
    let value: Value = serde_json::from_slice(body).unwrap();
    hex_key(&serde_json::to_vec(&value).unwrap())
}

fn moka<V: Clone + Send + Sync + 'static>() -> Moka<String, V> {
    Moka::builder()
        .max_capacity(20_000)
        .time_to_live(HOUR)
        .build()
}

fn question(n: usize) -> Bytes {
    let talk = "We were speaking of the harbour, and of the ships that lie there in winter. ";
    let body = json!({
        "model": "gpt-5-mini",
        "temperature": 0,
        "max_tokens": 512,
        "stop": ["\n\n"],
        "messages": [
            { "role": "system", "content": "You answer briefly, and in the language of the user." },
            { "role": "user", "content": talk.repeat(12) },
            { "role": "assistant", "content": talk.repeat(11) },
            { "role": "user", "content": format!("And which of them is number {n:06}?") },
        ],
    });
    body.to_string().into()
}
