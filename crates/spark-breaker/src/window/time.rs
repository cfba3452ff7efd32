//! The latest stretch of time, in steps: a ring of buckets, each tagged with the epoch (time divided
//! by a bucket's length) that it counts for, so that nothing has to be swept. A bucket of an older
//! epoch is not read, and is begun anew by whoever comes first in its turn.

mod origin;

use std::sync::OnceLock;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, SeqCst};
use std::time::Duration;

use spark_core::Clock;

use super::{Counts, Mark, Recorded};
use crate::sync::{AtomicU64, fence};
use origin::Origin;

/// Rings of 16 and of 64 buckets, each made when it is first needed.
const SMALL: usize = if cfg!(spark_loom) { 2 } else { 16 };
const LARGE: usize = if cfg!(spark_loom) { 4 } else { 64 };

#[derive(Debug)]
pub(crate) struct TimeWindow {
    origin: AtomicU64,
    /// How long a bucket is, and how many there are.
    shape: AtomicU64,
    /// 2⁶⁴ divided by a bucket's length: a multiplication is cheaper than a division.
    inverse: AtomicU64,
    small: OnceLock<Box<[Bucket]>>,
    large: OnceLock<Box<[Bucket]>>,
}

/// Each word: the epoch's lower half, and how many. A success touches the first one alone.
#[derive(Debug)]
struct Bucket {
    calls: AtomicU64,
    failures: AtomicU64,
    slow: AtomicU64,
}

/// The ring and the place in it that a moment belongs to.
struct At<'a> {
    ring: &'a [Bucket],
    /// Of which the ring's length is a divisor, so that its lower bits are the place.
    epoch: u32,
    buckets: u32,
}

impl TimeWindow {
    pub(crate) fn new(generation: u64) -> Self {
        Self {
            origin: AtomicU64::new(Origin::new(generation, 0).0),
            shape: AtomicU64::new(1),
            inverse: AtomicU64::new(0),
            small: OnceLock::new(),
            large: OnceLock::new(),
        }
    }

    #[inline]
    pub(crate) fn record(&self, generation: u64, clock: &Clock, now: u64, mark: Mark) -> Recorded {
        let at = match self.at(Some(generation), now) {
            Ok(at) => at,
            Err(recorded) => return recorded,
        };
        let bucket = at.bucket();
        if add(&bucket.calls, at.epoch, false) {
            if mark.failed || mark.slow {
                bucket.leave(at.epoch, mark);
            }
            return Recorded::Yes;
        }
        self.record_behind(generation, clock, mark)
    }

    /// The bucket is of a later epoch, a whole turn of the ring away: either this thread was asleep
    /// in between, and then the time has moved on; or the clock has stepped back, and the moment
    /// that the bucket was begun at was the wrong one.
    #[cold]
    fn record_behind(&self, generation: u64, clock: &Clock, mark: Mark) -> Recorded {
        let at = match self.at(Some(generation), clock.now().as_nanos()) {
            Ok(at) => at,
            Err(recorded) => return recorded,
        };
        let bucket = at.bucket();
        add(&bucket.calls, at.epoch, true);
        bucket.leave(at.epoch, mark);
        Recorded::Yes
    }

    /// Where to record or read. Of any generation, unless one is given.
    #[inline]
    fn at(&self, generation: Option<u64>, now: u64) -> Result<At<'_>, Recorded> {
        let mut origin = Origin(self.origin.load(Acquire));
        loop {
            if generation.is_some_and(|it| !origin.is_of(it)) {
                return Err(Recorded::Late);
            }
            // It is being emptied for another shape: as if it had been recorded just before.
            if origin.is_busy() {
                return Err(Recorded::Yes);
            }
            let shape = self.shape.load(Acquire);
            let inverse = self.inverse.load(Acquire);
            let after = Origin(self.origin.load(Acquire));
            if after != origin {
                origin = after;
                continue;
            }
            let buckets = (shape & BUCKETS) as u32;
            let Some(ring) = self.ring(buckets) else {
                return Err(Recorded::Yes);
            };
            let epoch = divide(now, shape >> BUCKET_BITS, inverse) as u32;
            return Ok(At {
                ring,
                epoch: epoch.wrapping_add(origin.shift()),
                buckets,
            });
        }
    }

    pub(crate) fn counts(&self, now: u64) -> Counts {
        let Ok(at) = self.at(None, now) else {
            return Counts::default();
        };
        let mut counts = Counts::default();
        // Also those that are ahead, by less than a window: the clock has stepped back a little,
        // or this thread was asleep.
        let behind = at.buckets - 1;
        for step in 0..(2 * at.buckets - 1).min(at.ring.len() as u32) {
            let bucket = at.place(at.epoch.wrapping_sub(behind).wrapping_add(step));
            // The failures first: whoever adds one has added the call before.
            counts.failures = counts.failures.saturating_add(at.read(&bucket.failures));
            counts.slow = counts.slow.saturating_add(at.read(&bucket.slow));
            counts.calls = counts.calls.saturating_add(at.read(&bucket.calls));
        }
        counts
    }

    /// Takes results of this generation from now on.
    pub(crate) fn turn_over(&self, generation: u64, clear: bool) {
        let shift = Origin(self.origin.load(Acquire)).shift();
        // What is there is then too old to be read, and nobody overwrites what is newer.
        let shift = if clear {
            shift.wrapping_add(AWAY)
        } else {
            shift
        };
        self.origin.swap(Origin::new(generation, shift).0, AcqRel);
    }

    /// An empty window of another shape. Until it is there, nothing is recorded.
    pub(crate) fn resize(&self, length: Duration, buckets: u8, now: u64) {
        let buckets = u64::from(buckets).clamp(1, 60);
        let nanos = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        let bucket = (nanos / buckets).clamp(1, LONGEST_BUCKET);
        let inverse = u64::MAX / bucket;
        let (ring, len) = match buckets as usize <= SMALL {
            true => (&self.small, SMALL),
            false => (&self.large, LARGE),
        };
        ring.get_or_init(|| (0..len).map(|_| Bucket::new()).collect());

        let latest = self.at(None, now).map_or(0, |at| at.epoch);
        let old = Origin(self.origin.load(Acquire));
        self.origin.swap(old.busy().0, AcqRel);
        self.inverse.swap(inverse, AcqRel);
        self.shape.swap((bucket << BUCKET_BITS) | buckets, AcqRel);
        let epoch = divide(now, bucket, inverse) as u32;
        let shift = latest.wrapping_add(AWAY).wrapping_sub(epoch);
        self.origin
            .swap(Origin::new(old.generation(), shift).0, AcqRel);
    }

    #[inline]
    fn ring(&self, buckets: u32) -> Option<&[Bucket]> {
        let ring = if buckets as usize <= SMALL {
            &self.small
        } else {
            &self.large
        };
        ring.get().map(|ring| &**ring)
    }
}

impl<'a> At<'a> {
    fn bucket(&self) -> &'a Bucket {
        self.place(self.epoch)
    }

    fn place(&self, epoch: u32) -> &'a Bucket {
        // A power of two, so the place is below it.
        &self.ring[epoch as usize & (self.ring.len() - 1)]
    }

    fn read(&self, word: &AtomicU64) -> u32 {
        let found = word.load(Acquire);
        let away = ahead(self.epoch, tag(found)).unsigned_abs();
        if away < self.buckets { found as u32 } else { 0 }
    }
}

impl Bucket {
    fn new() -> Self {
        Self {
            calls: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            slow: AtomicU64::new(0),
        }
    }

    /// Beside the call, which is counted already.
    #[cold]
    fn leave(&self, epoch: u32, mark: Mark) {
        if mark.failed {
            self.add_beside(&self.failures, epoch);
        }
        if mark.slow {
            self.add_beside(&self.slow, epoch);
        }
        // Of two in different buckets who judge the window next, one sees the other.
        fence(SeqCst);
    }

    /// In a turn of the ring, a word is touched after the one of the calls. So as long as that is of
    /// this epoch, a word that looks newer is from half a turn of the epochs ago, when there were
    /// failures the last time.
    fn add_beside(&self, word: &AtomicU64, epoch: u32) {
        if !add(word, epoch, false) {
            fence(Acquire);
            if tag(self.calls.load(Acquire)) == epoch {
                add(word, epoch, true);
            }
        }
    }
}

/// One more for that epoch; `false` when the word counts for a later one.
#[inline]
fn add(word: &AtomicU64, epoch: u32, over_newer: bool) -> bool {
    let mut found = word.load(Relaxed);
    loop {
        let count = found as u32;
        let ahead = ahead(epoch, tag(found));
        let count = if ahead == 0 {
            count.saturating_add(1)
        } else if ahead > 0 || count == 0 || over_newer {
            1
        } else {
            return false;
        };
        let next = (u64::from(epoch) << 32) | u64::from(count);
        match word.compare_exchange_weak(found, next, AcqRel, Relaxed) {
            Ok(_) => return true,
            Err(other) => found = other,
        }
    }
}

fn tag(word: u64) -> u32 {
    (word >> 32) as u32
}

/// By how many epochs this one is ahead of that one. They go round after 2³², which is centuries
/// for a bucket of seconds, and hours for the shortest there is: a bucket that nobody has touched
/// for just so long is read once more.
#[expect(clippy::cast_possible_wrap, reason = "that is how they are compared")]
fn ahead(this: u32, that: u32) -> i32 {
    this.wrapping_sub(that) as i32
}

/// More epochs than two windows are long.
const AWAY: u32 = 256;

const BUCKET_BITS: u32 = 6;
const BUCKETS: u64 = (1 << BUCKET_BITS) - 1;
const LONGEST_BUCKET: u64 = u64::MAX >> BUCKET_BITS;

/// `now / bucket`, by way of `u64::MAX / bucket`, which is too little by one at most.
#[inline]
fn divide(now: u64, bucket: u64, inverse: u64) -> u64 {
    let quotient = ((u128::from(now) * u128::from(inverse)) >> 64) as u64;
    let rest = now.wrapping_sub(quotient.wrapping_mul(bucket));
    quotient + u64::from(rest >= bucket)
}

#[cfg(all(test, not(spark_loom)))]
#[path = "time_tests.rs"]
mod tests;
