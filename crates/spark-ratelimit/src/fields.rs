//! What clients are told of their quota.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Response};

use crate::budget::RequestBudget;
use crate::headers::{self, PolicyItem, RATE_LIMIT, RATE_LIMIT_POLICY};
use crate::layer::Config;
use crate::legacy::{Figures, write_openai, write_x_ratelimit};
use crate::subject::Subject;
use crate::{Decision, Unit};

/// The fields of one response that passes.
pub(crate) struct Fields {
    limit: Option<HeaderValue>,
    policy: Option<HeaderValue>,
    more: Option<Box<More>>,
}

/// What only some layers tell.
#[derive(Default)]
struct More {
    customs: Customs,
    budget: Option<Arc<RequestBudget>>,
}

/// Fields of no standard.
#[derive(Clone, Copy, Default)]
pub(crate) struct Customs {
    x_ratelimit: Option<(Figures, Duration)>,
    openai: Option<Figures>,
}

impl Fields {
    pub(crate) fn of(decision: &Decision<'_>, config: &Config, subject: &Subject<'_>) -> Self {
        let (limit, mut policy) = decision.report(|it| (it.limit_field(), it.policy_field()));
        if let Some(limiter) = &config.concurrency {
            let limit = limiter.limit();
            let most = u64::from(limit.most(subject.tier));
            let item = PolicyItem::count(limit.policy_name(), most, Unit::ConcurrentRequests);
            policy = joined(policy, headers::policy_field([item]));
        }
        let customs = Customs::of(decision, config);
        let tells_more = customs.is_some() || config.budget.is_some();
        Self {
            limit,
            policy,
            more: tells_more.then(|| {
                Box::new(More {
                    customs: customs.unwrap_or_default(),
                    budget: None,
                })
            }),
        }
    }

    /// Tells of this budget too.
    pub(crate) fn tell(&mut self, budget: &Arc<RequestBudget>) {
        if let Some(more) = &mut self.more {
            more.budget = Some(Arc::clone(budget));
        }
    }

    /// Writes them, unless a limiter further in has.
    pub(crate) fn write<B>(self, response: &mut Response<B>) {
        let headers = response.headers_mut();
        if headers.contains_key(RATE_LIMIT) {
            return;
        }
        let Self {
            mut limit,
            mut policy,
            more,
        } = self;
        if let Some(more) = more {
            more.customs.write(headers);
            // As it stands now, when the handler has reserved.
            let budget = more.budget.as_ref().and_then(|budget| budget.peek());
            if let Some(decision) = budget {
                let (other, other_policy) =
                    decision.report(|it| (it.limit_field(), it.policy_field()));
                limit = joined(limit, other);
                policy = joined(policy, other_policy);
                if more.customs.openai.is_some() {
                    write_openai(headers, &figures_of(&decision));
                }
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
        let unix_time = || config.limiter.engine().clock().unix_time();
        Some(Self {
            x_ratelimit: config.x_ratelimit.then(|| (figures, unix_time())),
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
