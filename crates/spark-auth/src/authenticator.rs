//! All that is known of keys, without any HTTP. What changes them is in `change.rs`
//! and `stop.rs`, what checks them in `verify.rs`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use spark_core::Clock;

use crate::audit::AuditEvent;
use crate::config::{AuthenticatorBuilder, Parts};
use crate::error::AuthError;
use crate::index::{Entry, KeyId};
use crate::info::KeyInfo;
use crate::mac::Mac;
use crate::memory::Memory;
use crate::record::Moment;
use crate::renewal::Renewals;

/// Knows all keys: makes them, checks them, takes them back.
///
/// [`verify`](Self::verify) reads memory alone and takes no lock. The calls that change keys write
/// to the store and may block; one of them runs at a time, but a key that is to be revoked or
/// suspended is refused before its turn comes. Clones share everything.
///
/// Call [`flush`](Self::flush) about once a minute and before the end, and
/// [`refresh`](Self::refresh) every few seconds where other processes share the store.
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
    /// Held by whoever writes to the store.
    storing: Mutex<()>,
    renewals: Renewals,
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
            storing: Mutex::new(()),
            renewals: Renewals::default(),
            dummy: Mac::of_nothing(),
            parts,
        }))
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
        let moment = self.moment();
        let mut entries: Vec<_> = self.memory().entries().collect();
        entries.sort_by(|a, b| {
            let (a, b) = (&a.record, &b.record);
            (a.created_at, &a.id).cmp(&(b.created_at, &b.id))
        });
        entries.iter().map(|entry| entry.info(moment)).collect()
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
        let (_, entry) = self.entry(id).ok()?;
        Some(entry.info(self.moment()))
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
        self.memory().len()
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

    /// The wall clock, but no earlier than the latest change of a key: a system date that was reset,
    /// to before 1970 even, must not bring expired keys back to life.
    pub(crate) fn now(&self) -> Duration {
        self.moment().now
    }

    /// The same, and the wall clock alone: a date that was ahead somewhere must not let keys work
    /// before their start.
    pub(crate) fn moment(&self) -> Moment {
        let clock = self.clock().unix_time();
        let now = clock.max(self.memory().latest());
        Moment { clock, now }
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.0.parts.memory
    }

    pub(crate) fn renewals(&self) -> &Renewals {
        &self.0.renewals
    }

    /// For whoever writes to the store: one at a time, in one order with memory.
    pub(crate) fn storing(&self) -> MutexGuard<'_, ()> {
        self.0
            .storing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn audit(&self, event: &AuditEvent) {
        self.0.parts.audit.event(event);
    }

    pub(crate) fn entry(&self, id: &str) -> Result<(KeyId, Arc<Entry>), AuthError> {
        KeyId::of(id)
            .and_then(|id| Some((id, self.memory().get(id)?)))
            .ok_or(AuthError::NotFound)
    }

    /// The same, but for a key that is here only so that it stays stopped: the store has lost it, and
    /// another version of it would bring it back.
    pub(crate) fn stored_entry(&self, id: &str) -> Result<Arc<Entry>, AuthError> {
        let (_, entry) = self.entry(id)?;
        match entry.record.revision {
            0 => Err(AuthError::NotFound),
            _ => Ok(entry),
        }
    }
}
