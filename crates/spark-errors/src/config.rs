//! The tracker's settings, checked when it is built.

use std::{fmt, sync::Arc, time::Duration};

use spark_core::Clock;

use crate::{
    BuildError, ErrorTracker, Hook, Redactor,
    store::Bounds,
    worker::{Policy, Worker},
};

/// Settings of an [`ErrorTracker`]; made by [`ErrorTracker::builder`].
///
/// ```
/// let tracker = spark_errors::ErrorTracker::builder().ring(256).max_groups(1_000).build()?;
/// # Ok::<(), spark_errors::BuildError>(())
/// ```
#[must_use = "a builder does nothing until `build`"]
pub struct TrackerBuilder {
    bounds: Bounds,
    clock: Clock,
    redactor: Redactor,
    log: bool,
    policy: Policy,
    hooks: Vec<Arc<dyn Hook>>,
}

impl TrackerBuilder {
    pub(crate) fn new() -> Self {
        Self {
            bounds: Bounds {
                ring: 256,
                ring_bytes: 1 << 20,
                groups: 1_000,
                group_bytes: 4 << 20,
                per_window: 5,
                window: Duration::from_secs(60),
            },
            clock: Clock::default(),
            redactor: Redactor::default(),
            log: true,
            policy: Policy::default(),
            hooks: Vec::new(),
        }
    }

    /// Events that are kept; 256 unless set. They take 1 MiB at the most.
    ///
    /// ```
    /// # use spark_errors::ErrorTracker;
    /// let tracker = ErrorTracker::builder().ring(64).build()?;
    /// # Ok::<(), spark_errors::BuildError>(())
    /// ```
    pub fn ring(mut self, events: usize) -> Self {
        self.bounds.ring = events;
        self
    }

    /// Groups that are kept; 1,000 unless set. The one not seen for longest goes first. They take
    /// 4 MiB at the most.
    ///
    /// ```
    /// # use spark_errors::ErrorTracker;
    /// let tracker = ErrorTracker::builder().max_groups(100).build()?;
    /// # Ok::<(), spark_errors::BuildError>(())
    /// ```
    pub fn max_groups(mut self, groups: usize) -> Self {
        self.bounds.groups = groups;
        self
    }

    /// Bytes that the ring and the groups may take; 1 MiB and 4 MiB unless set.
    ///
    /// ```
    /// # use spark_errors::ErrorTracker;
    /// let tracker = ErrorTracker::builder().max_bytes(1 << 18, 1 << 20).build()?;
    /// # Ok::<(), spark_errors::BuildError>(())
    /// ```
    pub fn max_bytes(mut self, ring: usize, groups: usize) -> Self {
        self.bounds.ring_bytes = ring;
        self.bounds.group_bytes = groups;
        self
    }

    /// How many events of one group are kept and sent in each window; the rest are only counted.
    /// 5 a minute unless set.
    ///
    /// ```
    /// # use spark_errors::ErrorTracker;
    /// # use std::time::Duration;
    /// let tracker = ErrorTracker::builder().per_group(10, Duration::from_secs(60)).build()?;
    /// # Ok::<(), spark_errors::BuildError>(())
    /// ```
    pub fn per_group(mut self, events: u32, window: Duration) -> Self {
        self.bounds.per_window = events;
        self.bounds.window = window;
        self
    }

    /// The clock; the system's unless set.
    ///
    /// ```
    /// # use spark_errors::ErrorTracker;
    /// let tracker = ErrorTracker::builder().clock(spark_core::Clock::system()).build()?;
    /// # Ok::<(), spark_errors::BuildError>(())
    /// ```
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// What is taken out of every text.
    ///
    /// ```
    /// # use spark_errors::{ErrorTracker, Redactor};
    /// let tracker = ErrorTracker::builder().redactor(Redactor::new().emails(true)).build()?;
    /// # Ok::<(), spark_errors::BuildError>(())
    /// ```
    pub fn redactor(mut self, redactor: Redactor) -> Self {
        self.redactor = redactor;
        self
    }

    /// Whether each kept event is written to `tracing` as it is captured, inside the span of its
    /// request. It is, unless set.
    ///
    /// ```
    /// # use spark_errors::ErrorTracker;
    /// let tracker = ErrorTracker::builder().log(false).build()?;
    /// # Ok::<(), spark_errors::BuildError>(())
    /// ```
    pub fn log(mut self, log: bool) -> Self {
        self.log = log;
        self
    }

    /// Sends every kept event here too; call it once per hook.
    ///
    /// ```
    /// # use spark_errors::{ErrorTracker, MemoryHook};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), spark_errors::BuildError> {
    /// let tracker = ErrorTracker::builder().hook(MemoryHook::new(10)).build()?;
    /// # Ok(()) }
    /// ```
    pub fn hook(mut self, hook: impl Hook + 'static) -> Self {
        self.hooks.push(Arc::new(hook));
        self
    }

    /// Events that may wait for one hook; 64 unless set. The newest is dropped when it is full.
    ///
    /// ```
    /// # use spark_errors::ErrorTracker;
    /// let tracker = ErrorTracker::builder().hook_queue(16).build()?;
    /// # Ok::<(), spark_errors::BuildError>(())
    /// ```
    pub fn hook_queue(mut self, events: usize) -> Self {
        self.policy.queue = events;
        self
    }

    /// How long one attempt of a hook may take; 5 s unless set.
    ///
    /// ```
    /// # use spark_errors::ErrorTracker;
    /// # use std::time::Duration;
    /// let tracker = ErrorTracker::builder().hook_timeout(Duration::from_secs(2)).build()?;
    /// # Ok::<(), spark_errors::BuildError>(())
    /// ```
    pub fn hook_timeout(mut self, timeout: Duration) -> Self {
        self.policy.timeout = timeout;
        self
    }

    /// How often a hook tries one event, and how long it waits after the first failure, doubled
    /// after each further one and varied by half; 3 and 500 ms unless set.
    ///
    /// ```
    /// # use spark_errors::ErrorTracker;
    /// # use std::time::Duration;
    /// let tracker = ErrorTracker::builder().hook_attempts(2, Duration::from_secs(1)).build()?;
    /// # Ok::<(), spark_errors::BuildError>(())
    /// ```
    pub fn hook_attempts(mut self, attempts: u32, wait: Duration) -> Self {
        self.policy.attempts = attempts;
        self.policy.wait = wait;
        self
    }

    /// How long a hook rests, dropping what comes, after three events in a row failed; 30 s
    /// unless set.
    ///
    /// ```
    /// # use spark_errors::ErrorTracker;
    /// # use std::time::Duration;
    /// let tracker = ErrorTracker::builder().hook_rest(Duration::from_secs(10)).build()?;
    /// # Ok::<(), spark_errors::BuildError>(())
    /// ```
    pub fn hook_rest(mut self, rest: Duration) -> Self {
        self.policy.rest = rest;
        self
    }

    /// Builds the tracker and starts one task for each hook.
    ///
    /// # Errors
    /// When a setting is out of range, or there are hooks but no tokio runtime.
    ///
    /// ```
    /// let tracker = spark_errors::ErrorTracker::builder().build()?;
    /// # Ok::<(), spark_errors::BuildError>(())
    /// ```
    pub fn build(self) -> Result<ErrorTracker, BuildError> {
        let Self {
            bounds,
            clock,
            redactor,
            log,
            policy,
            hooks,
        } = self;
        let floor = |field, enough: bool, mend| {
            if enough {
                Ok(())
            } else {
                Err(BuildError::Setting { field, mend })
            }
        };
        floor("ring", bounds.ring > 0, "give at least 1")?;
        floor("max_groups", bounds.groups > 0, "give at least 1")?;
        let bytes = bounds.ring_bytes.min(bounds.group_bytes);
        floor(
            "max_bytes",
            bytes >= 1 << 16,
            "give at least 64 KiB each: one event may take 30",
        )?;
        floor("per_group", bounds.per_window > 0, "give at least 1 event")?;
        floor(
            "per_group",
            !bounds.window.is_zero(),
            "give a window of more than zero",
        )?;
        floor(
            "hook_queue",
            (1..=1 << 20).contains(&policy.queue),
            "give 1 to 1,048,576",
        )?;
        floor(
            "hook_timeout",
            !policy.timeout.is_zero(),
            "give more than zero",
        )?;
        floor("hook_attempts", policy.attempts > 0, "give at least 1")?;
        let workers = hooks
            .into_iter()
            .map(|hook| Worker::spawn(hook, policy, clock.clone()).ok_or(BuildError::NoRuntime))
            .collect::<Result<_, _>>()?;
        Ok(ErrorTracker::new(bounds, clock, redactor, log, workers))
    }
}

impl fmt::Debug for TrackerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrackerBuilder")
            .field("bounds", &self.bounds)
            .finish_non_exhaustive()
    }
}
