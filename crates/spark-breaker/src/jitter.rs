//! A little randomness, so that not all do the same at one moment. Nothing secret hangs on it.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// SplitMix64, seeded by the process's hash seed unless told otherwise. It may be shared.
#[derive(Debug)]
pub(crate) struct Jitter(AtomicU64);

const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

impl Jitter {
    /// Of that seed, or of any.
    pub(crate) fn new(seed: Option<u64>) -> Self {
        let seed = seed.unwrap_or_else(|| RandomState::new().build_hasher().finish());
        Self(AtomicU64::new(seed))
    }

    /// `time`, lengthened by a random share of up to `share`.
    pub(crate) fn lengthen(&self, time: Duration, share: f64) -> Duration {
        let extra = time.as_secs_f64() * share * self.unit();
        time.saturating_add(Duration::try_from_secs_f64(extra).unwrap_or_default())
    }

    /// A random part of `time`.
    pub(crate) fn part(&self, time: Duration) -> Duration {
        // A float of a whole time may be a little more than it, never a part.
        Duration::try_from_secs_f64(time.as_secs_f64() * self.unit())
            .unwrap_or(time)
            .min(time)
    }

    /// From 0 up to but not including 1.
    pub(crate) fn unit(&self) -> f64 {
        (self.word() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(crate) fn word(&self) -> u64 {
        let mut mixed = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_shorter_and_never_longer_than_the_share() {
        let jitter = Jitter::new(None);
        let base = Duration::from_secs(10);
        for _ in 0..1_000 {
            let time = jitter.lengthen(base, 0.2);
            assert!(time >= base && time <= Duration::from_secs(12));
        }
        assert_eq!(jitter.lengthen(base, 0.0), base);
    }

    #[test]
    fn a_part_is_never_more_than_the_whole() {
        let jitter = Jitter::new(None);
        for time in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
            for _ in 0..100 {
                assert!(jitter.part(time) <= time);
            }
        }
    }
}
