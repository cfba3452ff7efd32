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
    /// revoked whatever the store says, and one that the store has forgotten is gone. An answer that
    /// was overtaken by a change made here is dropped, and the store is read once more, while no key
    /// is changed here: a call that changes one waits for that read, but what it stops is refused at
    /// once. No request ever waits. When keys were last used is not brought in: each process shows
    /// the uses that it has seen itself.
    ///
    /// A store that answers with less than it had before has fallen back: a backup was put in its
    /// place, or a copy that lagged. Then all is read anew and counts, but for what was stopped here:
    /// a key that was revoked or suspended stays so, and [`flush`](Self::flush) tells the store again.
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
        if matches!(outcome, Refreshed::Stale | Refreshed::FellBack) {
            // Once more, with nobody writing here.
            let _storing = self.storing();
            outcome = self.catch_up_in_turn()?;
        }
        match outcome {
            Refreshed::Changed(keys) => Ok(keys),
            Refreshed::Full => Err(AuthError::Full {
                max: self.parts().max_keys,
            }),
            // Another refresh was faster, and knows all that this one does.
            Refreshed::Stale | Refreshed::FellBack => Ok(0),
        }
    }

    /// Reads what has changed, and all where the store turns out to have fallen back. For whoever
    /// holds the turn to write.
    pub(crate) fn catch_up_in_turn(&self) -> Result<Refreshed, AuthError> {
        match self.catch_up()? {
            Refreshed::FellBack => self.start_over(),
            outcome => Ok(outcome),
        }
    }

    /// Takes over the earlier state to which the store has fallen back. For whoever holds the turn to
    /// write.
    pub(crate) fn start_over(&self) -> Result<Refreshed, AuthError> {
        tracing::warn!(
            "the key store has fallen back to an earlier state than it had: all keys are read anew; \
             what was revoked or suspended here stays so"
        );
        let (memory, max_keys) = (self.memory(), self.parts().max_keys);
        let seen = memory.seen();
        let Loaded { records, sequence } = self.parts().store.load()?;
        self.warn_of_lost_keys(records.iter());
        let outcome = memory.take_over(records, sequence, seen, max_keys, self.now());
        metrics::keys_refreshed(self.len());
        Ok(outcome)
    }

    fn catch_up(&self) -> Result<Refreshed, AuthError> {
        let (store, memory) = (&self.parts().store, self.memory());
        let max_keys = self.parts().max_keys;
        let seen = memory.seen();
        let outcome = match store.changes_since(seen.known)? {
            Changes::Known { changes, sequence } => {
                self.warn_of_lost_keys(changes.iter().filter_map(|change| match change {
                    Change::Put(record) => Some(&**record),
                    Change::Forget(_) => None,
                }));
                memory.bring_in(changes, sequence, seen, max_keys, self.now())
            }
            Changes::Unknown => {
                let Loaded { records, sequence } = store.load()?;
                self.warn_of_lost_keys(records.iter());
                memory.reload(records, sequence, seen, max_keys, self.now())
            }
        };
        if matches!(outcome, Refreshed::Changed(1..) | Refreshed::Full) {
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
