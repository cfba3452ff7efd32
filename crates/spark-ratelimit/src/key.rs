//! Whose quota: a caller's identity, hashed.

use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::net::IpAddr;
use std::sync::LazyLock;

use spark_core::{ClientIp, Name};

use crate::sip::{Seed, Sip};

/// Whose quota a request is charged to: the hash of an identity, by its kind, so that a tenant
/// `203.0.113.7` and the address 203.0.113.7 are two.
///
/// The hash is SipHash-1-3 under a random secret for each kind, drawn once per process. An attacker
/// cannot choose names that fall together, and a key says nothing about the identity outside the
/// process.
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
    pub(crate) const NONE: Self = Self(0);

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
        Self::hash(Kind::Tenant, |to| to.write(tenant.as_str().as_bytes()))
    }

    /// The holder of the master key.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::Key;
    /// assert_ne!(Key::master(), Key::shared());
    /// ```
    pub fn master() -> Self {
        Self::hash(Kind::Fixed, |to| to.write_u8(b'm'))
    }

    /// A network: an IPv4 address, or an IPv6 prefix of so many bits (at most 128). One household
    /// has at least a /64 of IPv6, so single addresses would be no limit at all.
    ///
    /// An IPv4 client is the same one however it is written: as itself, mapped (`::ffff:0:0/96`,
    /// on an IPv6 listener), or behind a translator's well-known prefix (`64:ff9b::/96`,
    /// [RFC 6052](https://www.rfc-editor.org/rfc/rfc6052)). By their prefix, all of IPv4 would be
    /// one client.
    ///
    /// # Example
    /// ```
    /// # use spark_core::ClientIp;
    /// # use spark_ratelimit::Key;
    /// let ip = |text: &str| ClientIp::new(text.parse().unwrap());
    /// assert_eq!(Key::network(ip("2001:db8::1"), 64), Key::network(ip("2001:db8::2"), 64));
    /// assert_ne!(Key::network(ip("192.0.2.1"), 64), Key::network(ip("192.0.2.2"), 64));
    /// assert_eq!(Key::network(ip("::ffff:192.0.2.1"), 64), Key::network(ip("192.0.2.1"), 64));
    /// assert_eq!(Key::network(ip("64:ff9b::192.0.2.1"), 64), Key::network(ip("192.0.2.1"), 64));
    /// ```
    pub fn network(client: ClientIp, v6_prefix: u8) -> Self {
        match client.addr() {
            IpAddr::V4(v4) => Self::v4(v4.to_bits()),
            IpAddr::V6(v6) => Self::v6(v6.to_bits(), v6_prefix),
        }
    }

    /// The bucket that everybody shares of whom nothing is known.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::Key;
    /// assert_eq!(Key::shared(), Key::shared());
    /// ```
    pub fn shared() -> Self {
        Self::hash(Kind::Fixed, |to| to.write_u8(b's'))
    }

    /// Any identity of your own: a job's owner, a route, a pair of both.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::Key;
    /// assert_ne!(Key::of(&("acme", "/export")), Key::of(&("acme", "/import")));
    /// ```
    pub fn of<T: Hash + ?Sized>(identity: &T) -> Self {
        Self::hash(Kind::Custom, |to| identity.hash(to))
    }

    /// Both together: a bucket for each pair, such as a tenant on a route. The order matters, so
    /// that two ways of putting keys together are never taken for each other.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::Key;
    /// let (ann, export) = (Key::of("ann"), Key::of("/export"));
    /// assert_eq!(ann.and(export), ann.and(export));
    /// assert_ne!(ann.and(export), export.and(ann));
    /// assert_ne!(ann.and(export), Key::of("bob").and(export));
    /// ```
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self::hash(Kind::Pair, |to| {
            to.write_u64(self.0);
            to.write_u64(other.0);
        })
    }

    /// A value of a header field, `name` being the key of the field's name.
    pub(crate) fn header(name: Self, value: &[u8]) -> Self {
        Self::hash(Kind::Header, |to| {
            to.write_u64(name.0);
            to.write(value);
        })
    }

    /// A route; `None` is where no route matches.
    #[cfg(feature = "axum")]
    pub(crate) fn route(path: Option<&str>) -> Self {
        match path {
            Some(path) => Self::hash(Kind::Route, |to| to.write(path.as_bytes())),
            None => Self::hash(Kind::Fixed, |to| to.write_u8(b'u')),
        }
    }

    #[inline]
    fn v4(bits: u32) -> Self {
        Self::hash(Kind::Network, |to| to.write_u32(bits))
    }

    #[inline(never)]
    fn v6(bits: u128, prefix: u8) -> Self {
        let (upper, lower) = ((bits >> 64) as u64, bits as u64);
        if upper == NAT64 && lower >> 32 == 0 {
            return Self::v4(lower as u32);
        }
        let prefix = prefix.min(128);
        // Nine bytes or seventeen, and of IPv4 four: one cannot be taken for the other.
        Self::hash(Kind::Network, |to| {
            to.write_u64(first_bits(upper, prefix.min(64)));
            if prefix > 64 {
                to.write_u64(first_bits(lower, prefix - 64));
            }
            to.write_u8(prefix);
        })
    }

    #[inline]
    fn hash(kind: Kind, identity: impl FnOnce(&mut Sip)) -> Self {
        static SEEDS: LazyLock<[Seed; Kind::COUNT]> = LazyLock::new(|| {
            let random = RandomState::new();
            let secret = |kind: usize, half: u8| random.hash_one((kind, half));
            std::array::from_fn(|kind| Seed(secret(kind, 0), secret(kind, 1)))
        });
        let mut sip = Sip::new(SEEDS[kind as usize]);
        identity(&mut sip);
        Self(sip.finish())
    }

    pub(crate) fn bits(self) -> u64 {
        self.0
    }

    #[cfg(test)]
    pub(crate) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

/// 2⁶⁴ ÷ φ, to mix by: any odd constant will do that lets the lower bits reach the upper ones.
pub(crate) const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// The upper half of `64:ff9b::/96`.
const NAT64: u64 = 0x0064_ff9b_0000_0000;

/// The first so many bits, the others zero.
fn first_bits(bits: u64, count: u8) -> u64 {
    bits & u64::MAX.checked_shl(64 - u32::from(count)).unwrap_or(0)
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:016x})", self.0)
    }
}

/// What an identity is: each kind is hashed under a secret of its own.
#[derive(Clone, Copy)]
enum Kind {
    Fixed,
    Tenant,
    Network,
    Header,
    #[cfg_attr(not(feature = "axum"), expect(dead_code, reason = "kinds are few"))]
    Route,
    Pair,
    Custom,
}

impl Kind {
    const COUNT: usize = Self::Custom as usize + 1;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::hash::DefaultHasher;

    fn network(text: &str, v6_prefix: u8) -> Key {
        Key::network(ClientIp::new(text.parse().unwrap()), v6_prefix)
    }

    #[test]
    fn r2_a_thousand_addresses_of_one_64_are_one_key() {
        let one = network("2001:db8:0:1::", 64);
        for host in 0..1_000 {
            assert_eq!(network(&format!("2001:db8:0:1:dead::{host:x}"), 64), one);
        }
        assert_ne!(network("2001:db8:0:2::1", 64), one);
    }

    #[test]
    fn r2_an_ipv4_client_is_itself_mapped_and_translated() {
        for prefix in [0, 32, 48, 64, 96, 128, 255] {
            let v4 = network("192.0.2.1", prefix);
            assert_eq!(v4, network("192.0.2.1", 64), "cut to no prefix");
            for wrapped in ["::ffff:192.0.2.1", "64:ff9b::192.0.2.1"] {
                assert_eq!(network(wrapped, prefix), v4, "{wrapped}/{prefix}");
            }
            for other in ["::ffff:192.0.2.2", "64:ff9b::192.0.2.2", "192.0.2.2"] {
                assert_ne!(network(other, prefix), v4, "{other}/{prefix}");
            }
        }
        // Next to the well-known prefix: ordinary IPv6.
        for (one, two) in [
            ("64:ff9b::1:192.0.2.1", "64:ff9b::1:192.0.2.2"),
            ("64:ff9b:1::192.0.2.1", "64:ff9b:1::192.0.2.2"),
            ("64:ff9b:0:0:8000::1", "64:ff9b:0:0:8000::2"),
        ] {
            assert_eq!(network(one, 64), network(two, 64));
            assert_ne!(network(one, 64), network("192.0.2.1", 64));
        }
    }

    #[test]
    fn r2_prefixes() {
        let ip = "2001:db8:1:2:3:4:5:6";
        for (other, same_up_to) in [
            ("2001:db8:1:2:3:4:5:6", 128),
            ("2001:db8:1:2:3:4:5:7", 127),
            ("2001:db8:1:2:3:4:5:86", 120),
            ("2001:db8:1:2:83:4:5:6", 72),
            ("2001:db8:1:2:8003:4:5:6", 64),
            ("2001:db8:1:3:3:4:5:6", 63),
            ("2001:db8:1:82:3:4:5:6", 56),
            ("2001:db8:1:8002:3:4:5:6", 48),
            ("2001:db9:1:2:3:4:5:6", 31),
            ("a001:db8:1:2:3:4:5:6", 0),
        ] {
            for prefix in 0..=128 {
                let same = network(other, prefix) == network(ip, prefix);
                assert_eq!(same, prefix <= same_up_to, "{other}/{prefix}");
            }
        }
        assert_eq!(network(ip, 255), network(ip, 128));
        // One network of each size: all different, even where the bits are the same.
        let all: HashSet<_> = (0..=128).map(|prefix| network("::", prefix)).collect();
        assert_eq!(all.len(), 129);
    }

    #[test]
    fn the_kind_tells_equal_texts_apart() {
        let name = Name::new("acme").unwrap();
        let acme = Key::of("acme");
        let keys = [
            acme,
            Key::of(b"acme".as_slice()),
            Key::tenant(&name),
            Key::header(Key::of("x-a"), b"acme"),
            Key::header(Key::of("x-b"), b"acme"),
            Key::master(),
            Key::shared(),
            Key::of(&()),
            acme.and(acme),
            acme.and(acme).and(acme),
            acme.and(acme.and(acme)),
            Key::of(&(acme.bits(), acme.bits())),
            network("97.99.109.101", 64), // the bytes of "acme"
        ];
        assert_eq!(HashSet::from(keys).len(), keys.len());
    }

    #[test]
    fn r13_names_that_fall_together_without_a_secret_do_not_with_one() {
        let bucket = |hash: u64| (hash >> 58) as usize;
        let unkeyed = |name: &String| {
            let mut hasher = DefaultHasher::new();
            name.hash(&mut hasher);
            hasher.finish()
        };
        let chosen = (0..).map(|n| format!("name-{n}"));
        let chosen = chosen.filter(|name| bucket(unkeyed(name)) == 0).take(1_000);
        let mut fullness = [0; 64];
        for name in chosen {
            fullness[bucket(Key::of(&name).bits())] += 1;
        }
        // About 16 in each; 60 in one is ten standard deviations away.
        assert!(fullness.iter().all(|count| *count < 60), "{fullness:?}");
    }

    #[test]
    fn debug_shows_no_identity() {
        let text = format!("{:?}", Key::of("secret-tenant"));
        assert!(!text.contains("secret"));
    }
}
