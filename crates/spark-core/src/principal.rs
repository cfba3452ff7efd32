//! Who is calling.

use std::sync::Arc;

use crate::Name;

/// Who is calling, as the authentication layer found out.
///
/// Cloning costs at most one atomic increment.
///
/// # Example
/// ```
/// use spark_core::{Name, Principal, Scopes, User};
/// let user = User::new(Name::new("k1")?, Name::new("acme")?)
///     .with_scopes(Scopes::new([Name::new("metrics:read")?]));
/// let principal = Principal::from(user);
/// assert_eq!(principal.tenant().map(Name::as_str), Some("acme"));
/// assert!(principal.has_scope("metrics:read"));
/// assert!(!Principal::Anonymous.has_scope("metrics:read"));
/// # Ok::<(), spark_core::NameError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Principal {
    /// No credential was sent, and the service allows that.
    Anonymous,
    /// The holder of a user key.
    User(Arc<User>),
    /// The holder of the master key.
    Master,
}

impl Principal {
    /// The tenant whose quota and whose cache are used; `None` for the anonymous and the master.
    ///
    /// # Example
    /// ```
    /// assert!(spark_core::Principal::Master.tenant().is_none());
    /// ```
    pub fn tenant(&self) -> Option<&Name> {
        self.user().map(|user| &user.tenant)
    }

    /// The tier that chooses a quota.
    ///
    /// # Example
    /// ```
    /// assert!(spark_core::Principal::Anonymous.tier().is_none());
    /// ```
    pub fn tier(&self) -> Option<&Name> {
        self.user().and_then(|user| user.tier.as_ref())
    }

    /// The user, when a user key was shown.
    ///
    /// # Example
    /// ```
    /// assert!(spark_core::Principal::Master.user().is_none());
    /// ```
    pub fn user(&self) -> Option<&User> {
        match self {
            Self::User(user) => Some(user),
            Self::Anonymous | Self::Master => None,
        }
    }

    /// Whether the master key was shown.
    ///
    /// # Example
    /// ```
    /// assert!(spark_core::Principal::Master.is_master());
    /// ```
    pub fn is_master(&self) -> bool {
        matches!(self, Self::Master)
    }

    /// Whether a user key with exactly or by pattern this scope was shown. The master has no
    /// scopes: ask [`is_master`](Self::is_master) as well where both are let in.
    ///
    /// # Example
    /// ```
    /// assert!(!spark_core::Principal::Master.has_scope("metrics:read"));
    /// ```
    pub fn has_scope(&self, scope: &str) -> bool {
        self.user().is_some_and(|user| user.scopes.contains(scope))
    }
}

impl From<User> for Principal {
    fn from(user: User) -> Self {
        Self::User(Arc::new(user))
    }
}

/// The holder of a user key.
///
/// # Example
/// ```
/// use spark_core::{Name, User};
/// let user = User::new(Name::new("k1")?, Name::new("acme")?).with_tier(Name::new("pro")?);
/// assert_eq!(user.tier.as_ref().map(Name::as_str), Some("pro"));
/// # Ok::<(), spark_core::NameError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct User {
    /// The public id of the key, safe to log.
    pub key_id: Name,
    /// Whose quota, cache and usage it is.
    pub tenant: Name,
    /// Which quota applies; `None` is the default one.
    pub tier: Option<Name>,
    /// What the key may do beyond the data routes.
    pub scopes: Scopes,
}

impl User {
    /// A user without tier and scopes.
    ///
    /// # Example
    /// ```
    /// # use spark_core::{Name, User};
    /// assert!(User::new(Name::new("k1")?, Name::new("acme")?).scopes.is_empty());
    /// # Ok::<(), spark_core::NameError>(())
    /// ```
    pub fn new(key_id: Name, tenant: Name) -> Self {
        Self {
            key_id,
            tenant,
            tier: None,
            scopes: Scopes::default(),
        }
    }

    /// Sets the tier.
    ///
    /// # Example
    /// ```
    /// # use spark_core::{Name, User};
    /// let user = User::new(Name::new("k1")?, Name::new("acme")?).with_tier(Name::new("pro")?);
    /// # Ok::<(), spark_core::NameError>(())
    /// ```
    #[must_use]
    pub fn with_tier(mut self, tier: impl Into<Option<Name>>) -> Self {
        self.tier = tier.into();
        self
    }

    /// Sets the scopes.
    ///
    /// # Example
    /// ```
    /// # use spark_core::{Name, Scopes, User};
    /// let user = User::new(Name::new("k1")?, Name::new("acme")?)
    ///     .with_scopes(Scopes::new([Name::new("chat:*")?]));
    /// assert!(user.scopes.contains("chat:write"));
    /// # Ok::<(), spark_core::NameError>(())
    /// ```
    #[must_use]
    pub fn with_scopes(mut self, scopes: Scopes) -> Self {
        self.scopes = scopes;
        self
    }
}

/// A set of scopes, matched by segment: `chat:*` holds `chat:write`, and `chat` holds only `chat`.
///
/// # Example
/// ```
/// use spark_core::{Name, Scopes};
/// let scopes = Scopes::new([Name::new("chat:*")?, Name::new("metrics:read")?]);
/// assert!(scopes.contains("chat:write"));
/// assert!(!scopes.contains("chatter:write"));
/// assert!(!scopes.contains("metrics"));
/// # Ok::<(), spark_core::NameError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scopes(Arc<[Name]>);

impl Scopes {
    /// The set of these scopes; their order does not matter.
    ///
    /// # Example
    /// ```
    /// use spark_core::Scopes;
    /// assert!(Scopes::new([]).is_empty());
    /// ```
    pub fn new(scopes: impl IntoIterator<Item = Name>) -> Self {
        let mut scopes: Vec<_> = scopes.into_iter().collect();
        scopes.sort();
        scopes.dedup();
        Self(scopes.into())
    }

    /// Whether one of the scopes holds `wanted`, segment by segment.
    ///
    /// # Example
    /// ```
    /// # use spark_core::{Name, Scopes};
    /// assert!(Scopes::new([Name::new("a:*")?]).contains("a:b:c"));
    /// # Ok::<(), spark_core::NameError>(())
    /// ```
    pub fn contains(&self, wanted: &str) -> bool {
        self.0.iter().any(|held| holds(held.as_str(), wanted))
    }

    /// The scopes, sorted.
    ///
    /// # Example
    /// ```
    /// # use spark_core::{Name, Scopes};
    /// let scopes = Scopes::new([Name::new("b")?, Name::new("a")?]);
    /// assert_eq!(scopes.iter().map(Name::as_str).collect::<Vec<_>>(), ["a", "b"]);
    /// # Ok::<(), spark_core::NameError>(())
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = &Name> {
        self.0.iter()
    }

    /// Whether there is none, which permits nothing.
    ///
    /// # Example
    /// ```
    /// assert!(spark_core::Scopes::default().is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A trailing `*` segment stands for one segment or more; any other segment only for itself.
fn holds(held: &str, wanted: &str) -> bool {
    let mut wanted = wanted.split(':');
    let mut held = held.split(':').peekable();
    while let Some(segment) = held.next() {
        let Some(asked) = wanted.next() else {
            return false;
        };
        if segment == "*" && held.peek().is_none() {
            return !asked.is_empty();
        }
        if segment != asked {
            return false;
        }
    }
    wanted.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn scopes_match_by_segment_and_never_by_prefix_of_letters() {
        for (held, wanted, expected) in [
            ("chat", "chat", true),
            ("chat", "chat:write", false),
            ("chat:write", "chat", false),
            ("chat:*", "chat:write", true),
            ("chat:*", "chat:write:all", true),
            ("chat:*", "chat", false),
            ("chat:*", "chat:", false),
            ("chat*", "chatter", false),
            ("*:read", "chat:read", false),
            ("*", "anything", true),
            ("*", "", false),
            ("admin", "administrator", false),
        ] {
            assert_eq!(holds(held, wanted), expected, "{held} against {wanted}");
        }
    }

    /// As one would write it without a thought for speed.
    fn holds_by_the_book(held: &str, wanted: &str) -> bool {
        let held: Vec<_> = held.split(':').collect();
        let wanted: Vec<_> = wanted.split(':').collect();
        match held.split_last() {
            Some((&"*", before)) => {
                wanted.len() > before.len()
                    && wanted[..before.len()] == *before
                    && !wanted[before.len()].is_empty()
            }
            _ => held == wanted,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn a10_scopes_match_by_the_book(held in "[ab*]{0,2}(:[ab*]{0,2}){0,3}", wanted in "[ab]{0,2}(:[ab]{0,2}){0,3}") {
            prop_assert_eq!(holds(&held, &wanted), holds_by_the_book(&held, &wanted));
        }

        /// Whatever is held, it holds nothing that begins with other segments.
        #[test]
        fn a10_a_scope_never_holds_more_letters_of_a_segment(scope in "[a-z]{1,5}(:[a-z]{1,5}){0,2}", more in "[a-z*]{1,3}") {
            let longer = format!("{scope}{more}");
            prop_assert!(!holds(&scope, &longer) && !holds(&longer, &scope));
            let under = format!("{scope}:*");
            prop_assert!(!holds(&under, &longer) && !holds(&under, &scope));
        }
    }

    #[test]
    fn no_scope_permits_nothing() {
        assert!(!Scopes::default().contains("chat"));
        assert!(!Scopes::default().contains(""));
    }
}
