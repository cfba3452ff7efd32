//! When requests are due: fixed before the run begins, whatever the server does.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Arrivals a second: above 0, and at most a million.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rate(f64);

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(rate) if rate > 0.0 && rate <= 1e6 => Ok(Self(rate)),
            _ => Err("a rate is a number above 0, at most a million".into()),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", self.0)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Pattern {
    /// The same gap between any two.
    Even,
    /// Independent callers: exponential gaps, the same ones in every run.
    Poisson,
}

/// The moments at which requests are due, counted from the start and in order.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    rate: f64,
    pattern: Pattern,
    duration: Duration,
    index: u64,
    poisson_at: f64,
}

impl Schedule {
    pub(crate) fn new(rate: Rate, pattern: Pattern, duration: Duration) -> Self {
        Self {
            rate: rate.0,
            pattern,
            duration,
            index: 0,
            poisson_at: 0.0,
        }
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let seconds = match self.pattern {
            // Multiplied, not summed up: the thousandth is as exact as the first.
            Pattern::Even => self.index as f64 / self.rate,
            Pattern::Poisson => self.poisson_at,
        };
        let due = Duration::try_from_secs_f64(seconds).ok()?;
        if due >= self.duration {
            return None;
        }
        // 53 random bits give a number in [0, 1); its complement has a logarithm.
        let uniform = (scramble(self.index) >> 11) as f64 / (1_u64 << 53) as f64;
        self.poisson_at += -(1.0 - uniform).ln() / self.rate;
        self.index += 1;
        Some(due)
    }
}

/// A well-mixed number for each index (the finaliser of SplitMix64).
pub(crate) fn scramble(index: u64) -> u64 {
    let mut z = index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(rate: &str, pattern: Pattern, seconds: u64) -> Schedule {
        Schedule::new(rate.parse().unwrap(), pattern, Duration::from_secs(seconds))
    }

    #[test]
    fn even_arrivals_do_not_drift() {
        let due: Vec<_> = schedule("3", Pattern::Even, 1000).collect();
        assert_eq!(due.len(), 3000);
        assert_eq!(due[0], Duration::ZERO);
        assert_eq!(due[2997], Duration::from_secs(999));
    }

    #[test]
    fn slow_rates_ask_at_least_once() {
        assert_eq!(schedule("0.1", Pattern::Even, 1).count(), 1);
        assert_eq!(schedule("0.1", Pattern::Even, 30).count(), 3);
        assert_eq!(schedule("1e-300", Pattern::Even, 30).count(), 1);
    }

    #[test]
    fn poisson_arrivals_keep_the_rate_and_vary() {
        let due: Vec<_> = schedule("100", Pattern::Poisson, 100).collect();
        assert!((9_700..10_300).contains(&due.len()), "{}", due.len());
        assert!(due.is_sorted());
        let gaps: Vec<f64> = due
            .windows(2)
            .map(|w| (w[1] - w[0]).as_secs_f64())
            .collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // An exponential distribution's deviation is its mean.
        assert!(
            (variance.sqrt() / mean - 1.0).abs() < 0.1,
            "{}",
            variance.sqrt() / mean
        );
        let again: Vec<_> = schedule("100", Pattern::Poisson, 100).collect();
        assert_eq!(due, again);
    }

    #[test]
    fn rates_are_checked() {
        for bad in ["0", "-1", "inf", "NaN", "2e6", "fast", ""] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
    }
}
