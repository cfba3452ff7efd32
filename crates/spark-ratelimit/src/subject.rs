//! What a way to choose keys answers, and what happens when it does not.

use crate::{Head, Key};

/// A way of your own to choose a key. For the simple cases there is
/// [`KeyBy::from_fn`](crate::KeyBy::from_fn).
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

/// What becomes of a request that does not tell whose quota it is charged to. It is never
/// unlimited, and never a 500.
///
/// # Example
/// ```
/// use spark_ratelimit::{KeyBy, Unknown};
/// let by_tenant = KeyBy::tenant().unknown(Unknown::Refuse);
/// assert_eq!(Unknown::default(), Unknown::SharedBucket);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unknown {
    /// All such requests share one bucket, as if they came from one caller: what is mis-wired goes
    /// on, slowly.
    #[default]
    SharedBucket,
    /// It is answered with 503: for those who would rather hear of it at once.
    Refuse,
}

/// What the layer goes by.
pub(crate) struct Found<'a> {
    pub(crate) subject: Subject<'a>,
    pub(crate) missed: Option<Missed>,
    /// The request is not to be charged but refused.
    pub(crate) refuse: bool,
}

/// What should have been there and was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missed {
    /// The peer's address.
    Address,
    /// Somebody who says who calls. Something else may stand in.
    Principal,
    /// Exactly one line of a header.
    Header,
    /// A router.
    #[cfg(feature = "axum")]
    Route,
    /// Whatever a key of the user's own goes by.
    Custom,
}

impl Missed {
    /// What is missing, and the mend.
    pub(crate) fn mend(self) -> &'static str {
        match self {
            Self::Address => {
                "nothing tells which address requests come from: serve with spark-serve or axum's \
                 ConnectInfo, so that the peer is known"
            }
            Self::Principal => {
                "no layer outside said who calls: put the auth layer outside, or choose \
                 KeyBy::client_ip"
            }
            Self::Header => {
                "the header to limit by is missing, empty or there twice: let the proxy in front \
                 replace it on every request, and nobody get around that proxy"
            }
            #[cfg(feature = "axum")]
            Self::Route => {
                "no axum router stands outside, so no route is known: apply the layer with \
                 Router::layer"
            }
            Self::Custom => {
                "the way to choose a key found none: let it answer for every request, or add \
                 another with KeyBy::or"
            }
        }
    }
}
