//! What a new key shall be.

use std::time::Duration;

use ipnet::IpNet;
use spark_core::Name;

use crate::error::AuthError;
use crate::record::{MAX_SCOPES, is_label, whole_millis};
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

    /// What the key may do beyond the data routes: at most [`MAX_SCOPES`].
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

    /// Whether the key says `live` (as it does unless told otherwise) or `test`.
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

    pub(crate) fn check(&self, now: Duration) -> Result<(), AuthError> {
        let invalid = |field, problem| Err(AuthError::Invalid { field, problem });
        if !self.label.as_deref().is_none_or(is_label) {
            return invalid("label", "use 1 to 128 bytes without control characters");
        }
        if self.scopes.len() > MAX_SCOPES {
            return invalid("scopes", "use at most 32 scopes");
        }
        if self.expires_at.is_some_and(|end| whole_millis(end) <= now) {
            return invalid("expires_at", "use a time in the future");
        }
        match (self.not_before, self.expires_at) {
            (Some(start), Some(end)) if start >= end => {
                invalid("not_before", "use a time before expires_at")
            }
            _ => Ok(()),
        }
    }
}
