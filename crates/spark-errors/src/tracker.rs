//! The tracker: what captures errors, remembers them and hands them to hooks.

use std::{
    cell::Cell,
    error::Error,
    fmt,
    hash::{BuildHasher, RandomState},
    panic::Location,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::Serialize;
use spark_core::Clock;

use crate::{
    Draft, Event, EventId, Group, Redactor, Severity, TrackerBuilder, metrics,
    store::{Bounds, Store},
    worker::{HookStats, Worker},
};

/// Captures errors, groups them, and hands them to hooks. A clone is the same tracker.
///
/// ```
/// let tracker = spark_errors::ErrorTracker::builder().build()?;
/// for order in [17, 18] {
///     tracker.event("billing").message(format_args!("order {order} has no price")).send();
/// }
/// let groups = tracker.groups();
/// assert_eq!((groups.len(), groups[0].count), (1, 2));
/// # Ok::<(), spark_errors::BuildError>(())
/// ```
#[derive(Clone)]
pub struct ErrorTracker {
    shared: Arc<Shared>,
}

struct Shared {
    store: Mutex<Store>,
    clock: Clock,
    redactor: Redactor,
    log: bool,
    workers: Vec<Worker>,
    seed: u64,
    ids: AtomicU64,
}

thread_local! {
    /// Whether this thread is inside of a capture: a panic there must not capture again.
    static CAPTURING: Cell<bool> = const { Cell::new(false) };
}

impl ErrorTracker {
    /// The settings, to be changed one by one.
    ///
    /// ```
    /// let builder = spark_errors::ErrorTracker::builder();
    /// ```
    pub fn builder() -> TrackerBuilder {
        TrackerBuilder::new()
    }

    pub(crate) fn new(
        bounds: Bounds,
        clock: Clock,
        redactor: Redactor,
        log: bool,
        workers: Vec<Worker>,
    ) -> Self {
        let seed = RandomState::new().hash_one(clock.unix_time());
        let store = Mutex::new(Store::new(bounds));
        let ids = AtomicU64::new(0);
        Self {
            shared: Arc::new(Shared {
                store,
                clock,
                redactor,
                log,
                workers,
                seed,
                ids,
            }),
        }
    }

    /// Captures an error under a kind: a constant of the program, which becomes a metric's label.
    ///
    /// ```
    /// let tracker = spark_errors::ErrorTracker::builder().build()?;
    /// let error = std::io::Error::other("disk full");
    /// tracker.capture("storage", &error);
    /// # Ok::<(), spark_errors::BuildError>(())
    /// ```
    #[track_caller]
    pub fn capture<E: Error + ?Sized>(&self, kind: &'static str, error: &E) -> EventId {
        self.event(kind).error(error).send()
    }

    /// Begins an event, to be filled in and sent.
    ///
    /// ```
    /// let tracker = spark_errors::ErrorTracker::builder().build()?;
    /// let error = std::io::Error::other("refused");
    /// let id = tracker
    ///     .event("provider")
    ///     .error(&error)
    ///     .route("/v1/chat/completions")
    ///     .tag("provider", "primary")
    ///     .send();
    /// # Ok::<(), spark_errors::BuildError>(())
    /// ```
    #[track_caller]
    pub fn event(&self, kind: &'static str) -> Draft<'_> {
        Draft::new(self, kind, Location::caller())
    }

    /// The last events that were kept, newest first.
    ///
    /// ```
    /// # let tracker = spark_errors::ErrorTracker::builder().build()?;
    /// assert!(tracker.recent(20).is_empty());
    /// # Ok::<(), spark_errors::BuildError>(())
    /// ```
    pub fn recent(&self, most: usize) -> Vec<Arc<Event>> {
        self.store().recent(most)
    }

    /// The groups, last seen first.
    ///
    /// ```
    /// # let tracker = spark_errors::ErrorTracker::builder().build()?;
    /// let page = serde_json::json!({ "groups": tracker.groups(), "stats": tracker.stats() });
    /// # Ok::<(), spark_errors::BuildError>(())
    /// ```
    pub fn groups(&self) -> Vec<Group> {
        self.store().groups()
    }

    /// How the tracker does, for a health check.
    ///
    /// ```
    /// # let tracker = spark_errors::ErrorTracker::builder().build()?;
    /// assert_eq!(tracker.stats().captured, 0);
    /// # Ok::<(), spark_errors::BuildError>(())
    /// ```
    pub fn stats(&self) -> Stats {
        let hooks = self.shared.workers.iter().map(Worker::stats).collect();
        let store = self.store();
        let (events, groups, bytes) = store.sizes();
        Stats {
            captured: store.total,
            suppressed: store.suppressed,
            evicted_groups: store.evicted,
            events,
            groups,
            bytes,
            hooks,
        }
    }

    /// Waits until every hook is done with what it was given, `deadline` at the longest. Gives
    /// the number of events that no hook has finished by then: 0 is success.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), spark_errors::BuildError> {
    /// let tracker = spark_errors::ErrorTracker::builder().build()?;
    /// assert_eq!(tracker.flush(Duration::from_secs(2)).await, 0);
    /// # Ok(()) }
    /// ```
    pub async fn flush(&self, deadline: Duration) -> usize {
        let idle = async {
            for worker in &self.shared.workers {
                worker.idle().await;
            }
        };
        // Whether it came in time is told by the count.
        let _ = tokio::time::timeout(deadline, idle).await;
        self.shared.workers.iter().map(Worker::pending).sum()
    }

    pub(crate) fn redactor(&self) -> &Redactor {
        &self.shared.redactor
    }

    pub(crate) fn next_id(&self) -> EventId {
        // Spread by steps that meet every value before they meet one twice.
        let step = self.shared.ids.fetch_add(1, Ordering::Relaxed);
        let id = self
            .shared
            .seed
            .wrapping_add(step.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        EventId(id)
    }

    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.shared.clock.unix_time().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether this thread is inside of a capture already.
    pub(crate) fn is_capturing() -> bool {
        CAPTURING.try_with(Cell::get).unwrap_or(true)
    }

    pub(crate) fn accept(&self, event: Event, log: bool) -> EventId {
        let id = event.id;
        let kind = event.kind;
        let Some(_inside) = Inside::enter() else {
            return id;
        };
        metrics::captured(kind);
        let kept = {
            let mut store = self.store();
            let kept = store.add(event, self.shared.clock.now());
            let (_, groups, _) = store.sizes();
            drop(store);
            metrics::groups(groups, kept.evicted);
            kept
        };
        let Some(event) = kept.event else {
            metrics::suppressed();
            return id;
        };
        if log && self.shared.log {
            write(&event);
        }
        for worker in &self.shared.workers {
            worker.offer(&event);
        }
        id
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.shared
            .store
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ErrorTracker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ErrorTracker")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// How an [`ErrorTracker`] does.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// Errors captured since the start.
    pub captured: u64,
    /// Of these, only counted, because their group had its share.
    pub suppressed: u64,
    /// Groups that were forgotten because the table was full.
    pub evicted_groups: u64,
    /// Events held.
    pub events: usize,
    /// Groups held.
    pub groups: usize,
    /// Bytes that both take, at the most.
    pub bytes: usize,
    /// How the hooks do.
    pub hooks: Vec<HookStats>,
}

fn write(event: &Event) {
    let Event {
        id,
        fingerprint,
        kind,
        message,
        location,
        route,
        ..
    } = event;
    let route = route.as_deref().unwrap_or("-");
    match event.severity {
        Severity::Warning => {
            tracing::warn!(event = %id, group = %fingerprint, kind, location, route, "{message}");
        }
        Severity::Error | Severity::Critical => {
            tracing::error!(event = %id, group = %fingerprint, kind, location, route, "{message}");
        }
    }
}

/// One capture at a time on a thread.
struct Inside;

impl Inside {
    fn enter() -> Option<Self> {
        let free = CAPTURING
            .try_with(|inside| !inside.replace(true))
            .unwrap_or(false);
        free.then_some(Self)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        // The thread may be at its end.
        let _ = CAPTURING.try_with(|inside| inside.set(false));
    }
}
