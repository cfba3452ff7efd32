//! What clients are told of their quota.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Response};

use crate::admit::Shared;
use crate::budget::RequestBudget;
use crate::engine::Attempt;
use crate::headers::{self, PolicyItem, RATE_LIMIT, RATE_LIMIT_POLICY};
use crate::layer::Config;
use crate::legacy::{Figures, write_openai, write_x_ratelimit};
use crate::{Decision, Key, Unit};

/// What is told on a response that passes. The values are made when it comes: to carry them all the
/// way there would cost more.
pub(crate) struct Fields {
    shared: Arc<Shared>,
    outcome: (Attempt, Key),
    /// How many may be under way at once, where that is limited.
    at_once: Option<u32>,
}

/// Fields of no standard.
#[derive(Clone, Copy)]
pub(crate) struct Customs {
    x_ratelimit: Option<(Figures, Duration)>,
    openai: Option<Figures>,
}

impl Fields {
    pub(crate) fn of(shared: &Arc<Shared>, decision: &Decision<'_>, tier: Option<&str>) -> Self {
        let limiter = shared.config.concurrency.as_ref();
        Self {
            shared: Arc::clone(shared),
            outcome: decision.outcome(),
            at_once: limiter.map(|it| it.limit().most(tier)),
        }
    }

    /// Writes them, unless a limiter further in has. Of a budget it is told how it stands now, when
    /// the handler has reserved.
    pub(crate) fn write<B>(&self, response: &mut Response<B>, budget: Option<&RequestBudget>) {
        let headers = response.headers_mut();
        if headers.contains_key(RATE_LIMIT) {
            return;
        }
        let config = &self.shared.config;
        let decision = Decision::again(config.limiter.engine(), self.outcome);
        if let Some(customs) = Customs::of(&decision, config) {
            customs.write(headers);
        }
        // Written to where they stay: to hand them on, and on, takes as long as to make them. Not
        // inserted in there: what they replace may be a stranger's, and run code when it is dropped.
        let (mut limit, mut policy) = (None, None);
        decision.report(|it| {
            limit = it.limit_field();
            policy = it.policy_field();
        });
        if self.at_once.is_some() || config.budget.is_some() {
            self.join(headers, &mut limit, &mut policy, budget);
        }
        if let Some(field) = limit {
            headers.insert(RATE_LIMIT, field);
        }
        if let Some(field) = policy {
            headers.insert(RATE_LIMIT_POLICY, field);
        }
    }

    /// Adds other limits to those of the requests' quota. Where both tell of tokens, a budget is heard.
    #[inline(never)]
    fn join(
        &self,
        headers: &mut HeaderMap,
        limit: &mut Option<HeaderValue>,
        policy: &mut Option<HeaderValue>,
        budget: Option<&RequestBudget>,
    ) {
        let config = &self.shared.config;
        if let (Some(limiter), Some(most)) = (&config.concurrency, self.at_once) {
            let at_once = limiter.limit();
            let name = at_once.policy_name();
            let item = PolicyItem::count(name, most.into(), Unit::ConcurrentRequests);
            *policy = joined(policy.take(), headers::policy_field([item]));
        }
        if let Some(decision) = budget.and_then(RequestBudget::peek) {
            let (other, other_policy, figures) =
                decision.report(|it| (it.limit_field(), it.policy_field(), it.figures()));
            *limit = joined(limit.take(), other);
            *policy = joined(policy.take(), other_policy);
            if let Some(figures) = figures.filter(|_| config.openai) {
                write_openai(headers, &figures);
            }
        }
    }
}

impl Customs {
    /// `None` where none is to be told.
    #[inline]
    pub(crate) fn of(decision: &Decision<'_>, config: &Config) -> Option<Self> {
        if !(config.x_ratelimit || config.openai) {
            return None;
        }
        let figures = decision.report(|it| it.figures())?;
        // A moment is told: that of the decision counts, however long the answer took.
        let decided_at = || {
            let clock = config.limiter.engine().clock();
            let since = clock.now().as_nanos().saturating_sub(decision.now());
            let since = Duration::from_nanos(since);
            clock.unix_time().saturating_sub(since)
        };
        Some(Self {
            x_ratelimit: config.x_ratelimit.then(|| (figures, decided_at())),
            openai: config.openai.then_some(figures),
        })
    }

    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        if let Some((figures, unix_time)) = &self.x_ratelimit {
            write_x_ratelimit(headers, figures, *unix_time);
        }
        if let Some(figures) = &self.openai {
            write_openai(headers, figures);
        }
    }
}

/// Two lists as one. They might stand on two lines; but not every client reads a second.
pub(crate) fn joined(one: Option<HeaderValue>, other: Option<HeaderValue>) -> Option<HeaderValue> {
    match (one, other) {
        (Some(one), Some(other)) => {
            let list = [one.as_bytes(), other.as_bytes()].join(&b", "[..]);
            HeaderValue::from_maybe_shared(bytes::Bytes::from(list)).ok()
        }
        (one, other) => one.or(other),
    }
}
