//! What an answer is filed under.

use std::fmt;

use sha2::{Digest as _, Sha256};
use spark_core::Name;

use crate::canonical;

/// How many bytes of a key name its scope, so that a scope can be purged without an index.
const SCOPE_BYTES: usize = 8;

pub(crate) type ScopeTag = [u8; SCOPE_BYTES];

/// What an answer is filed under: a SHA-256 over a domain tag, a [`Scope`] and length-prefixed
/// fields.
///
/// A key without a scope cannot be made: the only way to one is [`CacheKey::builder`]. `Debug`
/// shows nothing of it, since a key is as good as the question for whoever can guess questions.
///
/// # Example
/// ```
/// use spark_cache::{CacheKey, Scope};
///
/// let of = |tenant: &str| {
///     let scope = Scope::Tenant(tenant.parse().unwrap());
///     CacheKey::builder(scope).field("path", b"/v1/chat").json(br#"{"prompt":"hi"}"#).build()
/// };
/// assert_eq!(of("acme"), of("acme"));
/// assert_ne!(of("acme"), of("globex"));
/// assert_eq!(format!("{:?}", of("acme")), "CacheKey(..)");
/// ```
///
/// Bytes, strings and hashes do not turn into one:
/// ```compile_fail
/// let key = spark_cache::CacheKey([0; 32]);
/// ```
/// ```compile_fail
/// let key: spark_cache::CacheKey = [0u8; 32].into();
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CacheKey([u8; 32]);

impl CacheKey {
    /// Starts a key that only `scope` can meet.
    ///
    /// # Example
    /// ```
    /// use spark_cache::{CacheKey, Scope};
    /// let key = CacheKey::builder(Scope::Master).field("path", b"/v1/chat").build();
    /// # let _ = key;
    /// ```
    #[expect(clippy::needless_pass_by_value, reason = "a scope is made for its key")]
    pub fn builder(scope: Scope) -> KeyBuilder {
        let tag = scope.tag();
        let mut hash = Sha256::new();
        put(&mut hash, b"spark-cache/key/v1");
        scope.write(&mut hash);
        KeyBuilder { hash, tag }
    }

    pub(crate) fn has(&self, tag: ScopeTag) -> bool {
        self.0.starts_with(&tag)
    }

    /// A byte that is spread evenly, to choose a shard by.
    pub(crate) fn spread(&self) -> usize {
        usize::from(self.0[31])
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CacheKey(..)")
    }
}

/// Who may be given the answer.
///
/// # Example
/// ```
/// use spark_cache::{CacheKey, Public, Scope};
/// let public = CacheKey::builder(Scope::Public(Public::anyone_may_read())).build();
/// let tenant = CacheKey::builder(Scope::Tenant("acme".parse()?)).build();
/// assert_ne!(public, tenant);
/// # Ok::<(), spark_core::NameError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scope {
    /// The keys of one tenant.
    Tenant(Name),
    /// The operator. No tenant has a name that meets it.
    Master,
    /// Anyone at all. It takes a [`Public`], so that it is never reached by accident.
    Public(Public),
}

/// The declaration that an answer may be read by anyone.
///
/// # Example
/// ```
/// let declared = spark_cache::Public::anyone_may_read();
/// # let _ = declared;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Public(());

impl Public {
    /// Declares it. [`LlmPolicy`](crate::LlmPolicy) does so for the paths that were named public;
    /// whoever writes a policy of their own says it here, in words that a review can find.
    ///
    /// # Example
    /// ```
    /// use spark_cache::{Public, Scope};
    /// let scope = Scope::Public(Public::anyone_may_read());
    /// # let _ = scope;
    /// ```
    pub const fn anyone_may_read() -> Self {
        Self(())
    }
}

impl Scope {
    fn write(&self, hash: &mut Sha256) {
        match self {
            Self::Tenant(name) => {
                put(hash, b"tenant");
                put(hash, name.as_str().as_bytes());
            }
            Self::Master => put(hash, b"master"),
            Self::Public(_) => put(hash, b"public"),
        }
    }

    pub(crate) fn tag(&self) -> ScopeTag {
        let mut hash = Sha256::new();
        put(&mut hash, b"spark-cache/scope/v1");
        self.write(&mut hash);
        let digest = hash.finalize();
        let mut tag = [0; SCOPE_BYTES];
        tag.copy_from_slice(&digest[..SCOPE_BYTES]);
        tag
    }
}

/// A [`CacheKey`] in the making. The order of the fields matters.
///
/// # Example
/// ```
/// use spark_cache::{CacheKey, Scope};
/// let key = |a: &[u8], b: &[u8]| {
///     CacheKey::builder(Scope::Master).field("a", a).field("b", b).build()
/// };
/// assert_ne!(key(b"x:", b"y"), key(b"x", b":y"), "every field carries its length");
/// ```
#[derive(Clone)]
#[must_use]
pub struct KeyBuilder {
    hash: Sha256,
    tag: ScopeTag,
}

impl KeyBuilder {
    /// Adds a named field, byte for byte.
    ///
    /// # Example
    /// ```
    /// # use spark_cache::{CacheKey, Scope};
    /// let key = CacheKey::builder(Scope::Master).field("accept", b"text/event-stream").build();
    /// # let _ = key;
    /// ```
    pub fn field(mut self, name: &str, value: &[u8]) -> Self {
        put(&mut self.hash, name.as_bytes());
        put(&mut self.hash, value);
        self
    }

    /// Adds a JSON document by its meaning: white space and the order of keys make no difference.
    /// A document of which the meaning is open to doubt is added byte for byte; see
    /// [`Canonical`](crate::Canonical).
    ///
    /// # Example
    /// ```
    /// # use spark_cache::{CacheKey, Scope};
    /// let key = |json: &[u8]| CacheKey::builder(Scope::Master).json(json).build();
    /// assert_eq!(key(br#"{"a":1,"b":2}"#), key(br#"{ "b": 2, "a": 1.0 }"#));
    /// assert_ne!(key(br#"{"a":1}"#), key(br#"{"a":"1"}"#));
    /// ```
    pub fn json(self, bytes: &[u8]) -> Self {
        self.canonical(&canonical::Canonical::of(bytes))
    }

    /// Adds a document that was read before.
    ///
    /// # Example
    /// ```
    /// # use spark_cache::{CacheKey, Canonical, Scope};
    /// let document = Canonical::of(br#"{"a":1}"#);
    /// let key = CacheKey::builder(Scope::Master).canonical(&document).build();
    /// assert_eq!(key, CacheKey::builder(Scope::Master).json(br#"{"a":1}"#).build());
    /// ```
    pub fn canonical(mut self, document: &canonical::Canonical<'_>) -> Self {
        put(&mut self.hash, b"document");
        put(&mut self.hash, &document.digest());
        self
    }

    /// The key.
    ///
    /// # Example
    /// ```
    /// # use spark_cache::{CacheKey, Scope};
    /// let key = CacheKey::builder(Scope::Master).build();
    /// # let _ = key;
    /// ```
    pub fn build(self) -> CacheKey {
        let digest = self.hash.finalize();
        let mut key = [0; 32];
        key[..SCOPE_BYTES].copy_from_slice(&self.tag);
        key[SCOPE_BYTES..].copy_from_slice(&digest[..32 - SCOPE_BYTES]);
        CacheKey(key)
    }
}

impl fmt::Debug for KeyBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyBuilder(..)")
    }
}

/// Length first: no two sequences of fields write the same bytes.
fn put(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_be_bytes());
    hash.update(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tenant(name: &str) -> Scope {
        Scope::Tenant(name.parse().unwrap())
    }

    fn key(scope: Scope, fields: &[(String, Vec<u8>)]) -> CacheKey {
        fields
            .iter()
            .fold(CacheKey::builder(scope), |key, (name, value)| {
                key.field(name, value)
            })
            .build()
    }

    #[test]
    fn a_tenant_named_like_another_scope_is_not_that_scope() {
        let all = [
            tenant("master"),
            tenant("public"),
            tenant("tenant"),
            Scope::Master,
            Scope::Public(Public::anyone_may_read()),
        ];
        for (i, a) in all.iter().enumerate() {
            for (j, b) in all.iter().enumerate() {
                let (a, b) = (a.clone(), b.clone());
                assert_eq!(key(a.clone(), &[]) == key(b.clone(), &[]), i == j);
                assert_eq!(key(a, &[]).has(b.tag()), i == j);
            }
        }
    }

    #[test]
    fn nothing_of_it_is_shown() {
        let key = CacheKey::builder(tenant("secretive")).field("a", b"prompt");
        assert_eq!(
            format!("{key:?} {:?}", key.clone().build()),
            "KeyBuilder(..) CacheKey(..)"
        );
    }

    proptest! {
        #[test]
        fn equal_keys_mean_equal_fields(
            a in prop::collection::vec(("[a-c:]{0,3}", prop::collection::vec(0u8..3, 0..4)), 0..4),
            b in prop::collection::vec(("[a-c:]{0,3}", prop::collection::vec(0u8..3, 0..4)), 0..4),
        ) {
            let (left, right) = (key(Scope::Master, &a), key(Scope::Master, &b));
            prop_assert_eq!(left == right, a == b);
        }

        #[test]
        fn two_tenants_never_meet(
            a in "[a-z0-9.:_-]{1,8}",
            b in "[a-z0-9.:_-]{1,8}",
            body in prop::collection::vec(any::<u8>(), 0..32),
        ) {
            let of = |name: &str| CacheKey::builder(tenant(name)).json(&body).build();
            prop_assert_eq!(of(&a) == of(&b), a == b);
            prop_assert_eq!(of(&a).has(tenant(&b).tag()), a == b);
        }
    }
}
