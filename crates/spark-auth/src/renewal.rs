//! MACs made anew: keys leave the previous pepper as they are used.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

use crate::index::{Entry, KeyId};
use crate::mac::Mac;

/// How many wait to be written at most. The others are made when their key is used next.
const MAX_WAITING: usize = 1_024;

/// MACs under the current pepper of keys that were verified under the previous one.
#[derive(Debug, Default)]
pub(crate) struct Renewals(Mutex<Vec<Renewal>>);

#[derive(Debug)]
pub(crate) struct Renewal {
    pub(crate) id: KeyId,
    /// The version of the record that was verified.
    pub(crate) revision: u64,
    pub(crate) mac: Mac,
}

impl Renewals {
    /// Keeps what `make` makes until the next flush, unless that would take waiting.
    #[cold]
    pub(crate) fn add(&self, id: KeyId, entry: &Entry, make: impl FnOnce() -> Mac) {
        let Ok(mut waiting) = self.0.try_lock() else {
            return;
        };
        if waiting.len() < MAX_WAITING && !entry.renewing.swap(true, Ordering::Relaxed) {
            waiting.push(Renewal {
                id,
                revision: entry.record.revision,
                mac: make(),
            });
        }
    }

    pub(crate) fn take(&self) -> Vec<Renewal> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
