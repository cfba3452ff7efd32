//! What is kept in place of a key.

use std::fmt;

use subtle::ConstantTimeEq;

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
pub struct Mac([u8; 32]);

impl Mac {
    pub(crate) fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Reads 64 hexadecimal digits.
    ///
    /// # Example
    /// ```
    /// assert!(spark_auth::Mac::parse_hex("ab").is_none());
    /// ```
    pub fn parse_hex(text: &str) -> Option<Self> {
        hex::decode(text).map(Self)
    }

    /// The MAC in hexadecimal, for a store.
    ///
    /// # Example
    /// ```
    /// # use spark_auth::Mac;
    /// assert_eq!(Mac::parse_hex(&"00".repeat(32)).map(|mac| mac.to_hex().len()), Some(64));
    /// ```
    pub fn to_hex(&self) -> String {
        hex::encode(&self.0)
    }

    /// A MAC that no key has: what an unknown id is compared with.
    pub(crate) fn of_nothing() -> Self {
        Self([0; 32])
    }
}

impl ConstantTimeEq for Mac {
    fn ct_eq(&self, other: &Self) -> subtle::Choice {
        self.0.ct_eq(&other.0)
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
