//! What is kept in place of a key.

use std::fmt;

use sha2::block_api::compress256;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use crate::hex;

/// What is stored in place of a key: HMAC-SHA256 under the pepper. Compared in constant time,
/// and not shown by `Debug`.
///
/// # Example
/// ```
/// use spark_auth::Mac;
/// let mac = Mac::parse_hex(&"ab".repeat(32)).expect("64 digits");
/// assert_eq!(mac.to_hex(), "ab".repeat(32));
/// assert_eq!(format!("{mac:?}"), "Mac([redacted])");
/// ```
#[derive(Clone)]
pub struct Mac(
    /// As SHA-256 leaves it: eight words, and not yet bytes.
    [u32; 8],
);

impl Mac {
    pub(crate) fn new(bytes: [u8; 32]) -> Self {
        let (words, _) = bytes.as_chunks();
        Self(std::array::from_fn(|at| u32::from_be_bytes(words[at])))
    }

    /// Reads 64 hexadecimal digits.
    ///
    /// # Example
    /// ```
    /// assert!(spark_auth::Mac::parse_hex("ab").is_none());
    /// ```
    pub fn parse_hex(text: &str) -> Option<Self> {
        hex::decode(text).map(Self::new)
    }

    /// The MAC in hexadecimal, for a store.
    ///
    /// # Example
    /// ```
    /// # use spark_auth::Mac;
    /// assert_eq!(Mac::parse_hex(&"00".repeat(32)).map(|mac| mac.to_hex().len()), Some(64));
    /// ```
    pub fn to_hex(&self) -> String {
        hex::encode(&bytes(&self.0))
    }

    /// A MAC that no key has: what an unknown id is compared with.
    pub(crate) fn of_nothing() -> Self {
        Self([0; 8])
    }
}

impl ConstantTimeEq for Mac {
    fn ct_eq(&self, other: &Self) -> subtle::Choice {
        // Every word counts, whatever the others are; then one of `subtle`'s comparisons, each of
        // which is an optimisation barrier, instead of one for every byte.
        let pairs = self.0.iter().zip(&other.0);
        let differing = pairs.fold(0, |differing, (a, b)| differing | (a ^ b));
        differing.ct_eq(&0)
    }
}

impl PartialEq for Mac {
    fn eq(&self, other: &Self) -> bool {
        self.ct_eq(other).into()
    }
}

impl Eq for Mac {}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mac([redacted])")
    }
}

/// HMAC-SHA256 under one key, for messages that fit into one block. Two compressions: the two that
/// absorb the key are made beforehand.
pub(crate) struct MacKey {
    inner: Zeroizing<[u32; 8]>,
    outer: Zeroizing<[u32; 8]>,
}

const BLOCK: usize = 64;
/// The state before the first block: FIPS 180-4, 5.3.3.
const INITIAL: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

impl MacKey {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        let absorbed = |pad: u8| {
            let mut block = Zeroizing::new([pad; BLOCK]);
            for (byte, key) in block.iter_mut().zip(key) {
                *byte ^= key;
            }
            let mut state = Zeroizing::new(INITIAL);
            // By reference: a copy of the block would stay on the stack.
            compress256(&mut state, std::slice::from_ref(&*block));
            state
        };
        Self {
            inner: absorbed(0x36),
            outer: absorbed(0x5c),
        }
    }

    /// The message is secret: no copy of it is left on the stack.
    pub(crate) fn mac<const N: usize>(&self, message: &[u8; N]) -> Mac {
        let mut block = padded(message);
        let mut inner = *self.inner;
        compress256(&mut inner, std::slice::from_ref(&block));
        block[..].zeroize();
        let mut outer = *self.outer;
        compress256(&mut outer, &[padded(&bytes(&inner))]);
        Mac(outer)
    }
}

/// The last block of a text of which the first one was the key: the rest of the text, a one bit, and
/// the length of all of it in bits.
fn padded<const N: usize>(rest: &[u8; N]) -> [u8; BLOCK] {
    const { assert!(N < BLOCK - 8, "one block has no place for it") };
    let mut block = [0; BLOCK];
    block[..N].copy_from_slice(rest);
    block[N] = 0x80;
    block[BLOCK - 8..].copy_from_slice(&(8 * (BLOCK + N) as u64).to_be_bytes());
    block
}

fn bytes(words: &[u32; 8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (four, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
        *four = word.to_be_bytes();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use hmac::{Hmac, KeyInit, Mac as _};
    use proptest::prelude::*;
    use sha2::Sha256;

    use super::*;

    fn by_hmac(key: &[u8], message: &[u8]) -> Mac {
        let hmac = Hmac::<Sha256>::new_from_slice(key).unwrap();
        Mac::new(hmac.chain_update(message).finalize().into_bytes().into())
    }

    proptest! {
        #[test]
        fn a_mac_is_what_hmac_gives(key: [u8; 32], long: [u8; 32], more: [u8; 23], short: [u8; 1]) {
            let under = MacKey::new(&key);
            prop_assert_eq!(under.mac(&[]), by_hmac(&key, &[]));
            prop_assert_eq!(under.mac(&short), by_hmac(&key, &short));
            let mut longest = [0; 55];
            longest[..32].copy_from_slice(&long);
            longest[32..].copy_from_slice(&more);
            prop_assert_eq!(under.mac(&longest), by_hmac(&key, &longest));
            let typical = longest.first_chunk::<52>().unwrap();
            prop_assert_eq!(under.mac(typical), by_hmac(&key, typical));
        }

        #[test]
        fn one_bit_makes_two_macs(bytes: [u8; 32], bit in 0usize..256) {
            let mut other = bytes;
            other[bit / 8] ^= 1 << (bit % 8);
            prop_assert_ne!(Mac::new(bytes), Mac::new(other));
            prop_assert_eq!(Mac::new(bytes), Mac::new(bytes));
            prop_assert_eq!(Mac::parse_hex(&hex::encode(&bytes)).unwrap().to_hex(), hex::encode(&bytes));
        }
    }
}
