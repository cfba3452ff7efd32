//! What other processes have changed in a store that they share.

use crate::authenticator::Authenticator;
use crate::error::AuthError;
use crate::memory::Refreshed;
use crate::metrics;
use crate::record::KeyRecord;
use crate::store::{Change, Changes, Loaded};

impl Authenticator {
    /// Brings in what other processes have changed in the store, and returns how many keys changed
    /// here by it. Call it every few seconds where a store is shared: that is how long a key that
    /// was revoked elsewhere may still work here.
    ///
    /// A version of a record replaces an earlier one only. A key that was revoked here stays
    /// revoked whatever the store says, and so does one that is forgotten: an answer of the store
    /// that is older than what is known is dropped. No lock is held while the store is read. When
    /// keys were last used is not brought in: each process shows the uses that it has seen itself.
    ///
    /// # Errors
    /// [`AuthError::Store`] when the store cannot be read: the keys stay as they are.
    /// [`AuthError::Full`] when others have issued more keys than may be kept here: the surplus is
    /// left out, all other changes are in.
    ///
    /// # Example
    /// ```
    /// # use spark_auth::*;
    /// # use spark_core::Name;
    /// let (pepper, store) = (Pepper::generate()?, MemoryStore::new());
    /// let builder = || Authenticator::builder().pepper(pepper.clone()).store(store.clone());
    /// let (here, there) = (builder().build()?, builder().build()?);
    /// let key = there.issue(NewKey::new(Name::new("acme")?))?.key;
    /// assert_eq!(here.refresh()?, 1);
    /// assert!(here.verify(key.expose()).is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn refresh(&self) -> Result<usize, AuthError> {
        let mut outcome = self.catch_up()?;
        if outcome == Refreshed::Stale {
            // Keys were changed here while the store was read: once more, with nobody writing.
            let _storing = self.storing();
            outcome = self.catch_up()?;
        }
        match outcome {
            Refreshed::Changed(keys) => Ok(keys),
            Refreshed::Full => Err(AuthError::Full {
                max: self.parts().max_keys,
            }),
            Refreshed::Stale => {
                tracing::warn!("the key store answers with an earlier state than it had: ignored");
                Ok(0)
            }
        }
    }

    pub(crate) fn catch_up(&self) -> Result<Refreshed, AuthError> {
        let (store, memory) = (&self.parts().store, self.memory());
        let max_keys = self.parts().max_keys;
        let outcome = match store.changes_since(memory.known())? {
            Changes::Known { changes, sequence } => {
                self.warn_of_lost_keys(changes.iter().filter_map(|change| match change {
                    Change::Put(record) => Some(&**record),
                    Change::Forget(_) => None,
                }));
                memory.bring_in(changes, sequence, max_keys, self.now())
            }
            Changes::Unknown => {
                let Loaded { records, sequence } = store.load()?;
                self.warn_of_lost_keys(records.iter());
                memory.reload(records, sequence, max_keys, self.now())
            }
        };
        if !matches!(outcome, Refreshed::Changed(0) | Refreshed::Stale) {
            metrics::keys_refreshed(self.len());
        }
        Ok(outcome)
    }

    /// Another process may use a pepper that this one was not given.
    fn warn_of_lost_keys<'a>(&self, records: impl Iterator<Item = &'a KeyRecord>) {
        let now = self.now();
        let lost = records
            .filter(|it| self.pepper(it.pepper).is_none() && it.ended_at(now).is_none())
            .count();
        if lost > 0 {
            tracing::warn!(
                keys = lost,
                "other processes keep keys under a pepper that was not given: they are refused"
            );
        }
    }
}
