//! A little randomness, so that replicas do not all probe at one moment. Nothing secret hangs on it.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

/// SplitMix64, seeded by the process's hash seed unless told otherwise.
#[derive(Debug)]
pub(crate) struct Jitter(u64);

impl Jitter {
    /// Of that seed, or of any.
    pub(crate) fn new(seed: Option<u64>) -> Self {
        Self(seed.unwrap_or_else(|| RandomState::new().build_hasher().finish()))
    }

    /// `time`, lengthened by a random share of up to `share`.
    pub(crate) fn lengthen(&mut self, time: Duration, share: f64) -> Duration {
        let extra = time.as_secs_f64() * share * self.unit();
        time.saturating_add(Duration::try_from_secs_f64(extra).unwrap_or_default())
    }

    /// From 0 up to but not including 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.word() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(crate) fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
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
        let mut jitter = Jitter::new(None);
        let base = Duration::from_secs(10);
        for _ in 0..1_000 {
            let time = jitter.lengthen(base, 0.2);
            assert!(time >= base && time <= Duration::from_secs(12));
        }
        assert_eq!(jitter.lengthen(base, 0.0), base);
    }
}
