//! The keys in memory, as requests see them: lock-free to read, replaced on a change.
#![expect(
    clippy::mutable_key_type,
    reason = "slots are told apart by their ids alone, and an id never changes"
)]

use std::borrow::Borrow;
use std::collections::HashSet;
use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;
use spark_core::{Name, User};

use crate::info::KeyInfo;
use crate::key::ID_LEN;
use crate::last_use::LastUse;
use crate::mac::Mac;
use crate::pepper::PepperId;
use crate::record::{KeyRecord, KeyState, Moment};

/// A change copies one shard, so that issuing many keys stays cheap; a read loads one pointer.
const SHARDS: usize = 256;

pub(crate) struct Index {
    shards: Box<[ArcSwap<Shard>]>,
}

type Shard = HashSet<Slot, BuildHasherDefault<IdHasher>>;

/// What most requests need of a key, in one cache line of the table itself: among many keys, nearly
/// every line that is visited comes from memory.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(crate) struct Slot {
    id: KeyId,
    pub(crate) pepper: PepperId,
    pub(crate) mac: Mac,
    /// Who holds the key, where the right secret is all that it takes. Otherwise the entry says what
    /// else does.
    pub(crate) user: Option<Arc<User>>,
    pub(crate) entry: Arc<Entry>,
}

const _: () = assert!(size_of::<Slot>() == 64);

/// What is known of one key.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Its revision is always that of the version in the store; its state may be stricter.
    pub(crate) record: KeyRecord,
    /// What a verified request carries: made once, shared by all of them.
    pub(crate) user: Arc<User>,
    /// Set while the store does not have this state of the key.
    pub(crate) unsaved: bool,
    pub(crate) last_use: LastUse,
    /// Whether its MAC under the current pepper waits to be written.
    pub(crate) renewing: AtomicBool,
}

impl Entry {
    pub(crate) fn new(record: KeyRecord, unsaved: bool) -> Self {
        let user = User::new(record.id.clone(), record.tenant.clone())
            .with_tier(record.tier.clone())
            .with_scopes(record.scopes.clone());
        Self {
            user: Arc::new(user),
            unsaved,
            last_use: LastUse::new(record.last_used_at),
            renewing: AtomicBool::new(false),
            record,
        }
    }

    /// The view of it at this moment, with the latest use that is known.
    pub(crate) fn info(&self, moment: Moment) -> KeyInfo {
        let mut info = KeyInfo::of(&self.record, moment.now);
        info.status = self.record.status_at(moment);
        info.last_used_at = self.last_use.at().map(|time| time.as_secs());
        info
    }

    /// Whether it has ended and the store knows, so that it may be forgotten.
    pub(crate) fn is_over(&self, now: Duration) -> bool {
        !self.unsaved && self.record.ended_at(now).is_some()
    }
}

impl Slot {
    fn new(id: KeyId, entry: Arc<Entry>) -> Self {
        let record = &entry.record;
        let is_plain = record.state == KeyState::Active
            && record.not_before.is_none()
            && record.expires_at.is_none()
            && record.ip_allow.is_empty();
        Self {
            id,
            pepper: record.pepper,
            mac: record.mac.clone(),
            user: is_plain.then(|| Arc::clone(&entry.user)),
            entry,
        }
    }
}

/// A slot is found by its id, and there is one for each.
impl Borrow<KeyId> for Slot {
    fn borrow(&self) -> &KeyId {
        &self.id
    }
}

impl PartialEq for Slot {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Slot {}

impl Hash for Slot {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Hash::hash(&self.id, state);
    }
}

impl Index {
    pub(crate) fn new(records: Vec<(KeyId, KeyRecord)>) -> Self {
        let mut shards: Vec<Shard> = (0..SHARDS).map(|_| Shard::default()).collect();
        for (id, record) in records {
            shards[id.shard()].insert(Slot::new(id, Arc::new(Entry::new(record, false))));
        }
        Self {
            shards: shards.into_iter().map(ArcSwap::from_pointee).collect(),
        }
    }

    /// Runs `read` on the slot with this id, without taking a lock or a reference count.
    pub(crate) fn with<T>(&self, id: KeyId, read: impl FnOnce(Option<&Slot>) -> T) -> T {
        let shard = self.shards[id.shard()].load();
        read(shard.get(&id))
    }

    pub(crate) fn get(&self, id: KeyId) -> Option<Arc<Entry>> {
        entry(&self.shards[id.shard()].load(), id)
    }

    /// Starts a change. One at a time: the lock of [`Memory`](crate::memory::Memory) sees to it.
    pub(crate) fn draft(&self) -> Draft<'_> {
        Draft {
            index: self,
            shards: [const { None }; SHARDS].into(),
            replaced: Vec::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.load().len()).sum()
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = Arc<Entry>> {
        let entries = |shard: &Shard| -> Vec<_> {
            let entries = shard.iter().map(|slot| Arc::clone(&slot.entry));
            entries.collect()
        };
        (self.shards.iter()).flat_map(move |shard| entries(&shard.load()))
    }
}

fn entry(shard: &Shard, id: KeyId) -> Option<Arc<Entry>> {
    shard.get(&id).map(|slot| Arc::clone(&slot.entry))
}

/// A change of some entries, unseen until it is published. However many there are, each shard is
/// copied once.
pub(crate) struct Draft<'a> {
    index: &'a Index,
    /// Those that differ, each in its place.
    shards: Box<[Option<Shard>]>,
    /// Entries and what has taken their place.
    replaced: Vec<(Arc<Entry>, Arc<Entry>)>,
}

impl Draft<'_> {
    pub(crate) fn get(&self, id: KeyId) -> Option<Arc<Entry>> {
        match &self.shards[id.shard()] {
            Some(shard) => entry(shard, id),
            None => self.index.get(id),
        }
    }

    pub(crate) fn put(&mut self, id: KeyId, entry: Entry) {
        let entry = Arc::new(entry);
        let slot = Slot::new(id, Arc::clone(&entry));
        if let Some(Slot { entry: old, .. }) = self.shard(id).replace(slot) {
            entry.last_use.absorb(&old.last_use);
            self.replaced.push((old, entry));
        }
    }

    pub(crate) fn remove(&mut self, id: KeyId) {
        self.shard(id).remove(&id);
    }

    /// Whoever reads after this returns sees the change.
    pub(crate) fn publish(self) {
        for (place, shard) in self.index.shards.iter().zip(self.shards) {
            if let Some(shard) = shard {
                place.store(Arc::new(shard));
            }
        }
        // Once more, for those who noted a use while the entries changed places.
        for (old, new) in self.replaced {
            new.last_use.absorb(&old.last_use);
        }
    }

    fn shard(&mut self, id: KeyId) -> &mut Shard {
        let number = id.shard();
        let copy = || Shard::clone(&self.index.shards[number].load());
        self.shards[number].get_or_insert_with(copy)
    }
}

/// How many, not which: a layer's `Debug` must not write out every tenant.
impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index")
            .field("keys", &self.len())
            .finish_non_exhaustive()
    }
}

/// The public id of a key, as a number to look up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeyId([u8; ID_LEN]);

impl KeyId {
    pub(crate) fn new(bytes: &[u8; ID_LEN]) -> Self {
        Self(*bytes)
    }

    pub(crate) fn of(name: &str) -> Option<Self> {
        let bytes: [u8; ID_LEN] = name.as_bytes().try_into().ok()?;
        bytes
            .iter()
            .all(u8::is_ascii_alphanumeric)
            .then_some(Self(bytes))
    }

    /// Ids in the table are random and ours. A caller can ask for any id but never put one in, so
    /// a plain multiplication is safe here, and no secret is hashed.
    fn hash(self) -> u64 {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = self.0;
        let low = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        let high = u64::from(u32::from_le_bytes([i, j, k, l]));
        let product = u128::from(low ^ high.rotate_left(29)) * 0x9E37_79B9_7F4A_7C15;
        (product as u64) ^ (product >> 64) as u64
    }

    /// By bits that the table inside of a shard looks at last.
    fn shard(self) -> usize {
        (self.hash() >> 32) as usize % SHARDS
    }
}

impl From<KeyId> for Option<Name> {
    fn from(id: KeyId) -> Self {
        std::str::from_utf8(&id.0)
            .ok()
            .and_then(|id| Name::new(id).ok())
    }
}

impl Hash for KeyId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64((*self).hash());
    }
}

/// Passes on what [`KeyId`] has computed.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_ids_spread_evenly() {
        let mut shards = [0usize; SHARDS];
        let mut low = [0usize; 128];
        for _ in 0..SHARDS * 1_000 {
            let mut id = [0; ID_LEN];
            crate::base62::random(&mut id).unwrap();
            let id = KeyId::new(&id);
            shards[id.shard()] += 1;
            low[id.hash() as usize % 128] += 1;
        }
        // 1,000 and 2,000 each are expected; eight standard deviations are let pass.
        assert!(
            shards.iter().all(|count| (750..1_250).contains(count)),
            "{shards:?}"
        );
        assert!(
            low.iter().all(|count| (1_640..2_360).contains(count)),
            "{low:?}"
        );
    }

    #[test]
    fn only_what_may_be_an_id_is_looked_up() {
        assert!(KeyId::of("abcdefghijkl").is_some());
        for text in ["", "abc", "abcdefghijklm", "abcdefghijk-", "abcdefghijké"] {
            assert_eq!(KeyId::of(text), None, "{text}");
        }
    }
}
