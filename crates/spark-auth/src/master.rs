//! The credential of the control plane, of which only a MAC is kept.

use std::fmt;
use std::time::Duration;

use spark_core::{ClientIp, Principal};
use subtle::{Choice, ConstantTimeEq};

use crate::authenticator::Authenticator;
use crate::error::MasterKeyError;
use crate::key::{self, MasterKey};
use crate::mac::Mac;
use crate::pepper::{Pepper, PepperId};
use crate::strength::{check_free_text, check_key};
use crate::words::Kind;

/// The master credential as this crate keeps it: a MAC under the pepper, never the text.
///
/// It is a type of its own: no user key can be put in its place.
///
/// # Example
/// ```
/// use spark_auth::{Brand, Environment, MasterKey, MasterVerifier, Pepper};
/// let pepper = Pepper::generate()?;
/// // The first start makes one, shows it once, and keeps one line of text.
/// let key = MasterKey::generate(&Brand::default(), Environment::Live)?;
/// let kept = MasterVerifier::of(&pepper, &key).to_stored();
/// // Every later start reads that line.
/// let master = MasterVerifier::from_stored(&kept)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// ```compile_fail,E0277
/// # use spark_auth::{Authenticator, UserKey};
/// # fn key() -> UserKey { unimplemented!() }
/// Authenticator::builder().master(key());
/// ```
#[derive(Clone)]
pub struct MasterVerifier {
    mac: Mac,
    pepper: PepperId,
    /// Whether the text is in the form of a key. Free text costs a MAC for every malformed
    /// credential, so that only those who choose free text pay for it.
    free_text: bool,
    expires_at: Option<Duration>,
}

impl MasterVerifier {
    /// From a generated key. What somebody typed goes through [`from_secret`](Self::from_secret), which
    /// also looks at whether it is random.
    ///
    /// # Example
    /// ```
    /// # use spark_auth::*;
    /// # let pepper = Pepper::generate()?;
    /// let key = MasterKey::generate(&Brand::default(), Environment::Live)?;
    /// let verifier = MasterVerifier::of(&pepper, &key);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn of(pepper: &Pepper, key: &MasterKey) -> Self {
        Self::keyed(pepper, key.expose(), false)
    }

    /// From what an operator put into the environment or a file: a master key, or a secret of
    /// their own of at least 32 characters that is neither a placeholder nor too regular.
    ///
    /// # Errors
    /// [`MasterKeyError`] says what is wrong and what would be right, and never repeats the text.
    ///
    /// # Example
    /// ```
    /// use spark_auth::{MasterVerifier, MasterKeyError, Pepper};
    /// let pepper = Pepper::generate()?;
    /// let weak = MasterVerifier::from_secret(&pepper, "changeme-changeme-changeme-changeme");
    /// assert!(matches!(weak, Err(MasterKeyError::Placeholder { word: "changeme" })));
    /// # Ok::<(), spark_auth::PepperError>(())
    /// ```
    pub fn from_secret(pepper: &Pepper, text: &str) -> Result<Self, MasterKeyError> {
        match key::split(text) {
            Ok(parts) if parts.kind == Kind::Master => {
                check_key(text)?;
                Ok(Self::keyed(pepper, text, false))
            }
            Ok(_) => Err(MasterKeyError::UserKey),
            Err(fault) => {
                check_free_text(text, fault)?;
                Ok(Self::keyed(pepper, text, true))
            }
        }
    }

    /// Reads what [`to_stored`](Self::to_stored) wrote.
    ///
    /// # Errors
    /// [`MasterKeyError::Stored`] when it is something else.
    ///
    /// # Example
    /// ```
    /// assert!(spark_auth::MasterVerifier::from_stored("").is_err());
    /// ```
    pub fn from_stored(line: &str) -> Result<Self, MasterKeyError> {
        let fields: Vec<_> = line.split_whitespace().take(5).collect();
        let ["spark-master", form @ ("key" | "text"), pepper, mac] = fields[..] else {
            return Err(MasterKeyError::Stored);
        };
        Ok(Self {
            mac: Mac::parse_hex(mac).ok_or(MasterKeyError::Stored)?,
            pepper: PepperId::parse(pepper).ok_or(MasterKeyError::Stored)?,
            free_text: form == "text",
            expires_at: None,
        })
    }

    /// One line of text with the MAC and the id of its pepper: what a server keeps of a master key
    /// that it made itself. The deadline is not part of it.
    ///
    /// # Example
    /// ```
    /// # use spark_auth::{MasterVerifier, Pepper};
    /// # let pepper = Pepper::generate()?;
    /// let master = MasterVerifier::from_secret(&pepper, "8f2K-zR41-vQ9x-Lm3T-w7Yb-Hd6S-cJ0p")?;
    /// assert!(master.to_stored().starts_with("spark-master text "));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn to_stored(&self) -> String {
        let form = if self.free_text { "text" } else { "key" };
        format!("spark-master {form} {} {}", self.pepper, self.mac.to_hex())
    }

    /// From when on it is wrong, as time since 1970. Meant for the previous slot.
    ///
    /// # Example
    /// ```
    /// # use {spark_auth::{MasterVerifier, Pepper}, std::time::Duration};
    /// # let pepper = Pepper::generate()?;
    /// let old = MasterVerifier::from_secret(&pepper, "8f2K-zR41-vQ9x-Lm3T-w7Yb-Hd6S-cJ0p")?
    ///     .expires_at(Duration::from_secs(2_000_000_000));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn expires_at(mut self, time: impl Into<Option<Duration>>) -> Self {
        self.expires_at = time.into();
        self
    }

    /// The pepper that the MAC was made under.
    pub(crate) fn pepper(&self) -> PepperId {
        self.pepper
    }

    pub(crate) fn is_free_text(&self) -> bool {
        self.free_text
    }

    /// Whether this is the MAC, in constant time. The deadline is no secret.
    pub(crate) fn accepts(&self, mac: &Mac, now: Duration) -> Choice {
        let in_time = self.expires_at.is_none_or(|end| now < end);
        self.mac.ct_eq(mac) & Choice::from(u8::from(in_time))
    }

    fn keyed(pepper: &Pepper, text: &str, free_text: bool) -> Self {
        Self {
            mac: pepper.master_mac(text),
            pepper: pepper.id(),
            free_text,
            expires_at: None,
        }
    }
}

impl Authenticator {
    /// The master, for a generated key that works; its use is audited, a failure is not. For callers of
    /// an address that is throttled: nobody guesses such a key, and a secret of free text is left out.
    pub(crate) fn working_master_key(
        &self,
        credential: &str,
        client_ip: Option<ClientIp>,
    ) -> Option<Principal> {
        let parts = self.parts();
        if key::split(credential).ok()?.kind != Kind::Master {
            return None;
        }
        let now = self.now();
        let masters = [&parts.master, &parts.previous_master]
            .into_iter()
            .flatten();
        let works = masters.filter(|master| !master.free_text).any(|master| {
            self.pepper(master.pepper)
                .is_some_and(|pepper| master.accepts(&pepper.master_mac(credential), now).into())
        });
        // Once more in the usual way, which writes the audit.
        works
            .then(|| self.verify_from(credential, client_ip).ok())
            .flatten()
    }
}

impl fmt::Debug for MasterVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MasterVerifier")
            .field("pepper", &self.pepper)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::{Brand, Environment};

    fn judge(text: &str) -> Result<MasterVerifier, MasterKeyError> {
        MasterVerifier::from_secret(&Pepper::generate().unwrap(), text)
    }

    #[test]
    fn a13_weak_secrets_and_placeholders_are_refused() {
        for (text, expected) in [
            ("", MasterKeyError::Short { len: 0 }),
            ("short", MasterKeyError::Short { len: 5 }),
            (
                "a b c d e f g h i j k l m n o p q r s",
                MasterKeyError::Character { at: 1 },
            ),
            (
                "8f2KzR41vQ9xLm3T,8f2KzR41vQ9xLm3T",
                MasterKeyError::Character { at: 16 },
            ),
            (
                "CHANGE_ME_8f2KzR41vQ9xLm3Tw7YbHd6S",
                MasterKeyError::Placeholder { word: "change_me" },
            ),
            (
                "my-super-Secret-8f2KzR41vQ9xLm3Tw7",
                MasterKeyError::Placeholder { word: "secret" },
            ),
            (
                "your-master-key-goes-here-0123456789",
                MasterKeyError::Placeholder { word: "your-" },
            ),
            (
                "<INSERT_A_LONG_RANDOM_STRING_HERE_42>",
                MasterKeyError::Placeholder { word: "insert" },
            ),
            (
                "QWERTYuiopASDFGHjklZXCVBNm-8f2K-zR41",
                MasterKeyError::Placeholder { word: "qwerty" },
            ),
            (
                "8f2KzR41vQ9xLm3Tw7YbHd6S-LetMeIn-now",
                MasterKeyError::Placeholder { word: "letmein" },
            ),
            (
                "8f2KzR41vQ9xLm3Tw7YbHd6S-12345678-9x",
                MasterKeyError::Placeholder { word: "12345678" },
            ),
            (
                "8f2KzR41-mnbvcxz-vQ9xLm3Tw7YbHd6S-9x",
                MasterKeyError::Placeholder { word: "mnbvcx" },
            ),
        ] {
            assert_eq!(judge(text).unwrap_err(), expected, "{text}");
        }
        for text in [
            &"a".repeat(64),
            &"ab".repeat(40),
            &"8f2KzR41".repeat(8),
            "0123456789abcdefghijklmnopqrstuvwxyz",
            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
            "98765432109876543210987654321098",
            "aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbcccccccccccc",
        ] {
            assert!(
                matches!(
                    judge(text),
                    Err(MasterKeyError::Weak { .. }
                        | MasterKeyError::Placeholder {
                            word: "12345678" | "87654321"
                        })
                ),
                "{text}"
            );
        }
        assert!(matches!(
            judge(&"x1".repeat(200)),
            Err(MasterKeyError::Long { len: 400 })
        ));
    }

    #[test]
    fn a13_a_key_that_somebody_made_up_is_refused_though_its_checksum_holds() {
        for body in [
            "0".repeat(44),
            "Ab".repeat(22),
            format!("8f2KzR41vQ9x{}", "7".repeat(32)),
            format!("8f2KzR41vQ9x{}", "8f2KzR41vQ9x8f2KzR41vQ9x8f2KzR41"),
            format!("8f2KzR41vQ9x{}", "0123456789abcdefghijklmnopqrstuv"),
        ] {
            let text = format!("spark_mk_live_{body}");
            let checksum = crate::base62::checksum(text.as_bytes()).map(char::from);
            let text: String = text.chars().chain(checksum).collect();
            let found = judge(&text);
            assert!(matches!(found, Err(MasterKeyError::Weak { .. })), "{text}");
        }
        for _ in 0..500 {
            let key = MasterKey::generate(&Brand::default(), Environment::Live).unwrap();
            assert!(judge(key.expose()).is_ok());
        }
    }

    #[test]
    fn random_secrets_of_common_makes_are_accepted() {
        for _ in 0..500 {
            let mut bytes = [0u8; 32];
            getrandom::fill(&mut bytes).unwrap();
            // `openssl rand -hex 16`, `-hex 32` and 32 letters and digits.
            assert!(judge(&crate::hex::encode(&bytes)).is_ok());
            let half = crate::hex::encode(&bytes[..16]);
            assert!(judge(&half).is_ok(), "{half}");
            let mut letters = [0u8; 32];
            crate::base62::random(&mut letters).unwrap();
            let letters = std::str::from_utf8(&letters).unwrap();
            assert!(judge(letters).is_ok(), "{letters}");
        }
    }

    #[test]
    fn a_mistyped_master_key_is_not_taken_for_a_secret_of_ones_own() {
        let key = MasterKey::generate(&Brand::default(), Environment::Live).unwrap();
        let cut = &key.expose()[..key.expose().len() - 1];
        assert!(matches!(judge(cut), Err(MasterKeyError::Broken(_))));
        assert!(judge(key.expose()).is_ok());
    }

    #[test]
    fn the_stored_form_comes_back() {
        let pepper = Pepper::generate().unwrap();
        let key = MasterKey::generate(&Brand::default(), Environment::Live).unwrap();
        let master = MasterVerifier::of(&pepper, &key);
        let again = MasterVerifier::from_stored(&format!("{}\n", master.to_stored())).unwrap();
        let mac = pepper.master_mac(key.expose());
        assert!(bool::from(again.accepts(&mac, Duration::ZERO)));
        assert!(!master.to_stored().contains(key.expose()));
        for line in [
            "",
            "spark-master key 00 00",
            "spark-master key",
            "a b c d e f",
        ] {
            assert!(
                matches!(
                    MasterVerifier::from_stored(line),
                    Err(MasterKeyError::Stored)
                ),
                "{line}"
            );
        }
    }

    #[test]
    fn a13_the_deadline_is_exact() {
        let pepper = Pepper::generate().unwrap();
        let text = "8f2K-zR41-vQ9x-Lm3T-w7Yb-Hd6S-cJ0p";
        let end = Duration::from_secs(10);
        let master = MasterVerifier::from_secret(&pepper, text)
            .unwrap()
            .expires_at(end);
        let mac = pepper.master_mac(text);
        assert!(bool::from(
            master.accepts(&mac, end - Duration::from_nanos(1))
        ));
        assert!(!bool::from(master.accepts(&mac, end)));
    }
}
