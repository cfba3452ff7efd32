//! What is written once in a while: last uses, MACs under the current pepper, and what failed.

use std::sync::atomic::Ordering;
use std::time::Duration;

use spark_core::Name;

use crate::audit::AuditEvent;
use crate::authenticator::Authenticator;
use crate::error::{AuthError, StoreError};
use crate::metrics;
use crate::record::{KeyRecord, KeyState, whole_millis};
use crate::renewal::Renewal;
use crate::store::Change;

/// How many last uses are written at once.
const MAX_USES: usize = 10_000;
/// How many records are written at once.
const MAX_RECORDS: usize = 128;

/// What [`Authenticator::flush`] has written.
///
/// # Example
/// ```
/// assert_eq!(spark_auth::Flushed::default().last_uses, 0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Flushed {
    /// Of how many keys the store was told when they were last used.
    pub last_uses: usize,
    /// How many keys moved from the previous pepper to the current one.
    pub renewed: usize,
    /// How many keys were revoked or suspended that the store had failed to write.
    pub stopped: usize,
}

impl Authenticator {
    /// Writes what was left to be written: revocations and suspensions that the store failed to
    /// keep, when keys were last used, in one go, and the MACs of keys that were used under the
    /// previous pepper, made under the current one.
    ///
    /// Call it about once a minute, and once before the end; from `spawn_blocking` in an async
    /// service. Between two calls at most one use of each key and 1,024 MACs wait in memory. What
    /// was not written at a crash is a minute of last uses; the MACs are made again.
    ///
    /// # Errors
    /// [`AuthError::Store`] when the store failed, with the first failure: one change that the store
    /// refuses keeps no other kind from being written, and what was not written is written by the
    /// next call.
    ///
    /// # Example
    /// ```
    /// # use spark_auth::*;
    /// # use spark_core::Name;
    /// # let auth = Authenticator::builder().pepper(Pepper::generate()?).store(MemoryStore::new()).build()?;
    /// let key = auth.issue(NewKey::new(Name::new("acme")?))?.key;
    /// auth.verify(key.expose())?;
    /// assert_eq!(auth.flush()?.last_uses, 1);
    /// assert_eq!(auth.flush()?.last_uses, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn flush(&self) -> Result<Flushed, AuthError> {
        let storing = self.storing();
        let (stopped, first) = self.write_stopped();
        let (last_uses, second) = self.write_last_uses();
        let (renewed, third) = self.write_renewals();
        drop(storing);
        for event in &stopped {
            self.audit(event);
        }
        match first.and(second).and(third) {
            Ok(()) => Ok(Flushed {
                last_uses,
                renewed,
                stopped: stopped.len(),
            }),
            Err(error) => Err(error),
        }
    }

    /// An event for each key that was written.
    fn write_stopped(&self) -> (Vec<AuditEvent>, Result<(), AuthError>) {
        let (mut events, mut outcome) = (Vec::new(), Ok(()));
        for entry in self.memory().entries().filter(|entry| entry.unsaved) {
            let mut record = entry.record.clone();
            let (key_id, saved) = (record.id.clone(), true);
            let event = match record.state {
                KeyState::Active => continue,
                // The store has lost it, and whoever resumed it would bring it back.
                KeyState::Suspended { .. } if record.revision == 0 => continue,
                KeyState::Suspended { .. } => AuditEvent::Suspended { key_id, saved },
                KeyState::Revoked { .. } => AuditEvent::Revoked { key_id, saved },
            };
            record.revision = record.revision.saturating_add(1);
            match self.commit(vec![Change::Put(Box::new(record))], false) {
                Ok(()) => events.push(event),
                // What others have changed is known by now: the next call writes it.
                Err(AuthError::Store(StoreError::Conflict { .. })) => {}
                // One that is refused keeps no other from being written.
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        (events, outcome)
    }

    fn write_last_uses(&self) -> (usize, Result<(), AuthError>) {
        let mut uses: Vec<(Name, Duration)> = Vec::new();
        for entry in self.memory().entries() {
            if let Some(at) = entry.last_use.take_unwritten() {
                uses.push((entry.record.id.clone(), at));
            }
        }
        let (mut written, mut outcome) = (0, Ok(()));
        for batch in uses.chunks(MAX_USES) {
            match self.parts().store.touch(batch) {
                Ok(()) => written += batch.len(),
                Err(error) => {
                    metrics::store_failed();
                    for (id, _) in batch {
                        if let Ok((_, entry)) = self.entry(id.as_str()) {
                            entry.last_use.still_unwritten();
                        }
                    }
                    outcome = outcome.and(Err(error.into()));
                }
            }
        }
        (written, outcome)
    }

    fn write_renewals(&self) -> (usize, Result<(), AuthError>) {
        let waiting = self.renewals().take();
        let (mut written, mut outcome) = (0, Ok(()));
        for batch in waiting.chunks(MAX_RECORDS) {
            match self.renew(batch) {
                Ok(renewed) => written += renewed,
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        // What was not written may be made again: those that were have a new entry by now.
        for renewal in &waiting {
            if let Some(entry) = self.memory().get(renewal.id) {
                entry.renewing.store(false, Ordering::Relaxed);
            }
        }
        (written, outcome)
    }

    fn renew(&self, batch: &[Renewal]) -> Result<usize, AuthError> {
        let now = whole_millis(self.now());
        let renewed = || -> Vec<_> {
            batch
                .iter()
                .filter_map(|it| self.renewed(it, now))
                .collect()
        };
        let mut changes = renewed();
        // After a conflict, what others have changed is known and drops out.
        for is_last in [false, true] {
            let written = changes.len();
            if written == 0 {
                break;
            }
            match self.commit(changes, false) {
                Ok(()) => return Ok(written),
                Err(AuthError::Store(StoreError::Conflict { .. })) if !is_last => {}
                Err(AuthError::Store(StoreError::Conflict { .. })) => break,
                Err(error) => return Err(error),
            }
            changes = renewed();
        }
        Ok(0)
    }

    /// The next version of a record that has not changed since its MAC was made anew.
    fn renewed(&self, renewal: &Renewal, now: Duration) -> Option<Change> {
        let entry = self.memory().get(renewal.id)?;
        // At revision 0 the store has lost the key, and another version would bring it back.
        let is_same = entry.record.revision == renewal.revision
            && entry.record.revision > 0
            && !entry.unsaved;
        if !is_same || entry.record.ended_at(now).is_some() {
            return None;
        }
        Some(Change::Put(Box::new(KeyRecord {
            mac: renewal.mac.clone(),
            pepper: self.parts().pepper.id(),
            revision: renewal.revision.saturating_add(1),
            ..entry.record.clone()
        })))
    }
}
