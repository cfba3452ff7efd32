//! What is kept about a key, and what is shown of it.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use spark_core::{Name, Scopes};

use crate::error::AuthError;
use crate::key::{ApiKey, Environment};
use crate::pepper::{Mac, PepperId};

/// The longest label, in bytes.
pub const MAX_LABEL_LEN: usize = 128;
/// The most scopes of one key.
pub const MAX_SCOPES: usize = 32;

/// All that is kept about a key. The key itself is not: there is only its [`Mac`].
///
/// Times are wall-clock time since 1970, in whole milliseconds. A store keeps a record as it is;
/// [`encode`](Self::encode) and [`decode`](Self::decode) turn it into a line of text and back.
///
/// # Example
/// ```
/// # use spark_auth::{Authenticator, MemoryStore, NewKey, Pepper};
/// # use spark_core::Name;
/// # let auth = Authenticator::builder().pepper(Pepper::generate()?).store(MemoryStore::new()).build()?;
/// let issued = auth.issue(NewKey::new(Name::new("acme")?))?;
/// assert_eq!(issued.record.id.as_str(), issued.key.id());
/// assert_eq!(issued.record.tenant.as_str(), "acme");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyRecord {
    /// The public id: 12 letters and digits.
    pub id: Name,
    /// Whether the key says `live` or `test`.
    pub environment: Environment,
    /// Whose quota, cache and usage it is.
    pub tenant: Name,
    /// A word for people.
    pub label: Option<Box<str>>,
    /// Which quota applies.
    pub tier: Option<Name>,
    /// What the key may do beyond the data routes.
    pub scopes: Scopes,
    /// When it was made.
    pub created_at: Duration,
    /// From when on it works.
    pub not_before: Option<Duration>,
    /// From when on it no longer works: at this very instant it does not.
    pub expires_at: Option<Duration>,
    /// Whether it was taken back.
    pub state: KeyState,
    /// The key that follows it after a rotation.
    pub replaced_by: Option<Name>,
    /// Counts the changes of the whole store: of two versions of a record, the higher one is the
    /// later.
    pub revision: u64,
    /// The pepper that the MAC was made under.
    pub pepper: PepperId,
    /// HMAC-SHA256 of kind, environment, id and secret.
    pub mac: Mac,
}

impl KeyRecord {
    /// How the key stands at `now`.
    ///
    /// # Example
    /// ```
    /// # use spark_auth::{Authenticator, KeyStatus, MemoryStore, NewKey, Pepper};
    /// # use spark_core::{Clock, Name};
    /// # let auth = Authenticator::builder().pepper(Pepper::generate()?).store(MemoryStore::new()).build()?;
    /// let record = auth.issue(NewKey::new(Name::new("acme")?))?.record;
    /// assert_eq!(record.status(Clock::system().unix_time()), KeyStatus::Active);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn status(&self, now: Duration) -> KeyStatus {
        if matches!(self.state, KeyState::Revoked { .. }) {
            KeyStatus::Revoked
        } else if self.expires_at.is_some_and(|end| now >= end) {
            KeyStatus::Expired
        } else if self.not_before.is_some_and(|start| now < start) {
            KeyStatus::NotYetValid
        } else {
            KeyStatus::Active
        }
    }

    /// When the key ceased to work, if it has by `now`.
    pub(crate) fn ended_at(&self, now: Duration) -> Option<Duration> {
        match self.state {
            KeyState::Revoked { at } => Some(at),
            KeyState::Active => self.expires_at.filter(|end| now >= *end),
        }
    }
}

/// Whether a key was taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyState {
    /// It works, within its time.
    Active,
    /// It was revoked, for good.
    Revoked {
        /// When.
        at: Duration,
    },
}

/// How a key stands at a moment.
///
/// # Example
/// ```
/// assert_eq!(spark_auth::KeyStatus::NotYetValid.to_string(), "not_yet_valid");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum KeyStatus {
    /// It works.
    Active,
    /// Its time is still to come.
    NotYetValid,
    /// Its time is over.
    Expired,
    /// It was taken back.
    Revoked,
}

impl fmt::Display for KeyStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Active => "active",
            Self::NotYetValid => "not_yet_valid",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        })
    }
}

/// What an administrator may see of a key: all but its MAC. Times are seconds since 1970.
///
/// # Example
/// ```
/// # use spark_auth::{Authenticator, MemoryStore, NewKey, Pepper};
/// # use spark_core::Name;
/// # let auth = Authenticator::builder().pepper(Pepper::generate()?).store(MemoryStore::new()).build()?;
/// auth.issue(NewKey::new(Name::new("acme")?).label("ci"))?;
/// let json = serde_json::to_value(auth.list())?;
/// assert_eq!(json[0]["tenant"], "acme");
/// assert_eq!(json[0]["status"], "active");
/// assert!(json[0].get("mac").is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct KeyInfo {
    /// The public id.
    #[serde(serialize_with = "as_text")]
    pub id: Name,
    /// `live` or `test`.
    pub environment: &'static str,
    /// How the key stands now.
    pub status: KeyStatus,
    /// Whose quota, cache and usage it is.
    #[serde(serialize_with = "as_text")]
    pub tenant: Name,
    /// A word for people.
    pub label: Option<Box<str>>,
    /// Which quota applies.
    #[serde(serialize_with = "as_optional_text")]
    pub tier: Option<Name>,
    /// What the key may do beyond the data routes.
    #[serde(serialize_with = "as_texts")]
    pub scopes: Scopes,
    /// When it was made.
    pub created_at: u64,
    /// From when on it works.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<u64>,
    /// From when on it no longer works.
    pub expires_at: Option<u64>,
    /// When it was taken back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<u64>,
    /// The key that follows it after a rotation.
    #[serde(
        serialize_with = "as_optional_text",
        skip_serializing_if = "Option::is_none"
    )]
    pub replaced_by: Option<Name>,
}

impl KeyInfo {
    /// The view of `record` at `now`.
    ///
    /// # Example
    /// ```
    /// # use spark_auth::{Authenticator, KeyInfo, MemoryStore, NewKey, Pepper};
    /// # use spark_core::{Clock, Name};
    /// # let auth = Authenticator::builder().pepper(Pepper::generate()?).store(MemoryStore::new()).build()?;
    /// let issued = auth.issue(NewKey::new(Name::new("acme")?))?;
    /// let answer = KeyInfo::of(&issued.record, Clock::system().unix_time());
    /// assert_eq!(answer.id, issued.record.id);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn of(record: &KeyRecord, now: Duration) -> Self {
        Self {
            id: record.id.clone(),
            environment: record.environment.as_str(),
            status: record.status(now),
            tenant: record.tenant.clone(),
            label: record.label.clone(),
            tier: record.tier.clone(),
            scopes: record.scopes.clone(),
            created_at: record.created_at.as_secs(),
            not_before: record.not_before.map(|time| time.as_secs()),
            expires_at: record.expires_at.map(|time| time.as_secs()),
            revoked_at: match record.state {
                KeyState::Revoked { at } => Some(at.as_secs()),
                KeyState::Active => None,
            },
            replaced_by: record.replaced_by.clone(),
        }
    }
}

/// A key that was just made: the only moment at which it is there in the clear.
///
/// # Example
/// ```
/// # use spark_auth::{Authenticator, Issued, MemoryStore, NewKey, Pepper};
/// # use spark_core::Name;
/// # let auth = Authenticator::builder().pepper(Pepper::generate()?).store(MemoryStore::new()).build()?;
/// let Issued { record, key, .. } = auth.issue(NewKey::new(Name::new("acme")?))?;
/// println!("{}: {} (shown this once)", record.id, key.expose());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Issued {
    /// What is kept.
    pub record: KeyRecord,
    /// What its owner gets.
    pub key: ApiKey,
}

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
        }
    }

    /// A word for people: at most [`MAX_LABEL_LEN`] bytes, without control characters.
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

pub(crate) fn is_label(label: &str) -> bool {
    (1..=MAX_LABEL_LEN).contains(&label.len()) && !label.chars().any(char::is_control)
}

/// Records keep whole milliseconds, rounded down: a key never outlives what was asked for.
pub(crate) fn whole_millis(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

fn as_text<S: serde::Serializer>(name: &Name, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(name.as_str())
}

fn as_optional_text<S: serde::Serializer>(name: &Option<Name>, to: S) -> Result<S::Ok, S::Error> {
    name.as_ref().map(Name::as_str).serialize(to)
}

fn as_texts<S: serde::Serializer>(scopes: &Scopes, to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(scopes.iter().map(Name::as_str))
}
