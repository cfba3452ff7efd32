//! The calls that stop a key, for a while or for good, and let it work again.

use std::sync::Arc;
use std::time::Duration;

use spark_core::Name;

use crate::audit::AuditEvent;
use crate::authenticator::Authenticator;
use crate::error::{AuthError, StoreError};
use crate::index::{Entry, KeyId};
use crate::info::KeyInfo;
use crate::metrics;
use crate::record::{KeyState, KeyStatus, whole_millis};
use crate::store::Change;

/// How often a key is stopped anew when others change it at the same time.
const MAX_ATTEMPTS: usize = 8;

impl Authenticator {
    /// Takes a key back, for good. When this returns, no request is let in with it any more, even
    /// if the store failed; and while it waits for a store that hangs, neither is one. Revoking a key
    /// that is revoked changes nothing.
    ///
    /// # Errors
    /// [`AuthError::NotFound`] when no key has this id. [`AuthError::Store`] when the store failed:
    /// this process refuses the key, but it works again after a restart unless
    /// [`flush`](Self::flush) writes that before, so revoke it once more.
    ///
    /// # Example
    /// ```
    /// # use spark_auth::*;
    /// # use spark_core::Name;
    /// # let auth = Authenticator::builder().pepper(Pepper::generate()?).store(MemoryStore::new()).build()?;
    /// let issued = auth.issue(NewKey::new(Name::new("acme")?))?;
    /// let info = auth.revoke(issued.record.id.as_str())?;
    /// assert_eq!(info.status, KeyStatus::Revoked);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn revoke(&self, id: &str) -> Result<KeyInfo, AuthError> {
        let at = whole_millis(self.now());
        self.stop(id, KeyState::Revoked { at }, |key_id, saved| {
            metrics::key_changed("revoked", self.len());
            self.audit(&AuditEvent::Revoked { key_id, saved });
        })
    }

    /// Stops a key until it is [resumed](Self::resume). When this returns, no request is let in with
    /// it any more, even if the store failed. Suspending a key that is suspended changes nothing.
    ///
    /// # Errors
    /// [`AuthError::NotFound`] when no key has this id, [`AuthError::NotActive`] when the key has
    /// ended. [`AuthError::Store`] when the store failed: this process refuses the key, but it works
    /// again after a restart unless [`flush`](Self::flush) writes that before, so suspend it once
    /// more.
    ///
    /// # Example
    /// ```
    /// # use spark_auth::*;
    /// # use spark_core::Name;
    /// # let auth = Authenticator::builder().pepper(Pepper::generate()?).store(MemoryStore::new()).build()?;
    /// let issued = auth.issue(NewKey::new(Name::new("acme")?))?;
    /// auth.suspend(issued.record.id.as_str())?;
    /// assert_eq!(auth.verify(issued.key.expose()), Err(Rejected::Suspended));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn suspend(&self, id: &str) -> Result<KeyInfo, AuthError> {
        let at = whole_millis(self.now());
        self.stop(id, KeyState::Suspended { at }, |key_id, saved| {
            metrics::key_changed("suspended", self.len());
            self.audit(&AuditEvent::Suspended { key_id, saved });
        })
    }

    /// Lets a suspended key work again, within its time. Resuming a key that is not suspended
    /// changes nothing.
    ///
    /// # Errors
    /// [`AuthError::NotFound`] when no key has this id, [`AuthError::NotActive`] when the key has
    /// ended. [`AuthError::Store`] when the store failed: the key stays suspended here, but where the
    /// answer alone was lost the store may have kept that it is resumed: look after the next
    /// [`refresh`](Self::refresh), then try again.
    ///
    /// # Example
    /// ```
    /// # use spark_auth::*;
    /// # use spark_core::Name;
    /// # let auth = Authenticator::builder().pepper(Pepper::generate()?).store(MemoryStore::new()).build()?;
    /// let issued = auth.issue(NewKey::new(Name::new("acme")?))?;
    /// auth.suspend(issued.record.id.as_str())?;
    /// auth.resume(issued.record.id.as_str())?;
    /// assert!(auth.verify(issued.key.expose()).is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn resume(&self, id: &str) -> Result<KeyInfo, AuthError> {
        let storing = self.storing();
        let now = whole_millis(self.now());
        let entry = self.stored_entry(id)?;
        match entry.record.status(now) {
            KeyStatus::Suspended => {}
            status @ (KeyStatus::Revoked | KeyStatus::Expired) => {
                return Err(AuthError::NotActive { status });
            }
            KeyStatus::Active | KeyStatus::NotYetValid => return Ok(entry.info(self.moment())),
        }
        let mut record = entry.record.clone();
        record.state = KeyState::Active;
        record.resumed_at = Some(now);
        record.revision = record.revision.saturating_add(1);
        let key_id = record.id.clone();
        self.commit(vec![Change::Put(Box::new(record))], true)?;
        let (_, entry) = self.entry(id)?;
        drop(storing);
        metrics::key_changed("resumed", self.len());
        self.audit(&AuditEvent::Resumed { key_id });
        Ok(entry.info(self.moment()))
    }

    /// Refuses a key from now on, then writes that down. `done` is told of the key and of whether
    /// the store has it, unless nothing was left to do.
    fn stop(
        &self,
        id: &str,
        state: KeyState,
        done: impl FnOnce(Name, bool),
    ) -> Result<KeyInfo, AuthError> {
        let id = KeyId::of(id).ok_or(AuthError::NotFound)?;
        let now = whole_millis(self.now());
        // Memory first, and out of turn: neither a disk that is full nor one that hangs must keep a
        // leaked key alive.
        let first = self.stop_in_memory(id, state, now)?;
        let storing = self.storing();
        let is_saved =
            |entry: &Entry| !entry.unsaved && matches!(state, KeyState::Suspended { .. });
        if self.memory().get(id).as_deref().is_some_and(is_saved) {
            // Nothing seems left to do: but another process may have resumed it.
            self.catch_up_in_turn()?;
        }
        let mut attempts = 1;
        let saved = loop {
            // Whoever had the turn before may have resumed it, or written this very state.
            let entry = match self.stop_in_memory(id, state, now) {
                // The store has forgotten it meanwhile, so that nothing can bring it back.
                Err(AuthError::NotFound) if first.unsaved => break Ok(()),
                Err(AuthError::NotFound) => return Ok(first.info(self.moment())),
                found => found?,
            };
            if !entry.unsaved {
                return Ok(entry.info(self.moment()));
            }
            let mut record = entry.record.clone();
            record.revision = record.revision.saturating_add(1);
            match self.commit(vec![Change::Put(Box::new(record))], false) {
                // What others have changed is known by now, and does not stand in the way.
                Err(AuthError::Store(StoreError::Conflict { .. })) if attempts < MAX_ATTEMPTS => {
                    attempts += 1;
                }
                outcome => break outcome,
            }
        };
        drop(storing);
        done(first.record.id.clone(), saved.is_ok());
        let entry = self.memory().get(id).unwrap_or(first);
        saved.map(|()| entry.info(self.moment()))
    }

    fn stop_in_memory(
        &self,
        id: KeyId,
        state: KeyState,
        now: Duration,
    ) -> Result<Arc<Entry>, AuthError> {
        let entry = self.memory().get(id).ok_or(AuthError::NotFound)?;
        match (state, entry.record.status(now)) {
            // The store has lost it, and to write it anew would bring it back.
            (KeyState::Suspended { .. }, _) if entry.record.revision == 0 => {
                Err(AuthError::NotFound)
            }
            (KeyState::Suspended { .. }, status @ (KeyStatus::Revoked | KeyStatus::Expired)) => {
                Err(AuthError::NotActive { status })
            }
            _ => self.memory().stop(id, state).ok_or(AuthError::NotFound),
        }
    }
}
