//! The number used once.

use std::fmt;

/// The nonce of one response: a request extension, there when the policy uses one.
///
/// 144 random bits from the operating system, as 24 characters that need no escaping in HTML. Put
/// it on each script and inline style of the page: `<script nonce="{nonce}">`. With the feature
/// `axum` it is an extractor.
///
/// # Example
/// ```
/// use spark_headers::CspNonce;
/// let nonce = CspNonce::generate()?;
/// assert_eq!(nonce.as_str().len(), 24);
/// assert_ne!(nonce, CspNonce::generate()?);
/// # Ok::<(), spark_headers::NoRandomness>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CspNonce([u8; Self::LENGTH]);

impl CspNonce {
    pub(crate) const LENGTH: usize = 24;

    /// A fresh nonce. The layer calls this; you need it only without the layer.
    ///
    /// # Errors
    /// The operating system has no randomness to give.
    ///
    /// # Example
    /// ```
    /// let nonce = spark_headers::CspNonce::generate()?;
    /// # Ok::<(), spark_headers::NoRandomness>(())
    /// ```
    pub fn generate() -> Result<Self, NoRandomness> {
        let mut random = [0; 18];
        getrandom::fill(&mut random).map_err(|_| NoRandomness)?;
        Ok(Self::of(random))
    }

    fn of(random: [u8; 18]) -> Self {
        let mut text = [0; Self::LENGTH];
        for (three, four) in random.chunks_exact(3).zip(text.chunks_exact_mut(4)) {
            let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
            for (at, digit) in four.iter_mut().enumerate() {
                *digit = ALPHABET[(bits >> (18 - 6 * at)) as usize & 0x3f];
            }
        }
        Self(text)
    }

    /// The nonce as it stands in the policy and in the page.
    ///
    /// # Example
    /// ```
    /// let nonce = spark_headers::CspNonce::generate()?;
    /// let script = format!("<script nonce=\"{}\">…</script>", nonce.as_str());
    /// # Ok::<(), spark_headers::NoRandomness>(())
    /// ```
    pub fn as_str(&self) -> &str {
        // Only ever made of `ALPHABET`.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// URL-safe base64: what CSP allows, and nothing that HTML would escape.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl fmt::Display for CspNonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for CspNonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CspNonce(..)")
    }
}

/// The operating system gave no randomness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gave no randomness for a nonce; check getrandom(2)")]
pub struct NoRandomness;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ten_thousand_differ() {
        let seen: HashSet<String> = (0..10_000)
            .map(|_| CspNonce::generate().unwrap().to_string())
            .collect();
        assert_eq!(seen.len(), 10_000);
        assert!(seen.iter().all(|nonce| nonce.len() == 24));
    }

    #[test]
    fn the_encoding_is_base64() {
        let mut bytes = [0; 18];
        assert_eq!(CspNonce::of(bytes).as_str(), "A".repeat(24));
        bytes.copy_from_slice(b"eighteen bytes---\xff");
        assert_eq!(CspNonce::of(bytes).as_str(), "ZWlnaHRlZW4gYnl0ZXMtLS3_");
    }

    #[test]
    fn debug_hides_it() {
        let nonce = CspNonce::generate().unwrap();
        assert!(!format!("{nonce:?}").contains(nonce.as_str()));
    }
}
