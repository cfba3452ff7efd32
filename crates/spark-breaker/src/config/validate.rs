//! Which values can work.

use std::time::Duration;

use super::YEAR;
use crate::waiting::MOST_WAITING;
use crate::window::MOST_CALLS;
use crate::word::MOST_PROBES;
use crate::{Config, ConfigError, Window};

impl Config {
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        match self.window {
            Window::Time { length, buckets } => {
                time("window", length, Duration::from_millis(1))?;
                if !(1..=60).contains(&buckets) {
                    return Err(ConfigError::out_of_range(
                        "window.buckets",
                        &buckets,
                        "give 1 to 60",
                    ));
                }
            }
            Window::Count(calls) => {
                count("window.count", calls)?;
                at_most("window.count", calls, MOST_CALLS, "give at most 1,000,000")?;
            }
        }
        count("min_calls", self.min_calls)?;
        if let Window::Count(calls) = self.window
            && self.min_calls > calls
        {
            return Err(ConfigError::out_of_range(
                "min_calls",
                &self.min_calls,
                "give no more than the window holds, or it never opens by rate",
            ));
        }
        share("failure_rate", self.failure_rate)?;
        if let Some(failures) = self.consecutive {
            count("consecutive", failures)?;
        }
        time(
            "slow_threshold",
            self.slow_threshold,
            Duration::from_nanos(1),
        )?;
        if let Some(rate) = self.slow_rate {
            share("slow_rate", rate)?;
        }
        if let Some(calls) = self.in_flight_slow {
            count("in_flight_slow", calls)?;
            let mend = "give at most 1,000,000";
            at_most("in_flight_slow", calls, MOST_WAITING, mend)?;
        }
        time("open_for", self.open_for, Duration::from_millis(1))?;
        time("max_open_for", self.max_open_for, Duration::from_millis(1))?;
        if self.max_open_for < self.open_for {
            return Err(ConfigError::out_of_range(
                "max_open_for",
                &self.max_open_for,
                "give at least open_for",
            ));
        }
        if !(0.0..=1.0).contains(&self.jitter) {
            return Err(ConfigError::out_of_range(
                "jitter",
                &self.jitter,
                "give a share of 0 to 1",
            ));
        }
        time("max_retry_after", self.max_retry_after, Duration::ZERO)?;
        if let Some(wait) = self.exhausted_for {
            time("exhausted_for", wait, Duration::from_millis(1))?;
        }
        for (field, value) in [("probes", self.probes), ("success_needed", self.needed())] {
            count(field, value)?;
            at_most(field, value, MOST_PROBES, "give at most 4,095")?;
        }
        time(
            "probe_timeout",
            self.probe_timeout,
            Duration::from_millis(1),
        )?;
        if let Some(after) = self.abandon_after {
            time("abandon_after", after, Duration::ZERO)?;
        }
        time("background_grace", self.background_grace, Duration::ZERO)?;
        time("ramp", self.ramp, Duration::ZERO)
    }
}

fn count(field: &'static str, value: u32) -> Result<(), ConfigError> {
    if value == 0 {
        return Err(ConfigError::out_of_range(field, &value, "give at least 1"));
    }
    Ok(())
}

fn at_most(
    field: &'static str,
    value: u32,
    most: u32,
    mend: &'static str,
) -> Result<(), ConfigError> {
    if value > most {
        return Err(ConfigError::out_of_range(field, &value, mend));
    }
    Ok(())
}

fn share(field: &'static str, value: f64) -> Result<(), ConfigError> {
    // Written so that NaN is refused too.
    if value > 0.0 && value <= 1.0 {
        return Ok(());
    }
    Err(ConfigError::out_of_range(
        field,
        &value,
        "give a share above 0 and up to 1",
    ))
}

fn time(field: &'static str, value: Duration, least: Duration) -> Result<(), ConfigError> {
    if value < least {
        return Err(ConfigError::out_of_range(
            field,
            &value,
            "give a longer time",
        ));
    }
    if value > YEAR {
        return Err(ConfigError::out_of_range(
            field,
            &value,
            "give at most a year",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_valid() {
        Config::standard().validate().unwrap();
        Config::llm().validate().unwrap();
    }

    #[test]
    fn each_bad_value_names_its_field() {
        let ok = Config::standard;
        let cases = [
            (ok().window(Duration::ZERO), "window"),
            (ok().window(Duration::MAX), "window"),
            (ok().window(Window::Count(0)), "window.count"),
            (ok().window(Window::Count(5)), "min_calls"),
            (ok().window(Window::Count(1_000_001)), "window.count"),
            (ok().probes(4_096), "probes"),
            (ok().success_needed(0), "success_needed"),
            (ok().success_needed(4_096), "success_needed"),
            (ok().ramp(Duration::MAX), "ramp"),
            (
                ok().window(Window::Time {
                    length: Duration::from_secs(1),
                    buckets: 0,
                }),
                "window.buckets",
            ),
            (ok().min_calls(0), "min_calls"),
            (ok().failure_rate(0.0), "failure_rate"),
            (ok().failure_rate(f64::NAN), "failure_rate"),
            (ok().consecutive(0), "consecutive"),
            (ok().slow_threshold(Duration::ZERO), "slow_threshold"),
            (ok().slow_rate(1.1), "slow_rate"),
            (ok().in_flight_slow(0), "in_flight_slow"),
            (ok().in_flight_slow(1_000_001), "in_flight_slow"),
            (ok().open_for(Duration::ZERO), "open_for"),
            (ok().max_open_for(Duration::from_secs(1)), "max_open_for"),
            (ok().jitter(-0.1), "jitter"),
            (ok().max_retry_after(Duration::MAX), "max_retry_after"),
            (ok().exhausted_for(Duration::ZERO), "exhausted_for"),
            (ok().exhausted_for(Duration::MAX), "exhausted_for"),
            (ok().probes(0), "probes"),
            (ok().probe_timeout(Duration::ZERO), "probe_timeout"),
            (ok().abandon_after(Duration::MAX), "abandon_after"),
            (ok().background_grace(Duration::MAX), "background_grace"),
        ];
        for (config, expected) in cases {
            match config.validate() {
                Err(ConfigError::OutOfRange { field, .. }) => assert_eq!(field, expected),
                other => panic!("{expected}: {other:?}"),
            }
        }
    }
}
