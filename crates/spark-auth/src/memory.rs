//! All keys in memory, and the rules by which they change there.
//!
//! Requests read without a lock. Changes take a short one that is never held across a call to the
//! store, so that a store that hangs keeps no key alive. Three rules hold whatever the order in which
//! a change, an answer of the store and a refresh arrive:
//!
//! 1. A version replaces another only if its revision is higher.
//! 2. A revoked key stays revoked.
//! 3. A key that is stopped here stays stopped until the store has heard of it.
//!
//! A key that the store has forgotten is gone. And where the store falls back to an earlier state, as
//! after a failover to a copy that lagged, its versions are taken over all the same, and rules 2 and 3
//! hold.

mod edit;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use spark_core::Name;

use self::edit::Edit;
use crate::index::{Entry, Index, KeyId, Slot};
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
    seen: Seen,
    /// When keys end, those still to come included.
    ends: BTreeSet<(Duration, KeyId)>,
}

/// How much of the store's past was known at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Every set of changes of the store up to this one is in memory.
    pub(crate) known: u64,
    /// The last set that was written here. It may be later than `known`, when others wrote between.
    own: u64,
    /// How often the store has fallen back: its numbers mean other sets since.
    era: u64,
}

impl Seen {
    /// The store has come that far, and whatever it is asked from now on it answers from there on.
    fn latest(self) -> u64 {
        self.known.max(self.own)
    }
}

/// What a read of the store has brought.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refreshed {
    /// So many keys changed in memory.
    Changed(usize),
    /// It was overtaken by what is known by now, so nothing was taken over.
    Stale,
    /// It is from before what was known as the read began: the store has fallen back to an earlier
    /// state. Nothing was taken over.
    FellBack,
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
                seen: Seen {
                    known: sequence,
                    own: sequence,
                    era: 0,
                },
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
    pub(crate) fn seen(&self) -> Seen {
        self.writing().seen
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

    /// Takes over changes that the store has just kept as its set number `sequence`; `seen` is from
    /// before they were given to it. With `is_resumed`, a suspension that the store has not heard of
    /// ends by them. Whether the number tells that the store has fallen back.
    pub(crate) fn commit(
        &self,
        changes: Vec<Change>,
        sequence: u64,
        seen: Seen,
        is_resumed: bool,
    ) -> bool {
        let mut edit = self.edit();
        let fell_back = (1..=seen.latest()).contains(&sequence);
        // A refresh was here first. What it left out, others have revoked and forgotten meanwhile.
        let is_covered = !fell_back && (1..=edit.writing.seen.known).contains(&sequence);
        for change in changes {
            match change {
                Change::Put(record) => {
                    let is_new = id_of(&record.id).is_none_or(|id| edit.draft.get(id).is_none());
                    if !(is_covered && is_new) {
                        edit.put(*record, is_resumed);
                    }
                }
                Change::Forget(id) => {
                    edit.forget(&id);
                }
            }
        }
        let seen = &mut edit.writing.seen;
        seen.own = seen.own.max(sequence);
        // With a gap, others have written: the next refresh reads what they wrote.
        if sequence == seen.known + 1 {
            seen.known = sequence;
        }
        edit.publish();
        fell_back
    }

    /// Takes over what the store said has changed up to its set number `sequence`; `seen` is from
    /// before it was asked.
    pub(crate) fn bring_in(
        &self,
        changes: Vec<Change>,
        sequence: u64,
        seen: Seen,
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
        if edit.writing.seen.era != seen.era {
            return Refreshed::Stale;
        }
        if sequence < seen.latest() {
            return Refreshed::FellBack;
        }
        if sequence < edit.writing.seen.latest() {
            return Refreshed::Stale;
        }
        // What is here already goes first: some of it may end and make room.
        let (here, new): (Vec<_>, Vec<_>) =
            (outcome.into_iter()).partition(|(id, _)| edit.draft.get(*id).is_some());
        let mut changed = 0;
        for (_, (record, forgotten)) in here {
            let is_put = record.is_some_and(|record| edit.put(record, false));
            let is_gone = forgotten.is_some_and(|name| edit.forget(&name));
            changed += usize::from(is_put || is_gone);
        }
        let new = new.into_iter().filter_map(|(_, outcome)| match outcome {
            (Some(record), None) => Some(record),
            _ => None,
        });
        let (added, is_full) = edit.add(new.collect(), max_keys, now);
        if !is_full {
            edit.writing.seen.known = sequence;
        }
        edit.publish();
        match is_full {
            true => Refreshed::Full,
            false => Refreshed::Changed(changed + added),
        }
    }

    /// The same by all that the store holds.
    pub(crate) fn reload(
        &self,
        records: Vec<KeyRecord>,
        sequence: u64,
        seen: Seen,
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
        self.bring_in(changes, sequence, seen, max_keys, now)
    }

    /// Takes over all that a store holds which has fallen back: its word counts whatever revisions
    /// are known here, but no key that was stopped works again by it. For whoever holds the turn to
    /// write.
    pub(crate) fn take_over(
        &self,
        records: Vec<KeyRecord>,
        sequence: u64,
        seen: Seen,
        max_keys: usize,
        now: Duration,
    ) -> Refreshed {
        let mut held: HashMap<_, _> = (records.into_iter())
            .filter_map(|record| Some((id_of(&record.id)?, record)))
            .collect();
        let mut edit = self.edit();
        if edit.writing.seen != seen {
            return Refreshed::Stale;
        }
        let mut changed = 0;
        for old in self.entries() {
            let record = id_of(&old.record.id).and_then(|id| held.remove(&id));
            changed += usize::from(match record {
                Some(record) => edit.replace(&old, record),
                None => edit.lose(&old),
            });
        }
        let (added, is_full) = edit.add(held.into_values().collect(), max_keys, now);
        edit.writing.seen = Seen {
            // Whatever was left out is read again.
            known: if is_full { 0 } else { sequence },
            own: sequence,
            era: seen.era + 1,
        };
        edit.publish();
        match is_full {
            true => Refreshed::Full,
            false => Refreshed::Changed(changed + added),
        }
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

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_000);

    fn record(id: &str, revision: u64) -> KeyRecord {
        let mac = "00".repeat(32);
        let row = format!(
            r#"{{"id":"{id}","env":"live","tenant":"t","created_ms":1,"revision":{revision},
                "pepper":"00000000","mac":"{mac}"}}"#
        );
        KeyRecord::decode(&row).unwrap()
    }

    fn put(id: &str, revision: u64) -> Vec<Change> {
        vec![Change::Put(Box::new(record(id, revision)))]
    }

    fn revision(memory: &Memory, id: &str) -> Option<u64> {
        let entry = memory.get(KeyId::of(id).unwrap())?;
        Some(entry.record.revision)
    }

    const A: &str = "AAAAAAAAAAAA";
    const B: &str = "BBBBBBBBBBBB";

    #[test]
    fn a_read_that_was_overtaken_is_no_sign_of_a_store_that_fell_back() {
        let memory = Memory::new(Vec::new(), 5);
        let seen = memory.seen();
        assert!(!memory.commit(put(A, 1), 6, seen, false));
        let late = memory.bring_in(Vec::new(), 5, seen, 9, NOW);
        assert_eq!(late, Refreshed::Stale);
        // One that began when more was known is one.
        let early = memory.bring_in(Vec::new(), 5, memory.seen(), 9, NOW);
        assert_eq!(early, Refreshed::FellBack);
        assert_eq!(revision(&memory, A), Some(1));
    }

    #[test]
    fn a_write_that_was_overtaken_by_a_refresh_is_no_sign_of_it_either() {
        let memory = Memory::new(Vec::new(), 5);
        let seen = memory.seen();
        memory.bring_in(put(A, 1), 8, seen, 9, NOW);
        assert!(!memory.commit(put(B, 1), 6, seen, false));
        assert_eq!(revision(&memory, B), None, "revoked and forgotten since");
        assert!(memory.commit(put(B, 1), 7, memory.seen(), false));
        assert_eq!(revision(&memory, B), Some(1));
    }

    #[test]
    fn what_was_read_before_the_store_fell_back_comes_too_late_after_it() {
        let memory = Memory::new(Vec::new(), 5);
        let slow = memory.seen();
        let earlier = memory.take_over(vec![record(A, 1)], 3, slow, 9, NOW);
        assert_eq!(earlier, Refreshed::Changed(1));
        assert_eq!(
            memory.bring_in(put(A, 7), 6, slow, 9, NOW),
            Refreshed::Stale
        );
        assert_eq!(
            memory.take_over(Vec::new(), 2, slow, 9, NOW),
            Refreshed::Stale
        );
        assert_eq!((revision(&memory, A), memory.seen().known), (Some(1), 3));
    }

    #[test]
    fn what_finds_no_room_as_a_store_falls_back_is_read_again() {
        let memory = Memory::new(Vec::new(), 5);
        let all = || vec![record(A, 1), record(B, 1)];
        let full = memory.take_over(all(), 2, memory.seen(), 1, NOW);
        assert_eq!((full, memory.len()), (Refreshed::Full, 1));
        assert_eq!(memory.seen().known, 0);
        let read = memory.reload(all(), 2, memory.seen(), 2, NOW);
        assert_eq!((read, memory.len()), (Refreshed::Changed(1), 2));
        assert_eq!(memory.seen().known, 2);
    }

    #[test]
    fn a_stopped_key_that_the_store_lost_stays_stopped_and_is_kept() {
        let held = |id| (KeyId::of(id).unwrap(), record(id, 3));
        let memory = Memory::new(vec![held(A), held(B)], 5);
        let id = KeyId::of(A).unwrap();
        memory.stop(id, KeyState::Suspended { at: NOW });
        let lost = memory.take_over(Vec::new(), 2, memory.seen(), 9, NOW);
        assert_eq!(lost, Refreshed::Changed(1));
        assert_eq!(
            (revision(&memory, A), revision(&memory, B)),
            (Some(0), None)
        );
        // As it turns up again the suspension has still to be written.
        memory.bring_in(put(A, 4), 3, memory.seen(), 9, NOW);
        let entry = memory.get(id).unwrap();
        assert_eq!(entry.record.state, KeyState::Suspended { at: NOW });
        assert!(entry.unsaved);
        // But where the store itself has forgotten it, it is gone.
        let forget = vec![Change::Forget(entry.record.id.clone())];
        memory.bring_in(forget, 4, memory.seen(), 9, NOW);
        assert!(memory.get(id).is_none());
    }
}
