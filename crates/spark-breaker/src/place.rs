//! A place in a bulkhead, and that there is none.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::bulkhead::Shared;
use crate::limit::{Adaptive, Call, Limit, Moved};
use crate::share::Tenant;

/// A place inside a [`Bulkhead`](crate::Bulkhead), given back when it is dropped. One that is never
/// dropped, as after [`std::mem::forget`], is lost to the bulkhead for good.
///
/// What it is told moves an adaptive limit; a fixed one does not mind. A place that is told
/// nothing, as when the caller went away, says nothing.
///
/// # Example
/// ```
/// use spark_breaker::{Aimd, Bulkhead};
/// use spark_core::Clock;
/// let bulkhead = Bulkhead::adaptive("openai", Aimd::new(1, 9).start(1), Clock::system())?;
/// let mut place = bulkhead.try_enter().unwrap();
/// place.first_byte();
/// place.succeeded();
/// drop(place);
/// assert_eq!(bulkhead.limit(), 2);
/// # Ok::<(), spark_breaker::ConfigError>(())
/// ```
#[must_use = "dropping a place gives it back"]
pub struct Place {
    shared: Arc<Shared>,
    /// Where tenants have shares.
    tenant: Option<Tenant>,
    /// Where the limit moves.
    call: Option<Call>,
}

impl Place {
    pub(crate) fn new(shared: Arc<Shared>, tenant: Option<Tenant>, inside: usize) -> Self {
        let call = match &shared.limit {
            Limit::Fixed(_) => None,
            Limit::Adaptive(adaptive) => Some(adaptive.enter(inside)),
        };
        Self {
            shared,
            tenant,
            call,
        }
    }

    /// The first byte of the answer came, which says whether it came in time
    /// ([`Aimd::latency`](crate::Aimd::latency)). Only the first time counts.
    ///
    /// # Example
    /// ```
    /// # let bulkhead = spark_breaker::Bulkhead::new("openai", 8)?;
    /// let mut place = bulkhead.try_enter().unwrap();
    /// place.first_byte();
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn first_byte(&mut self) {
        self.tell(Adaptive::first_byte);
    }

    /// The call succeeded: enough of them raise the limit. Where no first byte was told, this was
    /// it.
    ///
    /// # Example
    /// ```
    /// # let bulkhead = spark_breaker::Bulkhead::new("openai", 8)?;
    /// let mut place = bulkhead.try_enter().unwrap();
    /// place.succeeded();
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn succeeded(&mut self) {
        self.tell(Adaptive::succeeded);
    }

    /// The provider asked for fewer calls, which lowers the limit.
    ///
    /// # Example
    /// ```
    /// # let bulkhead = spark_breaker::Bulkhead::new("openai", 8)?;
    /// let mut place = bulkhead.try_enter().unwrap();
    /// place.throttled();
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn throttled(&mut self) {
        self.tell(Adaptive::throttled);
    }

    /// The call failed. It says nothing about the limit, unless it had waited for longer than
    /// [`Aimd::latency`](crate::Aimd::latency) without a first byte, as a call does that times out.
    ///
    /// # Example
    /// ```
    /// # let bulkhead = spark_breaker::Bulkhead::new("openai", 8)?;
    /// let mut place = bulkhead.try_enter().unwrap();
    /// place.failed();
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn failed(&mut self) {
        self.tell(Adaptive::failed);
    }

    fn tell(&mut self, what: fn(&Adaptive, &mut Call) -> Option<Moved>) {
        let shared = &self.shared;
        if let (Limit::Adaptive(adaptive), Some(call)) = (&shared.limit, &mut self.call)
            && let Some(moved) = what(adaptive, call)
        {
            shared
                .metrics
                .moved(&shared.name, moved, || shared.limit.now());
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let shared = &self.shared;
        let give_back = || {
            shared.inside.fetch_sub(1, Ordering::AcqRel);
        };
        match (&shared.shares, &self.tenant) {
            (Some(shares), Some(tenant)) => shares.leave(tenant, give_back),
            _ => give_back(),
        }
        shared.metrics.left(&shared.name, || shared.limit.now());
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Place").field(&self.shared.name).finish()
    }
}

/// There is no place in a [`Bulkhead`](crate::Bulkhead).
///
/// # Example
/// ```
/// assert_eq!(spark_breaker::BulkheadFull::Places.code(), "bulkhead_full");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum BulkheadFull {
    /// All are taken.
    #[error("too many calls to this provider are under way")]
    Places,
    /// Some are left, for other tenants.
    #[error("this tenant has too many calls to this provider under way")]
    TenantShare,
}

impl BulkheadFull {
    /// `bulkhead_full` or `tenant_share_full`.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::BulkheadFull;
    /// assert_eq!(BulkheadFull::TenantShare.code(), "tenant_share_full");
    /// ```
    pub const fn code(self) -> &'static str {
        match self {
            Self::Places => "bulkhead_full",
            Self::TenantShare => "tenant_share_full",
        }
    }
}
