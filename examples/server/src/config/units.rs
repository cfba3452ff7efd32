//! Sizes and times as people write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A size: `"512KiB"`, `"1MiB"`, `"1GiB"`, `"100B"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ByteSize(u64);

/// A time: `"250ms"`, `"10s"`, `"5m"`, `"1h"`, `"1d"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span(Duration);

const SIZES: [(&str, u64); 4] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];
/// In milliseconds; `ms` stands before `s` and `m`, which it ends or begins with.
const TIMES: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

impl ByteSize {
    pub(crate) const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    pub(crate) const fn bytes(self) -> u64 {
        self.0
    }

    /// The size for what counts in `usize`; the largest one where that is smaller.
    pub(crate) fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl Span {
    /// No time, which mostly stands for none.
    pub(crate) const fn zero() -> Self {
        Self::secs(0)
    }

    pub(crate) const fn secs(n: u64) -> Self {
        Self(Duration::from_secs(n))
    }

    pub(crate) const fn millis(n: u64) -> Self {
        Self(Duration::from_millis(n))
    }

    pub(crate) const fn duration(self) -> Duration {
        self.0
    }

    /// Where 0 is for none.
    pub(crate) fn some(self) -> Option<Duration> {
        (!self.0.is_zero()).then_some(self.0)
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse(text, &SIZES).map(Self).ok_or_else(|| {
            format!("\"{text}\" is no size: write a whole number and a unit, as \"1MiB\" (B, KiB, MiB, GiB)")
        })
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let millis = parse(text, &TIMES).ok_or_else(|| {
            format!("\"{text}\" is no time: write a whole number and a unit, as \"10s\" (ms, s, m, h, d)")
        })?;
        Ok(Self(Duration::from_millis(millis)))
    }
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (number, factor) = units
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    let number = number.trim_end();
    // `parse` would accept a sign.
    if !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// The largest unit that divides the number; nothing is nothing of the smallest.
fn show(f: &mut fmt::Formatter<'_>, number: u64, units: &[(&str, u64)]) -> fmt::Result {
    let fits = |factor: u64| {
        if number == 0 {
            factor == 1
        } else {
            number.is_multiple_of(factor)
        }
    };
    let best = units
        .iter()
        .filter(|(_, factor)| fits(*factor))
        .max_by_key(|(_, factor)| *factor);
    let (unit, factor) = best.copied().unwrap_or(("", 1));
    write!(f, "{}{unit}", number / factor)
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, self.0, &SIZES)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(
            f,
            u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX),
            &TIMES,
        )
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_read_and_written() {
        for text in ["0B", "100B", "512KiB", "1MiB", "3GiB"] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!(size.to_string().parse::<ByteSize>(), Ok(size), "{text}");
        }
        assert_eq!("1MiB".parse::<ByteSize>().unwrap().to_string(), "1MiB");
        for text in ["0ms", "250ms", "10s", "90s", "5m", "1h", "2d"] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.to_string().parse::<Span>(), Ok(span), "{text}");
        }
        assert_eq!("90s".parse::<Span>().unwrap().to_string(), "90s");
        assert_eq!("60s".parse::<Span>().unwrap().to_string(), "1m");
    }

    #[test]
    fn what_is_no_size_or_time_is_refused() {
        for text in [
            "",
            "1",
            "MiB",
            "-1MiB",
            "+1MiB",
            "1.5MiB",
            "1 mib",
            "99999999999GiB",
        ] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
        for text in ["", "1", "s", "-1s", "1.5s", "10 parsecs"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }
}
