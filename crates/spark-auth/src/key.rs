//! What a key looks like, and how a text is read as one.

use std::fmt;
use std::str::FromStr;

use zeroize::Zeroizing;

use crate::base62;
use crate::error::KeyError;
use crate::words::{Brand, Environment, Kind, MAX_BRAND_LEN, is_brand};

/// The longest credential that is looked at, in bytes; anything longer is turned away unread.
pub const MAX_CREDENTIAL_LEN: usize = 256;

/// A regular expression that finds keys in text, for secret scanners. Confirm what it finds with
/// [`ApiKey::parse`], which checks the checksum offline.
pub const KEY_PATTERN: &str = r"\b[a-z0-9]{2,16}_(?:mk|sk)_(?:live|test)_[0-9A-Za-z]{50}\b";

pub(crate) const ID_LEN: usize = 12;
pub(crate) const SECRET_LEN: usize = 32;
const BODY_LEN: usize = ID_LEN + SECRET_LEN + base62::CHECKSUM_LEN;
const MARKER_LEN: usize = "_sk_live_".len();
const MAX_KEY_LEN: usize = MAX_BRAND_LEN + MARKER_LEN + BODY_LEN;

/// A key in the clear: `{brand}_{mk|sk}_{live|test}_` and 50 base62 characters, of which 12 are the
/// public id, 32 the secret (190 random bits) and 6 a checksum over everything before them.
///
/// It is shown to its owner once. It cannot be printed or serialized by accident: there is no
/// `Display` and no `Serialize`, `Debug` shows the public id alone, and dropping it wipes its
/// memory. [`expose`](Self::expose) is the one way to the text.
///
/// # Example
/// ```
/// use spark_auth::{ApiKey, Brand, Environment, Kind};
/// let key = ApiKey::generate(&Brand::default(), Kind::User, Environment::Live)?;
/// assert!(key.expose().starts_with("spark_sk_live_"));
/// assert_eq!(ApiKey::parse(key.expose())?.id(), key.id());
/// assert!(!format!("{key:?}").contains(key.expose()));
/// # Ok::<(), spark_auth::KeyError>(())
/// ```
///
/// ```compile_fail
/// # use spark_auth::{ApiKey, Brand, Environment, Kind};
/// let key = ApiKey::generate(&Brand::default(), Kind::User, Environment::Live).unwrap();
/// println!("{key}"); // a key has no Display
/// ```
///
/// ```compile_fail
/// # use spark_auth::{ApiKey, Brand, Environment, Kind};
/// let key = ApiKey::generate(&Brand::default(), Kind::User, Environment::Live).unwrap();
/// serde_json::to_string(&key).unwrap(); // a key has no Serialize
/// ```
pub struct ApiKey {
    /// On the heap, so that moving the key leaves no copy behind on the stack.
    text: Zeroizing<Box<str>>,
}

impl ApiKey {
    /// Makes a new key from the operating system's random generator.
    ///
    /// # Errors
    /// [`KeyError::Randomness`] when the operating system gives none.
    ///
    /// # Example
    /// ```
    /// use spark_auth::{ApiKey, Brand, Environment, Kind};
    /// let master = ApiKey::generate(&Brand::new("acme")?, Kind::Master, Environment::Test)?;
    /// assert!(master.expose().starts_with("acme_mk_test_"));
    /// # Ok::<(), spark_auth::KeyError>(())
    /// ```
    pub fn generate(brand: &Brand, kind: Kind, env: Environment) -> Result<Self, KeyError> {
        // Reserved in full beforehand: growing would leave half a secret in freed memory.
        let mut text = Zeroizing::new(String::with_capacity(MAX_KEY_LEN));
        for part in [brand.as_str(), "_", kind.as_str(), "_", env.as_str(), "_"] {
            text.push_str(part);
        }
        let mut random = Zeroizing::new([0u8; ID_LEN + SECRET_LEN]);
        base62::random(&mut random[..]).map_err(|_| KeyError::Randomness)?;
        text.extend(random.iter().map(|&letter| char::from(letter)));
        let checksum = base62::checksum(text.as_bytes());
        text.extend(checksum.map(char::from));
        Ok(Self::keep(&text))
    }

    /// Reads a key. The checksum tells a typo at once; whether the key is known is another
    /// question.
    ///
    /// # Errors
    /// [`KeyError`] says which part is wrong and never repeats the text.
    ///
    /// # Example
    /// ```
    /// use spark_auth::{ApiKey, KeyError};
    /// assert!(matches!(ApiKey::parse("sk-123"), Err(KeyError::Length { len: 6 })));
    /// ```
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        split(text).map(|_| Self::keep(text))
    }

    /// The key in the clear. Show it to its owner once; keep it nowhere.
    ///
    /// # Example
    /// ```
    /// # use spark_auth::{ApiKey, Brand, Environment, Kind};
    /// # let key = ApiKey::generate(&Brand::default(), Kind::User, Environment::Live)?;
    /// let header = format!("Bearer {}", key.expose());
    /// # Ok::<(), spark_auth::KeyError>(())
    /// ```
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// The public id: safe to log, and what the store is asked for.
    ///
    /// # Example
    /// ```
    /// # use spark_auth::{ApiKey, Brand, Environment, Kind};
    /// # let key = ApiKey::generate(&Brand::default(), Kind::User, Environment::Live)?;
    /// assert_eq!(key.id().len(), 12);
    /// # Ok::<(), spark_auth::KeyError>(())
    /// ```
    pub fn id(&self) -> &str {
        let start = self.text.len() - BODY_LEN;
        &self.text[start..start + ID_LEN]
    }

    /// Whether it opens the control plane or the data plane.
    ///
    /// # Example
    /// ```
    /// # use spark_auth::{ApiKey, Brand, Environment, Kind};
    /// # let key = ApiKey::generate(&Brand::default(), Kind::User, Environment::Live)?;
    /// assert_eq!(key.kind(), Kind::User);
    /// # Ok::<(), spark_auth::KeyError>(())
    /// ```
    pub fn kind(&self) -> Kind {
        match self.marker().0 {
            "mk" => Kind::Master,
            _ => Kind::User,
        }
    }

    /// Whether it was made for live or for test use.
    ///
    /// # Example
    /// ```
    /// # use spark_auth::{ApiKey, Brand, Environment, Kind};
    /// # let key = ApiKey::generate(&Brand::default(), Kind::User, Environment::Test)?;
    /// assert_eq!(key.environment(), Environment::Test);
    /// # Ok::<(), spark_auth::KeyError>(())
    /// ```
    pub fn environment(&self) -> Environment {
        match self.marker().1 {
            "test" => Environment::Test,
            _ => Environment::Live,
        }
    }

    fn marker(&self) -> (&str, &str) {
        let marker = &self.text[self.text.len() - BODY_LEN - MARKER_LEN..];
        (&marker[1..3], &marker[4..8])
    }

    #[expect(
        clippy::expect_used,
        reason = "every way to make a key gives one that parses"
    )]
    pub(crate) fn parts(&self) -> KeyParts<'_> {
        split(&self.text).expect("a key parses")
    }

    fn keep(text: &str) -> Self {
        Self {
            text: Zeroizing::new(text.into()),
        }
    }
}

impl FromStr for ApiKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::parse(text)
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey")
            .field("kind", &self.kind())
            .field("environment", &self.environment())
            .field("id", &self.id())
            .field("secret", &"[redacted]")
            .finish()
    }
}

/// The parts of a key whose checksum holds, borrowed from the text that was presented.
pub(crate) struct KeyParts<'a> {
    pub(crate) kind: Kind,
    pub(crate) environment: Environment,
    pub(crate) id: &'a [u8; ID_LEN],
    pub(crate) secret: &'a [u8; SECRET_LEN],
}

/// Takes a text apart from its end, at fixed offsets: nothing in the brand can shift what follows.
/// Cheap checks come first, and nothing is copied.
pub(crate) fn split(text: &str) -> Result<KeyParts<'_>, KeyError> {
    let bytes = text.as_bytes();
    let wrong_length = KeyError::Length { len: bytes.len() };
    if bytes.len() > MAX_KEY_LEN {
        return Err(wrong_length);
    }
    let Some((signed, checksum)) = bytes.split_last_chunk::<{ base62::CHECKSUM_LEN }>() else {
        return Err(wrong_length);
    };
    let Some((rest, secret)) = signed.split_last_chunk::<SECRET_LEN>() else {
        return Err(wrong_length);
    };
    let Some((rest, id)) = rest.split_last_chunk::<ID_LEN>() else {
        return Err(wrong_length);
    };
    let Some((brand, marker)) = rest.split_last_chunk::<MARKER_LEN>() else {
        return Err(wrong_length);
    };
    let (kind, environment) = match marker {
        b"_sk_live_" => (Kind::User, Environment::Live),
        b"_mk_live_" => (Kind::Master, Environment::Live),
        b"_sk_test_" => (Kind::User, Environment::Test),
        b"_mk_test_" => (Kind::Master, Environment::Test),
        _ => return Err(KeyError::Marker),
    };
    if !is_brand(brand) {
        return Err(KeyError::Brand);
    }
    if !(id.iter().chain(secret).chain(checksum)).all(u8::is_ascii_alphanumeric) {
        return Err(KeyError::Character);
    }
    // The checksum is public arithmetic over what the caller sent: comparing it may take any time.
    if base62::checksum(signed) != *checksum {
        return Err(KeyError::Checksum);
    }
    Ok(KeyParts {
        kind,
        environment,
        id,
        secret,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(brand: &str, kind: Kind, env: Environment) -> ApiKey {
        ApiKey::generate(&Brand::new(brand).unwrap(), kind, env).unwrap()
    }

    #[test]
    fn the_longest_and_the_shortest_brand_give_keys_that_parse() {
        for brand in ["ab", "0123456789abcdef", "live", "sk"] {
            for kind in [Kind::User, Kind::Master] {
                for env in [Environment::Live, Environment::Test] {
                    let made = key(brand, kind, env);
                    let read = ApiKey::parse(made.expose()).unwrap();
                    assert_eq!((read.kind(), read.environment()), (kind, env));
                    assert_eq!(read.id(), made.id());
                }
            }
        }
        for brand in ["", "a", "Spark", "sp_ark", "spärk", "0123456789abcdefg"] {
            assert_eq!(Brand::new(brand), Err(KeyError::Brand), "{brand}");
        }
    }

    #[test]
    fn each_fault_is_named() {
        let good = key("spark", Kind::User, Environment::Live);
        let good = good.expose();
        let swapped = |from: &str, to: &str| good.replace(from, to);
        for (text, expected) in [
            (String::new(), KeyError::Length { len: 0 }),
            ("a".repeat(1 << 20), KeyError::Length { len: 1 << 20 }),
            (swapped("_sk_", "_pk_"), KeyError::Marker),
            (swapped("_sk_", "_mk_"), KeyError::Checksum),
            (swapped("_live_", "_test_"), KeyError::Checksum),
            (swapped("spark", "SPARK"), KeyError::Brand),
            (format!("{good} "), KeyError::Marker),
            (format!("{}-", &good[..good.len() - 1]), KeyError::Character),
        ] {
            assert_eq!(ApiKey::parse(&text).unwrap_err(), expected);
        }
    }

    #[test]
    fn debug_shows_the_id_and_not_the_secret() {
        let key = key("spark", Kind::User, Environment::Live);
        let shown = format!("{key:?}");
        assert!(shown.contains(key.id()));
        let secret = &key.expose()[key.expose().len() - SECRET_LEN - 6..];
        assert!(!shown.contains(&secret[..8]));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC{0,300}") {
            let _ = ApiKey::parse(&text);
        }

        #[test]
        fn any_bytes_in_the_shape_of_a_key_are_read_without_a_panic(
            brand in "[a-z0-9_é]{0,20}", marker in "_(mk|sk|xx)_(live|test|none)_", body in "[ -~é]{40,60}"
        ) {
            let _ = ApiKey::parse(&format!("{brand}{marker}{body}"));
        }

        #[test]
        fn a_single_changed_character_is_noticed(at in 0usize..64, to in "[0-9A-Za-z]") {
            let good = key("spark", Kind::User, Environment::Live);
            let mut text = good.expose().to_owned();
            prop_assume!(&text[at..=at] != to.as_str());
            text.replace_range(at..=at, &to);
            prop_assert!(ApiKey::parse(&text).is_err());
        }
    }
}
