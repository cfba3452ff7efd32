//! What one request may reserve from: tokens, once its body is parsed.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use spark_core::{Budget, Problem, Usage};

use crate::admit::Shared;
use crate::{Decision, Key, Permit};

/// One request's access to the budget of its caller. What it reserved is settled when the last who
/// holds it lets go: the response body, and whoever kept the request's context.
pub(crate) struct RequestBudget {
    shared: Arc<Shared>,
    key: Key,
    tier: Option<Box<str>>,
    usage: Usage,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    permits: Vec<Permit>,
    observed: Option<u64>,
    settled: bool,
}

impl RequestBudget {
    pub(crate) fn new(shared: Arc<Shared>, key: Key, tier: Option<Box<str>>, usage: Usage) -> Self {
        Self {
            shared,
            key,
            tier,
            usage,
            state: Mutex::default(),
        }
    }

    /// How the caller stands.
    pub(crate) fn peek(&self) -> Option<Decision<'_>> {
        let limiter = self.shared.config.budget.as_ref()?;
        Some(limiter.peek(&self.key, self.tier.as_deref(), 0))
    }

    /// The response has ended. What is not known yet may be in flight elsewhere, as behind a cache.
    pub(crate) fn response_ended(&self) {
        if let Some(report) = self.usage.get() {
            self.settle(report.input_tokens.saturating_add(report.output_tokens));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Budget for RequestBudget {
    fn reserve(&self, units: u64) -> Result<(), Problem> {
        let Some(limiter) = &self.shared.config.budget else {
            return Ok(());
        };
        let mut state = self.state();
        match limiter.acquire(&self.key, self.tier.as_deref(), units) {
            Ok(permit) => {
                self.shared.meter.reserved();
                state.permits.push(permit);
                Ok(())
            }
            Err(decision) => {
                self.shared.meter.not_reserved(&decision);
                Err(self.shared.refuse(&decision, self.key))
            }
        }
    }

    fn observe(&self, units: u64) {
        let mut state = self.state();
        state.observed = state.observed.max(Some(units));
    }

    fn settle(&self, units: u64) {
        self.state().settle(units);
    }
}

impl State {
    fn settle(&mut self, units: u64) {
        if self.settled {
            return;
        }
        self.settled = true;
        let mut left = units;
        let last = self.permits.len().saturating_sub(1);
        for (at, permit) in self.permits.drain(..).enumerate() {
            // The last reservation bears what all of them together did not cover.
            let share = if at == last {
                left
            } else {
                left.min(permit.reserved())
            };
            left -= share;
            permit.settle(share);
        }
    }
}

impl Drop for RequestBudget {
    fn drop(&mut self) {
        self.response_ended();
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(observed) = state.observed {
            state.settle(observed);
        }
    }
}

impl fmt::Debug for RequestBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBudget")
            .field("scope", &self.shared.config.scope)
            .finish_non_exhaustive()
    }
}
