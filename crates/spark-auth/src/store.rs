//! Where keys are kept.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use spark_core::Name;

use crate::error::StoreError;
use crate::record::KeyRecord;

/// Where keys are kept: the source of truth of the control plane.
///
/// It is read once, when the [`Authenticator`](crate::Authenticator) is built, and written when a
/// key is issued, rotated or revoked. Requests never reach it: they are answered from memory.
///
/// The calls may block. Call `issue`, `rotate` and `revoke` from `spawn_blocking` in an async
/// service. An asynchronous database fits in by running its futures on a runtime's handle inside
/// these calls (`Handle::block_on`), which is allowed on the threads of `spawn_blocking`. Records
/// carry a [`revision`](KeyRecord::revision) that only grows, so that a store that several
/// processes share can say what changed since one.
///
/// # Example
/// A store that keeps nothing and says so:
/// ```
/// use spark_auth::{Change, KeyRecord, KeyStore, StoreError};
///
/// #[derive(Debug)]
/// struct ReadOnly(Vec<KeyRecord>);
///
/// impl KeyStore for ReadOnly {
///     fn load(&self) -> Result<Vec<KeyRecord>, StoreError> {
///         Ok(self.0.clone())
///     }
///
///     fn append(&self, _: &[Change]) -> Result<(), StoreError> {
///         Err(StoreError::Other("keys are issued elsewhere".into()))
///     }
/// }
/// ```
pub trait KeyStore: fmt::Debug + Send + Sync {
    /// The latest version of every record.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read; the authenticator is then not built.
    fn load(&self) -> Result<Vec<KeyRecord>, StoreError>;

    /// Keeps `changes`, all or none, and returns once they would survive a power cut.
    ///
    /// # Errors
    /// [`StoreError`] when they were not kept.
    fn append(&self, changes: &[Change]) -> Result<(), StoreError>;
}

impl<S: KeyStore + ?Sized> KeyStore for Arc<S> {
    fn load(&self) -> Result<Vec<KeyRecord>, StoreError> {
        (**self).load()
    }

    fn append(&self, changes: &[Change]) -> Result<(), StoreError> {
        (**self).append(changes)
    }
}

impl<S: KeyStore + ?Sized> KeyStore for Box<S> {
    fn load(&self) -> Result<Vec<KeyRecord>, StoreError> {
        (**self).load()
    }

    fn append(&self, changes: &[Change]) -> Result<(), StoreError> {
        (**self).append(changes)
    }
}

/// One change of a store.
///
/// # Example
/// ```
/// # use spark_auth::{Change, KeyStore, MemoryStore};
/// # use spark_core::Name;
/// MemoryStore::new().append(&[Change::Forget(Name::new("abcdefghijkl")?)])?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// This is now the record with its id.
    Put(Box<KeyRecord>),
    /// The record with this id is gone; its key had already ceased to work.
    Forget(Name),
}

/// Keys in memory, gone with the process: for tests, and for services that issue keys at start.
///
/// Clones share the keys.
///
/// # Example
/// ```
/// # use spark_auth::{Authenticator, MemoryStore, NewKey, Pepper};
/// # use spark_core::Name;
/// let (pepper, store) = (Pepper::generate()?, MemoryStore::new());
/// let first = Authenticator::builder().pepper(pepper.clone()).store(store.clone()).build()?;
/// let issued = first.issue(NewKey::new(Name::new("acme")?))?;
/// let second = Authenticator::builder().pepper(pepper).store(store).build()?;
/// assert!(second.verify(issued.key.expose()).is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct MemoryStore(Arc<Mutex<HashMap<Name, KeyRecord>>>);

impl MemoryStore {
    /// An empty one.
    ///
    /// # Example
    /// ```
    /// # use spark_auth::{KeyStore, MemoryStore};
    /// assert!(MemoryStore::new().load()?.is_empty());
    /// # Ok::<(), spark_auth::StoreError>(())
    /// ```
    pub fn new() -> Self {
        Self::default()
    }
}

/// Shows none of the keys.
impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

impl KeyStore for MemoryStore {
    fn load(&self) -> Result<Vec<KeyRecord>, StoreError> {
        let records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(records.values().cloned().collect())
    }

    fn append(&self, changes: &[Change]) -> Result<(), StoreError> {
        let mut records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            replay(&mut records, change.clone());
        }
        Ok(())
    }
}

/// Applies one change to a set of records.
pub(crate) fn replay(records: &mut HashMap<Name, KeyRecord>, change: Change) {
    match change {
        Change::Put(record) => {
            records.insert(record.id.clone(), *record);
        }
        Change::Forget(id) => {
            records.remove(&id);
        }
    }
}
