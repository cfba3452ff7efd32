//! The task that drains histograms when nobody scrapes.

use std::{sync::Arc, time::Duration};

use tokio::{runtime::Handle, task::AbortHandle};

use crate::recorder::Core;

/// Owns the task: it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Upkeep(AbortHandle);

impl Upkeep {
    /// `None` when there is no runtime to run on.
    pub(crate) fn spawn(core: Arc<Core>, every: Duration) -> Option<Self> {
        let runtime = Handle::try_current().ok()?;
        let task = runtime.spawn(async move {
            loop {
                tokio::time::sleep(every).await;
                // A million samples take some milliseconds: not on the executor.
                let core = core.clone();
                if tokio::task::spawn_blocking(move || core.upkeep())
                    .await
                    .is_err()
                {
                    tracing::warn!("metrics upkeep failed; it is tried again at the next turn");
                }
            }
        });
        Some(Self(task.abort_handle()))
    }

    pub(crate) fn is_running(&self) -> bool {
        !self.0.is_finished()
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.0.abort();
    }
}
