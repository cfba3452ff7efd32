//! Questions of which the answer may not be kept, remembered for a moment ("hit for miss").

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use spark_core::Instant;

use crate::CacheKey;

/// How many are remembered. Beyond it, those who ask the same wait for each other's head once more.
const CAPACITY: usize = 1_024;

#[derive(Debug, Default)]
pub(crate) struct Passes {
    until: Mutex<HashMap<CacheKey, Instant>>,
    len: AtomicUsize,
}

impl Passes {
    pub(crate) fn mark(&self, key: CacheKey, now: Instant, time: Duration) {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        if until.len() >= CAPACITY {
            until.retain(|_, until| now < *until);
        }
        if until.len() < CAPACITY || until.contains_key(&key) {
            until.insert(key, now.saturating_add(time));
        }
        self.len.store(until.len(), Ordering::Release);
    }

    pub(crate) fn contains(&self, key: &CacheKey, now: Instant) -> bool {
        if self.len.load(Ordering::Acquire) == 0 {
            return false;
        }
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(end) = until.get(key) else {
            return false;
        };
        let live = now < *end;
        if !live {
            until.remove(key);
            self.len.store(until.len(), Ordering::Release);
        }
        live
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scope;

    #[test]
    fn it_forgets_in_time_and_is_bounded() {
        let passes = Passes::default();
        let key = |i: usize| {
            CacheKey::builder(Scope::Master)
                .field("i", &i.to_be_bytes())
                .build()
        };
        let at = |seconds: u64| Instant::from_nanos(seconds * 1_000_000_000);
        let second = Duration::from_secs(1);
        for i in 0..2 * CAPACITY {
            passes.mark(key(i), at(0), second);
        }
        assert!(passes.contains(&key(0), at(0)));
        assert!(
            !passes.contains(&key(2 * CAPACITY - 1), at(0)),
            "it was full"
        );
        passes.mark(key(2 * CAPACITY), at(1), second);
        assert!(!passes.contains(&key(0), at(1)));
        assert!(
            passes.contains(&key(2 * CAPACITY), at(1)),
            "the expired made room"
        );
        assert_eq!(passes.len.load(Ordering::Relaxed), 1);
    }
}
