//! A change of some keys, and the rules by which one version replaces another.

use std::sync::MutexGuard;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use spark_core::Name;

use super::{Writing, id_of, millis};
use crate::index::{Draft, Entry, KeyId};
use crate::record::{KeyRecord, KeyState};

/// A change of some keys, which requests see once it is published.
pub(super) struct Edit<'a> {
    pub(super) writing: MutexGuard<'a, Writing>,
    pub(super) draft: Draft<'a>,
    pub(super) len: usize,
    pub(super) latest: &'a AtomicU64,
}

impl Edit<'_> {
    /// Whether anything has changed.
    pub(super) fn put(&mut self, mut record: KeyRecord, is_resumed: bool) -> bool {
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

    /// Drops a key that the store has forgotten, whatever it is here: one that it forgot had ended,
    /// and what does not know of that must not keep it alive. Whether anything has changed.
    pub(super) fn forget(&mut self, name: &Name) -> bool {
        let Some((id, entry)) = id_of(name).and_then(|id| Some((id, self.draft.get(id)?))) else {
            return false;
        };
        self.writing.has_no_end(&entry.record, id);
        self.draft.remove(id);
        self.len -= 1;
        true
    }

    /// Takes the version of a store that has fallen back, be it an earlier one. A key that was
    /// stopped here stays stopped, unless a later version than the one known says otherwise, and a
    /// revoked one in any case; the store is told anew. Whether anything has changed.
    pub(super) fn replace(&mut self, old: &Entry, mut record: KeyRecord) -> bool {
        let Some(id) = id_of(&record.id) else {
            return false;
        };
        let is_stricter = old.record.state.strictness() > record.state.strictness();
        let is_earlier = record.revision <= old.record.revision;
        let unsaved = is_stricter && (is_earlier || old.unsaved || is_revoked(&old.record));
        if unsaved {
            record.state = old.record.state;
        }
        // Uses are noted apart from versions.
        record.last_used_at = old.record.last_used_at;
        if record == old.record && unsaved == old.unsaved {
            return false;
        }
        self.set(id, record, unsaved);
        true
    }

    /// Drops a key that a store lost as it fell back, but for one that is revoked, or stopped
    /// without the store's knowledge: it may turn up again. Whether anything has changed.
    pub(super) fn lose(&mut self, old: &Entry) -> bool {
        if !old.unsaved && !is_revoked(&old.record) {
            return self.forget(&old.record.id);
        }
        if let Some(id) = id_of(&old.record.id) {
            let mut record = old.record.clone();
            record.revision = 0;
            self.set(id, record, true);
        }
        false
    }

    pub(super) fn set(&mut self, id: KeyId, record: KeyRecord, unsaved: bool) {
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

    /// Puts in keys that are new here, as far as there is room. How many came in, and whether some
    /// were left out.
    pub(super) fn add(
        &mut self,
        new: Vec<KeyRecord>,
        max_keys: usize,
        now: Duration,
    ) -> (usize, bool) {
        let mut room = self.room(max_keys, new.len(), now);
        let (mut added, mut is_full) = (0, false);
        for record in new {
            if record.ended_at(now).is_none() {
                is_full |= room == 0;
                if room == 0 {
                    continue;
                }
                room -= 1;
            }
            added += usize::from(self.put(record, false));
        }
        (added, is_full)
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

    pub(super) fn publish(self) {
        self.draft.publish();
        // Only now may the next one begin.
        drop(self.writing);
    }
}

fn is_revoked(record: &KeyRecord) -> bool {
    matches!(record.state, KeyState::Revoked { .. })
}
