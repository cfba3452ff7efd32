//! Where keys are kept.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use spark_core::Name;

use crate::error::StoreError;
use crate::record::KeyRecord;

/// Where keys are kept: the source of truth of the control plane.
///
/// It is read when the [`Authenticator`](crate::Authenticator) is built and when it is
/// [refreshed](crate::Authenticator::refresh), and written when a key changes. Requests never reach
/// it: they are answered from memory.
///
/// Every set of changes has a number, one more than the set before: the store's **sequence**. Every
/// version of a record has one too, its [`revision`](KeyRecord::revision). By the first a process
/// learns what others have changed, by the second it cannot undo it unawares.
///
/// A read must see all that was appended before it began, and all that a read before it saw: read
/// from where is written, not from a copy that may lag. Where a store answers with an earlier number
/// all the same, it is taken to have fallen back: everything is read from it anew, and only what was
/// revoked or suspended here outlasts that. A store that has fallen back and gone on beyond the
/// numbers that were known before anybody looked is not told from one that never did, until a
/// version of a key contradicts it.
///
/// The calls may block. Call `issue`, `rotate` and the like from `spawn_blocking` in an async
/// service. An asynchronous database fits in by running its futures on a runtime's handle inside
/// these calls (`Handle::block_on`), which is allowed on the threads of `spawn_blocking`.
///
/// # Example
/// A store that keeps nothing and says so:
/// ```
/// use spark_auth::{Change, Changes, KeyRecord, KeyStore, Loaded, StoreError};
/// use spark_core::Name;
/// use std::time::Duration;
///
/// #[derive(Debug)]
/// struct ReadOnly(Vec<KeyRecord>);
///
/// impl KeyStore for ReadOnly {
///     fn load(&self) -> Result<Loaded, StoreError> {
///         Ok(Loaded { records: self.0.clone(), sequence: 0 })
///     }
///
///     fn append(&self, _: &[Change]) -> Result<u64, StoreError> {
///         Err(StoreError::Other("keys are issued elsewhere".into()))
///     }
///
///     fn changes_since(&self, _: u64) -> Result<Changes, StoreError> {
///         Ok(Changes::Known { changes: Vec::new(), sequence: 0 })
///     }
///
///     fn touch(&self, _: &[(Name, Duration)]) -> Result<(), StoreError> {
///         Ok(())
///     }
/// }
/// ```
pub trait KeyStore: fmt::Debug + Send + Sync {
    /// The latest version of every record.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read; the authenticator is then not built.
    fn load(&self) -> Result<Loaded, StoreError>;

    /// Keeps `changes` in their order, all or none, and returns their sequence once they would
    /// survive a power cut. One set may put a record and forget it.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the revision of a record is not one more than that of the
    /// version kept (1 where there is none); another [`StoreError`] when they were not kept.
    fn append(&self, changes: &[Change]) -> Result<u64, StoreError>;

    /// What was changed after that sequence, by whomever.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    fn changes_since(&self, sequence: u64) -> Result<Changes, StoreError>;

    /// Notes when keys were last used, as time since 1970, no earlier than it is known already. What
    /// was noted just before a crash may be lost, and it is no change in the sense above. Unknown
    /// keys are passed over.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be written.
    fn touch(&self, uses: &[(Name, Duration)]) -> Result<(), StoreError>;
}

/// What a store holds at a moment.
///
/// # Example
/// ```
/// # use spark_auth::{KeyStore, MemoryStore};
/// let loaded = MemoryStore::new().load()?;
/// assert!(loaded.records.is_empty() && loaded.sequence == 0);
/// # Ok::<(), spark_auth::StoreError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The latest version of every record, in any order.
    pub records: Vec<KeyRecord>,
    /// The number of the last set of changes in it; 0 before the first.
    pub sequence: u64,
}

/// What was changed in a store since some sequence.
///
/// # Example
/// ```
/// # use spark_auth::{Changes, KeyStore, MemoryStore};
/// let changes = MemoryStore::new().changes_since(0)?;
/// assert_eq!(changes, Changes::Known { changes: vec![], sequence: 0 });
/// # Ok::<(), spark_auth::StoreError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changes {
    /// These, in their order.
    Known {
        /// The changes.
        changes: Vec<Change>,
        /// The number of the last set of them; that which was asked for where there is none.
        sequence: u64,
    },
    /// The store does not know that far back: load everything.
    Unknown,
}

impl<S: KeyStore + ?Sized> KeyStore for Arc<S> {
    fn load(&self) -> Result<Loaded, StoreError> {
        (**self).load()
    }

    fn append(&self, changes: &[Change]) -> Result<u64, StoreError> {
        (**self).append(changes)
    }

    fn changes_since(&self, sequence: u64) -> Result<Changes, StoreError> {
        (**self).changes_since(sequence)
    }

    fn touch(&self, uses: &[(Name, Duration)]) -> Result<(), StoreError> {
        (**self).touch(uses)
    }
}

impl<S: KeyStore + ?Sized> KeyStore for Box<S> {
    fn load(&self) -> Result<Loaded, StoreError> {
        (**self).load()
    }

    fn append(&self, changes: &[Change]) -> Result<u64, StoreError> {
        (**self).append(changes)
    }

    fn changes_since(&self, sequence: u64) -> Result<Changes, StoreError> {
        (**self).changes_since(sequence)
    }

    fn touch(&self, uses: &[(Name, Duration)]) -> Result<(), StoreError> {
        (**self).touch(uses)
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
    /// The record with this id is gone; its key had already ceased to work, and ceases to wherever
    /// that was not known.
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
pub struct MemoryStore(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    records: HashMap<Name, KeyRecord>,
    sequence: u64,
    /// The last sets of changes, the latest last.
    history: VecDeque<Vec<Change>>,
}

/// How many sets of changes are remembered, so that memory does not grow with them.
const HISTORY: usize = 1_000;

impl MemoryStore {
    /// An empty one.
    ///
    /// # Example
    /// ```
    /// # use spark_auth::{KeyStore, MemoryStore};
    /// assert!(MemoryStore::new().load()?.records.is_empty());
    /// # Ok::<(), spark_auth::StoreError>(())
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Shows none of the keys.
impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

impl KeyStore for MemoryStore {
    fn load(&self) -> Result<Loaded, StoreError> {
        let kept = self.kept();
        Ok(Loaded {
            records: kept.records.values().cloned().collect(),
            sequence: kept.sequence,
        })
    }

    fn append(&self, changes: &[Change]) -> Result<u64, StoreError> {
        let mut kept = self.kept();
        check_revisions(changes, |id| {
            Ok(kept.records.get(id).map_or(0, |record| record.revision))
        })?;
        for change in changes {
            match change.clone() {
                Change::Put(mut record) => {
                    let before = kept.records.get(&record.id);
                    record.last_used_at = before.and_then(|it| it.last_used_at);
                    kept.records.insert(record.id.clone(), *record);
                }
                Change::Forget(id) => {
                    kept.records.remove(&id);
                }
            }
        }
        kept.sequence += 1;
        if kept.history.len() == HISTORY {
            kept.history.pop_front();
        }
        kept.history.push_back(changes.to_vec());
        Ok(kept.sequence)
    }

    fn changes_since(&self, sequence: u64) -> Result<Changes, StoreError> {
        let kept = self.kept();
        let sets = kept.sequence.checked_sub(sequence);
        let sets = sets.and_then(|sets| usize::try_from(sets).ok());
        let Some(first) = sets.and_then(|sets| kept.history.len().checked_sub(sets)) else {
            return Ok(Changes::Unknown);
        };
        Ok(Changes::Known {
            changes: kept.history.iter().skip(first).flatten().cloned().collect(),
            sequence: kept.sequence,
        })
    }

    fn touch(&self, uses: &[(Name, Duration)]) -> Result<(), StoreError> {
        let mut kept = self.kept();
        for (id, at) in uses {
            if let Some(record) = kept.records.get_mut(id) {
                record.last_used_at = record.last_used_at.max(Some(*at));
            }
        }
        Ok(())
    }
}

/// Refuses changes that do not follow the versions kept; `kept` gives a record's revision, 0 where
/// there is none.
pub(crate) fn check_revisions(
    changes: &[Change],
    mut kept: impl FnMut(&Name) -> Result<u64, StoreError>,
) -> Result<(), StoreError> {
    for change in changes {
        if let Change::Put(record) = change
            && record.revision != kept(&record.id)?.saturating_add(1)
        {
            let id = record.id.clone();
            return Err(StoreError::Conflict { id });
        }
    }
    Ok(())
}
