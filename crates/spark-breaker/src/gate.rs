//! Which breakers a layer asks.

use std::fmt;
use std::sync::Arc;

use http::Request;
use http::request::Parts;
use spark_core::Miswired;

use crate::permit::IfDropped;
use crate::{Breaker, Permit, Permits, ProviderKey, Registry, Rejected};
use sealed::{Admit, Hold};

/// What a [`BreakerLayer`](crate::BreakerLayer) asks: a [`Breaker`] about all calls, or [`Keyed`]
/// ones about each by its key. There are no others.
///
/// # Example
/// ```
/// use spark_breaker::{BreakerLayer, Gate};
/// fn takes_either<C, G: Gate>(layer: BreakerLayer<C, G>) {}
/// ```
pub trait Gate: Admit {}

impl Gate for Breaker {}

/// Breakers by the key of each request; made by [`BreakerLayer::keyed`](crate::BreakerLayer::keyed).
pub struct Keyed<F>(Arc<Inner<F>>);

struct Inner<F> {
    registry: Registry,
    key: F,
    miswired: Miswired,
}

impl<F> Keyed<F> {
    pub(crate) fn new(registry: Registry, key: F) -> Self {
        let miswired = Miswired::new("breaker");
        Self(Arc::new(Inner {
            registry,
            key,
            miswired,
        }))
    }
}

impl<F> Gate for Keyed<F> where F: Fn(&Parts) -> Option<ProviderKey> + Send + Sync + 'static {}

impl Admit for Breaker {
    type Permit = Permit;

    fn refuses(&self) -> bool {
        Breaker::refuses(self)
    }

    fn admit<B>(
        &self,
        request: Request<B>,
        background: bool,
    ) -> (Request<B>, Result<Permit, Rejected>) {
        let admitted = self.acquire(background, IfDropped::LEFT);
        (request, admitted)
    }
}

impl<F> Admit for Keyed<F>
where
    F: Fn(&Parts) -> Option<ProviderKey> + Send + Sync + 'static,
{
    type Permit = Permits;

    /// Before there is a request, nobody knows whose breaker to look at.
    fn refuses(&self) -> bool {
        false
    }

    fn admit<B>(
        &self,
        request: Request<B>,
        background: bool,
    ) -> (Request<B>, Result<Permits, Rejected>) {
        let Inner {
            registry,
            key,
            miswired,
        } = &*self.0;
        let (parts, body) = request.into_parts();
        let breakers = match key(&parts) {
            Some(key) => registry.breakers_for_any(&key),
            None => {
                miswired.report("no key for a breaker: put in what the key is made of further out");
                registry.breakers_for_none()
            }
        };
        let admitted = breakers.acquire(background, IfDropped::LEFT);
        (Request::from_parts(parts, body), admitted)
    }
}

impl Hold for Permit {
    fn record(self, outcome: crate::Outcome) {
        Permit::record(self, outcome);
    }

    fn judging(&mut self, judging: bool) {
        Permit::judging(self, judging);
    }

    fn first_byte(&mut self) {
        Permit::first_byte(self);
    }

    fn clock(&self) -> &spark_core::Clock {
        Permit::clock(self)
    }
}

impl Hold for Permits {
    fn record(self, outcome: crate::Outcome) {
        Permits::record(self, outcome);
    }

    fn judging(&mut self, judging: bool) {
        Permits::judging(self, judging);
    }

    fn first_byte(&mut self) {
        Permits::first_byte(self);
    }

    fn clock(&self) -> &spark_core::Clock {
        Permits::clock(self)
    }
}

impl<F> Clone for Keyed<F> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<F> fmt::Debug for Keyed<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyed")
            .field("registry", &self.0.registry)
            .finish_non_exhaustive()
    }
}

pub(crate) mod sealed {
    use http::Request;
    use spark_core::Clock;

    use crate::{Outcome, Rejected};

    /// Lets a request through, or not. It is handed back, since a key may be taken from its head.
    pub trait Admit: Clone + Send + Sync + 'static {
        type Permit: Hold;

        fn refuses(&self) -> bool;

        fn admit<B>(
            &self,
            request: Request<B>,
            background: bool,
        ) -> (Request<B>, Result<Self::Permit, Rejected>);
    }

    /// What is held while a call is under way.
    pub trait Hold: Send + Sync + 'static {
        fn record(self, outcome: Outcome);

        fn judging(&mut self, judging: bool);

        fn first_byte(&mut self);

        fn clock(&self) -> &Clock;
    }
}
