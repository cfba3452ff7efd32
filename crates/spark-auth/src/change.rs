//! The calls that change keys.

use std::sync::Arc;
use std::time::Duration;

use spark_core::{Name, Scopes};

use crate::audit::AuditEvent;
use crate::authenticator::Authenticator;
use crate::error::{AuthError, StoreError};
use crate::index::{Entry, KeyId};
use crate::info::KeyInfo;
use crate::key::UserKey;
use crate::metrics;
use crate::new_key::NewKey;
use crate::record::{Issued, KeyRecord, KeyState, KeyStatus, whole_millis};
use crate::store::Change;

/// The longest time for which a rotated key goes on working.
pub const MAX_OVERLAP: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How many keys are forgotten by one call, so that no set of changes grows large.
const MAX_FORGOTTEN: usize = 1_000;

/// How often a key is stopped anew when others change it at the same time.
const MAX_ATTEMPTS: usize = 8;

impl Authenticator {
    /// Makes a key. When this returns, the store has it and it works.
    ///
    /// # Errors
    /// [`AuthError::Invalid`] names the field at fault, [`AuthError::Full`] when no more keys may
    /// be kept, [`AuthError::Store`] when the store failed; no key works then.
    ///
    /// # Example
    /// ```
    /// # use spark_auth::*;
    /// # use {spark_core::Name, std::time::Duration};
    /// # let auth = Authenticator::builder().pepper(Pepper::generate()?).store(MemoryStore::new()).build()?;
    /// let past = NewKey::new(Name::new("acme")?).expires_at(Duration::from_secs(1));
    /// assert_eq!(auth.issue(past).unwrap_err().field(), Some("expires_at"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn issue(&self, new: NewKey) -> Result<Issued, AuthError> {
        let storing = self.storing();
        let now = whole_millis(self.now());
        new.check(now)?;
        if !self.parts().environments.contain(new.environment) {
            return Err(AuthError::Invalid {
                field: "environment",
                problem: "use one whose keys are accepted here",
            });
        }
        let Room { mut changes, lacks } = self.make_room(now);
        if lacks {
            return Err(self.full());
        }
        let issued = self.make(new, now)?;
        changes.push(Change::Put(Box::new(issued.record.clone())));
        self.commit(changes, false, now)?;
        drop(storing);
        metrics::key_changed("issued", self.len());
        self.audit(&AuditEvent::Issued {
            key_id: issued.record.id.clone(),
            tenant: issued.record.tenant.clone(),
        });
        Ok(issued)
    }

    /// Makes a key that follows the one with this id: same
    /// tenant, owner, label, tier, scopes, networks and times.
    /// The old one goes on working for `overlap`, or until its own end where that comes first;
    /// with an overlap of zero it is revoked at once. That needs no room: where as many keys live as
    /// may be kept, the old one is forgotten too.
    ///
    /// A rotation never makes a right last longer: for a later end, issue a new key.
    ///
    /// # Errors
    /// [`AuthError::NotFound`], [`AuthError::NotActive`] and [`AuthError::AlreadyRotated`] for keys
    /// that cannot be followed; [`AuthError::Invalid`] for an overlap beyond [`MAX_OVERLAP`]; and
    /// those of [`issue`](Self::issue). The old key stands as it was then. With
    /// [`StoreError::Conflict`] another process has changed it; what it did is known by now.
    ///
    /// # Example
    /// ```
    /// # use spark_auth::*;
    /// # use {spark_core::Name, std::time::Duration};
    /// # let auth = Authenticator::builder().pepper(Pepper::generate()?).store(MemoryStore::new()).build()?;
    /// let leaked = auth.issue(NewKey::new(Name::new("acme")?))?;
    /// let fresh = auth.rotate(leaked.record.id.as_str(), Duration::ZERO)?;
    /// assert_eq!(auth.verify(leaked.key.expose()), Err(Rejected::Revoked));
    /// assert!(auth.verify(fresh.key.expose()).is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn rotate(&self, id: &str, overlap: Duration) -> Result<Issued, AuthError> {
        if overlap > MAX_OVERLAP {
            return Err(AuthError::Invalid {
                field: "overlap",
                problem: "use at most 30 days",
            });
        }
        let storing = self.storing();
        let now = whole_millis(self.now());
        let mut old = self.entry(id)?.1.record.clone();
        if let Some(successor) = old.replaced_by {
            return Err(AuthError::AlreadyRotated { successor });
        }
        match old.status(now) {
            KeyStatus::Active | KeyStatus::NotYetValid => {}
            status => return Err(AuthError::NotActive { status }),
        }
        let new = NewKey {
            tenant: old.tenant.clone(),
            environment: old.environment,
            label: old.label.clone(),
            tier: old.tier.clone(),
            scopes: old.scopes.iter().cloned().collect(),
            not_before: old.not_before,
            expires_at: old.expires_at,
            owner: old.owner.clone(),
            ip_allow: old.ip_allow.to_vec(),
        };
        let Room { mut changes, lacks } = self.make_room(now);
        if lacks && !overlap.is_zero() {
            return Err(self.full());
        }
        let issued = self.make(new, now)?;
        let key_id = old.id.clone();
        old.replaced_by = Some(issued.record.id.clone());
        old.revision = old.revision.saturating_add(1);
        if overlap.is_zero() {
            old.state = KeyState::Revoked { at: now };
        } else {
            let end = whole_millis(now.saturating_add(overlap));
            old.expires_at = Some(old.expires_at.map_or(end, |own| own.min(end)));
        }
        changes.push(Change::Put(Box::new(issued.record.clone())));
        changes.push(Change::Put(Box::new(old)));
        if lacks {
            changes.push(Change::Forget(key_id.clone()));
        }
        self.commit(changes, false, now)?;
        drop(storing);
        metrics::key_changed("rotated", self.len());
        self.audit(&AuditEvent::Rotated {
            key_id,
            successor: issued.record.id.clone(),
            overlap,
        });
        Ok(issued)
    }

    /// Takes a key back, for good. When this returns, no request is let in with it any more, even
    /// if the store failed; and while it waits for a store that hangs, neither is one. Revoking a key
    /// that is revoked changes nothing.
    ///
    /// # Errors
    /// [`AuthError::NotFound`] when no key has this id. [`AuthError::Store`] when the store failed:
    /// this process refuses the key, but it works again after a restart, so revoke it once more.
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
    /// again after a restart, so suspend it once more.
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
    /// ended, [`AuthError::Store`] when the store failed; the key stays suspended then.
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
        let (_, entry) = self.entry(id)?;
        match entry.record.status(now) {
            KeyStatus::Suspended => {}
            status @ (KeyStatus::Revoked | KeyStatus::Expired) => {
                return Err(AuthError::NotActive { status });
            }
            KeyStatus::Active | KeyStatus::NotYetValid => return Ok(entry.info(now)),
        }
        let mut record = entry.record.clone();
        record.state = KeyState::Active;
        record.revision = record.revision.saturating_add(1);
        let key_id = record.id.clone();
        self.commit(vec![Change::Put(Box::new(record))], true, now)?;
        let (_, entry) = self.entry(id)?;
        drop(storing);
        metrics::key_changed("resumed", self.len());
        self.audit(&AuditEvent::Resumed { key_id });
        Ok(entry.info(now))
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
        let mut attempts = 1;
        let saved = loop {
            // Whoever had the turn before may have resumed it, or written this very state.
            let entry = match self.stop_in_memory(id, state, now) {
                Err(AuthError::NotFound) => return Ok(first.info(now)),
                found => found?,
            };
            if !entry.unsaved {
                return Ok(entry.info(now));
            }
            let mut record = entry.record.clone();
            record.revision = record.revision.saturating_add(1);
            match self.commit(vec![Change::Put(Box::new(record))], false, now) {
                // What others have changed is known by now, and does not stand in the way.
                Err(AuthError::Store(StoreError::Conflict { .. })) if attempts < MAX_ATTEMPTS => {
                    attempts += 1;
                }
                outcome => break outcome,
            }
        };
        drop(storing);
        done(first.record.id.clone(), saved.is_ok());
        saved.map(|()| self.memory().get(id).unwrap_or(first).info(now))
    }

    fn stop_in_memory(
        &self,
        id: KeyId,
        state: KeyState,
        now: Duration,
    ) -> Result<Arc<Entry>, AuthError> {
        let entry = self.memory().get(id).ok_or(AuthError::NotFound)?;
        match (state, entry.record.status(now)) {
            (KeyState::Suspended { .. }, status @ (KeyStatus::Revoked | KeyStatus::Expired)) => {
                Err(AuthError::NotActive { status })
            }
            _ => self.memory().stop(id, state).ok_or(AuthError::NotFound),
        }
    }

    /// A new key and its record, under an id that no other key has.
    fn make(&self, new: NewKey, now: Duration) -> Result<Issued, AuthError> {
        let parts = self.parts();
        let key = loop {
            let key = UserKey::generate(&parts.brand, new.environment)
                .map_err(|_| AuthError::Randomness)?;
            if self.entry(key.id()).is_err() {
                break key;
            }
        };
        #[expect(clippy::expect_used, reason = "12 letters and digits are a name")]
        let record = KeyRecord {
            id: Name::new(key.id()).expect("letters and digits"),
            environment: new.environment,
            tenant: new.tenant,
            label: new.label,
            owner: new.owner,
            tier: new.tier,
            scopes: Scopes::new(new.scopes),
            ip_allow: new.ip_allow.into(),
            created_at: now,
            not_before: new.not_before.map(whole_millis),
            expires_at: new.expires_at.map(whole_millis),
            state: KeyState::Active,
            replaced_by: None,
            revision: 1,
            pepper: parts.pepper.id(),
            mac: parts.pepper.user_mac(&key.parts()),
            last_used_at: None,
        };
        Ok(Issued { record, key })
    }

    /// When as many keys are kept as may be, those that ended first make room.
    fn make_room(&self, now: Duration) -> Room {
        let surplus = (self.len() + 1).saturating_sub(self.parts().max_keys);
        let wanted = surplus.min(MAX_FORGOTTEN);
        let ended = if wanted == 0 {
            Vec::new()
        } else {
            self.memory().ended(now, wanted)
        };
        Room {
            lacks: ended.len() < wanted,
            changes: ended.into_iter().map(Change::Forget).collect(),
        }
    }

    fn full(&self) -> AuthError {
        let max = self.parts().max_keys;
        AuthError::Full { max }
    }

    /// The store first, memory after: what the store refuses was never there. For whoever holds the
    /// turn to write.
    pub(crate) fn commit(
        &self,
        changes: Vec<Change>,
        is_resumed: bool,
        now: Duration,
    ) -> Result<(), AuthError> {
        match self.parts().store.append(&changes) {
            Ok(sequence) => {
                self.memory().commit(changes, sequence, is_resumed, now);
                Ok(())
            }
            Err(error @ StoreError::Conflict { .. }) => {
                if let Err(error) = self.catch_up() {
                    tracing::warn!(%error, "what another process has changed cannot be read");
                }
                Err(error.into())
            }
            Err(error) => {
                metrics::store_failed();
                Err(error.into())
            }
        }
    }
}

/// What has to be forgotten for one more key.
struct Room {
    changes: Vec<Change>,
    /// Whether that is not enough.
    lacks: bool,
}
