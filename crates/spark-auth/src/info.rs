//! What is shown of a key.

use std::time::Duration;

use ipnet::IpNet;
use serde::{Serialize, Serializer};
use spark_core::{Name, Scopes};

use crate::pepper::PepperId;
use crate::record::{KeyRecord, KeyState, KeyStatus};

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
    /// Who answers for the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<Box<str>>,
    /// Which quota applies.
    #[serde(serialize_with = "as_optional_text")]
    pub tier: Option<Name>,
    /// What the key may do beyond the data routes.
    #[serde(serialize_with = "as_texts")]
    pub scopes: Scopes,
    /// From where it may be used, where that is not from anywhere.
    #[serde(
        skip_serializing_if = "<[IpNet]>::is_empty",
        serialize_with = "as_networks"
    )]
    pub ip_allow: Box<[IpNet]>,
    /// When it was made.
    pub created_at: u64,
    /// From when on it works.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<u64>,
    /// From when on it no longer works.
    pub expires_at: Option<u64>,
    /// When it was last used, to within a minute: here, or by what the store said when the record
    /// was last read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<u64>,
    /// Since when it is suspended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspended_at: Option<u64>,
    /// When it was taken back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<u64>,
    /// The key that follows it after a rotation.
    #[serde(
        serialize_with = "as_optional_text",
        skip_serializing_if = "Option::is_none"
    )]
    pub replaced_by: Option<Name>,
    /// The public fingerprint of the pepper that its MAC was made under: while a key names the
    /// previous one, that pepper is still needed.
    #[serde(serialize_with = "as_pepper")]
    pub pepper: PepperId,
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
            owner: record.owner.clone(),
            tier: record.tier.clone(),
            scopes: record.scopes.clone(),
            ip_allow: record.ip_allow.clone(),
            created_at: record.created_at.as_secs(),
            not_before: record.not_before.map(|time| time.as_secs()),
            expires_at: record.expires_at.map(|time| time.as_secs()),
            last_used_at: record.last_used_at.map(|time| time.as_secs()),
            suspended_at: match record.state {
                KeyState::Suspended { at } => Some(at.as_secs()),
                _ => None,
            },
            revoked_at: match record.state {
                KeyState::Revoked { at } => Some(at.as_secs()),
                _ => None,
            },
            replaced_by: record.replaced_by.clone(),
            pepper: record.pepper,
        }
    }
}

fn as_text<S: Serializer>(name: &Name, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(name.as_str())
}

fn as_optional_text<S: Serializer>(name: &Option<Name>, to: S) -> Result<S::Ok, S::Error> {
    name.as_ref().map(Name::as_str).serialize(to)
}

fn as_texts<S: Serializer>(scopes: &Scopes, to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(scopes.iter().map(Name::as_str))
}

fn as_networks<S: Serializer>(networks: &[IpNet], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(networks.iter().map(IpNet::to_string))
}

fn as_pepper<S: Serializer>(pepper: &PepperId, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(pepper)
}
