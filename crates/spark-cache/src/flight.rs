//! Who is asking upstream at the moment, so that nobody asks the same twice.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use crate::frame_log::{FrameLog, Reader};
use crate::{BodyError, CacheKey, FetchError};

const SHARDS: usize = 16;

/// What may be under way at one time, and what is.
#[derive(Debug)]
pub(crate) struct Bounds {
    pub(crate) max_flights: usize,
    pub(crate) max_waiters: usize,
    pub(crate) max_bytes: u64,
    flights: AtomicUsize,
    waiters: AtomicUsize,
    bytes: AtomicU64,
}

impl Bounds {
    pub(crate) fn new(max_flights: usize, max_waiters: usize, max_bytes: u64) -> Self {
        Self {
            max_flights,
            max_waiters,
            max_bytes,
            flights: AtomicUsize::new(0),
            waiters: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    pub(crate) fn flights(&self) -> usize {
        self.flights.load(Ordering::Relaxed)
    }

    pub(crate) fn waiters(&self) -> usize {
        self.waiters.load(Ordering::Relaxed)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn charge(&self, bytes: u64) -> bool {
        self.bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
                held.checked_add(bytes)
                    .filter(|held| *held <= self.max_bytes)
            })
            .is_ok()
    }

    pub(crate) fn release(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(crate) fn leave(&self) {
        self.waiters.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One more of `held`, unless it is at its bound.
fn enter(held: &AtomicUsize, max: usize) -> bool {
    held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
        (held < max).then_some(held + 1)
    })
    .is_ok()
}

/// A bound that is met. Whoever meets it asks upstream alone, and nothing is kept of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    Flights,
    Waiters,
    Bytes,
}

impl Bound {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Flights => "flights",
            Self::Waiters => "waiters",
            Self::Bytes => "bytes",
        }
    }
}

/// Every key that is being asked for.
pub(crate) struct Flights {
    shards: [Mutex<HashMap<CacheKey, Arc<FrameLog>>>; SHARDS],
    pub(crate) bounds: Arc<Bounds>,
}

/// What a caller became.
pub(crate) enum Joined {
    /// The first: it asks upstream, and reads along like everyone else.
    Leader(Ticket, Reader),
    /// One more reader of somebody else's question.
    Follower(Reader),
    /// Too much is under way.
    Full(Bound),
    /// Somebody asks already, and this caller wanted an answer of its own.
    Taken,
}

impl Flights {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            bounds: Arc::new(bounds),
        }
    }

    fn shard(&self, key: &CacheKey) -> MutexGuard<'_, HashMap<CacheKey, Arc<FrameLog>>> {
        lock(&self.shards[key.spread() % SHARDS])
    }

    /// Joins the flight for `key`, or begins it. `follow` says whether another's will do.
    pub(crate) fn join(self: &Arc<Self>, key: CacheKey, follow: bool, max_bytes: u64) -> Joined {
        match self.shard(&key).entry(key) {
            Slot::Occupied(_) if !follow => Joined::Taken,
            Slot::Occupied(slot) => {
                if !enter(&self.bounds.waiters, self.bounds.max_waiters) {
                    return Joined::Full(Bound::Waiters);
                }
                match slot.get().read() {
                    Some(reader) => Joined::Follower(reader),
                    None => {
                        self.bounds.leave();
                        Joined::Full(Bound::Bytes)
                    }
                }
            }
            Slot::Vacant(slot) => {
                if !enter(&self.bounds.flights, self.bounds.max_flights) {
                    return Joined::Full(Bound::Flights);
                }
                let log = Arc::new(FrameLog::new(max_bytes, Arc::clone(&self.bounds)));
                let reader = Reader::first(&log);
                slot.insert(Arc::clone(&log));
                crate::metrics::flights(1.0);
                Joined::Leader(
                    Ticket {
                        flights: Arc::clone(self),
                        key,
                        log,
                    },
                    reader,
                )
            }
        }
    }

    /// Lets every flight of which the key answers to `which` go on unseen: it serves who reads it,
    /// nobody joins it, and nothing of it is stored.
    pub(crate) fn detach(&self, which: impl Fn(&CacheKey) -> bool) {
        for shard in &self.shards {
            lock(shard).retain(|key, _| !which(key));
        }
    }

    pub(crate) fn detach_one(&self, key: &CacheKey) {
        self.shard(key).remove(key);
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }
}

impl fmt::Debug for Flights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bounds.fmt(f)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The right and the duty to answer for a key. Dropped in whatever way, it tells everyone who still
/// waits and gives the key free.
#[derive(Debug)]
pub(crate) struct Ticket {
    flights: Arc<Flights>,
    key: CacheKey,
    pub(crate) log: Arc<FrameLog>,
}

impl Ticket {
    /// Nobody joins any more.
    pub(crate) fn retire(&self) {
        self.land(|_| ());
    }

    /// Ready when nobody reads any more and, from then on, nobody can: whoever comes later begins a
    /// flight of their own.
    pub(crate) fn poll_abandoned(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.log.poll_abandoned(cx).is_pending() {
            return Poll::Pending;
        }
        self.retire();
        // Somebody may have come in between: they are served, and nothing is stored.
        self.log.poll_abandoned(cx)
    }

    /// Stores by `put`, unless the key was invalidated since the flight began, and gives the key
    /// free. There is no moment at which the key has neither a flight nor an entry.
    pub(crate) fn land(&self, put: impl FnOnce(CacheKey)) {
        let mut shard = self.flights.shard(&self.key);
        let ours = shard
            .get(&self.key)
            .is_some_and(|log| Arc::ptr_eq(log, &self.log));
        if ours {
            put(self.key);
            shard.remove(&self.key);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.retire();
        let (head, body) = if std::thread::panicking() {
            (FetchError::Panicked, BodyError::Panicked)
        } else {
            (FetchError::Aborted, BodyError::Aborted)
        };
        self.log.fail(head, body);
        self.flights.bounds.flights.fetch_sub(1, Ordering::Relaxed);
        crate::metrics::flights(-1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scope;

    fn key(i: u8) -> CacheKey {
        CacheKey::builder(Scope::Master).field("i", &[i]).build()
    }

    fn flights(max_flights: usize, max_waiters: usize) -> Arc<Flights> {
        Arc::new(Flights::new(Bounds::new(max_flights, max_waiters, 1_000)))
    }

    #[test]
    fn one_leads_and_the_others_follow() {
        let flights = flights(8, 2);
        let Joined::Leader(ticket, reader) = flights.join(key(0), true, 100) else {
            panic!("the first leads");
        };
        assert!(matches!(flights.join(key(0), false, 100), Joined::Taken));
        let followers = [
            flights.join(key(0), true, 100),
            flights.join(key(0), true, 100),
        ];
        assert!(
            followers
                .iter()
                .all(|joined| matches!(joined, Joined::Follower(_)))
        );
        assert!(matches!(
            flights.join(key(0), true, 100),
            Joined::Full(Bound::Waiters)
        ));
        assert_eq!((flights.bounds.flights(), flights.bounds.waiters()), (1, 2));
        drop((followers, reader, ticket));
        assert_eq!(
            (
                flights.bounds.flights(),
                flights.bounds.waiters(),
                flights.len()
            ),
            (0, 0, 0)
        );
    }

    #[test]
    fn flights_are_bounded() {
        let flights = flights(2, 8);
        let first = flights.join(key(0), true, 100);
        let _second = flights.join(key(1), true, 100);
        assert!(matches!(
            flights.join(key(2), true, 100),
            Joined::Full(Bound::Flights)
        ));
        drop(first);
        assert!(matches!(
            flights.join(key(2), true, 100),
            Joined::Leader(..)
        ));
    }

    #[test]
    fn a_detached_flight_stores_nothing_and_harms_no_later_one() {
        let flights = flights(8, 8);
        let Joined::Leader(old, _reader) = flights.join(key(0), true, 100) else {
            panic!("the first leads");
        };
        flights.detach(|k| *k == key(0));
        let Joined::Leader(new, _reader) = flights.join(key(0), true, 100) else {
            panic!("after the purge, the next one leads");
        };
        old.land(|_| panic!("its answer is from before the purge"));
        drop(old);
        let mut stored = false;
        new.land(|_| stored = true);
        assert!(stored);
    }

    #[test]
    fn nobody_joins_what_is_about_to_be_given_up() {
        let flights = flights(8, 8);
        let Joined::Leader(left, reader) = flights.join(key(0), true, 100) else {
            panic!("the first leads");
        };
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(left.poll_abandoned(&mut cx).is_pending());
        drop(reader);
        assert!(left.poll_abandoned(&mut cx).is_ready());
        // The task that asks upstream has yet to be dropped.
        assert!(matches!(
            flights.join(key(0), true, 100),
            Joined::Leader(..)
        ));
    }
}
