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
use crate::subject::Subject;
use crate::{Decision, Key, Unit};

/// What is told on a response that passes. The values are made when it comes: to carry them all the
/// way there would cost more.
pub(crate) struct Fields {
    shared: Arc<Shared>,
    attempt: Attempt,
    key: Key,
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
    pub(crate) fn of(shared: &Arc<Shared>, decision: &Decision<'_>, subject: &Subject<'_>) -> Self {
        let limiter = shared.config.concurrency.as_ref();
        Self {
            shared: Arc::clone(shared),
            attempt: decision.outcome(),
            key: subject.key,
            at_once: limiter.map(|it| it.limit().most(subject.tier)),
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
        let decision = Decision::new(config.limiter.engine(), self.attempt, self.key);
        if self.at_once.is_none() && config.budget.is_none() {
            // In place: to hand these values on, and on, takes as long as to make them.
            decision.report(|it| {
                if let Some(field) = it.limit_field() {
                    headers.insert(RATE_LIMIT, field);
                }
                if let Some(field) = it.policy_field() {
                    headers.insert(RATE_LIMIT_POLICY, field);
                }
            });
        } else {
            self.write_joined(headers, &decision, budget);
        }
        if let Some(customs) = Customs::of(&decision, config) {
            customs.write(headers);
        }
    }

    /// Beside those of the requests' quota those of other limits.
    #[inline(never)]
    fn write_joined(
        &self,
        headers: &mut HeaderMap,
        decision: &Decision<'_>,
        budget: Option<&RequestBudget>,
    ) {
        let config = &self.shared.config;
        let (mut limit, mut policy) = both(decision);
        if let (Some(limiter), Some(most)) = (&config.concurrency, self.at_once) {
            let limit = limiter.limit();
            let name = limit.policy_name();
            let item = PolicyItem::count(name, most.into(), Unit::ConcurrentRequests);
            policy = joined(policy, headers::policy_field([item]));
        }
        if let Some(decision) = budget.and_then(RequestBudget::peek) {
            let (other, other_policy) = both(&decision);
            limit = joined(limit, other);
            policy = joined(policy, other_policy);
            if config.openai {
                write_openai(headers, &figures_of(&decision));
            }
        }
        if let Some(field) = limit {
            headers.insert(RATE_LIMIT, field);
        }
        if let Some(field) = policy {
            headers.insert(RATE_LIMIT_POLICY, field);
        }
    }
}

impl Customs {
    /// `None` where none is to be told; a shadow never is.
    #[inline]
    pub(crate) fn of(decision: &Decision<'_>, config: &Config) -> Option<Self> {
        if !(config.x_ratelimit || config.openai) || !decision.is_enforced() {
            return None;
        }
        let figures = figures_of(decision);
        let clock = config.limiter.engine().clock();
        // A moment is told: that of the decision counts, however long the answer took.
        let since = clock.now().as_nanos().saturating_sub(decision.now());
        let decided_at = || {
            clock
                .unix_time()
                .saturating_sub(Duration::from_nanos(since))
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

fn both(decision: &Decision<'_>) -> (Option<HeaderValue>, Option<HeaderValue>) {
    decision.report(|it| (it.limit_field(), it.policy_field()))
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

/// The burst stands for the limit: these fields know no other, and a client that has asked for
/// nothing sees all of it left.
fn figures_of(decision: &Decision<'_>) -> Figures {
    let state = decision.tightest();
    Figures {
        unit: state.unit,
        limit: state.burst,
        remaining: state.remaining,
        full_in: u64::try_from(state.full_in.as_nanos()).unwrap_or(u64::MAX),
    }
}
