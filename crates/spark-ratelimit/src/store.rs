//! Where the debts are kept: a table of fixed size, whatever keys come.
//!
//! Eight-way set-associative: a key's hash names one set of eight slots, behind a mutex of its own
//! (measured against a 128-bit compare-and-swap, the mutex is faster, and needs no unsafe code). A
//! lookup reads 128 bytes at most, and so does an insertion; nothing ever grows. A theoretical
//! arrival time in the past is the same as no entry, so old entries need no clearing away.
//!
//! When a set is full, its least indebted entry makes room: under a flood of fresh keys, those are
//! the fresh keys themselves, and whoever is exhausted stays exhausted. One table serves one policy,
//! so that the fresh entries of a slow policy cannot push out the exhausted ones of a fast policy.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::Key;

const WAYS: usize = 8;
/// 2²⁸ slots are 4.25 GiB.
pub(crate) const MAX_SLOTS: usize = 1 << 28;
/// Tags are 15 bits.
pub(crate) const MAX_TAGS: usize = 1 << 15;
/// How many sets are looked at to estimate the occupancy.
const SAMPLE: usize = 128;

/// What is known of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Theoretical arrival time, nanoseconds of the limiter's clock.
    pub(crate) tat: u64,
    /// Under which tier's quota it was charged.
    pub(crate) tag: u16,
    /// The parity of the configuration that charged it.
    pub(crate) turn: bool,
}

pub(crate) struct Table {
    /// Tables of one request are locked in the order of these.
    pub(crate) id: u64,
    sets: Box<[Mutex<Set>]>,
    evicted: Counter,
}

type Set = [Slot; WAYS];

/// 48 bits of the key's hash, 15 of the tag, 1 of the turn; and the arrival time. All zero is empty.
#[derive(Clone, Copy, Default)]
struct Slot {
    meta: u64,
    tat: u64,
}

/// On a cache line of its own: it is written under a flood, while its neighbours are only read.
#[repr(align(64))]
#[derive(Default)]
struct Counter(AtomicU64);

impl Table {
    /// A table of at least `slots` slots, all taken from the system now.
    pub(crate) fn new(id: u64, slots: usize) -> Self {
        let sets = slots.div_ceil(WAYS).max(1);
        Self {
            id,
            sets: (0..sets).map(|_| Mutex::new(Set::default())).collect(),
            evicted: Counter::default(),
        }
    }

    /// Locks the set in which `key` is or would be.
    pub(crate) fn lock(&self, key: Key) -> Locked<'_> {
        // The upper bits choose the set, the lower 48 are kept: together they are the whole hash.
        let hash = key.bits();
        let index = ((u128::from(hash) * self.sets.len() as u128) >> 64) as usize;
        let set = hold(&self.sets[index]);
        let print = hash << 16;
        let way = set.iter().position(|slot| slot.meta >> 16 == print >> 16);
        Locked {
            set,
            print,
            way,
            evicted: &self.evicted.0,
        }
    }

    /// Replaces every entry, one set at a time. `None` removes it.
    pub(crate) fn rewrite(&self, mut replace: impl FnMut(Entry) -> Option<Entry>) {
        for set in &self.sets {
            for slot in hold(set).iter_mut().filter(|slot| slot.tat != 0) {
                *slot = match replace(slot.entry()) {
                    Some(entry) => Slot::new(slot.meta >> 16 << 16, entry),
                    None => Slot::default(),
                };
            }
        }
    }

    /// How many slots there are.
    pub(crate) fn capacity(&self) -> usize {
        self.sets.len() * WAYS
    }

    /// How many entries are in debt, from a sample of the sets; exact in a small table.
    pub(crate) fn occupied(&self, now: u64) -> usize {
        let step = self.sets.len().div_ceil(SAMPLE);
        let (mut looked_at, mut live) = (0, 0);
        for set in self.sets.iter().step_by(step) {
            looked_at += WAYS;
            live += hold(set).iter().filter(|slot| slot.tat > now).count();
        }
        (live as u128 * self.capacity() as u128 / looked_at.max(1) as u128) as usize
    }

    /// How many entries had to go while they were still in debt.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted.0.load(Ordering::Relaxed)
    }
}

/// One set, held: what is read stays true until this is dropped.
pub(crate) struct Locked<'a> {
    set: MutexGuard<'a, Set>,
    print: u64,
    way: Option<usize>,
    evicted: &'a AtomicU64,
}

impl Locked<'_> {
    pub(crate) fn get(&self) -> Option<Entry> {
        self.way.map(|way| self.set[way].entry())
    }

    /// Writes the key's entry. Where the set is full of entries in debt, the least indebted goes.
    pub(crate) fn put(&mut self, entry: Entry, now: u64) {
        let way = self.way.unwrap_or_else(|| {
            let (way, victim) = least_indebted(&self.set);
            if victim.tat > now {
                self.evicted.fetch_add(1, Ordering::Relaxed);
            }
            way
        });
        self.way = Some(way);
        self.set[way] = Slot::new(self.print, entry);
    }

    pub(crate) fn clear(&mut self) {
        if let Some(way) = self.way.take() {
            self.set[way] = Slot::default();
        }
    }
}

fn least_indebted(set: &Set) -> (usize, Slot) {
    let mut least = (0, set[0]);
    for (way, slot) in set.iter().enumerate() {
        if slot.tat < least.1.tat {
            least = (way, *slot);
        }
    }
    least
}

/// A panic elsewhere while a set is held cannot leave it half written: a slot is written at once.
fn hold(set: &Mutex<Set>) -> MutexGuard<'_, Set> {
    set.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Slot {
    fn new(print: u64, entry: Entry) -> Self {
        let tag = u64::from(entry.tag) & (MAX_TAGS as u64 - 1);
        Self {
            meta: print | tag << 1 | u64::from(entry.turn),
            tat: entry.tat,
        }
    }

    fn entry(self) -> Entry {
        Entry {
            tat: self.tat,
            tag: (self.meta >> 1) as u16 & (MAX_TAGS as u16 - 1),
            turn: self.meta & 1 == 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(tat: u64) -> Entry {
        Entry {
            tat,
            tag: 0,
            turn: false,
        }
    }

    #[test]
    fn seventeen_bytes_a_slot() {
        assert_eq!(size_of::<Mutex<Set>>(), 17 * WAYS);
    }

    #[test]
    fn an_entry_comes_back_as_it_was() {
        let table = Table::new(0, 100);
        let key = Key::of("a");
        for tag in [0, 1, 1_000, MAX_TAGS as u16 - 1] {
            for turn in [false, true] {
                let entry = Entry { tat: 5, tag, turn };
                table.lock(key).put(entry, 0);
                assert_eq!(table.lock(key).get(), Some(entry));
            }
        }
        table.lock(key).clear();
        assert_eq!(table.lock(key).get(), None);
        assert_eq!(table.lock(Key::of("b")).get(), None);
    }

    #[test]
    fn the_least_indebted_goes_and_is_counted_only_while_in_debt() {
        let table = Table::new(0, WAYS);
        let keys: Vec<Key> = (0..=WAYS as u64).map(|n| Key::of(&n)).collect();
        for (n, key) in keys[..WAYS].iter().enumerate() {
            table.lock(*key).put(entry(100 + n as u64), 0);
        }
        assert_eq!((table.evicted(), table.occupied(0)), (0, 8));

        table.lock(keys[WAYS]).put(entry(50), 0);
        assert_eq!(table.lock(keys[0]).get(), None, "it had the least debt");
        assert_eq!(table.lock(keys[1]).get(), Some(entry(101)));
        assert_eq!(table.evicted(), 1);

        table.lock(keys[0]).put(entry(500), 60);
        assert_eq!(table.lock(keys[WAYS]).get(), None, "its debt was paid");
        assert_eq!(table.evicted(), 1);
        assert_eq!(table.occupied(104), 4);
    }

    #[test]
    fn every_hash_finds_a_set_and_no_two_in_one_set_are_mixed_up() {
        for slots in [1, 8, 9, 1_000] {
            let table = Table::new(0, slots);
            for bits in [0, 1, u64::MAX, u64::MAX << 48, u64::MAX >> 16] {
                let key = Key::from_bits(bits);
                table.lock(key).put(entry(bits | 1), 0);
                assert_eq!(table.lock(key).get(), Some(entry(bits | 1)), "{bits:x}");
            }
        }
    }

    #[test]
    fn a_poisoned_set_goes_on() {
        let table = Table::new(0, 1);
        let key = Key::of("a");
        let crash = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    let mut locked = table.lock(key);
                    locked.put(entry(9), 0);
                    panic!("as a user's code might, with the lock held");
                })
                .join()
        });
        assert!(crash.is_err());
        assert_eq!(table.lock(key).get(), Some(entry(9)));
    }

    #[test]
    fn rewriting_reaches_every_entry_once() {
        let table = Table::new(0, 64);
        // Spread evenly over the eight sets: a random hash now and then fills one of them.
        let key = |n: u64| Key::from_bits((n % 8) << 61 | n);
        for n in 0..20u64 {
            table.lock(key(n)).put(entry(n + 1), 0);
        }
        let mut seen = 0;
        table.rewrite(|old| {
            seen += 1;
            (old.tat % 2 == 0).then_some(Entry { tag: 3, ..old })
        });
        assert_eq!((seen, table.occupied(0)), (20, 10));
        assert_eq!(table.lock(key(1)).get().map(|e| e.tag), Some(3));
    }
}
