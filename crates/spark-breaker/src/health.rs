//! How the breakers of a registry stand, in short.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::{Breaker, Mode, Snapshot, State, Trip};

/// How the breakers of a [`Registry`](crate::Registry) stand all together.
///
/// # Example
/// ```
/// # use spark_breaker::{Config, Registry, State};
/// let registry = Registry::new(9, Config::llm(), spark_core::Clock::system())?;
/// registry.get_or_create("openai")?;
/// assert_eq!(registry.health().worst, State::Closed);
/// # Ok::<(), spark_breaker::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RegistryHealth {
    /// `Open` if one of them is, else `HalfOpen` if one of them is.
    pub worst: State,
    /// How many there are.
    pub breakers: usize,
    /// Those that are not closed, or that an operator has in hand, in the order of their names.
    pub unwell: Vec<Unwell>,
}

/// A breaker that is not closed, or that an operator has in hand. `to_string()` is a line for
/// people.
///
/// # Example
/// ```
/// # use spark_breaker::{Config, Mode, Registry};
/// # let registry = Registry::new(9, Config::llm(), spark_core::Clock::system())?;
/// registry.get_or_create("openai")?.set_mode(Mode::ForcedOpen);
/// let unwell = &registry.health().unwell[0];
/// assert_eq!(unwell.to_string(), "openai is open: an operator said so");
/// # Ok::<(), spark_breaker::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Unwell {
    /// The breaker's name.
    pub name: Arc<str>,
    /// Where it stands.
    pub state: State,
    /// Who decides.
    pub mode: Mode,
    /// Why it opened the last time and how long ago, where it decides by itself.
    pub trip: Option<Trip>,
    /// How long it stays open, while it is open by itself.
    pub retry_after: Option<Duration>,
}

const WELL: (State, Mode) = (State::Closed, Mode::Auto);

impl RegistryHealth {
    pub(crate) fn add(&mut self, breaker: &Breaker) {
        self.breakers += 1;
        if breaker.stands() == WELL {
            return;
        }
        let Snapshot {
            name,
            state,
            mode,
            last_trip,
            retry_after,
            ..
        } = breaker.snapshot();
        // It may have recovered in between.
        if (state, mode) == WELL {
            return;
        }
        self.worst = match (self.worst, state) {
            (State::Open, _) | (_, State::Open) => State::Open,
            (State::HalfOpen, _) | (_, State::HalfOpen) => State::HalfOpen,
            (State::Closed, State::Closed) => State::Closed,
        };
        self.unwell.push(Unwell {
            name,
            state,
            mode,
            trip: last_trip.filter(|_| mode == Mode::Auto),
            retry_after,
        });
    }
}

impl Default for RegistryHealth {
    fn default() -> Self {
        Self {
            worst: State::Closed,
            breakers: 0,
            unwell: Vec::new(),
        }
    }
}

impl fmt::Display for Unwell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Closed => "closed",
            State::HalfOpen => "half open",
            State::Open => "open",
        };
        write!(f, "{} is {state}", self.name)?;
        if let Some(trip) = self.trip {
            let ago = trip.ago.as_secs_f64();
            write!(f, ": {}; since {ago:.1} s", trip.reason)?;
        } else if self.mode != Mode::Auto {
            f.write_str(": an operator said so")?;
        }
        match self.retry_after {
            Some(wait) => write!(f, "; for {:.1} s more", wait.as_secs_f64()),
            None => Ok(()),
        }
    }
}
