//! When a key was last used: noted at most once a minute, so that a request costs one load.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use spark_core::Instant;

/// Within this many seconds of a noted use, another one is not noted.
const STEP: u32 = 60;

/// The last use of one key. Any thread may note one.
#[derive(Debug, Default)]
pub(crate) struct LastUse {
    /// Milliseconds since 1970; 0 when it never was.
    at: AtomicU64,
    /// Seconds of the monotonic clock when a use was noted, counted from one; 0 before the first.
    noted: AtomicU32,
    /// Whether the store has still to be told.
    unwritten: AtomicBool,
}

impl LastUse {
    pub(crate) fn new(at: Option<Duration>) -> Self {
        Self {
            at: AtomicU64::new(at.map_or(0, millis)),
            ..Self::default()
        }
    }

    /// Whether a use now is worth noting.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let noted = self.noted.load(Ordering::Relaxed);
        noted == 0 || seconds(now).saturating_sub(noted) >= STEP
    }

    #[cold]
    pub(crate) fn note(&self, now: Instant, at: Duration) {
        self.noted.fetch_max(seconds(now), Ordering::Relaxed);
        self.at.fetch_max(millis(at), Ordering::Relaxed);
        self.unwritten.store(true, Ordering::Release);
    }

    pub(crate) fn at(&self) -> Option<Duration> {
        match self.at.load(Ordering::Relaxed) {
            0 => None,
            millis => Some(Duration::from_millis(millis)),
        }
    }

    /// What the store has still to be told; from here on it counts as told.
    pub(crate) fn take_unwritten(&self) -> Option<Duration> {
        if !self.unwritten.load(Ordering::Relaxed) {
            return None;
        }
        // Acquire: whoever set the flag had set the time before.
        self.unwritten.swap(false, Ordering::Acquire);
        self.at()
    }

    /// The store could not be told after all.
    pub(crate) fn still_unwritten(&self) {
        self.unwritten.store(true, Ordering::Release);
    }

    /// Takes over what another version of the same key's record has noted.
    pub(crate) fn absorb(&self, other: &Self) {
        let noted = other.noted.load(Ordering::Relaxed);
        let unwritten = other.unwritten.load(Ordering::Acquire);
        let at = other.at.load(Ordering::Relaxed);
        self.noted.fetch_max(noted, Ordering::Relaxed);
        self.at.fetch_max(at, Ordering::Relaxed);
        self.unwritten.fetch_or(unwritten, Ordering::Release);
    }
}

fn seconds(now: Instant) -> u32 {
    u32::try_from(now.as_nanos() / 1_000_000_000 + 1).unwrap_or(u32::MAX)
}

fn millis(at: Duration) -> u64 {
    u64::try_from(at.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn a_use_is_noted_once_a_minute() {
        let last = LastUse::default();
        assert!(last.is_due(at(0)));
        last.note(at(0), Duration::from_secs(1_000));
        assert!(!last.is_due(at(59)));
        assert!(last.is_due(at(60)));
        last.note(at(60), Duration::from_secs(1_060));
        assert_eq!(last.take_unwritten(), Some(Duration::from_secs(1_060)));
        assert_eq!(last.take_unwritten(), None);
        // A clock that goes back notes nothing, and takes nothing back.
        assert!(!last.is_due(at(3)));
        last.note(at(3), Duration::from_secs(3));
        assert_eq!(last.at(), Some(Duration::from_secs(1_060)));
    }

    #[test]
    fn another_version_takes_over_what_is_later() {
        let (old, new) = (
            LastUse::default(),
            LastUse::new(Some(Duration::from_secs(5))),
        );
        old.note(at(7), Duration::from_secs(9));
        new.absorb(&old);
        assert_eq!(new.take_unwritten(), Some(Duration::from_secs(9)));
        assert!(!new.is_due(at(8)));
    }
}
