//! Whose quota a request is charged to.

use std::fmt;
use std::sync::Arc;

use http::HeaderName;
use spark_core::Context;

use crate::choice::Choice;
use crate::subject::Found;
use crate::{ChooseKey, Head, Key, Subject, Unknown};

/// How the layer finds out whose quota a request is charged to.
///
/// Ways are put together with [`or`](Self::or) and [`and`](Self::and), and these nest. A request of
/// which nothing is known is never unlimited: see [`unknown`](Self::unknown).
///
/// # Example
/// ```
/// use spark_ratelimit::{Key, KeyBy};
/// let by_caller = KeyBy::principal();
/// let by_address = KeyBy::client_ip();
/// let reads_and_writes = KeyBy::from_fn(|head| Some(Key::of(&head.method.is_safe())));
/// assert_eq!(
///     format!("{:?}", KeyBy::principal().and(reads_and_writes)),
///     "(tenant, else network/64) and custom"
/// );
/// ```
#[derive(Clone)]
pub struct KeyBy {
    choice: Choice,
    unknown: Unknown,
}

impl KeyBy {
    /// By the caller: a user's tenant with its tier, the master by itself, and the anonymous by
    /// their network. Stands inside the layer that authenticates; without one, it goes by network
    /// and reports that it is mis-wired.
    ///
    /// This is `KeyBy::tenant().or(KeyBy::client_ip())`.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::KeyBy;
    /// let key_by = KeyBy::principal();
    /// ```
    pub fn principal() -> Self {
        Self::tenant().or(Self::client_ip())
    }

    /// By the authenticated caller alone: a user's tenant with its tier, the master by itself. The
    /// anonymous are unknown, and whoever a layer outside said nothing about, which is reported.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{KeyBy, Unknown};
    /// // What the anonymous have in common is one bucket, or nothing at all.
    /// let together = KeyBy::tenant();
    /// let refused = KeyBy::tenant().unknown(Unknown::Refuse);
    /// ```
    pub fn tenant() -> Self {
        Self::new(Choice::Tenant)
    }

    /// By network: an IPv4 address, or an IPv6 /64. For a limit before authentication, so that a
    /// flood of bad keys is refused cheaply; generous, since many people may share one address.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::KeyBy;
    /// let key_by = KeyBy::client_ip();
    /// ```
    pub fn client_ip() -> Self {
        Self::new(Choice::network())
    }

    /// By the value of one header, byte for byte.
    ///
    /// **A header is as good as the proxy that sets it.** Whoever reaches the service with a header
    /// of their own choosing has as many buckets as they can think of values, and can empty those
    /// of others. So the proxy in front must replace what the client sent, nobody may get around
    /// it, and a limit by [`client_ip`](Self::client_ip) should stand outside. A credential
    /// is no key until it has been checked: take [`tenant`](Self::tenant).
    ///
    /// A request has no key by it when the header is absent or empty, and also when there are two
    /// lines of it: one of them is then the client's, and nothing tells which one. A proxy that
    /// appends to the client's line instead of replacing it cannot be told from one that does not.
    ///
    /// # Example
    /// ```
    /// # use http::HeaderName;
    /// # use spark_ratelimit::KeyBy;
    /// let by_device = KeyBy::header(HeaderName::from_static("x-device")).or(KeyBy::client_ip());
    /// ```
    pub fn header(name: HeaderName) -> Self {
        let key = Key::of(name.as_str());
        Self::new(Choice::Header { name, key })
    }

    /// By the route that the request matches in axum's `Router`: `/users/{id}`, whatever the id.
    ///
    /// All methods of a route share its bucket, `HEAD` and made-up ones too, or a caller could have
    /// another for each. A path in another case, with another slash or with percent-encoding either
    /// matches the same route or none, and everything that matches none shares one bucket: what the
    /// fallback answers, and what is mounted by `nest_service` or `fallback_service`. The number of
    /// buckets is that of the routes.
    ///
    /// By itself it limits a route for all callers together: with [`and`](Self::and), for each.
    /// Apply the layer with `Router::layer`, since further out no route is known yet: that is
    /// reported, and follows [`unknown`](Self::unknown).
    ///
    /// # Example
    /// ```
    /// # use axum::{Router, routing::get};
    /// # use spark_ratelimit::{KeyBy, Limiter, Policy, Quota, RateLimitLayer};
    /// # use std::time::Duration;
    /// let quota = Quota::new(10, Duration::from_secs(60))?;
    /// let limiter = Limiter::builder().policy(Policy::new("per-route", quota)?).build()?;
    /// let layer = RateLimitLayer::new(limiter).key(KeyBy::principal().and(KeyBy::route()));
    /// let app: Router = Router::new().route("/users/{id}", get(|| async {})).layer(layer);
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    #[cfg(feature = "axum")]
    pub fn route() -> Self {
        Self::new(Choice::Route)
    }

    /// By a way of your own.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{ChooseKey, Head, Key, KeyBy, Subject};
    /// struct Everybody;
    /// impl ChooseKey for Everybody {
    ///     fn choose<'a>(&self, _: &Head<'a>) -> Option<Subject<'a>> {
    ///         Some(Key::of("everybody").into())
    ///     }
    /// }
    /// let key_by = KeyBy::custom(Everybody);
    /// ```
    pub fn custom(choose: impl ChooseKey) -> Self {
        Self::new(Choice::Custom(Arc::new(choose)))
    }

    /// By a function, without tiers. What the caller chooses freely, such as the path, is no key
    /// that limits them: each new value is a fresh bucket.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Key, KeyBy};
    /// /// The client's certificate, from a layer that ends TLS.
    /// #[derive(Clone)]
    /// struct Certificate(Vec<u8>);
    ///
    /// let by_certificate = KeyBy::from_fn(|head| {
    ///     head.extensions.get().map(|Certificate(der)| Key::of(der))
    /// });
    /// ```
    pub fn from_fn(choose: impl Fn(&Head<'_>) -> Option<Key> + Send + Sync + 'static) -> Self {
        Self::custom(Function(choose))
    }

    /// By the first of both that knows.
    ///
    /// Whoever can choose whether they are known has both buckets: a tenant that also calls without
    /// its key is anonymous then.
    ///
    /// # Example
    /// ```
    /// # use http::HeaderName;
    /// # use spark_ratelimit::KeyBy;
    /// let device = KeyBy::header(HeaderName::from_static("x-device"));
    /// let key_by = KeyBy::tenant().or(device).or(KeyBy::client_ip());
    /// ```
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        self.with(other, Choice::Or)
    }

    /// By both together: a bucket for each pair, such as a tenant on a route. The tier is that of
    /// the first that has one. Unknown when either is.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Key, KeyBy};
    /// let reads_and_writes = KeyBy::from_fn(|head| Some(Key::of(&head.method.is_safe())));
    /// let key_by = KeyBy::principal().and(reads_and_writes);
    /// ```
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        self.with(other, Choice::And)
    }

    /// Groups IPv6 addresses by another prefix than /64, such as the /56 or /48 that a customer of
    /// many providers has. At most 128. Applies to every part of what has been put together so far
    /// that goes by network, and means nothing to others.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::KeyBy;
    /// let by_site = KeyBy::client_ip().v6_prefix(48);
    /// assert_eq!(format!("{:?}", KeyBy::principal().v6_prefix(56)), "tenant, else network/56");
    /// ```
    #[must_use]
    pub fn v6_prefix(mut self, bits: u8) -> Self {
        self.choice.set_v6_prefix(bits.min(128));
        self
    }

    /// What becomes of a request of which nothing is known: by default, all of them share one
    /// bucket. Of two that are put together, the stricter setting stands until this sets another.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{KeyBy, Unknown};
    /// let key_by = KeyBy::client_ip().unknown(Unknown::Refuse);
    /// ```
    #[must_use]
    pub fn unknown(mut self, unknown: Unknown) -> Self {
        self.unknown = unknown;
        self
    }

    pub(crate) fn find<'a>(&self, head: &Head<'a>) -> Found<'a> {
        let known = self.choice.look(head, Context::of(head.extensions));
        Found {
            subject: known.subject.unwrap_or_else(|| Key::shared().into()),
            missed: known.missed,
            refuse: known.subject.is_none() && self.unknown == Unknown::Refuse,
        }
    }

    fn new(choice: Choice) -> Self {
        Self {
            choice,
            unknown: Unknown::default(),
        }
    }

    fn with(self, other: Self, put_together: fn(Box<(Choice, Choice)>) -> Choice) -> Self {
        Self {
            choice: put_together(Box::new((self.choice, other.choice))),
            unknown: match self.unknown {
                Unknown::SharedBucket => other.unknown,
                Unknown::Refuse => Unknown::Refuse,
            },
        }
    }
}

struct Function<F>(F);

impl<F: Fn(&Head<'_>) -> Option<Key> + Send + Sync + 'static> ChooseKey for Function<F> {
    fn choose<'a>(&self, head: &Head<'a>) -> Option<Subject<'a>> {
        (self.0)(head).map(Subject::from)
    }
}

impl fmt::Debug for KeyBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.choice)?;
        match self.unknown {
            Unknown::SharedBucket => Ok(()),
            Unknown::Refuse => f.write_str(", else refused"),
        }
    }
}

#[cfg(test)]
#[path = "key_by_tests.rs"]
mod tests;
