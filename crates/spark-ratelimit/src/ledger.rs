//! What is under way, by key: how many at once, and what was given back meanwhile.
//!
//! An account lives while something of its key is under way, so that there are never more of them
//! than there are requests.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::sync::{Mutex, MutexGuard, hold};

#[cfg(not(spark_loom))]
const SHARDS: usize = 64;
#[cfg(spark_loom)]
const SHARDS: usize = 1;

pub(crate) struct Ledger {
    shards: Box<[Mutex<Accounts>]>,
}

type Accounts = HashMap<u64, Account, BuildHasherDefault<AsItIs>>;

#[derive(Default)]
struct Account {
    open: u32,
    /// Nanoseconds of debt that were given back while it lived.
    returned: u64,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
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
        if open == 0 {
            accounts.remove(&key);
        }
        Err(open)
    }

    /// One less.
    pub(crate) fn close(&self, key: u64) {
        let mut accounts = self.shard(key);
        if let Some(account) = accounts.get_mut(&key) {
            account.open = account.open.saturating_sub(1);
            if account.open == 0 {
                accounts.remove(&key);
            }
        }
    }

    pub(crate) fn give_back(&self, key: u64, nanos: u64) {
        if let Some(account) = self.shard(key).get_mut(&key) {
            account.returned = account.returned.wrapping_add(nanos);
        }
    }

    /// What was given back since the first that is under way was opened.
    pub(crate) fn returned(&self, key: u64) -> u64 {
        self.shard(key).get(&key).map_or(0, |it| it.returned)
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
        ledger.give_back(7, 30);
        ledger.close(7);
        assert_eq!(
            (ledger.count(7), ledger.returned(7), ledger.keys()),
            (1, 30, 1)
        );
        ledger.close(7);
        ledger.close(7);
        ledger.give_back(7, 1);
        assert_eq!(
            (ledger.count(7), ledger.returned(7), ledger.keys()),
            (0, 0, 0)
        );
        assert_eq!(ledger.open(7, 0), Err(0));
        assert_eq!(ledger.keys(), 0);
    }
}
