//! What is under way, by key: how many at once, and what of their debts may be given back.
//!
//! An account lives while something of its key is under way, so that there are never more of them
//! than there are requests.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::Ordering;

use crate::sync::{AtomicU64, Mutex, MutexGuard, hold};

#[cfg(not(spark_loom))]
const SHARDS: usize = 64;
#[cfg(spark_loom)]
const SHARDS: usize = 1;

pub(crate) struct Ledger {
    shards: Box<[Mutex<Accounts>]>,
    /// How many reservations there are.
    reserved: AtomicU64,
}

type Accounts = HashMap<u64, Account, BuildHasherDefault<AsItIs>>;

#[derive(Default)]
struct Account {
    open: u32,
    reservations: Vec<Reservation>,
}

/// A part of a key's debt that may be given back.
struct Reservation {
    id: u64,
    /// Debts are paid in the order in which they were made: when this one will be, the arrival time
    /// at its end. 0 where it was forgiven.
    end: u64,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            reserved: AtomicU64::new(0),
        }
    }

    /// One more under way, unless there are `most` already: then their number.
    pub(crate) fn open(&self, key: u64, most: u32) -> Result<(), u32> {
        let mut accounts = self.shard(key);
        let account = accounts.entry(key).or_default();
        if account.open < most {
            account.open += 1;
            return Ok(());
        }
        let open = account.open;
        if account.is_idle() {
            accounts.remove(&key);
        }
        Err(open)
    }

    /// One less.
    pub(crate) fn close(&self, key: u64) {
        let mut accounts = self.shard(key);
        if let Some(account) = accounts.get_mut(&key) {
            account.open = account.open.saturating_sub(1);
            if account.is_idle() {
                accounts.remove(&key);
            }
        }
    }

    /// Notes a debt that was just made, with its set locked.
    pub(crate) fn reserve(&self, key: u64, id: u64, end: u64) {
        let mut accounts = self.shard(key);
        let account = accounts.entry(key).or_default();
        account.reservations.push(Reservation { id, end });
        self.reserved.fetch_add(1, Ordering::Relaxed);
    }

    /// When that reservation will be paid; 0 where it is not known.
    pub(crate) fn end(&self, key: u64, id: u64) -> u64 {
        let accounts = self.shard(key);
        let account = accounts.get(&key);
        let found = account.and_then(|it| it.reservations.iter().find(|it| it.id == id));
        found.map_or(0, |it| it.end)
    }

    /// So much of that reservation is given back: whatever comes after it moves forward.
    pub(crate) fn give_back(&self, key: u64, id: u64, nanos: u64) {
        let mut accounts = self.shard(key);
        let Some(account) = accounts.get_mut(&key) else {
            return;
        };
        let given = account.reservations.iter().find(|it| it.id == id);
        let from = given.map_or(u64::MAX, |it| it.end);
        for later in &mut account.reservations {
            if later.end >= from {
                later.end = later.end.saturating_sub(nanos);
            }
        }
    }

    /// That reservation is settled, or never will be.
    pub(crate) fn release(&self, key: u64, id: u64) {
        let mut accounts = self.shard(key);
        if let Some(account) = accounts.get_mut(&key) {
            let before = account.reservations.len();
            account.reservations.retain(|it| it.id != id);
            let gone = before - account.reservations.len();
            self.reserved.fetch_sub(gone as u64, Ordering::Relaxed);
            if account.is_idle() {
                accounts.remove(&key);
            }
        }
    }

    /// Whether anything is reserved. Whoever reserves for a key has had the same lock, and is seen.
    #[inline]
    pub(crate) fn are_some(&self) -> bool {
        self.reserved.load(Ordering::Relaxed) > 0
    }

    /// The debt that these were parts of is not there any more, forgiven or forgotten or measured
    /// otherwise: nothing of them can be given back. With the key's set locked.
    pub(crate) fn forgive(&self, key: u64) {
        if !self.are_some() {
            return;
        }
        if let Some(account) = self.shard(key).get_mut(&key) {
            for reservation in &mut account.reservations {
                reservation.end = 0;
            }
        }
    }

    /// How many are under way.
    pub(crate) fn count(&self, key: u64) -> u32 {
        self.shard(key).get(&key).map_or(0, |it| it.open)
    }

    /// How many keys have something under way.
    pub(crate) fn keys(&self) -> usize {
        self.shards.iter().map(|it| hold(it).len()).sum()
    }

    fn shard(&self, key: u64) -> MutexGuard<'_, Accounts> {
        hold(&self.shards[(key >> 32) as usize % SHARDS])
    }
}

impl Account {
    fn is_idle(&self) -> bool {
        self.open == 0 && self.reservations.is_empty()
    }
}

/// Keys are hashes already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_lives_while_something_is_under_way() {
        let ledger = Ledger::new();
        assert_eq!(ledger.open(7, 2), Ok(()));
        assert_eq!(ledger.open(7, 2), Ok(()));
        assert_eq!(ledger.open(7, 2), Err(2));
        ledger.close(7);
        assert_eq!((ledger.count(7), ledger.keys()), (1, 1));
        ledger.close(7);
        ledger.close(7);
        assert_eq!((ledger.count(7), ledger.keys()), (0, 0));
        assert_eq!(ledger.open(7, 0), Err(0));
        assert_eq!(ledger.keys(), 0);
    }

    #[test]
    fn what_is_given_back_moves_only_what_comes_after_it() {
        let ledger = Ledger::new();
        for (id, end) in [(1, 100), (2, 150), (3, 400)] {
            ledger.reserve(7, id, end);
        }
        ledger.give_back(7, 2, 40);
        let ends = |ledger: &Ledger| [1, 2, 3].map(|id| ledger.end(7, id));
        assert_eq!(ends(&ledger), [100, 110, 360]);
        ledger.release(7, 2);
        assert_eq!(ends(&ledger), [100, 0, 360]);
        ledger.forgive(7);
        assert_eq!(ends(&ledger), [0, 0, 0]);
        ledger.release(7, 1);
        ledger.release(7, 3);
        assert_eq!(ledger.keys(), 0);
    }
}
