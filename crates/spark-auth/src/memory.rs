//! All keys in memory, and the rules by which they change there.
//!
//! Requests read without a lock. Changes take a short one that is never held across a call to the
//! store, so that a store that hangs keeps no key alive. Three rules hold whatever the order in which
//! a change, an answer of the store and a refresh arrive:
//!
//! 1. A version replaces another only if its revision is higher.
//! 2. A revoked key stays revoked.
//! 3. A key that is stopped here stays stopped until the store has heard of it.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use spark_core::Name;

use crate::index::{Draft, Entry, Index, KeyId, Slot};
use crate::record::{KeyRecord, KeyState};
use crate::store::Change;

pub(crate) struct Memory {
    index: Index,
    writing: Mutex<Writing>,
    /// The latest change of a key, in milliseconds since 1970.
    latest: AtomicU64,
}

/// What only those who change keys look at.
struct Writing {
    /// Every set of changes of the store up to this one is in memory.
    known: u64,
    /// The last set that was written here. It may be later than `known`, when others wrote between.
    own: u64,
    /// When keys end, those still to come included.
    ends: BTreeSet<(Duration, KeyId)>,
}

/// What a read of the store has brought.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refreshed {
    /// So many keys changed in memory.
    Changed(usize),
    /// It was older than what is known already, so nothing was taken over.
    Stale,
    /// There is no room for some of the new keys, which were left out.
    Full,
}

impl Memory {
    pub(crate) fn new(records: Vec<(KeyId, KeyRecord)>, sequence: u64) -> Self {
        let ends = (records.iter())
            .filter_map(|(id, record)| Some((record.end()?, *id)))
            .collect();
        let latest = records.iter().map(|(_, record)| record.changed_at()).max();
        Self {
            latest: AtomicU64::new(latest.map_or(0, millis)),
            writing: Mutex::new(Writing {
                known: sequence,
                own: sequence,
                ends,
            }),
            index: Index::new(records),
        }
    }

    /// Runs `read` on the slot with this id, without taking a lock or a reference count.
    pub(crate) fn with<T>(&self, id: KeyId, read: impl FnOnce(Option<&Slot>) -> T) -> T {
        self.index.with(id, read)
    }

    pub(crate) fn get(&self, id: KeyId) -> Option<Arc<Entry>> {
        self.index.get(id)
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = Arc<Entry>> {
        self.index.entries()
    }

    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    pub(crate) fn count(&self, is_counted: impl Fn(&KeyRecord) -> bool) -> usize {
        self.entries()
            .filter(|entry| is_counted(&entry.record))
            .count()
    }

    /// The latest moment of which a record tells that it has been: it is no earlier now.
    pub(crate) fn latest(&self) -> Duration {
        Duration::from_millis(self.latest.load(Ordering::Relaxed))
    }

    /// Up to where the store's changes are known.
    pub(crate) fn known(&self) -> u64 {
        self.writing().known
    }

    /// Those that ended first, at most `most` of them, which the store may forget.
    pub(crate) fn ended(&self, now: Duration, most: usize) -> Vec<Name> {
        let writing = self.writing();
        let over = |(_, id): &(Duration, KeyId)| {
            let entry = self.get(*id).filter(|entry| entry.is_over(now))?;
            Some(entry.record.id.clone())
        };
        // Those that a store does not know as ended are few: they are what it failed to write.
        let ended = writing.ends.iter().take_while(|(end, _)| *end <= now);
        ended.filter_map(over).take(most).collect()
    }

    /// Refuses a key from now on, before the store has heard of it. A state that is as strict
    /// already stands.
    pub(crate) fn stop(&self, id: KeyId, state: KeyState) -> Option<Arc<Entry>> {
        let mut edit = self.edit();
        let entry = edit.draft.get(id)?;
        if state.strictness() > entry.record.state.strictness() {
            let mut record = entry.record.clone();
            record.state = state;
            edit.set(id, record, true);
        }
        edit.publish();
        self.get(id)
    }

    /// Takes over changes that the store has just kept as its set number `sequence`. With
    /// `is_resumed`, a suspension that the store has not heard of ends by them.
    pub(crate) fn commit(
        &self,
        changes: Vec<Change>,
        sequence: u64,
        is_resumed: bool,
        now: Duration,
    ) {
        let mut edit = self.edit();
        // A refresh was here first. What it left out, others have revoked and forgotten meanwhile.
        let is_covered = (1..=edit.writing.known).contains(&sequence);
        for change in changes {
            match change {
                Change::Put(record) => {
                    let is_new = id_of(&record.id).is_none_or(|id| edit.draft.get(id).is_none());
                    if !(is_covered && is_new) {
                        edit.put(*record, is_resumed);
                    }
                }
                Change::Forget(id) => {
                    edit.forget(&id, now);
                }
            }
        }
        edit.writing.own = edit.writing.own.max(sequence);
        // With a gap, others have written: the next refresh reads what they wrote.
        if sequence == edit.writing.known + 1 {
            edit.writing.known = sequence;
        }
        edit.publish();
    }

    /// Takes over what the store said has changed up to its set number `sequence`.
    pub(crate) fn bring_in(
        &self,
        changes: Vec<Change>,
        sequence: u64,
        max_keys: usize,
        now: Duration,
    ) -> Refreshed {
        // Only the outcome is put in: what was issued, revoked and forgotten never works in between.
        let mut outcome: HashMap<KeyId, (Option<KeyRecord>, Option<Name>)> = HashMap::new();
        for change in changes {
            match change {
                Change::Put(record) => {
                    if let Some(id) = id_of(&record.id) {
                        outcome.insert(id, (Some(*record), None));
                    }
                }
                Change::Forget(name) => {
                    if let Some(id) = id_of(&name) {
                        outcome.entry(id).or_default().1 = Some(name);
                    }
                }
            }
        }
        let mut edit = self.edit();
        if sequence < edit.writing.known.max(edit.writing.own) {
            return Refreshed::Stale;
        }
        // What is here already goes first: some of it may end and make room.
        let (here, new): (Vec<_>, Vec<_>) =
            (outcome.into_iter()).partition(|(id, _)| edit.draft.get(*id).is_some());
        let mut changed = 0;
        for (_, (record, forgotten)) in here {
            let is_put = record.is_some_and(|record| edit.put(record, false));
            let is_gone = forgotten.is_some_and(|name| edit.forget(&name, now));
            changed += usize::from(is_put || is_gone);
        }
        let mut room = edit.room(max_keys, new.len(), now);
        let mut is_full = false;
        for (_, outcome) in new {
            let (Some(record), None) = outcome else {
                continue;
            };
            if record.ended_at(now).is_none() {
                is_full |= room == 0;
                if room == 0 {
                    continue;
                }
                room -= 1;
            }
            changed += usize::from(edit.put(record, false));
        }
        if !is_full {
            edit.writing.known = sequence;
        }
        edit.publish();
        match is_full {
            true => Refreshed::Full,
            false => Refreshed::Changed(changed),
        }
    }

    /// The same by all that the store holds.
    pub(crate) fn reload(
        &self,
        records: Vec<KeyRecord>,
        sequence: u64,
        max_keys: usize,
        now: Duration,
    ) -> Refreshed {
        let held: BTreeSet<_> = (records.iter())
            .filter_map(|record| id_of(&record.id))
            .collect();
        // A key that came in between is in the read as well, or the read is stale.
        let gone = (self.entries())
            .filter(|entry| id_of(&entry.record.id).is_some_and(|id| !held.contains(&id)))
            .map(|entry| Change::Forget(entry.record.id.clone()));
        let mut changes: Vec<_> = gone.collect();
        changes.extend(
            records
                .into_iter()
                .map(|record| Change::Put(Box::new(record))),
        );
        self.bring_in(changes, sequence, max_keys, now)
    }

    fn edit(&self) -> Edit<'_> {
        let writing = self.writing();
        Edit {
            draft: self.index.draft(),
            len: self.len(),
            latest: &self.latest,
            writing,
        }
    }

    fn writing(&self) -> MutexGuard<'_, Writing> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A change of some keys, which requests see once it is published.
struct Edit<'a> {
    writing: MutexGuard<'a, Writing>,
    draft: Draft<'a>,
    len: usize,
    latest: &'a AtomicU64,
}

impl Edit<'_> {
    /// Whether anything has changed.
    fn put(&mut self, mut record: KeyRecord, is_resumed: bool) -> bool {
        let Some(id) = id_of(&record.id) else {
            return false;
        };
        let mut unsaved = false;
        if let Some(old) = self.draft.get(id) {
            let is_resumed = is_resumed && !is_revoked(&old.record);
            let is_stale = record.revision <= old.record.revision;
            // A refresh may have brought in this very version before its writer came here.
            let lifts = is_resumed && old.unsaved && record.revision == old.record.revision;
            if is_stale && !lifts {
                return false;
            }
            let is_stricter = old.record.state.strictness() > record.state.strictness();
            if is_stricter && !is_resumed && (old.unsaved || is_revoked(&old.record)) {
                record.state = old.record.state;
                unsaved = true;
            }
        }
        self.set(id, record, unsaved);
        true
    }

    /// Drops a key that has ended. One that lives goes on until its end: a store forgets only what
    /// has ended, so that its clock and ours differ. Whether anything has changed.
    fn forget(&mut self, name: &Name, now: Duration) -> bool {
        let Some((id, entry)) = id_of(name).and_then(|id| Some((id, self.draft.get(id)?))) else {
            return false;
        };
        if entry.is_over(now) {
            self.writing.has_no_end(&entry.record, id);
            self.draft.remove(id);
            self.len -= 1;
            return true;
        }
        if entry.record.revision > 0 {
            // The store has no version of it: the next one it may be given is the first again.
            let mut record = entry.record.clone();
            record.revision = 0;
            self.set(id, record, entry.unsaved);
        }
        false
    }

    fn set(&mut self, id: KeyId, record: KeyRecord, unsaved: bool) {
        match self.draft.get(id) {
            Some(old) => self.writing.has_no_end(&old.record, id),
            None => self.len += 1,
        }
        if let Some(end) = record.end() {
            self.writing.ends.insert((end, id));
        }
        self.latest
            .fetch_max(millis(record.changed_at()), Ordering::Relaxed);
        self.draft.put(id, Entry::new(record, unsaved));
    }

    /// How many live keys may come in, at least when it is fewer than `wanted`.
    fn room(&self, max_keys: usize, wanted: usize, now: Duration) -> usize {
        let free = max_keys.saturating_sub(self.len);
        if free >= wanted {
            return free;
        }
        // Those that have ended do not count.
        let ended = self.writing.ends.iter().take_while(|(end, _)| *end <= now);
        (max_keys + ended.count()).saturating_sub(self.len)
    }

    fn publish(self) {
        self.draft.publish();
        // Only now may the next one begin.
        drop(self.writing);
    }
}

/// How many, not which: a layer's `Debug` must not write out every tenant.
impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("keys", &self.len())
            .finish_non_exhaustive()
    }
}

impl Writing {
    fn has_no_end(&mut self, record: &KeyRecord, id: KeyId) {
        if let Some(end) = record.end() {
            self.ends.remove(&(end, id));
        }
    }
}

fn id_of(name: &Name) -> Option<KeyId> {
    KeyId::of(name.as_str())
}

fn is_revoked(record: &KeyRecord) -> bool {
    matches!(record.state, KeyState::Revoked { .. })
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
