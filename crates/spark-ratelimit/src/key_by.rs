//! Whose quota a request is charged to.

use std::fmt;
use std::sync::Arc;

use spark_core::{ClientIp, Context, Principal, peer_addr};

use crate::{Head, Key};

const DEFAULT_V6_PREFIX: u8 = 64;

/// How the layer finds out whose quota a request is charged to.
///
/// A request of which nothing is known is never unlimited: all of them share one bucket, which is
/// warned about once and counted in `spark_miswired_total`.
///
/// # Example
/// ```
/// use spark_ratelimit::{Key, KeyBy};
/// let by_tenant = KeyBy::principal();
/// let by_address = KeyBy::client_ip();
/// let by_path = KeyBy::from_fn(|head| Some(Key::of(head.uri.path())));
/// ```
#[derive(Clone)]
pub struct KeyBy(By);

#[derive(Clone)]
enum By {
    Principal { v6_prefix: u8 },
    ClientIp { v6_prefix: u8 },
    Custom(Arc<dyn ChooseKey>),
}

/// A way of your own to choose a key. For the simple cases there is [`KeyBy::from_fn`].
///
/// # Example
/// ```
/// use spark_ratelimit::{ChooseKey, Head, Key, KeyBy, Subject};
///
/// /// By the header that our gateway adds, with a tier for partners.
/// struct ByGateway;
///
/// impl ChooseKey for ByGateway {
///     fn choose<'a>(&self, head: &Head<'a>) -> Option<Subject<'a>> {
///         let app = head.headers.get("x-app")?;
///         let tier = app.as_bytes().starts_with(b"partner-").then_some("partner");
///         Some(Subject { key: Key::of(app.as_bytes()), tier })
///     }
/// }
///
/// let key_by = KeyBy::custom(ByGateway);
/// ```
pub trait ChooseKey: Send + Sync + 'static {
    /// Whose quota it is; `None` when the request does not tell.
    fn choose<'a>(&self, head: &Head<'a>) -> Option<Subject<'a>>;
}

/// Whose quota, and which.
///
/// # Example
/// ```
/// use spark_ratelimit::{Key, Subject};
/// let subject = Subject { key: Key::of("app-7"), tier: Some("pro") };
/// assert_eq!(Subject::from(Key::shared()).tier, None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject<'a> {
    /// Whose quota.
    pub key: Key,
    /// The tier, when there is one: a policy may have a quota for it.
    pub tier: Option<&'a str>,
}

impl From<Key> for Subject<'_> {
    fn from(key: Key) -> Self {
        Self { key, tier: None }
    }
}

/// What was found, and what was missed on the way.
pub(crate) struct Found<'a> {
    pub(crate) subject: Subject<'a>,
    pub(crate) missed: Option<Missed>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missed {
    /// Nothing is known: the shared bucket.
    Everything,
    /// No layer said who calls; the address stands in.
    Principal,
}

impl KeyBy {
    /// By the caller: a user's tenant with its tier, the master by itself, and the anonymous by
    /// their network. Stands inside the layer that authenticates; without one, it goes by network
    /// and reports that it is mis-wired.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::KeyBy;
    /// let key_by = KeyBy::principal();
    /// ```
    pub fn principal() -> Self {
        Self(By::Principal {
            v6_prefix: DEFAULT_V6_PREFIX,
        })
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
        Self(By::ClientIp {
            v6_prefix: DEFAULT_V6_PREFIX,
        })
    }

    /// Groups IPv6 addresses by another prefix than /64, such as the /56 or /48 that a customer of
    /// many providers has. At most 128. Means nothing to a key of your own.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::KeyBy;
    /// let by_site = KeyBy::client_ip().v6_prefix(48);
    /// ```
    #[must_use]
    pub fn v6_prefix(mut self, bits: u8) -> Self {
        match &mut self.0 {
            By::Principal { v6_prefix } | By::ClientIp { v6_prefix } => *v6_prefix = bits.min(128),
            By::Custom(_) => {}
        }
        self
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
        Self(By::Custom(Arc::new(choose)))
    }

    /// By a function, without tiers.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Key, KeyBy};
    /// let by_app = KeyBy::from_fn(|head| head.headers.get("x-app").map(|app| Key::of(app.as_bytes())));
    /// ```
    pub fn from_fn(choose: impl Fn(&Head<'_>) -> Option<Key> + Send + Sync + 'static) -> Self {
        Self::custom(Function(choose))
    }

    pub(crate) fn find<'a>(&self, head: &Head<'a>) -> Found<'a> {
        match &self.0 {
            By::Principal { v6_prefix } => by_principal(head, *v6_prefix),
            By::ClientIp { v6_prefix } => by_network(head, *v6_prefix, None),
            By::Custom(choose) => choose.choose(head).map_or_else(shared, found),
        }
    }
}

fn by_principal<'a>(head: &Head<'a>, v6_prefix: u8) -> Found<'a> {
    match Context::of(head.extensions).and_then(Context::principal) {
        Some(Principal::User(user)) => found(Subject {
            key: Key::tenant(&user.tenant),
            tier: user.tier.as_ref().map(spark_core::Name::as_str),
        }),
        Some(Principal::Master) => found(Key::master().into()),
        // The anonymous, and whoever else has no tenant.
        Some(_) => by_network(head, v6_prefix, None),
        None => by_network(head, v6_prefix, Some(Missed::Principal)),
    }
}

fn by_network<'a>(head: &Head<'a>, v6_prefix: u8, missed: Option<Missed>) -> Found<'a> {
    client_ip(head).map_or_else(shared, |ip| Found {
        subject: Key::network(ip, v6_prefix).into(),
        missed,
    })
}

/// The address that the edge worked out; the peer's where no edge layer of ours stands outside.
fn client_ip(head: &Head<'_>) -> Option<ClientIp> {
    match Context::of(head.extensions).and_then(Context::client_ip) {
        Some(ip) => Some(ip),
        None => peer_addr(head.extensions).map(|peer| ClientIp::new(peer.ip())),
    }
}

fn found(subject: Subject<'_>) -> Found<'_> {
    Found {
        subject,
        missed: None,
    }
}

fn shared<'a>() -> Found<'a> {
    Found {
        subject: Key::shared().into(),
        missed: Some(Missed::Everything),
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
        match &self.0 {
            By::Principal { v6_prefix } => write!(f, "principal, else network/{v6_prefix}"),
            By::ClientIp { v6_prefix } => write!(f, "network/{v6_prefix}"),
            By::Custom(_) => f.write_str("custom"),
        }
    }
}

#[cfg(all(test, not(spark_loom)))]
mod tests {
    use super::*;
    use http::Request;
    use spark_core::{Instant, Name, PeerAddr, User};
    use std::net::SocketAddr;

    fn request(context: Context) -> Request<()> {
        let mut request = Request::new(());
        request.extensions_mut().insert(context);
        request
    }

    fn find(key_by: &KeyBy, request: &Request<()>) -> (Key, Option<String>, Option<Missed>) {
        let found = key_by.find(&Head::of(request));
        let tier = found.subject.tier.map(str::to_owned);
        (found.subject.key, tier, found.missed)
    }

    fn ip(text: &str) -> ClientIp {
        ClientIp::new(text.parse().unwrap())
    }

    fn context() -> Context {
        Context::new(Instant::default())
    }

    #[test]
    fn keys_of_one_tenant_share_a_quota_and_its_tier() {
        let name = |text| Name::new(text).unwrap();
        let by = KeyBy::principal();
        let user = |key, tier: Option<Name>| {
            let user = User::new(name(key), name("acme")).with_tier(tier);
            find(&by, &request(context().with_principal(user.into())))
        };
        let tenant = Key::tenant(&name("acme"));
        assert_eq!(user("k1", None), (tenant, None, None));
        assert_eq!(
            user("k2", Some(name("pro"))),
            (tenant, Some("pro".into()), None)
        );
    }

    #[test]
    fn the_master_is_alone_and_the_anonymous_go_by_network() {
        let by = KeyBy::principal();
        let context = context().with_client_ip(ip("2001:db8::1"));
        let master = request(context.clone().with_principal(Principal::Master));
        assert_eq!(find(&by, &master), (Key::master(), None, None));
        let anonymous = request(context.with_principal(Principal::Anonymous));
        let network = Key::network(ip("2001:db8::9"), 64);
        assert_eq!(find(&by, &anonymous), (network, None, None));
    }

    #[test]
    fn r4_whoever_nothing_is_known_of_shares_a_bucket_and_that_is_said() {
        let nothing = (Key::shared(), None, Some(Missed::Everything));
        let bare = Request::new(());
        assert_eq!(find(&KeyBy::principal(), &bare), nothing);
        assert_eq!(find(&KeyBy::client_ip(), &bare), nothing);
        assert_eq!(find(&KeyBy::from_fn(|_| None), &bare), nothing);

        let no_auth = request(context().with_client_ip(ip("192.0.2.1")));
        let network = Key::network(ip("192.0.2.1"), 64);
        let expected = (network, None, Some(Missed::Principal));
        assert_eq!(find(&KeyBy::principal(), &no_auth), expected);
    }

    #[test]
    fn without_our_edge_the_peer_is_the_client() {
        let mut request = Request::new(());
        let peer: SocketAddr = "[2001:db8::1]:4711".parse().unwrap();
        request.extensions_mut().insert(PeerAddr(peer));
        let (key, ..) = find(&KeyBy::client_ip(), &request);
        assert_eq!(key, Key::network(ip("2001:db8::2"), 64));
        let (wider, ..) = find(&KeyBy::client_ip().v6_prefix(32), &request);
        assert_eq!(wider, Key::network(ip("2001:db8:ffff::"), 32));
    }
}
