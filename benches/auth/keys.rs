//! Keys, and the order in which they come.

use std::hash::{Hash, Hasher};
use std::hint::black_box;
use std::sync::Arc;

use spark_auth::{Authenticator, MemoryStore, NewKey, Pepper};
use spark_core::{Name, User};

/// How many characters of a key are its checksum, and how many its secret.
const CHECKSUM: usize = 6;
const SECRET: usize = 32;

/// So many keys that work.
pub(crate) fn issued(count: u32) -> (Authenticator, Keys) {
    let auth = Authenticator::builder()
        .pepper(Pepper::generate().unwrap())
        .store(MemoryStore::new())
        .build()
        .unwrap();
    let issue = |n| {
        let issued = auth.issue(NewKey::new(tenant(n))).unwrap();
        issued.key.expose().to_owned()
    };
    let texts = (0..count as usize).map(issue).collect();
    (auth, Keys::new(texts))
}

/// Keys from elsewhere.
pub(crate) fn strangers(_: &Keys) -> Keys {
    issued(1_000).1
}

/// The ids of these keys, and secrets that are not theirs.
pub(crate) fn with_another_secret(keys: &Keys) -> Keys {
    let others = strangers(keys);
    let swap = |(key, other): (&str, &str)| {
        let id = &key[..key.len() - SECRET - CHECKSUM];
        let secret = &other[id.len()..other.len() - CHECKSUM];
        with_checksum(format!("{id}{secret}"))
    };
    Keys::new(keys.iter().zip(others.iter()).map(swap).collect())
}

/// These keys with one letter of the secret changed, as a slip of the hand does.
pub(crate) fn with_bad_checksum(keys: &Keys) -> Keys {
    let slip = |key: &str| {
        let at = key.len() - CHECKSUM - 1;
        let letter = if key.as_bytes()[at] == b'x' { 'y' } else { 'x' };
        format!("{}{letter}{}", &key[..at], &key[at + 1..])
    };
    Keys::new(keys.iter().map(slip).collect())
}

fn with_checksum(mut text: String) -> String {
    const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let sum = crc32fast::hash(text.as_bytes());
    for place in (0..6).rev() {
        let digit = ALPHABET[(sum / 62_u32.pow(place) % 62) as usize];
        text.push(char::from(digit));
    }
    text
}

pub(crate) fn user(n: usize) -> User {
    User::new(Name::new("key").unwrap(), tenant(n))
}

fn tenant(n: usize) -> Name {
    Name::new(&format!("tenant-{n}")).unwrap()
}

/// The texts of keys, one behind the other in the order in which they are visited, which is not the
/// order in which they were issued: where the next text lies says nothing of where its record does.
/// What is next is read from front to back, which costs every side the same.
pub(crate) struct Keys {
    /// Each in a place of the same length; at its end stands the length of the text, as a character.
    all: Arc<str>,
    place: usize,
}

impl Keys {
    pub(crate) fn new(mut texts: Vec<String>) -> Self {
        texts.sort_by_cached_key(|text| random(text));
        // Some peers' keys differ by a letter or two in length.
        let longest = texts.iter().map(String::len).max().unwrap();
        let mut all = String::with_capacity(texts.len() * (longest + 1));
        for text in &texts {
            let len = char::from(u8::try_from(text.len()).unwrap());
            assert!(len.is_ascii());
            all.push_str(text);
            all.extend(std::iter::repeat_n(' ', longest - text.len()));
            all.push(len);
        }
        Self {
            all: all.into(),
            place: longest + 1,
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.all.len())
            .step_by(self.place)
            .map(|at| self.at(at))
    }

    /// Again and again from front to back; the `part`th of so many walks begins that far in.
    pub(crate) fn walk(&self, part: usize, of: usize) -> Walk {
        let count = self.all.len() / self.place;
        Walk {
            at: count * part / of * self.place,
            keys: Self {
                all: Arc::clone(&self.all),
                place: self.place,
            },
        }
    }

    fn at(&self, at: usize) -> &str {
        let len = self.all.as_bytes()[at + self.place - 1];
        &self.all[at..at + usize::from(len)]
    }
}

pub(crate) struct Walk {
    keys: Keys,
    at: usize,
}

impl Walk {
    /// Nothing that is computed from it can be taken out of a loop, not even of the only one.
    pub(crate) fn next(&mut self) -> &str {
        let found = self.keys.at(self.at);
        self.at += self.keys.place;
        if self.at == self.keys.all.len() {
            self.at = 0;
        }
        black_box(found)
    }
}

/// The same every time for the same text, and no pattern that a prefetcher could learn.
fn random(text: &str) -> u64 {
    #[expect(deprecated, reason = "the only hash in std without a key of its own")]
    let mut hasher = std::hash::SipHasher::new_with_keys(1, 2);
    text.hash(&mut hasher);
    hasher.finish()
}
