//! What is kept about a key, and what is shown of it.

use std::fmt;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use serde::Serialize;
use spark_core::{Name, Scopes};

use crate::key::UserKey;
use crate::mac::Mac;
use crate::pepper::PepperId;
use crate::words::Environment;

/// The longest label, in bytes.
pub const MAX_LABEL_LEN: usize = 128;
/// The longest owner, in bytes.
pub const MAX_OWNER_LEN: usize = 128;
/// The most networks from which one key may be used.
pub const MAX_NETWORKS: usize = 32;
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
    /// Who answers for the key: a person, a team, an address to write to.
    pub owner: Option<Box<str>>,
    /// Which quota applies.
    pub tier: Option<Name>,
    /// What the key may do beyond the data routes.
    pub scopes: Scopes,
    /// From where the key may be used; from anywhere where there is none.
    pub ip_allow: Box<[IpNet]>,
    /// When it was made.
    pub created_at: Duration,
    /// From when on it works.
    pub not_before: Option<Duration>,
    /// From when on it no longer works: at this very instant it does not.
    pub expires_at: Option<Duration>,
    /// Whether it was suspended or taken back.
    pub state: KeyState,
    /// When it was last resumed.
    pub resumed_at: Option<Duration>,
    /// The key that follows it after a rotation.
    pub replaced_by: Option<Name>,
    /// Counts the versions of this record, from 1: of two, the higher one is the later. A store
    /// refuses a version that does not follow the one that it has, so that of two processes that
    /// change a key at the same time one is told.
    pub revision: u64,
    /// The pepper that the MAC was made under.
    pub pepper: PepperId,
    /// HMAC-SHA256 of kind, environment, id and secret.
    pub mac: Mac,
    /// When it was last used, as far as that was written down: it is once in a while, and not as a
    /// version of the record.
    pub last_used_at: Option<Duration>,
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
        self.status_at(Moment { clock: now, now })
    }

    pub(crate) fn status_at(&self, Moment { clock, now }: Moment) -> KeyStatus {
        if matches!(self.state, KeyState::Revoked { .. }) {
            KeyStatus::Revoked
        } else if self.expires_at.is_some_and(|end| now >= end) {
            KeyStatus::Expired
        } else if matches!(self.state, KeyState::Suspended { .. }) {
            KeyStatus::Suspended
        } else if self.not_before.is_some_and(|start| clock < start) {
            KeyStatus::NotYetValid
        } else {
            KeyStatus::Active
        }
    }

    /// When the key ceased to work, if it has by `now`.
    pub(crate) fn ended_at(&self, now: Duration) -> Option<Duration> {
        match self.state {
            KeyState::Revoked { at } => Some(at),
            _ => self.end().filter(|end| now >= *end),
        }
    }

    /// When the key ceased or will cease to work for good, if it does at all.
    pub(crate) fn end(&self) -> Option<Duration> {
        match self.state {
            KeyState::Revoked { at } => Some(at),
            KeyState::Active | KeyState::Suspended { .. } => self.expires_at,
        }
    }

    /// The latest moment of which it tells that it has been.
    pub(crate) fn changed_at(&self) -> Duration {
        let stopped_at = match self.state {
            KeyState::Active => None,
            KeyState::Suspended { at } | KeyState::Revoked { at } => Some(at),
        };
        let later = stopped_at.max(self.resumed_at);
        later.map_or(self.created_at, |at| at.max(self.created_at))
    }
}

/// What ends are held against, and starts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// The wall clock.
    pub(crate) clock: Duration,
    /// The same, but no earlier than the latest change of a key.
    pub(crate) now: Duration,
}

/// Whether a key was suspended or taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyState {
    /// It works, within its time.
    Active,
    /// It does not work until it is resumed.
    Suspended {
        /// Since when.
        at: Duration,
    },
    /// It was revoked, for good.
    Revoked {
        /// When.
        at: Duration,
    },
}

impl KeyState {
    /// Of two states, the stricter one counts as long as the store has not heard of it.
    pub(crate) fn strictness(self) -> u8 {
        match self {
            Self::Active => 0,
            Self::Suspended { .. } => 1,
            Self::Revoked { .. } => 2,
        }
    }
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
    /// It does not work until it is resumed.
    Suspended,
    /// It was taken back.
    Revoked,
}

impl fmt::Display for KeyStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Active => "active",
            Self::NotYetValid => "not_yet_valid",
            Self::Expired => "expired",
            Self::Suspended => "suspended",
            Self::Revoked => "revoked",
        })
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
    pub key: UserKey,
}

pub(crate) fn is_label(label: &str) -> bool {
    is_text(label, MAX_LABEL_LEN)
}

pub(crate) fn is_owner(owner: &str) -> bool {
    is_text(owner, MAX_OWNER_LEN)
}

fn is_text(text: &str, max_len: usize) -> bool {
    (1..=max_len).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// Words joined by `:`, of which the last may be `*`.
pub(crate) fn is_scope(scope: &str) -> bool {
    let is_word = |word: &str| !word.is_empty() && !word.contains('*');
    match scope.rsplit_once(':') {
        Some((head, last)) => head.split(':').all(is_word) && (last == "*" || is_word(last)),
        None => scope == "*" || is_word(scope),
    }
}

/// An IPv4-mapped network as the IPv4 network that it means, and without the bits of a host.
pub(crate) fn plain_network(network: IpNet) -> IpNet {
    let mapped = match network {
        IpNet::V4(_) => None,
        IpNet::V6(v6) => (v6.addr().to_ipv4_mapped()).zip(v6.prefix_len().checked_sub(96)),
    };
    let plain = mapped.and_then(|(v4, prefix)| Ipv4Net::new(v4, prefix).ok());
    plain.map_or(network, IpNet::V4).trunc()
}

/// Records keep whole milliseconds, rounded down: a key never outlives what was asked for.
pub(crate) fn whole_millis(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_a_whole_last_word_of_a_scope() {
        for scope in ["chat", "chat:write", "a.b-c_d:1", "*", "chat:*", "a:b:*"] {
            assert!(is_scope(scope), "{scope}");
        }
        for scope in [
            "", ":", "a:", ":a", "a::b", "chat*", "*:read", "a:*:b", "a:b*", "**", "a:**",
        ] {
            assert!(!is_scope(scope), "{scope}");
        }
    }

    #[test]
    fn a_mapped_network_is_the_one_that_it_means() {
        for (given, plain) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
            ("::ffff:192.0.2.7/128", "192.0.2.7/32"),
            ("2001:db8::1/32", "2001:db8::/32"),
            ("::/0", "::/0"),
        ] {
            let network: IpNet = given.parse().unwrap();
            assert_eq!(plain_network(network).to_string(), plain, "{given}");
        }
    }
}
