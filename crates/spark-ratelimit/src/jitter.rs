//! Spreads those who are told to come back, so that they do not all come back at once.

use std::time::Duration;

/// `wait`, made longer by a part of `most` that `entropy` chooses: never shorter, and never by as
/// much as `most`. Evenly spread, when `entropy` is evenly spread over its 64 bits.
///
/// `Retry-After` is in whole seconds, rounded up afterwards, so less than a second of `most` spreads
/// over two seconds at best.
pub(crate) fn jittered(wait: Duration, most: Duration, entropy: u64) -> Duration {
    let most = most.as_nanos().min(u128::from(u64::MAX));
    // Less than 2⁶⁴ × 2⁶⁴ / 2⁶⁴.
    let more = (most * u128::from(entropy)) >> 64;
    wait.saturating_add(Duration::from_nanos(more as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn no_jitter_is_the_wait_itself() {
        assert_eq!(jittered(SECOND, Duration::ZERO, u64::MAX), SECOND);
        assert_eq!(jittered(SECOND, SECOND, 0), SECOND);
        assert_eq!(jittered(SECOND, SECOND, 1 << 63), SECOND * 3 / 2);
        assert_eq!(
            jittered(Duration::MAX, Duration::MAX, u64::MAX),
            Duration::MAX
        );
    }

    #[test]
    fn it_spreads_evenly() {
        let mut counts = [0; 10];
        for n in 0..10_000_u64 {
            let entropy = n.wrapping_mul(crate::key::MIX);
            counts[jittered(Duration::ZERO, SECOND * 10, entropy).as_secs() as usize] += 1;
        }
        assert!(
            counts.iter().all(|count| (900..1_100).contains(count)),
            "{counts:?}"
        );
    }

    proptest! {
        #[test]
        fn it_is_never_earlier_and_never_by_most_later(wait: u64, most: u64, entropy: u64) {
            let (wait, most) = (Duration::from_nanos(wait), Duration::from_nanos(most));
            let told = jittered(wait, most, entropy);
            prop_assert!(told >= wait);
            prop_assert!(told < wait + most || most.is_zero());
        }
    }
}
