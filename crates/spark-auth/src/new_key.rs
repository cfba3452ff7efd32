//! What a new key shall be.

use std::time::Duration;

use ipnet::IpNet;
use spark_core::Name;

use crate::error::AuthError;
use crate::record::{
    MAX_NETWORKS, MAX_SCOPES, is_label, is_owner, is_scope, plain_network, whole_millis,
};
use crate::words::Environment;

/// What a new key shall be.
///
/// # Example
/// ```
/// use spark_auth::NewKey;
/// use spark_core::Name;
/// let new = NewKey::new(Name::new("acme")?)
///     .label("nightly import")
///     .tier(Name::new("pro")?)
///     .scopes([Name::new("metrics:read")?]);
/// # Ok::<(), spark_core::NameError>(())
/// ```
#[derive(Clone, Debug)]
pub struct NewKey {
    pub(crate) tenant: Name,
    pub(crate) environment: Environment,
    pub(crate) label: Option<Box<str>>,
    pub(crate) tier: Option<Name>,
    pub(crate) scopes: Vec<Name>,
    pub(crate) not_before: Option<Duration>,
    pub(crate) expires_at: Option<Duration>,
    pub(crate) owner: Option<Box<str>>,
    pub(crate) ip_allow: Vec<IpNet>,
}

impl NewKey {
    /// A key of `tenant`, without label, tier, scopes and end.
    ///
    /// # Example
    /// ```
    /// let new = spark_auth::NewKey::new(spark_core::Name::new("acme")?);
    /// # Ok::<(), spark_core::NameError>(())
    /// ```
    pub fn new(tenant: Name) -> Self {
        Self {
            tenant,
            environment: Environment::Live,
            label: None,
            tier: None,
            scopes: Vec::new(),
            not_before: None,
            expires_at: None,
            owner: None,
            ip_allow: Vec::new(),
        }
    }

    /// A word for people: at most [`MAX_LABEL_LEN`](crate::MAX_LABEL_LEN) bytes, without control characters.
    ///
    /// # Example
    /// ```
    /// # use {spark_auth::NewKey, spark_core::Name};
    /// let new = NewKey::new(Name::new("acme")?).label("Ada's laptop");
    /// # Ok::<(), spark_core::NameError>(())
    /// ```
    #[must_use]
    pub fn label(mut self, label: impl Into<Box<str>>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Who answers for the key: a person, a team, an address to write to. At most
    /// [`MAX_OWNER_LEN`](crate::MAX_OWNER_LEN) bytes, without control characters.
    ///
    /// # Example
    /// ```
    /// # use {spark_auth::NewKey, spark_core::Name};
    /// let new = NewKey::new(Name::new("acme")?).owner("ada@example.com");
    /// # Ok::<(), spark_core::NameError>(())
    /// ```
    #[must_use]
    pub fn owner(mut self, owner: impl Into<Box<str>>) -> Self {
        self.owner = Some(owner.into());
        self
    }

    /// From where the key may be used: at most [`MAX_NETWORKS`] networks; from anywhere where none
    /// is named. An IPv4-mapped network means the IPv4 network, and `::/0` means IPv6 alone.
    ///
    /// Such a key is refused where the address of the caller is not known, also by
    /// [`verify`](crate::Authenticator::verify): use
    /// [`verify_from`](crate::Authenticator::verify_from).
    ///
    /// # Example
    /// ```
    /// # use {spark_auth::NewKey, spark_core::Name};
    /// let office = ["192.0.2.0/24".parse()?, "2001:db8::/32".parse()?];
    /// let new = NewKey::new(Name::new("acme")?).ip_allow(office);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn ip_allow(mut self, networks: impl IntoIterator<Item = IpNet>) -> Self {
        let networks = networks.into_iter().map(plain_network);
        // One more than is accepted, so that too many are refused and not cut.
        self.ip_allow = networks.take(MAX_NETWORKS + 1).collect();
        self
    }

    /// Which quota applies.
    ///
    /// # Example
    /// ```
    /// # use {spark_auth::NewKey, spark_core::Name};
    /// let new = NewKey::new(Name::new("acme")?).tier(Name::new("pro")?);
    /// # Ok::<(), spark_core::NameError>(())
    /// ```
    #[must_use]
    pub fn tier(mut self, tier: impl Into<Option<Name>>) -> Self {
        self.tier = tier.into();
        self
    }

    /// What the key may do beyond the data routes: at most [`MAX_SCOPES`]. A scope is words joined
    /// by `:`, of which the last may be `*` for one word or more: `chat:write`, `chat:*`, `*`.
    ///
    /// # Example
    /// ```
    /// # use {spark_auth::NewKey, spark_core::Name};
    /// let new = NewKey::new(Name::new("acme")?).scopes([Name::new("metrics:read")?]);
    /// # Ok::<(), spark_core::NameError>(())
    /// ```
    #[must_use]
    pub fn scopes(mut self, scopes: impl IntoIterator<Item = Name>) -> Self {
        // One more than is accepted, so that too many are refused and not cut.
        self.scopes = scopes.into_iter().take(MAX_SCOPES + 1).collect();
        self
    }

    /// From when on the key works, as time since 1970.
    ///
    /// # Example
    /// ```
    /// # use {spark_auth::NewKey, spark_core::Name, std::time::Duration};
    /// let new = NewKey::new(Name::new("acme")?).not_before(Duration::from_secs(1_900_000_000));
    /// # Ok::<(), spark_core::NameError>(())
    /// ```
    #[must_use]
    pub fn not_before(mut self, time: impl Into<Option<Duration>>) -> Self {
        self.not_before = time.into();
        self
    }

    /// From when on the key no longer works, as time since 1970.
    ///
    /// # Example
    /// ```
    /// # use {spark_auth::NewKey, spark_core::Name, std::time::Duration};
    /// let new = NewKey::new(Name::new("acme")?).expires_at(Duration::from_secs(2_000_000_000));
    /// # Ok::<(), spark_core::NameError>(())
    /// ```
    #[must_use]
    pub fn expires_at(mut self, time: impl Into<Option<Duration>>) -> Self {
        self.expires_at = time.into();
        self
    }

    /// Whether the key says `live` (as it does unless told otherwise) or `test`. It is a word for
    /// people and scanners, and opens the same doors, unless the authenticator was told which
    /// [`environments`](crate::AuthenticatorBuilder::environments) to accept.
    ///
    /// # Example
    /// ```
    /// # use {spark_auth::{Environment, NewKey}, spark_core::Name};
    /// let new = NewKey::new(Name::new("acme")?).environment(Environment::Test);
    /// # Ok::<(), spark_core::NameError>(())
    /// ```
    #[must_use]
    pub fn environment(mut self, environment: Environment) -> Self {
        self.environment = environment;
        self
    }

    /// Whether such a key can be made at `now`, time since 1970, as far as that can be told without
    /// its store. [`issue`](crate::Authenticator::issue) asks this itself.
    ///
    /// # Errors
    /// [`AuthError::Invalid`] names the field at fault.
    ///
    /// # Example
    /// ```
    /// # use {spark_auth::NewKey, spark_core::{Clock, Name}};
    /// let new = NewKey::new(Name::new("acme")?).label("");
    /// let refused = new.check(Clock::system().unix_time()).unwrap_err();
    /// assert_eq!(refused.field(), Some("label"));
    /// # Ok::<(), spark_core::NameError>(())
    /// ```
    pub fn check(&self, now: Duration) -> Result<(), AuthError> {
        let invalid = |field, problem| Err(AuthError::Invalid { field, problem });
        if !self.label.as_deref().is_none_or(is_label) {
            return invalid("label", "use 1 to 128 bytes without control characters");
        }
        if self.scopes.len() > MAX_SCOPES {
            return invalid("scopes", "use at most 32 scopes");
        }
        if !self.scopes.iter().all(|scope| is_scope(scope.as_str())) {
            return invalid(
                "scopes",
                "use words joined by `:`, of which only the last may be `*`",
            );
        }
        if !self.owner.as_deref().is_none_or(is_owner) {
            return invalid("owner", "use 1 to 128 bytes without control characters");
        }
        if self.ip_allow.len() > MAX_NETWORKS {
            return invalid("ip_allow", "use at most 32 networks");
        }
        if self.expires_at.is_some_and(|end| whole_millis(end) <= now) {
            return invalid("expires_at", "use a time in the future");
        }
        // As they will be kept: a start and an end in the same millisecond leave no time.
        let kept = |time: Option<Duration>| time.map(whole_millis);
        match (kept(self.not_before), kept(self.expires_at)) {
            (Some(start), Some(end)) if start >= end => {
                invalid("not_before", "use a time before expires_at")
            }
            _ => Ok(()),
        }
    }
}
