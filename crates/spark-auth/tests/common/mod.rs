//! What several tests need.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use spark_auth::{
    AuditEvent, AuditSink, Authenticator, Brand, Environment, FailureThrottle, Issued, MasterKey,
    MasterVerifier, MemoryStore, NewKey, Pepper, UserKey,
};
use spark_core::testing::TestClock;
use spark_core::{ClientIp, Name};

pub const START: Duration = Duration::from_secs(1_900_000_000);

pub struct House {
    pub auth: Authenticator,
    pub clock: TestClock,
    pub pepper: Pepper,
    pub store: MemoryStore,
    pub master: MasterKey,
    pub events: Events,
}

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub fn user_key() -> UserKey {
    UserKey::generate(&Brand::default(), Environment::Live).unwrap()
}

pub fn master_key() -> MasterKey {
    MasterKey::generate(&Brand::default(), Environment::Live).unwrap()
}

pub fn house() -> House {
    house_with(100)
}

pub fn house_with(max_keys: usize) -> House {
    let clock = TestClock::new();
    clock.set_unix_time(START);
    let pepper = Pepper::generate().unwrap();
    let store = MemoryStore::new();
    let master = master_key();
    let events = Events::default();
    let auth = Authenticator::builder()
        .clock(clock.clock())
        .pepper(pepper.clone())
        .store(store.clone())
        .master(MasterVerifier::of(&pepper, &master))
        .audit(events.clone())
        .max_keys(max_keys)
        .build()
        .unwrap();
    House {
        auth,
        clock,
        pepper,
        store,
        master,
        events,
    }
}

impl House {
    pub fn issue(&self) -> Issued {
        self.auth.issue(NewKey::new(name("acme"))).unwrap()
    }
}

#[derive(Clone, Debug, Default)]
pub struct Events(Arc<Mutex<Vec<AuditEvent>>>);

impl Events {
    pub fn take(&self) -> Vec<AuditEvent> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl AuditSink for Events {
    fn event(&self, event: &AuditEvent) {
        self.0.lock().unwrap().push(event.clone());
    }
}

/// Three failures of an address, then it waits.
#[derive(Clone, Debug, Default)]
pub struct ThreeFailures(Arc<Mutex<Vec<Option<ClientIp>>>>);

impl FailureThrottle for ThreeFailures {
    fn permit(&self, ip: Option<ClientIp>) -> Result<(), Duration> {
        let failures = self.0.lock().unwrap();
        match failures.iter().filter(|failed| **failed == ip).count() {
            0..3 => Ok(()),
            _ => Err(Duration::from_millis(29_001)),
        }
    }

    fn record(&self, ip: Option<ClientIp>) {
        self.0.lock().unwrap().push(ip);
    }
}

/// A key with the id of `key`, another secret, and a checksum that holds.
pub fn with_another_secret(key: &UserKey) -> UserKey {
    let text = with_checksum(|text| {
        let other = user_key();
        let other = other.expose();
        text.push_str(&key.expose()[..key.expose().len() - 38]);
        text.push_str(&other[other.len() - 38..other.len() - 6]);
    });
    UserKey::parse(&text).unwrap()
}

/// A key whose first part `write` makes; the checksum is added.
pub fn with_checksum(write: impl FnOnce(&mut String)) -> String {
    let mut text = String::new();
    write(&mut text);
    let alphabet: Vec<char> = ('0'..='9').chain('A'..='Z').chain('a'..='z').collect();
    let crc = crc32(text.as_bytes());
    for place in (0..6).rev() {
        text.push(alphabet[(u64::from(crc) / 62u64.pow(place) % 62) as usize]);
    }
    text
}

/// Bit by bit, as a check on the one that the crate uses.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}
