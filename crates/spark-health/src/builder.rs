//! Putting the checks together.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::time::Duration;

use spark_core::{Clock, Name};

use crate::check::{Check, Run, Terms};
use crate::error::HealthError;
use crate::health::{Health, Inner, STARTING};
use crate::result::CheckResult;
use crate::status::Gate;

/// Builds a [`Health`].
///
/// # Example
/// ```
/// use std::time::Duration;
/// use spark_health::{CheckResult, Gate, Health};
/// let health = Health::builder()
///     .service_id("spark")
///     .release("1.2.3")
///     .ttl(Duration::from_secs(5))
///     .check_fn("cache", Gate::Info, || CheckResult::pass().observed(17, "entries"))
///     .build()?;
/// # Ok::<(), spark_health::HealthError>(())
/// ```
#[must_use]
pub struct HealthBuilder {
    service_id: Option<String>,
    release: Option<String>,
    description: Option<String>,
    checks: Vec<(String, Gate, Arc<Run>)>,
    terms: Terms,
}

impl HealthBuilder {
    pub(crate) fn new() -> Self {
        let two_seconds = Duration::from_secs(2);
        let terms = Terms {
            clock: Clock::system(),
            ttl: two_seconds,
            timeout: two_seconds,
        };
        Self {
            service_id: None,
            release: None,
            description: None,
            checks: Vec::new(),
            terms,
        }
    }

    /// Which service this is, in the detailed report.
    ///
    /// # Example
    /// ```
    /// let builder = spark_health::Health::builder().service_id("spark");
    /// ```
    pub fn service_id(mut self, id: impl Into<String>) -> Self {
        self.service_id = Some(id.into());
        self
    }

    /// Which release of it, in the detailed report.
    ///
    /// # Example
    /// ```
    /// let builder = spark_health::Health::builder().release(env!("CARGO_PKG_VERSION"));
    /// ```
    pub fn release(mut self, release: impl Into<String>) -> Self {
        self.release = Some(release.into());
        self
    }

    /// What it does, in the detailed report.
    ///
    /// # Example
    /// ```
    /// let builder = spark_health::Health::builder().description("the gateway to the models");
    /// ```
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = Some(description.into());
        self
    }

    /// The clock; the system's until you say.
    ///
    /// # Example
    /// ```
    /// let builder = spark_health::Health::builder().clock(spark_core::Clock::system());
    /// ```
    pub fn clock(mut self, clock: Clock) -> Self {
        self.terms.clock = clock;
        self
    }

    /// For how long what a check found is remembered: it is run no more often than that, however many
    /// ask. 2 s.
    ///
    /// # Example
    /// ```
    /// # use std::time::Duration;
    /// let builder = spark_health::Health::builder().ttl(Duration::from_secs(5));
    /// ```
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.terms.ttl = ttl;
        self
    }

    /// How long a check may take; then it has failed. 2 s. Let whoever probes wait for longer:
    /// Kubernetes gives up after one second unless `timeoutSeconds` says otherwise.
    ///
    /// # Example
    /// ```
    /// # use std::time::Duration;
    /// let builder = spark_health::Health::builder().timeout(Duration::from_millis(800));
    /// ```
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.terms.timeout = timeout;
        self
    }

    /// Adds a check that waits for something.
    ///
    /// # Example
    /// ```
    /// use spark_health::{CheckResult, Gate, Health};
    /// # async fn ping() -> Result<(), ()> { Ok(()) }
    /// let builder = Health::builder().check("store", Gate::Ready, || async {
    ///     match ping().await {
    ///         Ok(()) => CheckResult::pass(),
    ///         Err(_) => CheckResult::fail("the store does not answer"),
    ///     }
    /// });
    /// ```
    pub fn check<F, Fut>(mut self, name: &str, gate: Gate, check: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = CheckResult> + Send + 'static,
    {
        self.checks
            .push((name.to_owned(), gate, Arc::new(move || Box::pin(check()))));
        self
    }

    /// Adds a check that reads what is in memory. It must not block.
    ///
    /// # Example
    /// ```
    /// use spark_health::{CheckResult, Gate, Health};
    /// let builder = Health::builder().check_fn("queue", Gate::Warn, || CheckResult::pass());
    /// ```
    pub fn check_fn<F>(mut self, name: &str, gate: Gate, check: F) -> Self
    where
        F: Fn() -> CheckResult + Send + Sync + 'static,
    {
        let check = Arc::new(check);
        let run = move || -> std::pin::Pin<Box<dyn Future<Output = CheckResult> + Send>> {
            let check = Arc::clone(&check);
            Box::pin(async move { check() })
        };
        self.checks.push((name.to_owned(), gate, Arc::new(run)));
        self
    }

    /// The health, starting.
    ///
    /// # Errors
    /// A name of a check that is not one ([`Name`]), stands twice, or is `uptime`; a timeout of zero.
    ///
    /// # Example
    /// ```
    /// use spark_health::{CheckResult, Gate, Health};
    /// let twice = Health::builder()
    ///     .check_fn("a", Gate::Info, CheckResult::pass)
    ///     .check_fn("a", Gate::Info, CheckResult::pass)
    ///     .build();
    /// assert!(twice.is_err());
    /// ```
    pub fn build(self) -> Result<Health, HealthError> {
        if self.terms.timeout.is_zero() {
            return Err(HealthError::NoTime);
        }
        let mut checks: Vec<Arc<Check>> = Vec::with_capacity(self.checks.len());
        for (name, gate, run) in self.checks {
            let known = |check: &Arc<Check>| check.name.as_str() == name;
            if name == "uptime" || checks.iter().any(known) {
                return Err(HealthError::Repeated { check: name });
            }
            let name = Name::new(&name).map_err(|source| HealthError::Name {
                check: name,
                source,
            })?;
            checks.push(Arc::new(Check::new(name, gate, run)));
        }
        Ok(Health::new(Inner {
            service_id: self.service_id,
            release: self.release,
            description: self.description,
            checks,
            since: self.terms.clock.now(),
            terms: self.terms,
            phase: AtomicU8::new(STARTING),
        }))
    }
}

impl fmt::Debug for HealthBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.checks.iter().map(|(name, ..)| name.as_str()).collect();
        f.debug_struct("HealthBuilder")
            .field("checks", &names)
            .field("terms", &self.terms)
            .finish_non_exhaustive()
    }
}
