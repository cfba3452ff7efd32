//! The secret under which every stored MAC is made.

use std::fmt;
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::error::PepperError;
use crate::hex;
use crate::key::KeyParts;
use crate::mac::{Mac, MacKey};

/// 32 random bytes under which keys are turned into the MACs that are stored.
///
/// Keep it apart from the key store: whoever has only one of the two learns nothing. Losing it
/// voids every key. `Debug` shows its public [`id`](Self::id) alone; cloning is one atomic
/// increment.
///
/// # Example
/// ```
/// use spark_auth::Pepper;
/// let pepper = Pepper::generate()?;
/// let again = Pepper::parse_hex(&pepper.expose_hex())?;
/// assert_eq!(pepper.id(), again.id());
/// # Ok::<(), spark_auth::PepperError>(())
/// ```
#[derive(Clone)]
pub struct Pepper(Arc<Keyed>);

struct Keyed {
    bytes: Zeroizing<[u8; 32]>,
    /// For user keys, of which each request has one.
    key: MacKey,
    /// For texts of any length.
    state: Hmac<Sha256>,
    id: PepperId,
}

impl Pepper {
    /// Makes one from the operating system's random generator.
    ///
    /// # Errors
    /// [`PepperError::Randomness`] when the operating system gives none.
    ///
    /// # Example
    /// ```
    /// assert_ne!(spark_auth::Pepper::generate()?.id(), spark_auth::Pepper::generate()?.id());
    /// # Ok::<(), spark_auth::PepperError>(())
    /// ```
    pub fn generate() -> Result<Self, PepperError> {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(&mut bytes[..]).map_err(|_| PepperError::Randomness)?;
        Ok(Self::keyed(bytes))
    }

    /// Takes 32 bytes that came from a random generator.
    ///
    /// # Errors
    /// [`PepperError::Weak`] when most of the bytes are the same.
    ///
    /// # Example
    /// ```
    /// # use spark_auth::{Pepper, PepperError};
    /// assert!(matches!(Pepper::from_bytes([0; 32]), Err(PepperError::Weak)));
    /// ```
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, PepperError> {
        let bytes = Zeroizing::new(bytes);
        let mut sorted = bytes.clone();
        sorted.sort_unstable();
        // 32 random bytes hold 30 different values on average, and fewer than 16 never.
        if sorted.chunk_by(|a, b| a == b).count() < 16 {
            return Err(PepperError::Weak);
        }
        Ok(Self::keyed(bytes))
    }

    /// Reads 64 hexadecimal digits, as [`expose_hex`](Self::expose_hex) or
    /// `openssl rand -hex 32` writes them; blanks and line ends around them are ignored.
    ///
    /// # Errors
    /// [`PepperError::Length`], [`PepperError::Digit`] or [`PepperError::Weak`].
    ///
    /// # Example
    /// ```
    /// # use spark_auth::{Pepper, PepperError};
    /// assert!(matches!(Pepper::parse_hex("c0ffee"), Err(PepperError::Length { len: 6 })));
    /// ```
    pub fn parse_hex(text: &str) -> Result<Self, PepperError> {
        let text = text.trim();
        if text.len() != 64 {
            return Err(PepperError::Length { len: text.len() });
        }
        let bytes = hex::decode(text).ok_or(PepperError::Digit)?;
        Self::from_bytes(bytes)
    }

    /// The pepper in hexadecimal, to be written to a file of its own (see
    /// [`write_secret_file`](crate::write_secret_file)). Wiped when dropped.
    ///
    /// # Example
    /// ```
    /// assert_eq!(spark_auth::Pepper::generate()?.expose_hex().len(), 64);
    /// # Ok::<(), spark_auth::PepperError>(())
    /// ```
    pub fn expose_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(hex::encode(&self.0.bytes[..]))
    }

    /// A public fingerprint of the pepper: every stored MAC names the pepper that it was made
    /// under, so that a wrong one is noticed at start and not by puzzled users.
    ///
    /// # Example
    /// ```
    /// let pepper = spark_auth::Pepper::generate()?;
    /// assert_eq!(pepper.id().to_string().len(), 8);
    /// # Ok::<(), spark_auth::PepperError>(())
    /// ```
    pub fn id(&self) -> PepperId {
        self.0.id
    }

    /// The MAC of a user key: kind, environment, id and secret, as they stand in the key.
    pub(crate) fn user_mac(&self, key: &KeyParts<'_>) -> Mac {
        #[cfg(test)]
        USER_MACS.set(USER_MACS.get() + 1);
        self.0.key.mac(key.proven)
    }

    /// The MAC of a master credential. The first bytes keep it apart from every user key.
    pub(crate) fn master_mac(&self, text: &str) -> Mac {
        let state = self.0.state.clone().chain_update(b"master\0");
        Mac::new(state.chain_update(text).finalize().into_bytes().into())
    }

    fn keyed(bytes: Zeroizing<[u8; 32]>) -> Self {
        #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
        let state = Hmac::<Sha256>::new_from_slice(&bytes[..]).expect("any length is accepted");
        let fingerprint = state.clone().chain_update(b"pepper id").finalize();
        let [a, b, c, d, ..] = <[u8; 32]>::from(fingerprint.into_bytes());
        Self(Arc::new(Keyed {
            key: MacKey::new(&bytes),
            bytes,
            state,
            id: PepperId(u32::from_be_bytes([a, b, c, d])),
        }))
    }
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pepper")
            .field("id", &self.0.id)
            .finish_non_exhaustive()
    }
}

/// The public fingerprint of a [`Pepper`], shown as eight hexadecimal digits.
///
/// # Example
/// ```
/// use spark_auth::{Pepper, PepperId};
/// let id = Pepper::generate()?.id();
/// assert_eq!(PepperId::parse(&id.to_string()), Some(id));
/// # Ok::<(), spark_auth::PepperError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PepperId(u32);

impl PepperId {
    /// Reads eight hexadecimal digits.
    ///
    /// # Example
    /// ```
    /// assert!(spark_auth::PepperId::parse("not hex!").is_none());
    /// ```
    pub fn parse(text: &str) -> Option<Self> {
        hex::decode(text).map(|bytes| Self(u32::from_be_bytes(bytes)))
    }
}

impl fmt::Display for PepperId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Debug for PepperId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
thread_local! {
    /// How many MACs of user keys this thread has made.
    pub(crate) static USER_MACS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_byte_of_the_pepper() {
        let pepper = Pepper::generate().unwrap();
        let shown = format!("{pepper:?}");
        assert!(!shown.contains(&pepper.expose_hex()[..8]), "{shown}");
        assert!(shown.contains(&pepper.id().to_string()));
    }

    #[test]
    fn the_mac_is_hmac_sha256() {
        // RFC 4231, test case 2, cannot be used: its key is not 32 bytes. Computed with
        // `printf 'master\0Hi There' | openssl dgst -sha256 -mac HMAC -macopt hexkey:00..1f`.
        let mut bytes = [0; 32];
        for (at, byte) in (0u8..).zip(&mut bytes) {
            *byte = at;
        }
        let mac = Pepper::from_bytes(bytes).unwrap().master_mac("Hi There");
        assert_eq!(
            mac.to_hex(),
            "2728632d40bd82d62108449b5fd06bda6ade66568a0b04ae131e089ea0e4dd00"
        );
    }

    #[test]
    fn faults_are_named() {
        let digits = "g".repeat(64);
        assert!(matches!(
            Pepper::parse_hex(&digits),
            Err(PepperError::Digit)
        ));
        assert!(matches!(
            Pepper::parse_hex(&"ab".repeat(32)),
            Err(PepperError::Weak)
        ));
        let good = Pepper::generate().unwrap();
        let padded = format!(" {}\r\n", &*good.expose_hex());
        assert_eq!(Pepper::parse_hex(&padded).unwrap().id(), good.id());
    }
}
