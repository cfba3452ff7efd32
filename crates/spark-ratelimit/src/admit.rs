//! What the layer does with a request, before the service sees it.

use std::sync::Arc;

use http::Request;
use spark_core::{Context, Miswired, Problem, Shape};

use crate::body::Held;
use crate::budget::RequestBudget;
use crate::fields::Fields;
use crate::key::MIX;
use crate::layer::Config;
use crate::metrics::Meter;
use crate::subject::{Found, Missed};
use crate::{Charge, Decision, Head, Headers, InFlight, Key, refuse};

/// What a layer and all its services share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) meter: Meter,
    missing: Miswired,
    unauthenticated: Miswired,
    repeated: Miswired,
}

/// What becomes of a request.
pub(crate) enum Admission {
    /// It goes on; the response gets these fields, and its body holds this.
    Pass(Option<Fields>, Held),
    /// It is answered here.
    Refuse(Problem, Shape),
}

impl Shared {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            meter: Meter::new(config.scope),
            config,
            missing: Miswired::new("ratelimit"),
            unauthenticated: Miswired::new("ratelimit"),
            repeated: Miswired::new("ratelimit"),
        }
    }

    pub(crate) fn admit<B>(self: &Arc<Self>, request: &mut Request<B>) -> Admission {
        let head = Head::of(request);
        if let Some((name, _)) = self.config.exempt.iter().find(|(_, exempt)| exempt(&head)) {
            self.meter.exempt(name);
            return Admission::Pass(None, Held::default());
        }

        let found = self.find(&head);
        let refuse = |problem| {
            let shape = Shape::of(head.extensions, head.headers);
            Admission::Refuse(problem, shape)
        };
        if found.refuse {
            self.meter.unknown();
            return refuse(refuse::caller_unknown());
        }
        let key = found.subject.key;
        let charged = self.mark(self.config.limiter.engine().id, key);
        let begun = self
            .config
            .concurrency
            .as_ref()
            .map(|it| self.mark(it.id(), key));
        let is_marked =
            |mark: u64| Context::of(head.extensions).is_some_and(|context| context.is_marked(mark));
        let in_flight = match begun {
            Some(mark) if !is_marked(mark) => match self.begin(&found) {
                Ok(in_flight) => in_flight,
                Err(problem) => return refuse(problem),
            },
            _ => None,
        };
        let fields = if is_marked(charged) {
            self.meter.repeated();
            self.repeated.report(
                "one limiter stands twice in the way of a request, which is charged once: \
                 apply the layer once, or make two limiters",
            );
            None
        } else {
            let Some(decision) = self.decide(&head, &found) else {
                self.meter.unknown();
                return refuse(refuse::caller_unknown());
            };
            self.meter.decided(&decision, &self.config);
            if !decision.allowed() {
                return refuse(self.refuse(&decision, key));
            }
            let tells = self.config.headers == Headers::Always;
            tells.then(|| Fields::of(self, &decision, found.subject.tier))
        };
        let tier = match self.config.budget {
            Some(_) => found.subject.tier.map(Box::from),
            None => None,
        };
        self.complete(
            request,
            [Some(charged), begun],
            (key, tier),
            fields,
            in_flight,
        )
    }

    /// Notes what was done in the request's context, and hands on what it has taken.
    fn complete<B>(
        self: &Arc<Self>,
        request: &mut Request<B>,
        marks: [Option<u64>; 2],
        (key, tier): (Key, Option<Box<str>>),
        fields: Option<Fields>,
        in_flight: Option<InFlight>,
    ) -> Admission {
        let clock = self.config.limiter.engine().clock();
        let context = Context::get_or_insert(request.extensions_mut(), clock);
        for mark in marks.into_iter().flatten() {
            context.first_time(mark);
        }
        let budget = self.config.budget.as_ref().map(|_| {
            let usage = context.usage().clone();
            Arc::new(RequestBudget::new(Arc::clone(self), key, tier, usage))
        });
        if let Some(budget) = &budget {
            context.set_budget(Arc::clone(budget) as _);
        }
        Admission::Pass(fields, Held::new(in_flight, budget))
    }

    /// The refusal of a decision, with a jitter that `key` makes its own.
    #[cold]
    pub(crate) fn refuse(&self, decision: &Decision<'_>, key: Key) -> Problem {
        refuse::quota_exceeded(&self.config, decision, key)
    }

    fn find<'a>(&self, head: &Head<'a>) -> Found<'a> {
        let found = self.config.key.find(head);
        self.report(found.missed);
        found
    }

    /// Charges the policies, each by its key. `None` where one of their keys is refused.
    fn decide(&self, head: &Head<'_>, found: &Found<'_>) -> Option<Decision<'_>> {
        let limiter = &self.config.limiter;
        let (key, tier) = (found.subject.key, found.subject.tier);
        if self.config.keys.is_empty() {
            return Some(limiter.check(&key, tier, 1));
        }
        let mut refused = false;
        let others: Vec<(&str, Key)> = self
            .config
            .keys
            .iter()
            .map(|(policy, by)| {
                let found = by.find(head);
                self.report(found.missed);
                refused |= found.refuse;
                (&**policy, found.subject.key)
            })
            .collect();
        let charge = |policy: &str| {
            let other = others.iter().find(|(name, _)| *name == policy);
            Charge::new(other.map_or(key, |(_, key)| *key), 1)
        };
        (!refused).then(|| limiter.check_each(tier, charge))
    }

    /// One more under way, where that is limited.
    fn begin(&self, found: &Found<'_>) -> Result<Option<InFlight>, Problem> {
        let Some(limiter) = &self.config.concurrency else {
            return Ok(None);
        };
        let (key, tier) = (found.subject.key, found.subject.tier);
        match limiter.acquire(&key, tier) {
            Ok(in_flight) => Ok(Some(in_flight)),
            Err(_) => {
                self.meter.at_capacity(limiter.limit().name());
                Err(refuse::at_capacity(&self.config, limiter, tier, key))
            }
        }
    }

    /// That a limiter has seen a key.
    fn mark(&self, limiter: u64, key: Key) -> u64 {
        key.bits() ^ limiter.wrapping_add(1).wrapping_mul(MIX)
    }

    fn report(&self, missed: Option<Missed>) {
        match missed {
            None => {}
            Some(Missed::Principal) => self.unauthenticated.report(Missed::Principal.mend()),
            Some(missed) => self.missing.report(missed.mend()),
        }
    }
}
