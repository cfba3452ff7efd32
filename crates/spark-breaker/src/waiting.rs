//! Calls that are under way and have not been heard of: how many of them have waited for too long?
//!
//! A ring of ticks counts the calls that began in each and still wait. When a tick's place is needed
//! for a later one, those that are left in it go to the overdue. So neither a call that ends nor one
//! that begins looks at more than one place, and nothing has to end for the number to be known.

use std::sync::OnceLock;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::time::Duration;

use crate::live::nanos;
use crate::sync::AtomicU64;

/// More than the ticks of a threshold, and two.
const PLACES: usize = 16;
/// Into so many ticks a threshold is cut.
const TICKS: u32 = 12;
const SHORTEST_TICK: u64 = 1_000_000;

#[derive(Debug)]
pub(crate) struct Waiting {
    rule: Rule,
    /// What is added to a tick, and the first one that counts.
    origin: AtomicU64,
    /// The first tick that counts, and how many of older places than the ring has.
    overdue: AtomicU64,
    /// The tick in which somebody has looked last.
    looked: AtomicU64,
    ring: OnceLock<Box<[AtomicU64]>>,
}

#[derive(Debug)]
struct Rule {
    /// How many are too many; 0: nobody asks.
    limit: std::sync::atomic::AtomicU32,
    tick: AtomicU64,
    threshold: AtomicU64,
}

/// The tick that a call began in.
pub(crate) type Tick = u32;

impl Waiting {
    pub(crate) fn new() -> Self {
        Self {
            rule: Rule {
                limit: 0.into(),
                tick: AtomicU64::new(SHORTEST_TICK),
                threshold: AtomicU64::new(SHORTEST_TICK),
            },
            origin: AtomicU64::new(0),
            overdue: AtomicU64::new(0),
            looked: AtomicU64::new(u64::MAX),
            ring: OnceLock::new(),
        }
    }

    /// Whether anybody asks.
    #[inline]
    pub(crate) fn is_watched(&self) -> bool {
        self.limit() != 0
    }

    pub(crate) fn limit(&self) -> u32 {
        self.rule.limit.load(Relaxed)
    }

    /// A call begins.
    pub(crate) fn begin(&self, now: u64) -> Option<Tick> {
        let (tick, first) = self.tick(now)?;
        let place = self.place(tick)?;
        let mut found = place.load(Acquire);
        loop {
            let (there, calls) = split(found);
            let ahead = ahead(tick, there);
            if ahead < 0 && calls != 0 {
                // This thread has slept for a whole turn of the ring.
                self.add_overdue(tick, 1);
                return Some(tick);
            }
            let stay = ahead == 0;
            let next = join(tick, if stay { calls.saturating_add(1) } else { 1 });
            match place.compare_exchange_weak(found, next, AcqRel, Acquire) {
                Ok(_) => {
                    if !stay && calls != 0 && self::ahead(there, first) >= 0 {
                        self.add_overdue(there, i64::from(calls));
                    }
                    return Some(tick);
                }
                Err(other) => found = other,
            }
        }
    }

    /// The call that began in that tick has been heard of.
    pub(crate) fn end(&self, tick: Tick) {
        let Some(place) = self.place(tick) else {
            return;
        };
        let mut found = place.load(Acquire);
        loop {
            let (there, calls) = split(found);
            if there != tick || calls == 0 {
                return self.add_overdue(tick, -1);
            }
            match place.compare_exchange_weak(found, join(tick, calls - 1), AcqRel, Acquire) {
                Ok(_) => return,
                Err(other) => found = other,
            }
        }
    }

    /// How many there are now, if nobody has looked in this tick: within one, nobody grows too old.
    #[inline]
    pub(crate) fn look(&self, now: u64) -> Option<u32> {
        let (tick, _) = self.tick(now)?;
        if self.looked.load(Relaxed) == u64::from(tick) {
            return None;
        }
        self.looked.swap(tick.into(), Relaxed);
        Some(self.overdue(now))
    }

    /// How many have waited for longer than the threshold; a tick or two later than that.
    pub(crate) fn overdue(&self, now: u64) -> u32 {
        let Some(((tick, first), ring)) = self.tick(now).zip(self.ring.get()) else {
            return 0;
        };
        let length = self.rule.tick.load(Acquire);
        let old = self.rule.threshold.load(Acquire).div_ceil(length) + 1;
        let in_ring = ring.iter().map(|place| split(place.load(Acquire)));
        let in_ring = in_ring.filter(|(there, _)| {
            ahead(*there, first) >= 0
                && u64::try_from(ahead(tick, *there)).is_ok_and(|age| age >= old)
        });
        let in_ring = in_ring.fold(0_i64, |sum, (_, calls)| sum + i64::from(calls));
        let (_, gone) = split(self.overdue.load(Acquire));
        // An end may come before the calls of its tick have got there.
        let sum = in_ring + i64::from(gone) - i64::from(ZERO);
        u32::try_from(sum.max(0)).unwrap_or(u32::MAX)
    }

    /// Whoever waits now is not asked about any more. Under the control lock, as below.
    pub(crate) fn clear(&self, now: u64) {
        if self.is_watched() {
            self.restart(now, None);
        }
    }

    /// Another rule; whoever waits now is not asked about any more.
    pub(crate) fn set(&self, limit: Option<u32>, threshold: Duration, now: u64) {
        let threshold = nanos(threshold);
        let limit = limit.unwrap_or(0);
        let same = self.rule.threshold.load(Acquire) == threshold;
        if self.limit() == limit && same {
            return;
        }
        if limit != 0 {
            self.ring
                .get_or_init(|| (0..PLACES).map(|_| AtomicU64::new(0)).collect());
        }
        self.restart(now, Some(threshold));
        self.rule.limit.store(limit, Relaxed);
    }

    fn restart(&self, now: u64, threshold: Option<u64>) {
        let latest = self.tick(now).map_or(0, |(tick, _)| tick);
        self.origin.swap(BUSY, AcqRel);
        if let Some(threshold) = threshold {
            let tick = (threshold / u64::from(TICKS)).max(SHORTEST_TICK);
            self.rule.threshold.swap(threshold, AcqRel);
            self.rule.tick.swap(tick, AcqRel);
        }
        let first = latest.wrapping_add(2 * PLACES as u32);
        // Before the origin: what ends from now on belongs to nobody, and nobody begins.
        self.overdue.swap(join(first, ZERO), AcqRel);
        let shift = first.wrapping_sub((now / self.rule.tick.load(Acquire)) as u32);
        self.origin.swap(join(shift, first), AcqRel);
        self.looked.swap(u64::MAX, Relaxed);
    }

    /// The tick of a moment, and the first one that counts. `None` while a rule is changed.
    fn tick(&self, now: u64) -> Option<(Tick, Tick)> {
        let mut origin = self.origin.load(Acquire);
        loop {
            if origin == BUSY {
                return None;
            }
            let length = self.rule.tick.load(Acquire);
            let after = self.origin.load(Acquire);
            if after == origin {
                let (shift, first) = split(origin);
                let tick = ((now / length) as u32).wrapping_add(shift);
                return (ahead(tick, first) >= 0).then_some((tick, first));
            }
            origin = after;
        }
    }

    fn place(&self, tick: Tick) -> Option<&AtomicU64> {
        self.ring.get()?.get(tick as usize % PLACES)
    }

    /// Of calls that began in that tick, if it still counts.
    fn add_overdue(&self, tick: Tick, calls: i64) {
        let mut found = self.overdue.load(Acquire);
        loop {
            let (first, sum) = split(found);
            if ahead(tick, first) < 0 {
                return;
            }
            let sum = (i64::from(sum) + calls).clamp(0, i64::from(u32::MAX)) as u32;
            match self
                .overdue
                .compare_exchange_weak(found, join(first, sum), AcqRel, Acquire)
            {
                Ok(_) => return,
                Err(other) => found = other,
            }
        }
    }
}

/// No origin.
const BUSY: u64 = u64::MAX;

/// The overdue are counted from here, since an end may come before what it is taken off.
const ZERO: u32 = 1 << 31;

fn split(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

fn join(upper: u32, lower: u32) -> u64 {
    (u64::from(upper) << 32) | u64::from(lower)
}

#[expect(clippy::cast_possible_wrap, reason = "that is how they are compared")]
fn ahead(this: Tick, that: Tick) -> i32 {
    this.wrapping_sub(that) as i32
}

#[cfg(all(test, not(spark_loom)))]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn waiting() -> Waiting {
        let waiting = Waiting::new();
        waiting.set(Some(3), Duration::from_secs(12), 0);
        waiting
    }

    #[test]
    fn those_that_wait_for_too_long_are_counted_however_long() {
        let waiting = waiting();
        for call in 0..100 {
            waiting.begin(call * SECOND / 10).unwrap();
        }
        assert_eq!(waiting.overdue(12 * SECOND), 0);
        assert_eq!(waiting.overdue(14 * SECOND), 20);
        for call in 140..240 {
            waiting.begin(call * SECOND / 10).unwrap();
        }
        assert_eq!(waiting.overdue(1_000 * SECOND), 200);
        // Later ones take the places of the ring.
        for call in 0..100 {
            let began = waiting.begin((1_000 + call) * SECOND).unwrap();
            waiting.end(began);
            assert_eq!(waiting.overdue((1_000 + call) * SECOND), 200);
        }
    }

    #[test]
    fn those_that_are_heard_of_are_not() {
        let waiting = waiting();
        let mut began = Vec::new();
        for call in 0..500 {
            began.push(waiting.begin(call * SECOND / 3).unwrap());
            if call % 2 == 0 {
                waiting.end(began.remove(call as usize / 4));
            }
        }
        let held = began.len() as u32;
        assert_eq!(waiting.overdue(1_000 * SECOND), held);
        for tick in began {
            waiting.end(tick);
        }
        assert_eq!(waiting.overdue(1_000 * SECOND), 0);
    }

    #[test]
    fn what_began_before_it_was_emptied_is_nobodys() {
        let waiting = waiting();
        let old = [0, 1].map(|call| waiting.begin(call).unwrap());
        waiting.clear(5);
        let new = waiting.begin(5).unwrap();
        for tick in old {
            waiting.end(tick);
        }
        assert_eq!(waiting.overdue(100 * SECOND), 1);
        waiting.end(new);
        assert_eq!(waiting.overdue(100 * SECOND), 0);
        waiting.set(Some(3), Duration::from_secs(1), 100 * SECOND);
        waiting.begin(100 * SECOND).unwrap();
        assert_eq!(waiting.overdue(102 * SECOND), 1);
    }

    #[test]
    fn it_is_looked_at_once_in_a_tick() {
        let waiting = waiting();
        waiting.begin(0).unwrap();
        assert_eq!(waiting.look(20 * SECOND), Some(1));
        assert_eq!(waiting.look(20 * SECOND + SECOND / 2), None);
        assert_eq!(waiting.look(21 * SECOND), Some(1));
    }
}
