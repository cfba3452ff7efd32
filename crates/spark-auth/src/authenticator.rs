//! Issuing, verifying, rotating and revoking keys, without any HTTP.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use spark_core::{Clock, Name, Scopes};

use crate::audit::AuditEvent;
use crate::config::{AuthenticatorBuilder, Parts};
use crate::error::AuthError;
use crate::index::{Entry, KeyId};
use crate::info::KeyInfo;
use crate::key::UserKey;
use crate::mac::Mac;
use crate::metrics;
use crate::new_key::NewKey;
use crate::record::{Issued, KeyRecord, KeyState, KeyStatus, whole_millis};
use crate::store::Change;

/// The longest time for which a rotated key goes on working.
pub const MAX_OVERLAP: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Knows all keys: makes them, checks them, takes them back.
///
/// [`verify`](Self::verify) reads memory alone and takes no lock. The other calls write to the
/// store and may block; one of them runs at a time. Clones share everything.
///
/// # Example
/// ```
/// use std::time::Duration;
/// use spark_auth::{Authenticator, MemoryStore, NewKey, Pepper, Rejected};
/// use spark_core::Name;
///
/// let auth = Authenticator::builder()
///     .pepper(Pepper::generate()?)
///     .store(MemoryStore::new())
///     .build()?;
/// let old = auth.issue(NewKey::new(Name::new("acme")?).label("laptop"))?;
/// let new = auth.rotate(old.record.id.as_str(), Duration::from_secs(3_600))?;
/// assert!(auth.verify(old.key.expose()).is_ok()); // for another hour
/// assert_eq!(new.record.tenant, old.record.tenant);
///
/// auth.revoke(old.record.id.as_str())?;
/// assert_eq!(auth.verify(old.key.expose()), Err(Rejected::Revoked));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Authenticator(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    parts: Parts,
    /// What an unknown id is compared with.
    dummy: Mac,
    /// Held by whoever changes keys.
    changing: Mutex<()>,
}

impl Authenticator {
    /// Starts to build one.
    ///
    /// # Example
    /// ```
    /// let builder = spark_auth::Authenticator::builder().max_keys(500);
    /// ```
    pub fn builder() -> AuthenticatorBuilder {
        AuthenticatorBuilder::default()
    }

    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(Inner {
            changing: Mutex::new(()),
            dummy: Mac::of_nothing(),
            parts,
        }))
    }

    /// Makes a key. When this returns, the store has it and it works.
    ///
    /// # Errors
    /// [`AuthError::Invalid`] names the field at fault, [`AuthError::Full`] when no more keys may
    /// be kept, [`AuthError::Store`] when the store failed and nothing was changed.
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
        let changing = self.lock();
        let now = whole_millis(self.now());
        new.check(now)?;
        let mut changes = self.make_room(now)?;
        let issued = self.make(new, now)?;
        changes.push(Change::Put(Box::new(issued.record.clone())));
        self.commit(changes)?;
        drop(changing);
        metrics::key_changed("issued", self.len());
        self.audit(&AuditEvent::Issued {
            key_id: issued.record.id.clone(),
            tenant: issued.record.tenant.clone(),
        });
        Ok(issued)
    }

    /// Makes a key that follows the one with this id: same tenant, tier, scopes, label and end.
    /// The old one goes on working for `overlap`, or until its own end where that comes first;
    /// with an overlap of zero it is revoked at once.
    ///
    /// A rotation never makes a right last longer: for a later end, issue a new key.
    ///
    /// # Errors
    /// [`AuthError::NotFound`], [`AuthError::NotActive`] and [`AuthError::AlreadyRotated`] for keys
    /// that cannot be followed; [`AuthError::Invalid`] for an overlap beyond [`MAX_OVERLAP`]; and
    /// those of [`issue`](Self::issue). Nothing was changed then.
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
        let changing = self.lock();
        let now = whole_millis(self.now());
        let mut old = self.entry(id)?.record.clone();
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
        let mut changes = self.make_room(now)?;
        let issued = self.make(new, now)?;
        old.replaced_by = Some(issued.record.id.clone());
        old.revision += 1;
        if overlap.is_zero() {
            old.state = KeyState::Revoked { at: now };
        } else {
            let end = whole_millis(now.saturating_add(overlap));
            old.expires_at = Some(old.expires_at.map_or(end, |own| own.min(end)));
        }
        changes.push(Change::Put(Box::new(issued.record.clone())));
        changes.push(Change::Put(Box::new(old)));
        self.commit(changes)?;
        drop(changing);
        metrics::key_changed("rotated", self.len());
        if let Some(key_id) = KeyId::of(id).and_then(Into::into) {
            self.audit(&AuditEvent::Rotated {
                key_id,
                successor: issued.record.id.clone(),
                overlap,
            });
        }
        Ok(issued)
    }

    /// Takes a key back, for good. When this returns, no request is let in with it any more, even
    /// if the store failed. Revoking a key that is revoked changes nothing.
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
        let changing = self.lock();
        let now = whole_millis(self.now());
        let entry = self.entry(id)?;
        let mut record = entry.record.clone();
        if !matches!(record.state, KeyState::Revoked { .. }) {
            record.state = KeyState::Revoked { at: now };
            record.revision += 1;
        } else if !entry.unsaved {
            return Ok(KeyInfo::of(&record, now));
        }
        // Memory first: a disk that is full must not keep a leaked key alive.
        let mut revoked = Entry::new(record.clone());
        revoked.unsaved = true;
        self.set(&record.id, Some(revoked));
        let saved = self.commit(vec![Change::Put(Box::new(record.clone()))]);
        drop(changing);
        metrics::key_changed("revoked", self.len());
        self.audit(&AuditEvent::Revoked {
            key_id: record.id.clone(),
            saved: saved.is_ok(),
        });
        saved.map(|()| KeyInfo::of(&record, now))
    }

    /// All keys, oldest first, as an administrator may see them.
    ///
    /// # Example
    /// ```
    /// # use spark_auth::*;
    /// # let auth = Authenticator::builder().pepper(Pepper::generate()?).store(MemoryStore::new()).build()?;
    /// assert!(auth.list().is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn list(&self) -> Vec<KeyInfo> {
        let now = self.now();
        let mut entries: Vec<_> = self.0.parts.index.entries().collect();
        entries.sort_by(|a, b| {
            let (a, b) = (&a.record, &b.record);
            (a.created_at, &a.id).cmp(&(b.created_at, &b.id))
        });
        entries
            .iter()
            .map(|entry| KeyInfo::of(&entry.record, now))
            .collect()
    }

    /// The key with this id, as an administrator may see it.
    ///
    /// # Example
    /// ```
    /// # use spark_auth::*;
    /// # let auth = Authenticator::builder().pepper(Pepper::generate()?).store(MemoryStore::new()).build()?;
    /// assert!(auth.get("unknown").is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get(&self, id: &str) -> Option<KeyInfo> {
        let entry = self.entry(id).ok()?;
        Some(KeyInfo::of(&entry.record, self.now()))
    }

    /// How many keys are kept, those that ended included.
    ///
    /// # Example
    /// ```
    /// # use spark_auth::*;
    /// # let auth = Authenticator::builder().pepper(Pepper::generate()?).store(MemoryStore::new()).build()?;
    /// assert_eq!(auth.len(), 0);
    /// assert!(auth.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn len(&self) -> usize {
        self.0.parts.index.len()
    }

    /// Whether there is no key at all.
    ///
    /// # Example
    /// ```
    /// # use spark_auth::*;
    /// # let auth = Authenticator::builder().pepper(Pepper::generate()?).store(MemoryStore::new()).build()?;
    /// assert!(auth.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.0.parts.clock
    }

    pub(crate) fn parts(&self) -> &Parts {
        &self.0.parts
    }

    pub(crate) fn dummy(&self) -> &Mac {
        &self.0.dummy
    }

    pub(crate) fn now(&self) -> Duration {
        self.0.parts.clock.unix_time()
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.0
            .changing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn audit(&self, event: &AuditEvent) {
        self.0.parts.audit.event(event);
    }

    fn entry(&self, id: &str) -> Result<Arc<Entry>, AuthError> {
        KeyId::of(id)
            .and_then(|id| self.0.parts.index.get(id))
            .ok_or(AuthError::NotFound)
    }

    fn set(&self, id: &Name, entry: Option<Entry>) {
        if let Some(id) = KeyId::of(id.as_str()) {
            self.0.parts.index.set(id, entry);
        }
    }

    /// A new key and its record, under an id that no other key has.
    fn make(&self, new: NewKey, now: Duration) -> Result<Issued, AuthError> {
        let parts = &self.0.parts;
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
            tier: new.tier,
            scopes: Scopes::new(new.scopes),
            created_at: now,
            not_before: new.not_before.map(whole_millis),
            expires_at: new.expires_at.map(whole_millis),
            state: KeyState::Active,
            replaced_by: None,
            revision: 1,
            pepper: parts.pepper.id(),
            mac: parts.pepper.user_mac(&key.parts()),
            owner: new.owner,
            ip_allow: new.ip_allow.into(),
            last_used_at: None,
        };
        Ok(Issued { record, key })
    }

    /// When as many keys are kept as may be, the one that ended first makes room.
    fn make_room(&self, now: Duration) -> Result<Vec<Change>, AuthError> {
        let max = self.0.parts.max_keys;
        if self.len() < max {
            return Ok(Vec::new());
        }
        let ended = |entry: Arc<Entry>| {
            let at = entry.record.ended_at(now)?;
            // An unsaved revocation must be kept: the store still takes the key for alive.
            (!entry.unsaved).then(|| (at, entry.record.id.clone()))
        };
        match self.0.parts.index.entries().filter_map(ended).min() {
            Some((_, id)) => Ok(vec![Change::Forget(id)]),
            None => Err(AuthError::Full { max }),
        }
    }

    /// The store first, memory after: what the store refuses was never there.
    fn commit(&self, changes: Vec<Change>) -> Result<(), AuthError> {
        if let Err(error) = self.0.parts.store.append(&changes) {
            metrics::store_failed();
            return Err(error.into());
        }
        for change in changes {
            match change {
                Change::Put(record) => self.set(&record.id.clone(), Some(Entry::new(*record))),
                Change::Forget(id) => self.set(&id, None),
            }
        }
        Ok(())
    }
}
