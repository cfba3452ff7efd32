//! What a breaker trips on, and how it recovers.

mod validate;

use std::time::Duration;

/// When a breaker opens, for how long, and what closes it again.
///
/// Start from a preset and change what differs. Values are checked when the breaker is made.
///
/// # Example
/// ```
/// use spark_breaker::{Breaker, Config, Window};
/// use spark_core::Clock;
/// use std::time::Duration;
///
/// let config = Config::llm()
///     .window(Duration::from_secs(30)) // or Window::Count(100)
///     .min_calls(10)
///     .failure_rate(0.5)
///     .open_for(Duration::from_secs(10))
///     .probes(2);
/// assert!(matches!(config.current_window(), Window::Time { buckets: 10, .. }));
/// let breaker = Breaker::new("openai", config, Clock::system())?;
/// # Ok::<(), spark_breaker::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct Config {
    pub(crate) window: Window,
    pub(crate) min_calls: u32,
    pub(crate) failure_rate: f64,
    pub(crate) consecutive: Option<u32>,
    pub(crate) slow_threshold: Duration,
    pub(crate) slow_rate: Option<f64>,
    pub(crate) open_for: Duration,
    pub(crate) max_open_for: Duration,
    pub(crate) jitter: f64,
    pub(crate) max_retry_after: Duration,
    pub(crate) exhausted_for: Option<Duration>,
    pub(crate) probes: u32,
    pub(crate) probe_timeout: Duration,
    pub(crate) abandon_after: Option<Duration>,
    pub(crate) background_grace: Duration,
    pub(crate) in_flight_slow: Option<u32>,
    pub(crate) success_needed: Option<u32>,
    pub(crate) ramp: Duration,
    pub(crate) seed: Option<u64>,
}

/// Over what the failure rate is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Window {
    /// The latest `length`, in `buckets` steps: a call is forgotten between
    /// `length - length/buckets` and `length` after it ended.
    Time {
        /// How far back it reaches.
        length: Duration,
        /// In how many steps it moves, 1 to 60.
        buckets: u8,
    },
    /// The latest so many calls, up to 1,000,000.
    Count(u32),
}

impl From<Duration> for Window {
    fn from(length: Duration) -> Self {
        Self::Time {
            length,
            buckets: 10,
        }
    }
}

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

impl Config {
    /// For databases, search engines and plain HTTP services: opens at a failure rate of one half
    /// over 30 seconds (10 calls at least) or after 5 failures in a row; for 10 seconds at first,
    /// doubled while it keeps failing up to 2 minutes; closes after 2 good probes. A call is slow
    /// after 5 seconds.
    pub fn standard() -> Self {
        Self {
            window: Window::from(Duration::from_secs(30)),
            min_calls: 10,
            failure_rate: 0.5,
            consecutive: Some(5),
            slow_threshold: Duration::from_secs(5),
            slow_rate: None,
            open_for: Duration::from_secs(10),
            max_open_for: Duration::from_secs(120),
            jitter: 0.2,
            max_retry_after: Duration::from_secs(300),
            exhausted_for: None,
            probes: 2,
            probe_timeout: Duration::from_secs(30),
            abandon_after: None,
            background_grace: Duration::ZERO,
            in_flight_slow: None,
            success_needed: None,
            ramp: Duration::ZERO,
            seed: None,
        }
    }

    /// For model providers, which answer late and for long: a call is slow when its first byte
    /// takes 30 seconds, the window is a minute, a probe may take 11 minutes, which is more than
    /// [`Timeouts::llm`](crate::Timeouts::llm) gives it, and a provider's `Retry-After` is believed
    /// up to 10 minutes.
    pub fn llm() -> Self {
        Self {
            window: Window::from(Duration::from_secs(60)),
            slow_threshold: Duration::from_secs(30),
            max_retry_after: Duration::from_secs(600),
            probe_timeout: Duration::from_secs(660),
            ..Self::standard()
        }
    }

    /// Over what the rates are taken: a [`Duration`], or a [`Window`].
    pub fn window(mut self, window: impl Into<Window>) -> Self {
        self.window = window.into();
        self
    }

    /// Below so many calls in the window, the rates say nothing.
    pub fn min_calls(mut self, calls: u32) -> Self {
        self.min_calls = calls;
        self
    }

    /// Opens when this share of the calls in the window failed: above 0, up to 1.
    pub fn failure_rate(mut self, share: f64) -> Self {
        self.failure_rate = share;
        self
    }

    /// Opens after so many failures in a row, however few the calls; `None` turns it off.
    pub fn consecutive(mut self, failures: impl Into<Option<u32>>) -> Self {
        self.consecutive = failures.into();
        self
    }

    /// From when on a call counts as slow: the time to its first byte, or to its end when it has
    /// none. Slow calls are looked for when [`slow_rate`](Self::slow_rate) is set.
    pub fn slow_threshold(mut self, threshold: Duration) -> Self {
        self.slow_threshold = threshold;
        self
    }

    /// Opens when this share of the calls in the window was slow; `None` (the default) turns it
    /// off.
    pub fn slow_rate(mut self, share: impl Into<Option<f64>>) -> Self {
        self.slow_rate = share.into();
        self
    }

    /// Opens when so many calls are under way that have run for longer than the slow threshold without
    /// a first byte, also when nothing ever ends; `None` (the default) turns it off. A million is the
    /// most. It is looked at when a call asks to be let through, once in a twelfth of the threshold or
    /// in a millisecond, whichever is longer, and comes up to three of those late. Of
    /// [`Breaker::call`](crate::Breaker::call) and [`run`](crate::Breaker::run) the end is the first
    /// byte.
    pub fn in_flight_slow(mut self, calls: impl Into<Option<u32>>) -> Self {
        self.in_flight_slow = calls.into();
        self
    }

    /// How long it stays open the first time. Each time that it opens again before it has been
    /// closed for a whole window (a minute, for a window by count), the time doubles.
    pub fn open_for(mut self, time: Duration) -> Self {
        self.open_for = time;
        self
    }

    /// The longest that doubling may reach, jitter included; only where [`open_for`](Self::open_for)
    /// leaves no room for its jitter below, that goes beyond.
    pub fn max_open_for(mut self, time: Duration) -> Self {
        self.max_open_for = time;
        self
    }

    /// Lengthens each open time by a random share of up to this much, 0 to 1, so that many replicas
    /// do not probe at one moment.
    pub fn jitter(mut self, share: f64) -> Self {
        self.jitter = share;
        self
    }

    /// The longest `Retry-After` that is believed; longer ones are cut to it.
    pub fn max_retry_after(mut self, time: Duration) -> Self {
        self.max_retry_after = time;
        self
    }

    /// How long it stays open when the callee says that waiting does not help
    /// ([`Outcome::exhausted`](crate::Outcome::exhausted)) and not until when. `None` (the default):
    /// until an operator acts, which is [`Breaker::reset`](crate::Breaker::reset), or another
    /// [`Mode`](crate::Mode) and back. A time that the callee gave is believed up to 31 days,
    /// whatever [`max_retry_after`](Self::max_retry_after) says.
    pub fn exhausted_for(mut self, time: impl Into<Option<Duration>>) -> Self {
        self.exhausted_for = time.into();
        self
    }

    /// How many calls a half-open breaker lets through at once, up to 4,095; and how many must
    /// succeed for it to close, unless [`success_needed`](Self::success_needed) is set.
    pub fn probes(mut self, probes: u32) -> Self {
        self.probes = probes;
        self
    }

    /// How many probes must succeed for it to close; as many as [`probes`](Self::probes) unless set.
    pub fn success_needed(mut self, successes: impl Into<Option<u32>>) -> Self {
        self.success_needed = successes.into();
        self
    }

    /// After its probes have closed it, lets through a share of the calls that grows from a tenth to
    /// all over this time, so that a callee that has just recovered does not meet all its callers at
    /// once. The others are refused ([`RejectReason::Ramping`](crate::RejectReason::Ramping)). Zero
    /// unless set: all calls pass at once.
    pub fn ramp(mut self, time: Duration) -> Self {
        self.ramp = time;
        self
    }

    /// Makes its jitter the same each time: for simulations. Replicas that share a seed probe at one
    /// moment.
    pub fn seed(mut self, seed: impl Into<Option<u64>>) -> Self {
        self.seed = seed.into();
        self
    }

    /// How long a half-open episode waits for its probes. Then their results no longer count and
    /// new probes are let through, so that a lost one wedges nothing. Give more than the longest
    /// call may take, or what ends a hung probe comes too late to count.
    pub fn probe_timeout(mut self, time: Duration) -> Self {
        self.probe_timeout = time;
        self
    }

    /// A permit that is dropped without a result and without a first byte counts as a failure when
    /// it is at least this old, because a timeout further out gave up on it; a younger one counts
    /// as nothing, because the caller went away. The slow threshold unless set.
    pub fn abandon_after(mut self, time: Duration) -> Self {
        self.abandon_after = Some(time);
        self
    }

    /// When the open time is over, only background calls may probe for so long, or until one of them
    /// has succeeded, so that no user waits on a provider that may still be down. Zero unless set;
    /// set it where background calls come regularly.
    pub fn background_grace(mut self, time: Duration) -> Self {
        self.background_grace = time;
        self
    }

    /// The window that is set.
    pub fn current_window(&self) -> Window {
        self.window
    }

    pub(crate) fn needed(&self) -> u32 {
        self.success_needed.unwrap_or(self.probes)
    }

    pub(crate) fn abandoned_at(&self) -> Duration {
        self.abandon_after.unwrap_or(self.slow_threshold)
    }

    /// How long a breaker must have stayed closed for its next open time to start afresh.
    pub(crate) fn calm_after(&self) -> Duration {
        match self.window {
            Window::Time { length, .. } => length,
            Window::Count(_) => Duration::from_secs(60),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::standard()
    }
}

/// Fit to be shown in a log line and used as a label.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\'))
}
