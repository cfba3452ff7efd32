//! What the layer does with a request, before the service sees it.

use http::{Extensions, HeaderValue, Request, Response, StatusCode};
use spark_core::{Miswired, Problem, Shape};

use crate::headers::{RATE_LIMIT, RATE_LIMIT_POLICY};
use crate::layer::Config;
use crate::metrics::Meter;
use crate::subject::Missed;
use crate::{Decision, Head, Headers, Key};

const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";

/// What a layer and all its services share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    meter: Meter,
    missing: Miswired,
    unauthenticated: Miswired,
    repeated: Miswired,
}

/// What becomes of a request.
pub(crate) enum Admission {
    /// It goes on; the response gets these fields.
    Pass(Option<Fields>),
    /// It is answered here.
    Refuse(Problem, Shape),
}

/// `RateLimit` and `RateLimit-Policy`.
pub(crate) struct Fields {
    limit: HeaderValue,
    policy: HeaderValue,
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

    pub(crate) fn admit<B>(&self, request: &mut Request<B>) -> Admission {
        let head = Head::of(request);
        if let Some((name, _)) = self.config.exempt.iter().find(|(_, exempt)| exempt(&head)) {
            self.meter.exempt(name);
            return Admission::Pass(None);
        }

        let found = self.config.key.find(&head);
        self.report(found.missed);
        if found.refuse {
            let shape = Shape::of(head.extensions, head.headers);
            return Admission::Refuse(caller_unknown(), shape);
        }
        let limiter = &self.config.limiter;
        let charge = (limiter.engine().id, found.subject.key);
        if Charged::holds(head.extensions, charge) {
            self.meter.repeated();
            self.repeated.report(
                "one limiter stands twice in the way of a request, which is charged once: \
                 apply the layer once, or make two limiters",
            );
            return Admission::Pass(None);
        }

        let decision = limiter.check(&found.subject.key, found.subject.tier, 1);
        self.meter.decided(&decision, limiter);
        if !decision.allowed() {
            let shape = Shape::of(head.extensions, head.headers);
            return Admission::Refuse(self.refuse(&decision), shape);
        }
        let fields = (self.config.headers == Headers::Always).then(|| Fields::of(&decision));
        Charged::add(request.extensions_mut(), charge);
        Admission::Pass(fields)
    }

    fn report(&self, missed: Option<Missed>) {
        match missed {
            None => {}
            Some(Missed::Principal) => self.unauthenticated.report(Missed::Principal.mend()),
            Some(missed) => self.missing.report(missed.mend()),
        }
    }

    #[cold]
    fn refuse(&self, decision: &Decision<'_>) -> Problem {
        let violated: Vec<String> = decision.violated().map(str::to_owned).collect();
        tracing::debug!(scope = self.config.scope, policies = ?violated, "rate limited");
        let mut problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "ratelimit", "rate_limited")
            .type_uri(QUOTA_EXCEEDED)
            .title("Quota Exceeded");
        problem = match decision.retry_after() {
            Some(wait) => problem
                .detail("The quota is used up for now: try again after the time in Retry-After.")
                .retry_after(wait),
            None => problem.detail("The request asks for more than the quota ever allows at once."),
        };
        if self.config.headers != Headers::Never {
            let fields = Fields::of(decision);
            problem = problem
                .header(RATE_LIMIT, fields.limit)
                .header(RATE_LIMIT_POLICY, fields.policy);
        }
        problem.member("violated-policies", violated.into())
    }
}

#[cold]
fn caller_unknown() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "ratelimit",
        "caller_unknown",
    )
    .detail("Nothing tells whose quota the request is to be charged to.")
}

impl Fields {
    fn of(decision: &Decision<'_>) -> Self {
        Self {
            limit: decision
                .rate_limit_field()
                .unwrap_or(HeaderValue::from_static("")),
            policy: decision
                .rate_limit_policy_field()
                .unwrap_or(HeaderValue::from_static("")),
        }
    }

    /// Writes them, unless a limiter further in has.
    pub(crate) fn write<B>(self, response: &mut Response<B>) {
        let headers = response.headers_mut();
        if !headers.contains_key(&RATE_LIMIT) {
            headers.insert(RATE_LIMIT, self.limit);
            headers.insert(RATE_LIMIT_POLICY, self.policy);
        }
    }
}

/// A request extension: to which limiters' keys this request has been charged already.
#[derive(Clone, Copy, Default)]
struct Charged {
    charges: [Option<(u64, Key)>; 4],
}

impl Charged {
    fn holds(extensions: &Extensions, charge: (u64, Key)) -> bool {
        let charged = extensions.get::<Self>();
        charged.is_some_and(|charged| charged.charges.contains(&Some(charge)))
    }

    /// A fifth limiter is not remembered: its second charge would go unseen, which errs on the
    /// side of charging.
    fn add(extensions: &mut Extensions, charge: (u64, Key)) {
        let charged = extensions.get_or_insert_default::<Self>();
        if let Some(free) = charged.charges.iter_mut().find(|slot| slot.is_none()) {
            *free = Some(charge);
        }
    }
}
