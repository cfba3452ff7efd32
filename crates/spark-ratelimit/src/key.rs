//! Whose quota: a caller's identity, hashed.

use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::LazyLock;

use spark_core::{ClientIp, Name};

/// Whose quota a request is charged to: the hash of an identity, tagged with its kind, so that a
/// tenant `203.0.113.7` and the address 203.0.113.7 are two.
///
/// The hash is SipHash under a random key that is drawn once per process. An attacker cannot choose
/// names that fall together, and a key says nothing about the identity outside the process.
///
/// # Example
/// ```
/// use spark_core::Name;
/// use spark_ratelimit::Key;
/// let acme = Key::tenant(&Name::new("acme")?);
/// assert_eq!(acme, Key::tenant(&Name::new("acme")?));
/// assert_ne!(acme, Key::of(&"acme"));
/// # Ok::<(), spark_core::NameError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(u64);

impl Key {
    /// A tenant: all API keys of one tenant share a quota, so that more keys do not multiply it.
    ///
    /// # Example
    /// ```
    /// # use spark_core::Name;
    /// # use spark_ratelimit::Key;
    /// let name = Name::new("acme")?;
    /// assert_eq!(Key::tenant(&name), Key::tenant(&name));
    /// # Ok::<(), spark_core::NameError>(())
    /// ```
    pub fn tenant(tenant: &Name) -> Self {
        Self::tagged(Kind::Tenant, tenant.as_str())
    }

    /// The holder of the master key.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::Key;
    /// assert_ne!(Key::master(), Key::shared());
    /// ```
    pub fn master() -> Self {
        Self::tagged(Kind::Master, &())
    }

    /// A network: an IPv4 address, or an IPv6 prefix of so many bits (at most 128). One household
    /// has at least a /64 of IPv6, so single addresses would be no limit at all.
    ///
    /// # Example
    /// ```
    /// # use spark_core::ClientIp;
    /// # use spark_ratelimit::Key;
    /// let ip = |text: &str| ClientIp::new(text.parse().unwrap());
    /// assert_eq!(Key::network(ip("2001:db8::1"), 64), Key::network(ip("2001:db8::2"), 64));
    /// assert_ne!(Key::network(ip("192.0.2.1"), 64), Key::network(ip("192.0.2.2"), 64));
    /// // An IPv4 client is the same one on an IPv6 listener.
    /// assert_eq!(Key::network(ip("::ffff:192.0.2.1"), 64), Key::network(ip("192.0.2.1"), 64));
    /// ```
    pub fn network(client: ClientIp, v6_prefix: u8) -> Self {
        Self::tagged(Kind::Network, &client.network(v6_prefix.min(128)))
    }

    /// The bucket that everybody shares of whom nothing is known.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::Key;
    /// assert_eq!(Key::shared(), Key::shared());
    /// ```
    pub fn shared() -> Self {
        Self::tagged(Kind::Shared, &())
    }

    /// Any identity of your own: a job's owner, a route, a pair of both.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::Key;
    /// assert_ne!(Key::of(&("acme", "/export")), Key::of(&("acme", "/import")));
    /// ```
    pub fn of<T: Hash + ?Sized>(identity: &T) -> Self {
        Self::tagged(Kind::Custom, identity)
    }

    fn tagged<T: Hash + ?Sized>(kind: Kind, identity: &T) -> Self {
        static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        Self(SEED.hash_one((kind as u8, identity)))
    }

    pub(crate) const NONE: Self = Self(0);

    pub(crate) fn bits(self) -> u64 {
        self.0
    }

    #[cfg(test)]
    pub(crate) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:016x})", self.0)
    }
}

enum Kind {
    Tenant,
    Master,
    Network,
    Shared,
    Custom,
}

#[cfg(all(test, not(spark_loom)))]
mod tests {
    use super::*;

    #[test]
    fn r2_a_thousand_addresses_of_one_64_are_one_key_and_mapped_ipv4_are_not() {
        let key = |text: &str| Key::network(ClientIp::new(text.parse().unwrap()), 64);
        let one = key("2001:db8:0:1::");
        for host in 0..1_000 {
            assert_eq!(key(&format!("2001:db8:0:1:dead::{host:x}")), one);
        }
        assert_ne!(key("2001:db8:0:2::1"), one);
        assert_ne!(key("::ffff:192.0.2.1"), key("::ffff:192.0.2.2"));
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
    }

    #[test]
    fn the_kind_tells_equal_texts_apart() {
        let name = Name::new("acme").unwrap();
        assert_ne!(Key::tenant(&name), Key::of(name.as_str()));
        assert_ne!(Key::master(), Key::shared());
    }

    #[test]
    fn debug_shows_no_identity() {
        let text = format!("{:?}", Key::of("secret-tenant"));
        assert!(!text.contains("secret"));
    }
}
