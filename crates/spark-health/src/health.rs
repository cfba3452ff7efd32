//! The health of a service.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use spark_core::Instant;

use crate::builder::HealthBuilder;
use crate::check::{Asked, Check, Terms};
use crate::metrics;
use crate::report::{Entry, Report};
use crate::status::{Gate, Status};

/// How a service is: live, ready, and in detail. A clone is the same health.
///
/// It begins as starting, is made ready by [`started`](Self::started), and ends with
/// [`begin_drain`](Self::begin_drain).
///
/// # Example
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use spark_health::{CheckResult, Gate, Health, Readiness, Status};
/// let health = Health::builder()
///     .service_id("spark")
///     .release(env!("CARGO_PKG_VERSION"))
///     .check("store", Gate::Ready, || async { CheckResult::pass() })
///     .check_fn("breakers", Gate::Warn, || CheckResult::fail("all providers are cut off"))
///     .build()?;
/// assert_eq!(health.ready().await, Readiness::Starting);
///
/// health.started();
/// assert_eq!(health.ready().await, Readiness::Ready);
/// assert_eq!(health.report().await.status(), Status::Warn);
///
/// health.begin_drain();
/// assert_eq!(health.ready().await, Readiness::Draining);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Health {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) service_id: Option<String>,
    pub(crate) release: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) checks: Vec<Arc<Check>>,
    pub(crate) terms: Terms,
    pub(crate) since: Instant,
    pub(crate) phase: AtomicU8,
}

pub(crate) const STARTING: u8 = 0;
const UP: u8 = 1;
const DRAINING: u8 = 2;

/// Whether a service may get traffic, and why not. It says nothing that a stranger should not know.
///
/// # Example
/// ```
/// use spark_health::Readiness;
/// assert!(Readiness::Ready.is_ready());
/// assert_eq!(Readiness::Draining.as_str(), "draining");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Readiness {
    /// It may.
    Ready,
    /// It is not yet up.
    Starting,
    /// It is going down.
    Draining,
    /// A check of [`Gate::Ready`] fails.
    Failing,
}

impl Health {
    /// Chooses the checks.
    ///
    /// # Example
    /// ```
    /// let health = spark_health::Health::builder().build()?;
    /// # Ok::<(), spark_health::HealthError>(())
    /// ```
    pub fn builder() -> HealthBuilder {
        HealthBuilder::new()
    }

    pub(crate) fn new(inner: Inner) -> Self {
        Self {
            inner: Arc::new(inner),
        }
    }

    /// All that had to be done before the first request is done. Does nothing once draining.
    ///
    /// # Example
    /// ```
    /// # let health = spark_health::Health::builder().build().unwrap();
    /// health.started();
    /// assert!(health.is_started());
    /// ```
    pub fn started(&self) {
        let phase = &self.inner.phase;
        let _ = phase.compare_exchange(STARTING, UP, Ordering::AcqRel, Ordering::Acquire);
    }

    /// From now on the service is not ready, and nothing makes it so again.
    ///
    /// # Example
    /// ```
    /// # let health = spark_health::Health::builder().build().unwrap();
    /// health.begin_drain();
    /// health.started();
    /// assert!(health.is_draining());
    /// ```
    pub fn begin_drain(&self) {
        self.inner.phase.store(DRAINING, Ordering::Release);
        metrics::ready(false);
    }

    /// Whether it has started; it has, too, once it drains.
    ///
    /// # Example
    /// ```
    /// assert!(!spark_health::Health::builder().build().unwrap().is_started());
    /// ```
    pub fn is_started(&self) -> bool {
        self.phase() != STARTING
    }

    /// Whether it drains.
    ///
    /// # Example
    /// ```
    /// assert!(!spark_health::Health::builder().build().unwrap().is_draining());
    /// ```
    pub fn is_draining(&self) -> bool {
        self.phase() == DRAINING
    }

    /// Whether the process is alive: whoever can ask has the answer. No check is run, since a restart
    /// mends no dependency.
    ///
    /// # Example
    /// ```
    /// use spark_health::{Health, Status};
    /// assert_eq!(Health::builder().build().unwrap().live(), Status::Pass);
    /// ```
    pub fn live(&self) -> Status {
        Status::Pass
    }

    /// Whether the service may get traffic. Runs the checks of [`Gate::Ready`], and waits for no
    /// other.
    ///
    /// # Example
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// # let health = spark_health::Health::builder().build().unwrap();
    /// health.started();
    /// assert!(health.ready().await.is_ready());
    /// # }
    /// ```
    pub async fn ready(&self) -> Readiness {
        let mut readiness = match self.phase() {
            STARTING => Readiness::Starting,
            DRAINING => Readiness::Draining,
            _ => Readiness::Ready,
        };
        if readiness.is_ready() {
            let gates = |check: &&Arc<Check>| check.gate == Gate::Ready;
            for asked in self.ask(self.inner.checks.iter().filter(gates)) {
                if asked.outcome().await.result.status() == Status::Fail {
                    readiness = Readiness::Failing;
                }
            }
            if self.is_draining() {
                readiness = Readiness::Draining;
            }
        }
        metrics::ready(readiness.is_ready());
        readiness
    }

    /// Everything: runs all checks, side by side.
    ///
    /// # Example
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// # let health = spark_health::Health::builder().build().unwrap();
    /// # let caller_is_the_operator = true;
    /// let report = health.report().await;
    /// let response =
    ///     if caller_is_the_operator { report.into_response() } else { report.public().into_response() };
    /// # }
    /// ```
    pub async fn report(&self) -> Report {
        let inner = &*self.inner;
        let asked = self.ask(inner.checks.iter());
        let mut entries = Vec::with_capacity(inner.checks.len());
        let mut status = Status::Pass;
        for (check, asked) in inner.checks.iter().zip(asked) {
            let outcome = asked.outcome().await;
            status = status.max(check.gate.weigh(outcome.result.status()));
            entries.push((check.name.as_str().to_owned(), Entry::list(&outcome)));
        }
        let clock = &inner.terms.clock;
        let uptime = clock.now().saturating_duration_since(inner.since);
        entries.push((
            "uptime".to_owned(),
            vec![Entry::uptime(uptime, clock.unix_time())],
        ));
        let output = match self.phase() {
            STARTING => Some("starting"),
            DRAINING => Some("draining"),
            _ => None,
        };
        if output.is_some() {
            status = Status::Fail;
        }
        Report {
            status,
            release: inner.release.clone(),
            service_id: inner.service_id.clone(),
            description: inner.description.clone(),
            output,
            checks: entries.into_iter().collect(),
        }
    }

    /// All at once, so that the slowest alone counts.
    fn ask<'a>(&self, checks: impl Iterator<Item = &'a Arc<Check>>) -> Vec<Asked> {
        checks.map(|check| check.ask(&self.inner.terms)).collect()
    }

    fn phase(&self) -> u8 {
        self.inner.phase.load(Ordering::Acquire)
    }
}

impl Readiness {
    /// Whether it may get traffic.
    ///
    /// # Example
    /// ```
    /// assert!(!spark_health::Readiness::Starting.is_ready());
    /// ```
    pub fn is_ready(self) -> bool {
        self == Self::Ready
    }

    /// In one word.
    ///
    /// # Example
    /// ```
    /// assert_eq!(spark_health::Readiness::Failing.as_str(), "failing");
    /// ```
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Starting => "starting",
            Self::Draining => "draining",
            Self::Failing => "failing",
        }
    }
}
