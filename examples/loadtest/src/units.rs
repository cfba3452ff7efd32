//! Durations and shares, read and written.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// `200ms`, `1.5s`, `2m`, `1h`; not zero, and a unit is needed.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text
        .find(|c: char| c.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("a duration has a number and a unit: 200ms, 1.5s, 2m, 1h".into()),
    };
    let number: f64 = number
        .trim()
        .parse()
        .map_err(|_| format!("{number:?} is not a number"))?;
    let duration = Duration::try_from_secs_f64(number * seconds).map_err(|e| e.to_string())?;
    if duration.is_zero() {
        return Err("it must be longer than nothing".into());
    }
    if duration > Duration::from_secs(7 * 86_400) {
        return Err("it must be at most a week".into());
    }
    Ok(duration)
}

/// A duration for people: three digits or so and a unit.
pub(crate) fn show(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match seconds {
        s if s < 0.01 => format!("{:.2} ms", s * 1e3),
        s if s < 0.1 => format!("{:.1} ms", s * 1e3),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s if s < 10.0 => format!("{s:.2} s"),
        s => format!("{s:.1} s"),
    }
}

/// A part of a whole, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub(crate) struct Share(f64);

impl Share {
    pub(crate) const fn percent(percent: u8) -> Self {
        Self(percent as f64 / 100.0)
    }

    /// `part` of `whole`; of nothing it is 0.
    pub(crate) fn of(part: u64, whole: u64) -> Self {
        if whole == 0 {
            return Self(0.0);
        }
        Self(part as f64 / whole as f64)
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(share) if (0.0..=1.0).contains(&share) => Ok(Self(share)),
            _ => Err("a share is a number from 0 to 1".into()),
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:.2} %", self.0 * 100.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(parse_duration("200ms"), Ok(Duration::from_millis(200)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_duration("1h"), Ok(Duration::from_secs(3600)));
        for bad in [
            "", "5", "s", "0s", "-1s", "1d", "1e400s", "NaNs", "999999h", "1 s s", "é",
        ] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn shown_durations() {
        assert_eq!(show(Duration::from_micros(420)), "0.42 ms");
        assert_eq!(show(Duration::from_micros(12_340)), "12.3 ms");
        assert_eq!(show(Duration::from_millis(123)), "123 ms");
        assert_eq!(show(Duration::from_millis(1_234)), "1.23 s");
        assert_eq!(show(Duration::from_secs(75)), "75.0 s");
    }

    #[test]
    fn shares() {
        assert_eq!("0.01".parse(), Ok(Share::percent(1)));
        assert!("1.01".parse::<Share>().is_err() && "NaN".parse::<Share>().is_err());
        assert_eq!(Share::of(1, 8).to_string(), "12.50 %");
        assert_eq!(Share::of(5, 0), Share::percent(0));
    }
}
