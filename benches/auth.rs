//! `cargo bench -p spark-benches --bench auth`: whose key is this?
#![allow(clippy::unwrap_used, reason = "a bench stops where its claim is wrong")]

use std::collections::HashMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use spark_auth::{Authenticator, MemoryStore, NewKey, Pepper};
use spark_benches::Races;
use spark_core::{Name, Principal, User};
use subtle::ConstantTimeEq;

fn main() {
    let races = Races::from_args();
    verify(&races, "verify, 1 key", 1);
    verify(&races, "verify, 1,000 keys", 1_000);
    verify(&races, "verify, 100,000 keys", 100_000);
    wrong(&races);
}

/// Each side takes the text of the next key and says whose it is.
///
/// The peer is the least that would do: one hash of the text, one look-up by it, one comparison in
/// constant time. It knows no pepper, checksum, state or expiry.
fn verify(races: &Races, name: &str, keys: u32) {
    races.race(name, |race| {
        let (auth, texts) = issued(keys);
        let floor = Floor::of(&texts);
        for text in &texts {
            let found = auth.verify(text).unwrap();
            assert_eq!(found.tenant(), floor.verify(text).unwrap().tenant());
        }
        let second = texts.clone();
        let (mut a, mut b) = (cycle(texts), cycle(second));
        race.side("spark Authenticator::verify", move || {
            let found = auth.verify(a());
            assert!(found.is_ok());
            found
        })
        .side("sha256 + HashMap + subtle", move || {
            let found = floor.verify(b());
            assert!(found.is_some());
            found
        })
    });
}

/// A key in the right form, with the checksum of its own, that was never issued here.
fn wrong(races: &Races) {
    races.race("verify, a stranger's key", |race| {
        let (auth, texts) = issued(1_000);
        let floor = Floor::of(&texts);
        let strangers = issued(100).1;
        assert!(strangers.iter().all(|it| auth.verify(it).is_err()));
        assert!(strangers.iter().all(|it| floor.verify(it).is_none()));
        let second = strangers.clone();
        let (mut a, mut b) = (cycle(strangers), cycle(second));
        race.side("spark Authenticator::verify, with its audit", move || {
            auth.verify(a())
        })
        .side("sha256 + HashMap", move || floor.verify(b()))
    });
}

struct Floor(HashMap<[u8; 32], ([u8; 32], Arc<User>)>);

impl Floor {
    fn of(texts: &[String]) -> Self {
        let entry = |(n, text): (usize, &String)| {
            let digest: [u8; 32] = Sha256::digest(text).into();
            (digest, (digest, Arc::new(user(n))))
        };
        Self(texts.iter().enumerate().map(entry).collect())
    }

    fn verify(&self, text: &str) -> Option<Principal> {
        let digest: [u8; 32] = Sha256::digest(text).into();
        let (kept, user) = self.0.get(&digest)?;
        let equal: bool = kept.ct_eq(&digest).into();
        equal.then(|| Principal::User(Arc::clone(user)))
    }
}

fn issued(keys: u32) -> (Authenticator, Vec<String>) {
    let auth = Authenticator::builder()
        .pepper(Pepper::generate().unwrap())
        .store(MemoryStore::new())
        .build()
        .unwrap();
    let issue = |n| {
        let issued = auth.issue(NewKey::new(tenant(n))).unwrap();
        issued.key.expose().to_owned()
    };
    let texts = (0..keys as usize).map(issue).collect();
    (auth, texts)
}

fn user(n: usize) -> User {
    User::new(Name::new("key").unwrap(), tenant(n))
}

fn tenant(n: usize) -> Name {
    Name::new(&format!("tenant-{n}")).unwrap()
}

/// The texts again and again, in strides that no prefetcher follows.
fn cycle(texts: Vec<String>) -> impl FnMut() -> &'static str {
    let texts: &'static [String] = Vec::leak(texts);
    let mut at = 0;
    move || {
        at = (at + 61_813) % texts.len();
        &texts[at]
    }
}
