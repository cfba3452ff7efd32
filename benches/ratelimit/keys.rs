//! Keys, in an order that nothing foresees.

use std::hash::{Hash, Hasher};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use spark_core::ClientIp;
use spark_ratelimit::Key;

/// What a caller is known by: how the `n`th one is called, and how our side makes a key of it.
pub(crate) struct Kind<K> {
    pub(crate) name: &'static str,
    make: fn(u32) -> K,
    pub(crate) key: fn(&K) -> Key,
}

impl<K> Clone for Kind<K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for Kind<K> {}

pub(crate) const ADDRESS: Kind<IpAddr> = Kind {
    name: "address",
    make: |n| Ipv4Addr::from(0x0a00_0000 + n).into(),
    key: |ip| Key::network(ClientIp::new(*ip), 64),
};

pub(crate) const STRING: Kind<String> = Kind {
    name: "22-byte string",
    make: |n| format!("customer-{n:08}-live"),
    key: |name| Key::of(name.as_str()),
};

/// Keys in the order in which they are visited.
///
/// They are made in another order (that of their numbers), so the text of one string says nothing of
/// where the next one's is; and [`Keys::to_insert`] is a third one, so neither does a copy of it
/// that a table made. The array itself is walked from front to back by every side, which costs all
/// of them the same; each begins somewhere else, so that none finds what another has just read.
pub(crate) struct Keys<K> {
    kind: Kind<K>,
    visited: Arc<[K]>,
}

impl<K> Keys<K> {
    pub(crate) fn new(kind: Kind<K>, count: u32) -> Self {
        let mut made: Vec<Option<K>> = (0..count).map(|n| Some((kind.make)(n))).collect();
        let visited = order(count, 1);
        let visited = visited.iter().map(|n| made[*n as usize].take().unwrap());
        Self {
            kind,
            visited: visited.collect(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.visited.len()
    }

    /// All of them, in another order.
    pub(crate) fn to_insert(&self) -> impl Iterator<Item = &K> {
        let order = order(self.visited.len() as u32, 2);
        order.into_iter().map(|n| &self.visited[n as usize])
    }

    /// Again and again from front to back; the `part`th of so many walks begins that far in.
    pub(crate) fn walk(&self, part: usize, of: usize) -> Walk<K> {
        Walk {
            at: self.len() * part / of,
            keys: Arc::clone(&self.visited),
        }
    }

    pub(crate) fn key(&self) -> fn(&K) -> Key {
        self.kind.key
    }
}

pub(crate) struct Walk<K> {
    keys: Arc<[K]>,
    at: usize,
}

impl<K> Walk<K> {
    /// Nothing that is computed from it can be taken out of a loop, not even of the only one.
    pub(crate) fn next(&mut self) -> &K {
        let key = &self.keys[self.at];
        self.at += 1;
        if self.at == self.keys.len() {
            self.at = 0;
        }
        black_box(key)
    }
}

/// Addresses that nobody has seen: none twice, and none of [`ADDRESS`].
pub(crate) struct Fresh(pub(crate) u32);

impl Fresh {
    pub(crate) fn next(&mut self) -> IpAddr {
        self.0 = self.0.wrapping_add(1);
        // An odd factor makes a permutation of 31 bits; the highest bit is not set in 10.0.0.0/8.
        let scattered = self.0.wrapping_mul(0x9e37_79b1) | 0x8000_0000;
        black_box(Ipv4Addr::from(scattered).into())
    }
}

/// The numbers below `count` in one of all possible orders, each as likely (Fisher and Yates).
fn order(count: u32, seed: u64) -> Vec<u32> {
    let mut order: Vec<u32> = (0..count).collect();
    for left in (1..order.len()).rev() {
        let below = left as u128 + 1;
        let pick = (u128::from(random(seed << 32 | left as u64)) * below) >> 64;
        order.swap(left, pick as usize);
    }
    order
}

/// The same every time, and no pattern that a prefetcher could learn: SipHash of the number.
fn random(n: u64) -> u64 {
    #[expect(deprecated, reason = "the only hash in std without a key of its own")]
    let mut hasher = std::hash::SipHasher::new_with_keys(1, 2);
    n.hash(&mut hasher);
    hasher.finish()
}
