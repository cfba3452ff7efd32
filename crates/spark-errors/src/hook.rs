//! Where errors are sent.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::Event;

/// The future of a delivery.
pub type Delivery<'h> = Pin<Box<dyn Future<Output = Result<(), HookError>> + Send + 'h>>;

/// Somewhere that errors are sent. Each hook has a task of its own with a bounded queue: however
/// slow it is, no request waits for it. What a hook itself captures is kept but sent to no hook.
///
/// ```
/// use std::sync::Arc;
/// use spark_errors::{Delivery, Event, Hook};
///
/// struct Print;
///
/// impl Hook for Print {
///     fn name(&self) -> &str {
///         "print"
///     }
///
///     fn deliver(&self, event: Arc<Event>) -> Delivery<'_> {
///         Box::pin(async move {
///             println!("{} {}", event.fingerprint, event.message);
///             Ok(())
///         })
///     }
/// }
/// ```
pub trait Hook: Send + Sync {
    /// Its name: a constant, since it becomes a metric's label.
    fn name(&self) -> &str;

    /// Delivers one event. It is dropped at its timeout, and may panic: both are failures.
    fn deliver(&self, event: Arc<Event>) -> Delivery<'_>;
}

/// A delivery did not succeed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HookError {
    /// It may succeed later.
    #[error("{reason}; it is tried again")]
    Retry {
        /// What went wrong.
        reason: String,
        /// How long the other side asked to wait.
        after: Option<Duration>,
    },
    /// It will never succeed.
    #[error("{0}; it is not tried again")]
    Rejected(String),
}

/// Keeps the last events that it was given: for tests.
///
/// ```
/// # use std::time::Duration;
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), spark_errors::BuildError> {
/// let hook = spark_errors::MemoryHook::new(10);
/// let tracker = spark_errors::ErrorTracker::builder().hook(hook.clone()).build()?;
/// tracker.event("provider").message("refused").send();
/// tracker.flush(Duration::from_secs(1)).await;
/// assert_eq!(hook.events()[0].message, "refused");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct MemoryHook {
    events: Arc<Mutex<VecDeque<Arc<Event>>>>,
    most: usize,
}

impl MemoryHook {
    /// Keeps the last `most` events.
    ///
    /// ```
    /// let hook = spark_errors::MemoryHook::new(10);
    /// ```
    pub fn new(most: usize) -> Self {
        Self {
            events: Arc::default(),
            most,
        }
    }

    /// What it was given, oldest first.
    ///
    /// ```
    /// assert!(spark_errors::MemoryHook::new(10).events().is_empty());
    /// ```
    pub fn events(&self) -> Vec<Arc<Event>> {
        self.events
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .cloned()
            .collect()
    }
}

impl Hook for MemoryHook {
    fn name(&self) -> &str {
        "memory"
    }

    fn deliver(&self, event: Arc<Event>) -> Delivery<'_> {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.push_back(event);
        while events.len() > self.most {
            events.pop_front();
        }
        drop(events);
        Box::pin(std::future::ready(Ok(())))
    }
}
