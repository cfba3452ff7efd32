//! One task for each hook: a queue, a timeout, retries, and a rest when nothing helps.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde::Serialize;
use spark_core::{Clock, Instant};
use tokio::{
    runtime::Handle,
    sync::{Notify, mpsc},
};

use crate::{Event, Hook, HookError, metrics, unwind::CatchUnwind};

/// Events in a row that must fail before a hook rests.
const FAILURES: u32 = 3;
/// The longest wait between two attempts, whatever the other side asks for.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

tokio::task_local! {
    /// Set while a hook delivers: what it captures then is not sent to hooks.
    static DELIVERING: ();
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    pub(crate) queue: usize,
    pub(crate) timeout: Duration,
    pub(crate) attempts: u32,
    pub(crate) wait: Duration,
    pub(crate) rest: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            queue: 64,
            timeout: Duration::from_secs(5),
            attempts: 3,
            wait: Duration::from_millis(500),
            rest: Duration::from_secs(30),
        }
    }
}

/// How a hook does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HookStats {
    /// Its name.
    pub name: String,
    /// Events delivered.
    pub delivered: u64,
    /// Events dropped, for whatever reason.
    pub dropped: u64,
    /// Events waiting or under way.
    pub pending: usize,
    /// Whether it rests after failures.
    pub resting: bool,
}

/// The tracker's end of a hook's queue. The task delivers what is left and ends when it is dropped.
pub(crate) struct Worker {
    queue: mpsc::Sender<Arc<Event>>,
    shared: Arc<Shared>,
}

struct Shared {
    hook: Arc<dyn Hook>,
    pending: AtomicUsize,
    idle: Notify,
    delivered: AtomicU64,
    dropped: AtomicU64,
    resting: AtomicBool,
}

impl Worker {
    /// `None` when there is no runtime to run on.
    pub(crate) fn spawn(hook: Arc<dyn Hook>, policy: Policy, clock: Clock) -> Option<Self> {
        let runtime = Handle::try_current().ok()?;
        let (queue, events) = mpsc::channel(policy.queue);
        let shared = Arc::new(Shared {
            hook,
            pending: AtomicUsize::new(0),
            idle: Notify::new(),
            delivered: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            resting: AtomicBool::new(false),
        });
        let task = Task {
            shared: shared.clone(),
            policy,
            clock,
            failures: 0,
            rest: None,
        };
        runtime.spawn(DELIVERING.scope((), task.run(events)));
        Some(Self { queue, shared })
    }

    /// Puts an event in the queue, or drops it.
    pub(crate) fn offer(&self, event: &Arc<Event>) {
        if DELIVERING.try_with(|()| ()).is_ok() {
            return self.shared.drop_one("recursion");
        }
        self.shared.pending.fetch_add(1, Ordering::AcqRel);
        if let Err(error) = self.queue.try_send(event.clone()) {
            self.shared.drop_one(match error {
                mpsc::error::TrySendError::Full(_) => "queue_full",
                mpsc::error::TrySendError::Closed(_) => "closed",
            });
            self.shared.done();
        }
    }

    pub(crate) fn pending(&self) -> usize {
        self.shared.pending.load(Ordering::Acquire)
    }

    pub(crate) async fn idle(&self) {
        loop {
            let idle = self.shared.idle.notified();
            tokio::pin!(idle);
            // Listening before looking, or the last word could be missed.
            idle.as_mut().enable();
            if self.pending() == 0 {
                return;
            }
            idle.await;
        }
    }

    pub(crate) fn stats(&self) -> HookStats {
        HookStats {
            name: self.shared.hook.name().to_owned(),
            delivered: self.shared.delivered.load(Ordering::Relaxed),
            dropped: self.shared.dropped.load(Ordering::Relaxed),
            pending: self.pending(),
            resting: self.shared.resting.load(Ordering::Relaxed),
        }
    }
}

impl Shared {
    fn drop_one(&self, reason: &'static str) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        metrics::dropped(self.hook.name(), reason);
    }

    fn done(&self) {
        if self.pending.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.idle.notify_waiters();
        }
    }
}

struct Task {
    shared: Arc<Shared>,
    policy: Policy,
    clock: Clock,
    failures: u32,
    rest: Option<Instant>,
}

impl Task {
    async fn run(mut self, mut events: mpsc::Receiver<Arc<Event>>) {
        while let Some(event) = events.recv().await {
            if self.is_resting() {
                self.shared.drop_one("resting");
            } else {
                self.deliver(&event).await;
            }
            self.shared.done();
        }
    }

    fn is_resting(&mut self) -> bool {
        let resting = self.rest.is_some_and(|until| self.clock.now() < until);
        if !resting && self.rest.take().is_some() {
            self.shared.resting.store(false, Ordering::Relaxed);
        }
        resting
    }

    async fn deliver(&mut self, event: &Arc<Event>) {
        let mut wait = self.policy.wait;
        for attempt in 1..=self.policy.attempts {
            let asked = match self.attempt(event).await {
                Ok(()) => {
                    self.failures = 0;
                    self.shared.delivered.fetch_add(1, Ordering::Relaxed);
                    metrics::delivered(self.shared.hook.name());
                    return;
                }
                Err(HookError::Rejected(reason)) => {
                    tracing::warn!(hook = self.shared.hook.name(), %reason, "an error hook was refused");
                    return self.shared.drop_one("rejected");
                }
                Err(HookError::Retry { after, .. }) => after,
            };
            if attempt < self.policy.attempts {
                let pause = asked.unwrap_or_else(|| vary(wait, event.id.0 ^ u64::from(attempt)));
                tokio::time::sleep(pause.min(LONGEST_WAIT)).await;
                wait = wait.saturating_mul(2);
            }
        }
        self.shared.drop_one("failed");
        self.failures += 1;
        // After a rest, one event that fails is enough for the next.
        if self.failures >= FAILURES {
            tracing::warn!(hook = self.shared.hook.name(), rest = ?self.policy.rest, "an error hook keeps failing and rests");
            self.rest = Some(self.clock.now().saturating_add(self.policy.rest));
            self.shared.resting.store(true, Ordering::Relaxed);
        }
    }

    async fn attempt(&self, event: &Arc<Event>) -> Result<(), HookError> {
        let retry = |reason: &str| HookError::Retry {
            reason: reason.to_owned(),
            after: None,
        };
        let delivery = CatchUnwind::new(async { self.shared.hook.deliver(event.clone()).await });
        match tokio::time::timeout(self.policy.timeout, delivery).await {
            Ok(Ok(result)) => result,
            Ok(Err(_panic)) => Err(retry("the hook panicked")),
            Err(_elapsed) => Err(retry("the hook took too long")),
        }
    }
}

/// Between half of `wait` and one and a half.
fn vary(wait: Duration, seed: u64) -> Duration {
    let spread = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 54; // ten bits
    let part = u32::try_from(spread).unwrap_or(0);
    wait / 2 + wait.saturating_mul(part) / 1_024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_vary_by_half() {
        let wait = Duration::from_millis(100);
        for seed in 0..1_000 {
            let varied = vary(wait, seed);
            assert!((wait / 2..wait * 3 / 2).contains(&varied), "{varied:?}");
        }
    }
}
