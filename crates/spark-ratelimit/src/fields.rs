//! What clients are told of their quota, on a response that passes.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Response};

use crate::admit::Shared;
use crate::budget::RequestBudget;
use crate::headers::{self, PolicyItem, RATE_LIMIT, RATE_LIMIT_POLICY};
use crate::legacy::{Figures, write_openai, write_x_ratelimit};
use crate::subject::Found;
use crate::{Decision, Unit};

/// The fields of one response.
pub(crate) struct Fields {
    limit: Option<HeaderValue>,
    policy: Option<HeaderValue>,
    more: Option<Box<More>>,
}

/// What only some layers tell.
struct More {
    /// The policy of a limit on concurrency.
    concurrency: Option<HeaderValue>,
    x_ratelimit: Option<(Figures, Duration)>,
    openai: Option<Figures>,
    budget: Option<Arc<RequestBudget>>,
}

impl Fields {
    pub(crate) fn of(decision: &Decision<'_>, shared: &Shared, found: &Found<'_>) -> Self {
        let (limit, policy) = decision.report(|it| (it.limit_field(), it.policy_field()));
        Self {
            limit,
            policy,
            more: More::of(decision, shared, found),
        }
    }

    /// Tells of this budget too, where such fields are written.
    pub(crate) fn tell(&mut self, budget: &Arc<RequestBudget>) {
        if let Some(more) = &mut self.more {
            more.budget = Some(Arc::clone(budget));
        }
    }

    /// Writes them, unless a limiter further in has.
    pub(crate) fn write<B>(self, response: &mut Response<B>) {
        let headers = response.headers_mut();
        let http::header::Entry::Vacant(limit) = headers.entry(RATE_LIMIT) else {
            return;
        };
        if let Some(field) = self.limit {
            limit.insert(field);
        }
        if let Some(field) = self.policy {
            headers.insert(RATE_LIMIT_POLICY, field);
        }
        if let Some(more) = self.more {
            more.write(response);
        }
    }
}

impl More {
    #[inline]
    fn of(decision: &Decision<'_>, shared: &Shared, found: &Found<'_>) -> Option<Box<Self>> {
        let config = &shared.config;
        if config.concurrency.is_none() && !config.x_ratelimit && !config.openai {
            return None;
        }
        let concurrency = config.concurrency.as_ref().and_then(|limiter| {
            let limit = limiter.limit();
            let most = u64::from(limit.most(found.subject.tier));
            let item = PolicyItem::count(limit.policy_name(), most, Unit::ConcurrentRequests);
            headers::policy_field([item])
        });
        // A shadow is not told.
        let figures = decision.is_enforced().then(|| figures_of(decision));
        let unix_time = || config.limiter.engine().clock().unix_time();
        Some(Box::new(Self {
            concurrency,
            x_ratelimit: figures
                .filter(|_| config.x_ratelimit)
                .map(|figures| (figures, unix_time())),
            openai: figures.filter(|_| config.openai),
            budget: None,
        }))
    }

    fn write<B>(self, response: &mut Response<B>) {
        let headers = response.headers_mut();
        if let Some(field) = self.concurrency {
            // A list may stand on several lines.
            headers.append(RATE_LIMIT_POLICY, field);
        }
        if let Some((figures, unix_time)) = self.x_ratelimit {
            write_x_ratelimit(headers, &figures, unix_time);
        }
        if let Some(figures) = self.openai {
            write_openai(headers, &figures);
            // As it stands now, when the handler has reserved.
            let decision = self.budget.as_ref().and_then(|budget| budget.peek());
            if let Some(decision) = decision {
                write_openai(headers, &figures_of(&decision));
            }
        }
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
