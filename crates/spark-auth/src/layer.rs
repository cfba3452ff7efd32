//! Putting authentication around a service.

use std::collections::BTreeSet;
use std::sync::Arc;

use spark_core::{Miswired, Name};
use tower_layer::Layer;

use crate::answer::Challenges;
use crate::authenticator::Authenticator;
use crate::metrics::Counters;
use crate::service::AuthService;
use crate::throttle::FailureThrottle;

pub(crate) const DEFAULT_REALM: &str = "spark";

/// Finds out who is calling, and tells those within by [`spark_core::Context`].
///
/// A credential that is present is either good or answered with 401: it never turns into
/// "anonymous", in no mode. The credential headers are taken out of the request, so that nothing
/// further in, and no provider, ever sees them; and so are the `x-spark-*` headers, in which a client
/// might name itself.
///
/// Every route is behind it unless it is [exempt](Self::exempt). What a route asks of its caller
/// is said by [`RequireLayer`](crate::RequireLayer).
///
/// # Example
/// ```
/// use spark_auth::{AuthLayer, Authenticator, MemoryStore, Pepper};
/// use spark_core::Name;
/// let auth = Authenticator::builder()
///     .pepper(Pepper::generate()?)
///     .store(MemoryStore::new())
///     .build()?;
/// let layer = AuthLayer::required(auth)
///     .realm(&Name::new("acme")?)
///     .exempt(["/api/spark/health"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct AuthLayer {
    shared: Arc<Shared>,
}

/// What the layer and all its services share.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) authenticator: Authenticator,
    pub(crate) is_optional: bool,
    pub(crate) exempt: BTreeSet<Box<str>>,
    pub(crate) challenges: Challenges,
    pub(crate) throttle: Option<Arc<dyn FailureThrottle>>,
    pub(crate) keep_credentials: bool,
    pub(crate) counters: Counters,
    pub(crate) no_context: Arc<Miswired>,
    pub(crate) no_address: Arc<Miswired>,
}

impl AuthLayer {
    /// Requests without a credential are answered with 401.
    ///
    /// # Example
    /// ```
    /// # use spark_auth::*;
    /// # let auth = Authenticator::builder().pepper(Pepper::generate()?).store(MemoryStore::new()).build()?;
    /// let layer = AuthLayer::required(auth);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn required(authenticator: Authenticator) -> Self {
        Self::new(authenticator, false)
    }

    /// Requests without a credential pass as [`Principal::Anonymous`](spark_core::Principal): put
    /// limits per address behind it.
    ///
    /// # Example
    /// ```
    /// # use spark_auth::*;
    /// # let auth = Authenticator::builder().pepper(Pepper::generate()?).store(MemoryStore::new()).build()?;
    /// let layer = AuthLayer::optional(auth);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn optional(authenticator: Authenticator) -> Self {
        Self::new(authenticator, true)
    }

    fn new(authenticator: Authenticator, is_optional: bool) -> Self {
        Self {
            shared: Arc::new(Shared {
                authenticator,
                is_optional,
                exempt: BTreeSet::new(),
                challenges: Challenges::new(DEFAULT_REALM, None),
                throttle: None,
                keep_credentials: false,
                counters: Counters::default(),
                no_context: Arc::new(Miswired::new("auth")),
                no_address: Arc::new(Miswired::new("auth")),
            }),
        }
    }

    /// What `WWW-Authenticate` calls this service; `spark` unless told otherwise.
    ///
    /// # Example
    /// ```
    /// # use {spark_auth::*, spark_core::Name};
    /// # let auth = Authenticator::builder().pepper(Pepper::generate()?).store(MemoryStore::new()).build()?;
    /// let layer = AuthLayer::required(auth).realm(&Name::new("acme")?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn realm(self, realm: &Name) -> Self {
        self.edit(|shared| shared.challenges = Challenges::new(realm.as_str(), None))
    }

    /// Paths on which a credential may be left out although it is required elsewhere. They are
    /// compared whole and as they were sent, so `/health` exempts neither `/health/` nor
    /// `/%68ealth`. A bad credential is 401 there too, and a good one is told to those within.
    ///
    /// # Example
    /// ```
    /// # use spark_auth::*;
    /// # let auth = Authenticator::builder().pepper(Pepper::generate()?).store(MemoryStore::new()).build()?;
    /// let layer = AuthLayer::required(auth).exempt(["/", "/api/spark/health"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn exempt<P: Into<Box<str>>>(self, paths: impl IntoIterator<Item = P>) -> Self {
        self.edit(|shared| {
            for path in paths.into_iter().map(Into::into) {
                if !path.starts_with('/') {
                    tracing::warn!(%path, "an exempt path that does not begin with / matches nothing");
                }
                shared.exempt.insert(path);
            }
        })
    }

    /// Asks `throttle` about every credential, and answers 429 with `Retry-After` where it refuses and
    /// the credential is no generated key that works.
    ///
    /// # Example
    /// ```
    /// # use {spark_auth::*, spark_core::ClientIp, std::{sync::Arc, time::Duration}};
    /// # #[derive(Debug)] struct Never;
    /// # impl FailureThrottle for Never {
    /// #     fn permit(&self, _: Option<ClientIp>) -> Result<(), Duration> { Ok(()) }
    /// #     fn record(&self, _: Option<ClientIp>) {}
    /// # }
    /// # let auth = Authenticator::builder().pepper(Pepper::generate()?).store(MemoryStore::new()).build()?;
    /// let layer = AuthLayer::required(auth).throttle(Arc::new(Never));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn throttle(self, throttle: Arc<dyn FailureThrottle>) -> Self {
        self.edit(|shared| shared.throttle = Some(throttle))
    }

    /// Leaves the credential headers in the request, marked as sensitive: for a service behind that
    /// checks them again. Unless you call this they are taken out.
    ///
    /// # Example
    /// ```
    /// # use spark_auth::*;
    /// # let auth = Authenticator::builder().pepper(Pepper::generate()?).store(MemoryStore::new()).build()?;
    /// let layer = AuthLayer::required(auth).keep_credentials();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn keep_credentials(self) -> Self {
        self.edit(|shared| shared.keep_credentials = true)
    }

    fn edit(mut self, change: impl FnOnce(&mut Shared)) -> Self {
        change(Arc::make_mut(&mut self.shared));
        self
    }
}

impl<S> Layer<S> for AuthLayer {
    type Service = AuthService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AuthService::new(inner, Arc::clone(&self.shared))
    }
}
