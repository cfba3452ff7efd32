//! What several tests need.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use spark_auth::{
    AuditEvent, AuditSink, Authenticator, AuthenticatorBuilder, Brand, Change, Changes,
    Environment, FailureThrottle, Issued, KeyStore, Loaded, MasterKey, MasterVerifier, MemoryStore,
    NewKey, Pepper, StoreError, UserKey,
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

/// Whether this becomes true within some ten seconds.
pub fn soon(is_so: impl Fn() -> bool) -> bool {
    (0..10_000).any(|_| {
        let is_so = is_so();
        if !is_so {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        is_so
    })
}

/// An authenticator on this store.
pub fn auth_on(store: impl KeyStore + 'static) -> Authenticator {
    Authenticator::builder()
        .pepper(Pepper::generate().unwrap())
        .store(store)
        .build()
        .unwrap()
}

impl House {
    pub fn issue(&self) -> Issued {
        self.auth.issue(NewKey::new(name("acme"))).unwrap()
    }

    /// Another process on the same store.
    pub fn builder(&self) -> AuthenticatorBuilder {
        Authenticator::builder()
            .clock(self.clock.clock())
            .pepper(self.pepper.clone())
            .store(self.store.clone())
    }
}

/// A place in a store where callers can be made to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Gate {
    /// Nothing is written yet.
    BeforeAppend,
    /// All is written, but the caller does not know yet.
    AfterAppend,
    /// What was read is on its way.
    AfterRead,
}

/// A store in memory that fails, or hangs, when it is told to. Clones share everything.
#[derive(Clone, Debug, Default)]
pub struct Gated(Arc<GatedState>);

#[derive(Debug, Default)]
struct GatedState {
    inner: MemoryStore,
    gates: Mutex<Gates>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct Gates {
    closed: HashSet<Gate>,
    /// Those that keep only who waits there already.
    for_some: HashSet<Gate>,
    waiting: HashMap<Gate, usize>,
    fails: bool,
    touched: usize,
}

impl Gated {
    pub fn fail(&self, fails: bool) {
        self.0.gates.lock().unwrap().fails = fails;
    }

    /// How often last uses were written.
    pub fn touched(&self) -> usize {
        self.0.gates.lock().unwrap().touched
    }

    pub fn close(&self, gate: Gate) {
        self.0.gates.lock().unwrap().closed.insert(gate);
    }

    pub fn open(&self, gate: Gate) {
        let mut gates = self.0.gates.lock().unwrap();
        gates.closed.remove(&gate);
        gates.for_some.remove(&gate);
        self.0.moved.notify_all();
    }

    /// Whoever waits goes on waiting.
    pub fn open_for_new_callers(&self, gate: Gate) {
        self.0.gates.lock().unwrap().for_some.insert(gate);
    }

    /// Returns once somebody stands at the gate; opens it and panics where nobody comes.
    pub fn wait_for_a_caller(&self, gate: Gate) {
        let gates = self.0.gates.lock().unwrap();
        let is_alone = |gates: &mut Gates| gates.waiting.get(&gate).is_none_or(|count| *count == 0);
        let deadline = Duration::from_secs(10);
        let (gates, waited) = (self.0.moved)
            .wait_timeout_while(gates, deadline, is_alone)
            .unwrap();
        drop(gates);
        if waited.timed_out() {
            self.open(gate);
            panic!("nobody comes to {gate:?}");
        }
    }

    fn pass(&self, gate: Gate) {
        let mut gates = self.0.gates.lock().unwrap();
        if gates.for_some.contains(&gate) {
            return;
        }
        *gates.waiting.entry(gate).or_default() += 1;
        self.0.moved.notify_all();
        let mut gates = (self.0.moved)
            .wait_while(gates, |gates| gates.closed.contains(&gate))
            .unwrap();
        *gates.waiting.entry(gate).or_default() -= 1;
    }

    fn may_fail(&self) -> Result<(), StoreError> {
        match self.0.gates.lock().unwrap().fails {
            true => Err(StoreError::Other("the disk is full".into())),
            false => Ok(()),
        }
    }
}

impl KeyStore for Gated {
    fn load(&self) -> Result<Loaded, StoreError> {
        let loaded = self.0.inner.load();
        self.pass(Gate::AfterRead);
        loaded
    }

    fn append(&self, changes: &[Change]) -> Result<u64, StoreError> {
        self.may_fail()?;
        self.pass(Gate::BeforeAppend);
        let sequence = self.0.inner.append(changes)?;
        self.pass(Gate::AfterAppend);
        Ok(sequence)
    }

    fn changes_since(&self, sequence: u64) -> Result<Changes, StoreError> {
        let changes = self.0.inner.changes_since(sequence);
        self.pass(Gate::AfterRead);
        changes
    }

    fn touch(&self, uses: &[(Name, Duration)]) -> Result<(), StoreError> {
        self.may_fail()?;
        self.0.gates.lock().unwrap().touched += 1;
        self.0.inner.touch(uses)
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
