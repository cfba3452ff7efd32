//! A number of calls at a time, fixed or found out, and of each tenant a share of it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use spark_core::{Clock, Name};

use crate::config::is_name;
use crate::limit::{Adaptive, Limit};
use crate::metrics::BulkheadMetrics;
use crate::share::{Shares, Tenant};
use crate::{Aimd, BulkheadFull, ConfigError, Place};

/// Lets so many calls in at a time, and refuses the rest at once: no queue, so a provider that
/// hangs costs a bounded number of requests and nobody waits in vain. Clones share it.
///
/// How many may be fixed ([`Bulkhead::new`]), or found out from how the calls end
/// ([`Bulkhead::adaptive`]); of either, one tenant may be given no more than a share
/// ([`Bulkhead::tenant_share`]).
///
/// # Example
/// ```
/// use spark_breaker::{Bulkhead, BulkheadFull};
/// let bulkhead = Bulkhead::new("openai", 1)?;
/// let inside = bulkhead.try_enter().unwrap();
/// assert_eq!(bulkhead.try_enter().unwrap_err(), BulkheadFull::Places);
/// drop(inside);
/// assert!(bulkhead.try_enter().is_ok());
/// # Ok::<(), spark_breaker::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Bulkhead(Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) name: Arc<str>,
    pub(crate) limit: Limit,
    pub(crate) inside: AtomicUsize,
    pub(crate) shares: Option<Shares>,
    pub(crate) metrics: BulkheadMetrics,
}

impl Bulkhead {
    /// For at most `max` calls at a time. The name is a label of the metrics.
    ///
    /// # Errors
    /// [`ConfigError`] when `max` is zero or the name cannot be shown.
    ///
    /// # Example
    /// ```
    /// assert!(spark_breaker::Bulkhead::new("openai", 0).is_err());
    /// ```
    pub fn new(name: &str, max: usize) -> Result<Self, ConfigError> {
        if max == 0 {
            return Err(ConfigError::out_of_range("max", &0, "give at least 1"));
        }
        Self::with(name, Limit::Fixed(max))
    }

    /// For as many calls at a time as the provider copes with: the limit moves by [`Aimd`]'s rules,
    /// with what each [`Place`] is told. The clock times the first bytes.
    ///
    /// # Errors
    /// [`ConfigError`] when a rule is out of its range or the name cannot be shown.
    ///
    /// # Example
    /// ```
    /// use spark_breaker::{Aimd, Bulkhead};
    /// use spark_core::Clock;
    /// let rules = Aimd::new(2, 10).backoff(0.5);
    /// let bulkhead = Bulkhead::adaptive("openai", rules, Clock::system())?;
    /// bulkhead.try_enter().unwrap().throttled();
    /// assert_eq!(bulkhead.limit(), 5);
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn adaptive(name: &str, rules: Aimd, clock: Clock) -> Result<Self, ConfigError> {
        let adaptive = Adaptive::new(rules.checked()?, clock);
        Self::with(name, Limit::Adaptive(adaptive))
    }

    fn with(name: &str, limit: Limit) -> Result<Self, ConfigError> {
        if !is_name(name) {
            return Err(ConfigError::Name);
        }
        Ok(Self(Arc::new(Shared {
            name: name.into(),
            limit,
            inside: AtomicUsize::new(0),
            shares: None,
            metrics: BulkheadMetrics::default(),
        })))
    }

    /// So that one tenant's storm does not take all places: a tenant that is alone may hold `share`
    /// of them, above 0 and up to 1 (which is no bound), to the thousandth.
    ///
    /// Each may hold up to `share / (1 - share)` times what is free, so that several get about the
    /// same: with a share of 0.8 that is 80 % for one, 44 % for each of two, 31 % for each of
    /// three. The last place is for a tenant that holds none. One that holds more than it still
    /// may, because others came or the limit fell, keeps what it has and gets no more.
    ///
    /// The anonymous count as one tenant, and the holder of the master key as another.
    ///
    /// # Errors
    /// [`ConfigError`] when the share is out of its range, or when the bulkhead is already shared:
    /// set it before it is cloned or entered.
    ///
    /// # Example
    /// ```
    /// use spark_breaker::{Bulkhead, BulkheadFull};
    /// use spark_core::Name;
    /// let bulkhead = Bulkhead::new("openai", 4)?.tenant_share(0.5)?;
    /// let (acme, other) = (Name::new("acme").unwrap(), Name::new("other").unwrap());
    /// let storm = [bulkhead.try_enter_for(&acme), bulkhead.try_enter_for(&acme)];
    /// assert_eq!(bulkhead.try_enter_for(&acme).unwrap_err(), BulkheadFull::TenantShare);
    /// assert!(bulkhead.try_enter_for(&other).is_ok());
    /// # drop(storm);
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn tenant_share(mut self, share: f64) -> Result<Self, ConfigError> {
        if !(share > 0.0 && share <= 1.0) {
            let mend = "give a share above 0 and up to 1";
            return Err(ConfigError::out_of_range("tenant_share", &share, mend));
        }
        let Some(shared) = Arc::get_mut(&mut self.0) else {
            let mend = "set it before the bulkhead is cloned or entered";
            return Err(ConfigError::out_of_range("tenant_share", &share, mend));
        };
        shared.shares = Some(Shares::new(share));
        Ok(self)
    }

    /// A place, until it is dropped. Where tenants have shares, it is one of the anonymous.
    ///
    /// # Errors
    /// [`BulkheadFull`] when all are taken, or when the anonymous hold their share.
    ///
    /// # Example
    /// ```
    /// # let bulkhead = spark_breaker::Bulkhead::new("openai", 8)?;
    /// let place = bulkhead.try_enter();
    /// assert_eq!(bulkhead.in_flight(), 1);
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn try_enter(&self) -> Result<Place, BulkheadFull> {
        self.enter(|| Tenant::Anonymous)
    }

    /// A place for this tenant, until it is dropped. Without
    /// [shares](Bulkhead::tenant_share) it is the same as [`try_enter`](Bulkhead::try_enter).
    ///
    /// # Errors
    /// [`BulkheadFull`] when all are taken, or when this tenant holds its share.
    ///
    /// # Example
    /// ```
    /// # let bulkhead = spark_breaker::Bulkhead::new("openai", 8)?.tenant_share(0.5)?;
    /// let acme = spark_core::Name::new("acme").unwrap();
    /// let place = bulkhead.try_enter_for(&acme);
    /// assert!(place.is_ok());
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn try_enter_for(&self, tenant: &Name) -> Result<Place, BulkheadFull> {
        self.enter(|| Some(tenant).into())
    }

    pub(crate) fn enter(&self, tenant: impl FnOnce() -> Tenant) -> Result<Place, BulkheadFull> {
        let shared = &self.0;
        let entered = match &shared.shares {
            None => shared.take().map(|inside| (inside, None)),
            Some(shares) => {
                let tenant = tenant();
                let taken = shares.enter(&tenant, |mine| {
                    let free = shared.limit.now().saturating_sub(self.in_flight());
                    if free > 0 && !shares.allows(mine, free) {
                        return Err(BulkheadFull::TenantShare);
                    }
                    shared.take()
                });
                taken.map(|inside| (inside, Some(tenant)))
            }
        };
        match entered {
            Ok((inside, tenant)) => {
                shared.metrics.entered(&shared.name, || shared.limit.now());
                Ok(Place::new(Arc::clone(shared), tenant, inside))
            }
            Err(full) => {
                shared
                    .metrics
                    .refused(&shared.name, full, || shared.limit.now());
                Err(full)
            }
        }
    }

    /// How many calls are inside. More than the limit when that was lowered since they entered.
    ///
    /// # Example
    /// ```
    /// assert_eq!(spark_breaker::Bulkhead::new("openai", 8)?.in_flight(), 0);
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn in_flight(&self) -> usize {
        self.0.inside.load(Ordering::Relaxed)
    }

    /// How many may be inside now.
    ///
    /// # Example
    /// ```
    /// assert_eq!(spark_breaker::Bulkhead::new("openai", 8)?.limit(), 8);
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn limit(&self) -> usize {
        self.0.limit.now()
    }

    /// How many may be inside at most.
    ///
    /// # Example
    /// ```
    /// assert_eq!(spark_breaker::Bulkhead::new("openai", 8)?.max(), 8);
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn max(&self) -> usize {
        self.0.limit.max()
    }

    /// How many tenants have calls inside; none are counted without
    /// [shares](Bulkhead::tenant_share).
    ///
    /// # Example
    /// ```
    /// assert_eq!(spark_breaker::Bulkhead::new("openai", 8)?.tenants(), 0);
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn tenants(&self) -> usize {
        self.0.shares.as_ref().map_or(0, Shares::tenants)
    }

    pub(crate) fn name(&self) -> Arc<str> {
        Arc::clone(&self.0.name)
    }

    pub(crate) fn has_shares(&self) -> bool {
        self.0.shares.is_some()
    }
}

impl Shared {
    /// How many are inside with the new one.
    fn take(&self) -> Result<usize, BulkheadFull> {
        let limit = self.limit.now();
        let before = self
            .inside
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |inside| {
                (inside < limit).then_some(inside + 1)
            });
        before.map_or(Err(BulkheadFull::Places), |before| Ok(before + 1))
    }
}

impl fmt::Debug for Bulkhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bulkhead")
            .field("name", &self.0.name)
            .field("limit", &self.limit())
            .field("max", &self.max())
            .field("in_flight", &self.in_flight())
            .finish()
    }
}
