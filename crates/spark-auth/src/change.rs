//! The calls that make keys, and what all calls that change keys have in common.

use std::time::Duration;

use spark_core::{Name, Scopes};

use crate::audit::AuditEvent;
use crate::authenticator::Authenticator;
use crate::error::{AuthError, StoreError};
use crate::key::UserKey;
use crate::metrics;
use crate::new_key::NewKey;
use crate::record::{Issued, KeyRecord, KeyState, KeyStatus, whole_millis};
use crate::store::Change;
use crate::words::Environment;

/// The longest time for which a rotated key goes on working.
pub const MAX_OVERLAP: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How many keys are forgotten by one call, so that no set of changes grows large.
const MAX_FORGOTTEN: usize = 1_000;

impl Authenticator {
    /// Makes a key. When this returns, the store has it and it works.
    ///
    /// # Errors
    /// [`AuthError::Invalid`] names the field at fault, [`AuthError::Full`] when no more keys may
    /// be kept, [`AuthError::Store`] when the store failed. No key works here then; where the answer
    /// alone was lost the store may hold one whose text nobody has, which is listed after the next
    /// [`refresh`](Self::refresh) or restart and may be revoked.
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
        self.check_environment(new.environment)?;
        let Room { mut changes, lacks } = self.make_room(now);
        if lacks {
            return Err(self.full());
        }
        let issued = self.make(new, now)?;
        changes.push(Change::Put(Box::new(issued.record.clone())));
        self.commit(changes, false)?;
        drop(storing);
        metrics::key_changed("issued", self.len());
        self.audit(&AuditEvent::Issued {
            key_id: issued.record.id.clone(),
            tenant: issued.record.tenant.clone(),
        });
        Ok(issued)
    }

    /// Makes a key that follows the one with this id, with the same tenant, owner, label, tier,
    /// scopes, networks and times. The old one goes on working for `overlap`, or until its own end
    /// where that comes first; with an overlap of zero it is revoked with the same write. That needs
    /// no room: where as many keys live as may be kept, the old one is forgotten too.
    ///
    /// A rotation never makes a right last longer: for a later end, issue a new key. Nor is a leaked
    /// key refused before the store has answered: where that may take time, revoke it first, and
    /// issue another.
    ///
    /// # Errors
    /// [`AuthError::NotFound`], [`AuthError::NotActive`] and [`AuthError::AlreadyRotated`] for keys
    /// that cannot be followed; [`AuthError::Invalid`] for an overlap beyond [`MAX_OVERLAP`], and for
    /// a key of an environment that is not accepted; and those of [`issue`](Self::issue). The old key
    /// stands here as it was then. With [`StoreError::Conflict`] another process has changed it; what
    /// it did is known by now. After any other [`AuthError::Store`] the store may have kept the
    /// rotation all the same, with a successor whose text nobody has: bring in what it holds
    /// ([`refresh`](Self::refresh)), look, then try again.
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
        let mut old = self.stored_entry(id)?.record.clone();
        if let Some(successor) = old.replaced_by {
            return Err(AuthError::AlreadyRotated { successor });
        }
        match old.status(now) {
            KeyStatus::Active | KeyStatus::NotYetValid => {}
            status => return Err(AuthError::NotActive { status }),
        }
        self.check_environment(old.environment)?;
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
        self.commit(changes, false)?;
        drop(storing);
        metrics::key_changed("rotated", self.len());
        self.audit(&AuditEvent::Rotated {
            key_id,
            successor: issued.record.id.clone(),
            overlap,
        });
        Ok(issued)
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
            resumed_at: None,
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
        let ended = match surplus {
            0 => Vec::new(),
            _ => self.memory().ended(now, surplus),
        };
        Room {
            lacks: ended.len() < surplus,
            // After a bound was lowered the rest is left to the next calls.
            changes: (ended.into_iter().take(MAX_FORGOTTEN))
                .map(Change::Forget)
                .collect(),
        }
    }

    /// Nobody is given a key that does not work.
    fn check_environment(&self, environment: Environment) -> Result<(), AuthError> {
        if self.parts().environments.contain(environment) {
            return Ok(());
        }
        Err(AuthError::Invalid {
            field: "environment",
            problem: "use one whose keys are accepted here",
        })
    }

    fn full(&self) -> AuthError {
        let max = self.parts().max_keys;
        AuthError::Full { max }
    }

    /// The store first, memory after: what the store refuses was never there. For whoever holds the
    /// turn to write.
    pub(crate) fn commit(&self, changes: Vec<Change>, is_resumed: bool) -> Result<(), AuthError> {
        let seen = self.memory().seen();
        match self.parts().store.append(&changes) {
            Ok(sequence) => {
                let memory = self.memory();
                if memory.commit(changes, sequence, seen, is_resumed)
                    && let Err(error) = self.start_over()
                {
                    tracing::warn!(%error, "the key store has fallen back and cannot be read");
                }
                Ok(())
            }
            Err(StoreError::Conflict { id }) => {
                if let Err(error) = self.learn_of(&id, &changes) {
                    tracing::warn!(%error, "what another process has changed cannot be read");
                }
                Err(StoreError::Conflict { id }.into())
            }
            Err(error) => {
                metrics::store_failed();
                Err(error.into())
            }
        }
    }

    /// Brings in what made the store refuse `changes` for the key with this id.
    fn learn_of(&self, id: &Name, changes: &[Change]) -> Result<(), AuthError> {
        self.catch_up_in_turn()?;
        let given = changes.iter().find_map(|change| match change {
            Change::Put(record) if record.id == *id => Some(record.revision),
            _ => None,
        });
        // By now the version that stood in the way is known, or the key is gone. If neither, then
        // the store's past is no longer the one that is known here.
        if let (Some(given), Ok((_, entry))) = (given, self.entry(id.as_str()))
            && entry.record.revision < given
        {
            self.start_over()?;
        }
        Ok(())
    }
}

/// What has to be forgotten for one more key.
struct Room {
    changes: Vec<Change>,
    /// Whether that is not enough.
    lacks: bool,
}
