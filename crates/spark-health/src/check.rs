//! One check: run by one at a time, remembered for a while, and never waited for without end.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use spark_core::{Clock, Instant, Name};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::metrics;
use crate::result::CheckResult;
use crate::status::Gate;

/// What a check does when it is run.
pub(crate) type Run = dyn Fn() -> Pin<Box<dyn Future<Output = CheckResult> + Send>> + Send + Sync;

/// What all checks of one service go by.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) clock: Clock,
    pub(crate) ttl: Duration,
    pub(crate) timeout: Duration,
}

pub(crate) struct Check {
    pub(crate) name: Name,
    pub(crate) gate: Gate,
    run: Arc<Run>,
    cell: Mutex<Cell>,
}

/// What a check found, and when.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) at: Instant,
    pub(crate) unix_time: Duration,
    pub(crate) result: CheckResult,
}

#[derive(Default)]
struct Cell {
    latest: Option<Arc<Outcome>>,
    flight: Option<Flight>,
    /// The last run that did not answer in time. It may block its thread and not have ended yet.
    stuck: Option<AbortHandle>,
}

/// Where all who ask during one run wait for what it finds.
type Flight = watch::Receiver<Option<Arc<Outcome>>>;

/// A check that has an answer, or is on its way to one.
pub(crate) enum Asked {
    Known(Arc<Outcome>),
    Flying(Flight, Instant),
}

impl Check {
    pub(crate) fn new(name: Name, gate: Gate, run: Arc<Run>) -> Self {
        Self {
            name,
            gate,
            run,
            cell: Mutex::default(),
        }
    }

    /// The remembered answer while it is fresh; else the run that is under way; else a new run, which
    /// goes on also when nobody waits for it any more.
    pub(crate) fn ask(self: &Arc<Self>, terms: &Terms) -> Asked {
        let now = terms.clock.now();
        let mut cell = self.lock();
        if let Some(latest) = &cell.latest
            && now.saturating_duration_since(latest.at) < terms.ttl
        {
            return Asked::Known(Arc::clone(latest));
        }
        if let Some(flight) = &cell.flight
            && flight.has_changed().is_ok()
        {
            return Asked::Flying(flight.clone(), now);
        }
        let Ok(runtime) = Handle::try_current() else {
            let result = CheckResult::fail("asked outside of a tokio runtime");
            return Asked::Known(Arc::new(Outcome::now(&terms.clock, result)));
        };
        let (lands, flight) = watch::channel(None);
        cell.flight = Some(flight.clone());
        let (check, terms) = (Arc::clone(self), terms.clone());
        runtime.spawn(async move {
            let result = check.result(terms.timeout).await;
            metrics::checked(&check.name, result.status());
            let outcome = Arc::new(Outcome::now(&terms.clock, result));
            let mut cell = check.lock();
            cell.latest = Some(Arc::clone(&outcome));
            cell.flight = None;
            drop(cell);
            lands.send_replace(Some(outcome));
        });
        Asked::Flying(flight, now)
    }

    async fn result(&self, limit: Duration) -> CheckResult {
        if self
            .lock()
            .stuck
            .as_ref()
            .is_some_and(|stuck| !stuck.is_finished())
        {
            return CheckResult::fail("an earlier run of the check still blocks its thread");
        }
        let run = Arc::clone(&self.run);
        // A task of its own: a panic ends there, and a thread that it blocks is not this one.
        let mut task = tokio::spawn(async move { run().await });
        match timeout(limit, &mut task).await {
            Ok(Ok(result)) => result,
            Ok(Err(error)) if error.is_panic() => {
                tracing::error!(check = %self.name, "a health check panicked");
                CheckResult::fail("the check panicked")
            }
            Ok(Err(_)) => CheckResult::fail("the check was cancelled"),
            Err(_) => {
                task.abort();
                self.lock().stuck = Some(task.abort_handle());
                CheckResult::fail(format!("the check gave no answer within {limit:?}"))
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Cell> {
        self.cell.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asked {
    pub(crate) async fn outcome(self) -> Arc<Outcome> {
        let (mut flight, asked) = match self {
            Self::Known(outcome) => return outcome,
            Self::Flying(flight, asked) => (flight, asked),
        };
        let landed = match flight.wait_for(Option::is_some).await {
            Ok(landed) => landed.clone(),
            Err(_runtime_ends) => None,
        };
        landed.unwrap_or_else(|| {
            let result = CheckResult::fail("the check was cancelled");
            Arc::new(Outcome {
                at: asked,
                unix_time: Duration::ZERO,
                result,
            })
        })
    }
}

impl Outcome {
    fn now(clock: &Clock, result: CheckResult) -> Self {
        Self {
            at: clock.now(),
            unix_time: clock.unix_time(),
            result,
        }
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check")
            .field("name", &self.name)
            .field("gate", &self.gate)
            .finish_non_exhaustive()
    }
}
