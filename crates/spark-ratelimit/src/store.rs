//! Where the debts are kept: a table of fixed size, whatever keys come.
//!
//! Eight-way set-associative: a key's hash names one set of eight slots, behind a mutex of its own
//! (measured against a 128-bit compare-and-swap, the mutex is faster, and needs no unsafe code). A
//! set is two cache lines, lock included; nothing ever grows. A theoretical arrival time in the past
//! is the same as no entry, so old entries need no clearing away.
//!
//! Keys spread unevenly over the sets. One whose own set is full of debts goes to a second set that
//! its hash names, and its own set remembers until when such debts may be out there; so that nearly
//! always one set is looked at. When there is no room, the least indebted goes: under a flood of fresh
//! keys, those are the fresh keys themselves, and whoever is exhausted stays exhausted. One table
//! serves one policy, so that the fresh entries of a slow policy cannot push out the exhausted ones of
//! a fast policy.
//!
//! Of a key, 32 bits of its hash are kept: two keys of one set are taken for one with a probability
//! of 2⁻³². Nobody outside the process can choose them.

use std::sync::atomic::Ordering;

use crate::key::{Key, MIX};
use crate::sync::{AtomicU64, Mutex, MutexGuard, hold, try_hold};

const WAYS: usize = 8;
/// 2²⁸ slots are 4 GiB.
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
    pub(crate) mark: Mark,
}

/// By which of the policy's quotas an entry was charged, and the parity of the configuration that
/// charged it. In one word, as it is stored: it is on the way of every request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark(u16);

impl Mark {
    pub(crate) fn new(tag: u16, turn: bool) -> Self {
        Self(tag << 1 | u16::from(turn))
    }

    pub(crate) fn tag(self) -> u16 {
        self.0 >> 1
    }

    pub(crate) fn turn(self) -> bool {
        self.0 & 1 == 1
    }
}

pub(crate) struct Table {
    sets: Box<[Set]>,
    evicted: Counter,
}

/// Aligned to the pair of cache lines that it fills, lock included: no third line is touched, and no
/// neighbour's lock disturbs.
#[repr(C, align(128))]
#[derive(Default)]
struct Set {
    slots: Mutex<Slots>,
    /// Keys of this set may be in debt in their second set until then. Written with the lock held.
    spilled_until: AtomicU64,
}

/// The first half is on one cache line with the lock, and is filled first: most keys are found
/// without a look at the other line.
#[derive(Default)]
struct Slots([Half; 2]);

#[repr(C)]
#[derive(Default)]
struct Half {
    /// 32 bits of the key's hash.
    prints: [u32; WAYS / 2],
    marks: [Mark; WAYS / 2],
    /// Arrival times; 0 is empty, as is any time in the past.
    tats: [u64; WAYS / 2],
}

/// On a cache line of its own: it is written under a flood, while its neighbours are only read.
#[repr(align(64))]
#[derive(Default)]
struct Counter(AtomicU64);

impl Table {
    /// A table of at least `slots` slots, all taken from the system now.
    pub(crate) fn new(slots: usize) -> Self {
        let sets = slots.div_ceil(WAYS).max(1);
        Self {
            sets: (0..sets).map(|_| Set::default()).collect(),
            evicted: Counter::default(),
        }
    }

    /// Locks what holds the key's entry: the set in which it is or would be; both of its sets where
    /// one does not tell. If the key is not there, it would owe `debt`.
    ///
    /// The clock is read when the set is locked: the one need not wait for the other then.
    #[inline(always)]
    pub(crate) fn lock(&self, key: Key, clock: impl FnOnce() -> u64, debt: u64) -> Locked<'_> {
        let hash = key.bits();
        let set = &self.sets[self.index(hash)];
        let home = hold(&set.slots);
        let now = clock();
        let place = match home.find(hash as u32) {
            Some(way) => Place::Home(way),
            None => {
                let room = home.room();
                let spilled = set.spilled_until() > now;
                if (spilled || room.tat > now && self.looks_further(room, now.saturating_add(debt)))
                    && !self.is_one()
                {
                    return self.lock_both(hash, now, home, room);
                }
                Place::Nowhere { room }
            }
        };
        Locked {
            table: self,
            hash,
            now,
            home,
            second: None,
            place,
        }
    }

    /// Locks the second set of a key too, whose own set is locked. Sets are waited for in ascending
    /// order only.
    #[inline(never)]
    fn lock_both<'a>(
        &'a self,
        hash: u64,
        now: u64,
        mut home: MutexGuard<'a, Slots>,
        mut room: Room,
    ) -> Locked<'a> {
        let own = self.index(hash);
        let mut other = self.index(hash.wrapping_mul(MIX));
        if other == own {
            other = (own + 1) % self.sets.len();
        }
        let other_set = &self.sets[other].slots;
        let print = hash as u32;
        let mut at_home = None;
        let second = if own < other {
            hold(other_set)
        } else if let Some(second) = try_hold(other_set) {
            second
        } else {
            drop(home);
            let second = hold(other_set);
            home = hold(&self.sets[own].slots);
            // Anything may have happened meanwhile.
            at_home = home.find(print);
            room = home.room();
            second
        };
        // Also where it owes nothing any more: or it would be there twice when it spills again.
        let place = match (at_home, second.find(print)) {
            (Some(way), _) => Place::Home(way),
            (None, Some(way)) => Place::Second { way, room },
            (None, None) => Place::Nowhere { room },
        };
        Locked {
            table: self,
            hash,
            now,
            home,
            second: Some(second),
            place,
        }
    }

    /// Whether to look for room in the second set when the first is full of debts, of which `room` is
    /// the least.
    ///
    /// If all of them are greater than the new one: yes. Otherwise one goes that owes no more than the
    /// new one, which loses little. But where it always went like that, a few keys could forget each
    /// other for ever; so it is yes as long as there was room whenever somebody looked, and every
    /// eighth time when there was none, as in a flood.
    fn looks_further(&self, room: Room, tat: u64) -> bool {
        room.tat > tat || self.evicted().is_multiple_of(8)
    }

    fn is_one(&self) -> bool {
        self.sets.len() == 1
    }

    /// Changes every entry in debt, one set at a time; `None` removes it. No new debt may reach
    /// beyond `horizon`.
    pub(crate) fn rewrite(
        &self,
        now: u64,
        horizon: u64,
        mut replace: impl FnMut(Entry) -> Option<Entry>,
    ) {
        // First of all: a spilled debt that grows must not outlive what its own set knows of it.
        for set in &self.sets {
            let _slots = hold(&set.slots);
            if set.spilled_until() > now {
                set.spill(horizon);
            }
        }
        for set in &self.sets {
            let mut slots = hold(&set.slots);
            for way in 0..WAYS {
                let entry = slots.entry(way);
                if entry.tat > now {
                    slots.write(way, replace(entry).unwrap_or(Entry::NONE));
                }
            }
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        self.evicted.0.store(0, Ordering::Relaxed);
        for set in &self.sets {
            let mut slots = hold(&set.slots);
            *slots = Slots::default();
            set.spilled_until.store(0, Ordering::Relaxed);
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
            live += hold(&set.slots).tats().filter(|tat| **tat > now).count();
        }
        (live as u128 * self.capacity() as u128 / looked_at.max(1) as u128) as usize
    }

    /// How many entries had to go while they were still in debt.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted.0.load(Ordering::Relaxed)
    }

    // The upper bits of the hash choose the set, the lower 32 are kept.
    fn index(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.sets.len() as u128) >> 64) as usize
    }
}

/// What holds a key's entry, held: what is read stays true until this is dropped.
pub(crate) struct Locked<'a> {
    table: &'a Table,
    hash: u64,
    /// The time by which it is judged: the clock's under the lock, or a little earlier, where another
    /// set was waited for since.
    pub(crate) now: u64,
    home: MutexGuard<'a, Slots>,
    second: Option<MutexGuard<'a, Slots>>,
    place: Place,
}

/// Where a key's entry is; and if it is not in its own set, where there is room first.
#[derive(Clone, Copy)]
enum Place {
    Home(usize),
    Second { way: usize, room: Room },
    Nowhere { room: Room },
}

/// The slot of a set that owes least.
#[derive(Clone, Copy)]
struct Room {
    way: usize,
    tat: u64,
}

impl Locked<'_> {
    #[inline]
    pub(crate) fn get(&self) -> Option<Entry> {
        match (self.place, &self.second) {
            (Place::Home(way), _) => Some(self.home.entry(way)),
            (Place::Second { way, .. }, Some(second)) => Some(second.entry(way)),
            _ => None,
        }
    }

    /// Writes the key's entry. Where there is no room, the least indebted goes.
    #[inline]
    pub(crate) fn put(&mut self, entry: Entry) {
        match self.place {
            Place::Home(way) => self.home.write(way, entry),
            _ => self.put_elsewhere(entry),
        }
    }

    /// The same as to drop it, but inlined: 9 instructions and some 0.5 ns less for a decision.
    #[inline(always)]
    pub(crate) fn unlock(self) {
        let Self { home, second, .. } = self;
        drop(second);
        drop(home);
    }

    pub(crate) fn clear(&mut self) {
        match (self.place, &mut self.second) {
            (Place::Home(way), _) => self.home.write(way, Entry::NONE),
            (Place::Second { way, .. }, Some(second)) => second.write(way, Entry::NONE),
            _ => {}
        }
    }

    #[inline(never)]
    fn put_elsewhere(&mut self, entry: Entry) {
        let print = self.hash as u32;
        match self.make_room(entry.tat) {
            Place::Second { way, room } => {
                if let Some(second) = &mut self.second {
                    second.name(way, print);
                    second.write(way, entry);
                    self.table.sets[self.table.index(self.hash)].spill(entry.tat);
                }
                self.place = Place::Second { way, room };
            }
            Place::Home(way)
            | Place::Nowhere {
                room: Room { way, .. },
            } => {
                self.home.name(way, print);
                self.home.write(way, entry);
                self.place = Place::Home(way);
            }
        }
    }

    /// Where a key goes that is not in its own set, and will owe until `tat`.
    fn make_room(&mut self, tat: u64) -> Place {
        let now = self.now;
        let room = match self.place {
            // Back to where it belongs.
            Place::Second { room, .. } if room.tat <= now => {
                self.clear();
                return Place::Home(room.way);
            }
            Place::Nowhere { room } => room,
            known => return known,
        };
        let second = match &self.second {
            Some(second) if room.tat > now => second.room(),
            _ => room,
        };
        // A stranger that pushes out another stays at home, so that a flood does not spill.
        let further = second.tat <= now || room.tat > tat && second.tat < room.tat;
        let (least, place) = if room.tat > now && further {
            (
                second,
                Place::Second {
                    way: second.way,
                    room,
                },
            )
        } else {
            (room, Place::Home(room.way))
        };
        if least.tat > now {
            self.table.evicted.0.fetch_add(1, Ordering::Relaxed);
        }
        place
    }
}

impl Room {
    #[inline]
    fn least(way: usize, this: u64, next: u64) -> Self {
        Self {
            way: way + usize::from(next < this),
            tat: this.min(next),
        }
    }
}

impl Set {
    fn spilled_until(&self) -> u64 {
        self.spilled_until.load(Ordering::Relaxed)
    }

    /// A key of this set is in debt in its second set until then. With the lock held.
    fn spill(&self, until: u64) {
        let until = until.max(self.spilled_until());
        self.spilled_until.store(until, Ordering::Relaxed);
    }
}

impl Slots {
    // A slot that was given up keeps its print: a key is then found where it was, owing nothing.
    #[inline]
    fn find(&self, print: u32) -> Option<usize> {
        let [near, far] = &self.0;
        match near.find(print) {
            Some(way) => Some(way),
            None => far.find(print).map(|way| way + WAYS / 2),
        }
    }

    fn room(&self) -> Room {
        let [near, far] = self.0.each_ref().map(Half::room);
        if near.tat <= far.tat {
            return near;
        }
        Room {
            way: far.way + WAYS / 2,
            tat: far.tat,
        }
    }

    fn tats(&self) -> impl Iterator<Item = &u64> {
        self.0.iter().flat_map(|half| &half.tats)
    }

    #[inline]
    fn entry(&self, way: usize) -> Entry {
        let (half, at) = (&self.0[way / (WAYS / 2)], way % (WAYS / 2));
        Entry {
            tat: half.tats[at],
            mark: half.marks[at],
        }
    }

    #[inline]
    fn write(&mut self, way: usize, entry: Entry) {
        let (half, at) = (&mut self.0[way / (WAYS / 2)], way % (WAYS / 2));
        half.tats[at] = entry.tat;
        half.marks[at] = entry.mark;
    }

    fn name(&mut self, way: usize, print: u32) {
        self.0[way / (WAYS / 2)].prints[way % (WAYS / 2)] = print;
    }
}

impl Half {
    #[inline]
    fn room(&self) -> Room {
        let [a, b, c, d] = self.tats;
        let (left, right) = (Room::least(0, a, b), Room::least(2, c, d));
        if left.tat <= right.tat { left } else { right }
    }

    #[inline]
    fn find(&self, print: u32) -> Option<usize> {
        // All at once, since which it will be is not to be foreseen.
        let mut same = 0u32;
        for (way, it) in self.prints.iter().enumerate() {
            same |= u32::from(*it == print) << way;
        }
        (same != 0).then(|| same.trailing_zeros() as usize % (WAYS / 2))
    }
}

impl Entry {
    const NONE: Self = Self {
        tat: 0,
        mark: Mark(0),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn entry(tat: u64) -> Entry {
        Entry { tat, ..Entry::NONE }
    }

    /// A key of set `set` of a table of `sets` (a power of two), whose second set is as good as random.
    fn key(sets: u64, set: u64, n: u64) -> Key {
        Key::from_bits(((1 << 64) / u128::from(sets) * u128::from(set)) as u64 | (n + 1))
    }

    fn put(table: &Table, key: Key, tat: u64, now: u64) {
        table
            .lock(key, || now, tat.saturating_sub(now))
            .put(entry(tat));
    }

    fn tat(table: &Table, key: Key, now: u64) -> Option<u64> {
        let live = table
            .lock(key, || now, 0)
            .get()
            .filter(|entry| entry.tat > now);
        live.map(|entry| entry.tat)
    }

    #[test]
    fn sixteen_bytes_a_slot_lock_included() {
        assert_eq!(size_of::<Set>(), 16 * WAYS);
    }

    #[test]
    fn an_entry_comes_back_as_it_was() {
        let table = Table::new(100);
        let key = Key::of("a");
        for tag in [0, 1, 1_000, MAX_TAGS as u16 - 1] {
            for turn in [false, true] {
                let mark = Mark::new(tag, turn);
                let entry = Entry { tat: 5, mark };
                assert_eq!((mark.tag(), mark.turn()), (tag, turn));
                table.lock(key, || 0, u64::MAX).put(entry);
                assert_eq!(table.lock(key, || 0, u64::MAX).get(), Some(entry));
            }
        }
        table.lock(key, || 0, u64::MAX).clear();
        assert_eq!(tat(&table, key, 0), None);
        assert_eq!(tat(&table, Key::of("b"), 0), None);
    }

    #[test]
    fn the_least_indebted_goes_and_is_counted_only_while_in_debt() {
        let table = Table::new(WAYS);
        let key = |n| key(1, 0, n);
        for n in 0..8 {
            put(&table, key(n), 100 + n, 0);
        }
        assert_eq!((table.evicted(), table.occupied(0)), (0, 8));

        put(&table, key(8), 50, 0);
        assert_eq!(tat(&table, key(0), 0), None, "it had the least debt");
        assert_eq!(tat(&table, key(1), 0), Some(101));
        assert_eq!(table.evicted(), 1);

        put(&table, key(0), 500, 60);
        assert_eq!(tat(&table, key(8), 0), None, "its debt was paid");
        assert_eq!(table.evicted(), 1);
        assert_eq!(table.occupied(104), 4);
    }

    #[test]
    fn what_does_not_fit_into_its_set_is_found_in_the_second_and_comes_home() {
        let table = Table::new(16);
        let key = |n| key(2, 1, n);
        for n in 0..8 {
            put(&table, key(n), 100, 0);
        }
        put(&table, key(8), 300, 0);
        assert_eq!((table.evicted(), table.occupied(0)), (0, 9));
        assert_eq!(tat(&table, key(8), 0), Some(300));
        for n in 0..8 {
            assert_eq!(tat(&table, key(n), 0), Some(100));
        }
        // It grows where it is, and is found as long as it owes.
        put(&table, key(8), 400, 0);
        assert_eq!(tat(&table, key(8), 399), Some(400));
        assert_eq!(hold(&table.sets[1].slots).find(9), None);

        // There is room at home: there is one entry of it, not two.
        put(&table, key(8), 500, 200);
        assert!(hold(&table.sets[1].slots).find(9).is_some());
        assert_eq!(table.occupied(200), 1);
        assert_eq!(tat(&table, key(8), 450), Some(500));
    }

    #[test]
    fn sixteen_in_both_sets_are_told_apart_and_the_seventeenth_costs_the_least_indebted() {
        let table = Table::new(16);
        for n in 0..16 {
            put(&table, key(2, n % 2, n), 100 + n, 0);
        }
        assert_eq!((table.evicted(), table.occupied(0)), (0, 16));
        put(&table, key(2, 1, 16), 99, 0);
        assert_eq!(table.evicted(), 1);
        assert_eq!(tat(&table, key(2, 0, 0), 0), None);
        assert_eq!(tat(&table, key(2, 1, 16), 0), Some(99));
    }

    #[test]
    fn one_that_will_owe_more_than_the_least_indebted_does_not_look_further() {
        let table = Table::new(16);
        for n in 0..16 {
            put(&table, key(2, n % 2, n), 1_100 + n, 1_000);
        }
        // Once there was no room, so that not everybody looks.
        put(&table, key(2, 0, 16), 1_200, 1_000);
        assert_eq!(table.evicted(), 1);
        let looks = |debt| table.lock(key(2, 1, 17), || 1_000, debt).second.is_some();
        // The least owes 101.
        assert!(looks(0) && looks(100));
        assert!(!looks(101) && !looks(1_000));
    }

    #[test]
    fn what_came_home_while_the_second_set_was_waited_for_is_found() {
        let table = Table::new(16);
        let late = key(2, 1, 8);
        for n in 0..8 {
            put(&table, key(2, 1, n), 100, 0);
        }
        let second = hold(&table.sets[0].slots);
        let found = std::thread::scope(|scope| {
            let waits = scope.spawn(|| table.lock(late, || 0, 0).get());
            std::thread::park_timeout(std::time::Duration::from_millis(50));
            let mut home = hold(&table.sets[1].slots);
            home.name(3, late.bits() as u32);
            home.write(3, entry(300));
            drop(home);
            drop(second);
            waits.join().unwrap()
        });
        assert_eq!(found, Some(entry(300)));
    }

    #[test]
    fn room_that_was_taken_while_the_second_set_was_waited_for_is_none() {
        let table = Table::new(16);
        for n in 0..16 {
            put(&table, key(2, n % 2, n), 100 + 50 * n, 0);
        }
        let least = key(2, 1, 1);
        let second = hold(&table.sets[0].slots);
        std::thread::scope(|scope| {
            let late = scope.spawn(|| put(&table, key(2, 1, 16), 1_000, 0));
            std::thread::park_timeout(std::time::Duration::from_millis(50));
            let mut home = hold(&table.sets[1].slots);
            let way = home.find(least.bits() as u32).unwrap();
            home.write(way, entry(900));
            drop(home);
            drop(second);
            late.join().unwrap();
        });
        assert_eq!(tat(&table, least, 0), Some(900));
        assert_eq!(tat(&table, key(2, 1, 16), 0), Some(1_000));
        assert_eq!(table.evicted(), 1);
    }

    #[test]
    fn at_half_load_next_to_nothing_is_forgotten() {
        let table = Table::new(1 << 16);
        for n in 0..1 << 15 {
            put(&table, Key::of(&n), 100, 0);
        }
        // The mean is some 30 of 32,768; with one set for each key it would be 700.
        assert!(table.evicted() < 150, "{}", table.evicted());
    }

    #[test]
    fn every_hash_finds_a_set_and_no_two_in_one_set_are_mixed_up() {
        for slots in [1, 8, 9, 1_000] {
            let table = Table::new(slots);
            for bits in [0, 1, u64::MAX, u64::MAX << 48, u64::MAX >> 16] {
                put(&table, Key::from_bits(bits), bits | 1, 0);
                assert_eq!(tat(&table, Key::from_bits(bits), 0), Some(bits | 1));
            }
        }
    }

    #[test]
    fn a_poisoned_set_goes_on() {
        let table = Table::new(1);
        let key = Key::of("a");
        let crash = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    let mut locked = table.lock(key, || 0, u64::MAX);
                    locked.put(entry(9));
                    panic!("as a user's code might, with the lock held");
                })
                .join()
        });
        assert!(crash.is_err());
        assert_eq!(tat(&table, key, 0), Some(9));
    }

    #[test]
    fn rewriting_reaches_every_entry_once_and_spilled_ones_stay_known() {
        let table = Table::new(16);
        for n in 0..12 {
            put(&table, key(2, 1, n), 2 * n + 2, 0);
        }
        let mut seen = 0;
        table.rewrite(0, 1_000, |old| {
            seen += 1;
            let mark = Mark::new(3, true);
            (old.tat % 4 == 0).then_some(Entry { tat: 1_000, mark })
        });
        assert_eq!((seen, table.occupied(0)), (12, 6));
        for n in (1..12).step_by(2) {
            let entry = table.lock(key(2, 1, n), || 999, 0).get();
            assert_eq!(
                entry.map(|it| (it.tat, it.mark.tag())),
                Some((1_000, 3)),
                "{n}"
            );
        }
    }

    #[test]
    fn a_key_that_spills_again_is_not_taken_for_what_it_was() {
        let table = Table::new(16);
        for n in 0..8 {
            put(&table, key(2, 1, n), 1_000, 0);
        }
        put(&table, key(2, 1, 8), 100, 0);
        put(&table, key(2, 1, 8), 500, 200);
        assert_eq!(table.evicted(), 0);
        assert_eq!(tat(&table, key(2, 1, 8), 200), Some(500));
    }

    #[test]
    fn a_set_remembers_the_longest_of_its_spilled_debts() {
        let table = Table::new(16);
        for n in 0..8 {
            put(&table, key(2, 1, n), 50, 0);
        }
        put(&table, key(2, 1, 8), 300, 0);
        put(&table, key(2, 1, 9), 100, 0);
        assert_eq!(tat(&table, key(2, 1, 8), 200), Some(300));
    }

    #[derive(Clone, Debug)]
    enum Op {
        Charge { key: usize, more: u64, late: u64 },
        Clear { key: usize },
        Double,
    }

    fn ops() -> impl Strategy<Value = Vec<(u64, Op)>> {
        let op = prop_oneof![
            30 => (0usize..48, 1u64..40, 0u64..3)
                .prop_map(|(key, more, late)| Op::Charge { key, more, late }),
            1 => (0usize..48).prop_map(|key| Op::Clear { key }),
            1 => Just(Op::Double),
        ];
        prop::collection::vec((0u64..4, op), 1..200)
    }

    proptest! {
        /// Until something has to be forgotten, the table knows what a map knows, each key once.
        #[test]
        fn what_a_map_holds(sets in 1usize..8, keys in prop::collection::vec(0u64..1 << 31, 48), ops in ops()) {
            let table = Table::new(sets * WAYS);
            let mut map = HashMap::new();
            let mut now = 0;
            for (pause, op) in ops {
                now += pause;
                let key_of = |at: usize| Key::from_bits(keys[at] << 33 | (at as u64 + 1));
                match op {
                    Op::Charge { key, more, late } => {
                        // By a thread that has read the clock a little earlier.
                        let late = now.saturating_sub(late);
                        let mut set = table.lock(key_of(key), || late, more);
                        let before = set.get().map_or(0, |it| it.tat.saturating_sub(late));
                        let tat = late + before.min(60) + more;
                        set.put(entry(tat));
                        map.insert(key, tat);
                    }
                    Op::Clear { key } => {
                        table.lock(key_of(key), || now, 0).clear();
                        map.remove(&key);
                    }
                    Op::Double => {
                        let doubled = |tat: u64| now + (tat - now) * 2;
                        table.rewrite(now, now + 400, |it| Some(Entry { tat: doubled(it.tat), ..it }));
                        for tat in map.values_mut().filter(|tat| **tat > now) {
                            *tat = doubled(*tat);
                        }
                    }
                }
                if table.evicted() > 0 {
                    return Ok(());
                }
                for (key, known) in map.iter().filter(|(_, tat)| **tat > now) {
                    prop_assert_eq!(tat(&table, key_of(*key), now), Some(*known));
                }
                let live = map.values().filter(|tat| **tat > now).count();
                prop_assert_eq!(table.occupied(now), live, "each once");
            }
        }
    }
}
