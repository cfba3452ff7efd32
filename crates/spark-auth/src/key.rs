//! What a key looks like, and how a text is read as one.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use zeroize::Zeroizing;

use crate::base62;
use crate::error::KeyError;
use crate::words::{Brand, Environment, Kind, MAX_BRAND_LEN, is_brand};

/// The longest credential that is looked at, in bytes; anything longer is turned away unread.
pub const MAX_CREDENTIAL_LEN: usize = 256;

/// A regular expression that finds keys in text, for secret scanners: the key is its first group.
/// Confirm what it finds with [`UserKey::parse`] or [`MasterKey::parse`], which check the checksum
/// offline.
///
/// A small letter or a digit right before a key is taken for a part of its brand, which nothing tells
/// apart: whoever scans for one brand writes it in the place of the first `[a-z0-9]{2,16}`.
///
/// # Example
/// ```
/// use spark_auth::{Brand, Environment, KEY_PATTERN, UserKey};
/// let pattern = regex::Regex::new(KEY_PATTERN)?;
/// let key = UserKey::generate(&Brand::default(), Environment::Live)?;
/// let line = format!("export API_KEY_{}; deploy", key.expose());
/// let found = pattern.captures(&line).and_then(|found| found.get(1)).unwrap();
/// assert_eq!(UserKey::parse(found.as_str())?.id(), key.id());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub const KEY_PATTERN: &str =
    r"([a-z0-9]{2,16}_(?:mk|sk)_(?:live|test)_[0-9A-Za-z]{50})(?:[^0-9A-Za-z]|$)";

pub(crate) const ID_LEN: usize = 12;
pub(crate) const SECRET_LEN: usize = 32;
const BODY_LEN: usize = ID_LEN + SECRET_LEN + base62::CHECKSUM_LEN;
const MARKER_LEN: usize = "sk_live_".len();
/// Marker, id and secret, which stand side by side.
const PROVEN_LEN: usize = MARKER_LEN + ID_LEN + SECRET_LEN;
const MAX_KEY_LEN: usize = MAX_BRAND_LEN + 1 + MARKER_LEN + BODY_LEN;

/// The key of a user of the service: it opens the data plane.
pub type UserKey = ApiKey<ForUsers>;

/// A generated master key: it opens the control plane.
pub type MasterKey = ApiKey<ForMasters>;

/// A key in the clear, a [`UserKey`] or a [`MasterKey`]: `{brand}_{mk|sk}_{live|test}_` and 50 base62
/// characters, of which 12 are the public id, 32 the secret (190 random bits) and 6 a checksum over
/// everything before them.
///
/// It is shown to its owner once. It cannot be printed or serialized by accident: there is no
/// `Display` and no `Serialize`, `Debug` shows the public id alone, and dropping it wipes its
/// memory. [`expose`](Self::expose) is the one way to the text.
///
/// # Example
/// ```
/// use spark_auth::{Brand, Environment, UserKey};
/// let key = UserKey::generate(&Brand::default(), Environment::Live)?;
/// assert!(key.expose().starts_with("spark_sk_live_"));
/// assert_eq!(UserKey::parse(key.expose())?.id(), key.id());
/// assert!(!format!("{key:?}").contains(key.expose()));
/// # Ok::<(), spark_auth::KeyError>(())
/// ```
///
/// A key has no `Display`:
/// ```compile_fail,E0277
/// # use spark_auth::{Brand, Environment, UserKey};
/// let key = UserKey::generate(&Brand::default(), Environment::Live).unwrap();
/// println!("{key}");
/// ```
///
/// It has no `Serialize`:
/// ```compile_fail,E0277
/// # use spark_auth::{Brand, Environment, UserKey};
/// let key = UserKey::generate(&Brand::default(), Environment::Live).unwrap();
/// serde_json::to_string(&key).unwrap();
/// ```
///
/// And a user's key is no master key:
/// ```compile_fail,E0308
/// # use spark_auth::{Brand, Environment, MasterVerifier, Pepper, UserKey};
/// # let pepper = Pepper::generate().unwrap();
/// let key = UserKey::generate(&Brand::default(), Environment::Live).unwrap();
/// MasterVerifier::of(&pepper, &key);
/// ```
pub struct ApiKey<K: KeyKind> {
    /// On the heap, so that moving the key leaves no copy behind on the stack.
    text: Zeroizing<Box<str>>,
    kind: PhantomData<K>,
}

/// What a key opens, as a type: [`ForUsers`] or [`ForMasters`].
///
/// # Example
/// ```
/// use spark_auth::{ForMasters, Kind, KeyKind};
/// assert_eq!(ForMasters::KIND, Kind::Master);
/// ```
pub trait KeyKind: sealed::Sealed {
    /// The same as a value.
    const KIND: Kind;
}

/// Marks the keys of users.
///
/// # Example
/// ```
/// let _: Option<spark_auth::ApiKey<spark_auth::ForUsers>> = None::<spark_auth::UserKey>;
/// ```
#[derive(Clone, Copy, Debug)]
pub enum ForUsers {}

/// Marks master keys.
///
/// # Example
/// ```
/// let _: Option<spark_auth::ApiKey<spark_auth::ForMasters>> = None::<spark_auth::MasterKey>;
/// ```
#[derive(Clone, Copy, Debug)]
pub enum ForMasters {}

impl KeyKind for ForUsers {
    const KIND: Kind = Kind::User;
}

impl KeyKind for ForMasters {
    const KIND: Kind = Kind::Master;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::ForUsers {}
    impl Sealed for super::ForMasters {}
}

impl<K: KeyKind> ApiKey<K> {
    /// Makes a new key from the operating system's random generator.
    ///
    /// # Errors
    /// [`KeyError::Randomness`] when the operating system gives none.
    ///
    /// # Example
    /// ```
    /// use spark_auth::{Brand, Environment, MasterKey};
    /// let master = MasterKey::generate(&Brand::new("acme")?, Environment::Test)?;
    /// assert!(master.expose().starts_with("acme_mk_test_"));
    /// # Ok::<(), spark_auth::KeyError>(())
    /// ```
    pub fn generate(brand: &Brand, env: Environment) -> Result<Self, KeyError> {
        // Reserved in full beforehand: growing would leave half a secret in freed memory.
        let mut text = Zeroizing::new(String::with_capacity(MAX_KEY_LEN));
        for part in [
            brand.as_str(),
            "_",
            K::KIND.as_str(),
            "_",
            env.as_str(),
            "_",
        ] {
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
    /// use spark_auth::{Brand, Environment, KeyError, MasterKey, UserKey};
    /// assert!(matches!(UserKey::parse("sk-123"), Err(KeyError::Length { len: 6 })));
    /// let master = MasterKey::generate(&Brand::default(), Environment::Live)?;
    /// assert_eq!(UserKey::parse(master.expose()).unwrap_err(), KeyError::Kind);
    /// # Ok::<(), spark_auth::KeyError>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        if split(text)?.kind != K::KIND {
            return Err(KeyError::Kind);
        }
        Ok(Self::keep(text))
    }

    /// The key in the clear. Show it to its owner once; keep it nowhere.
    ///
    /// # Example
    /// ```
    /// # use spark_auth::{Brand, Environment, UserKey};
    /// # let key = UserKey::generate(&Brand::default(), Environment::Live)?;
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
    /// # use spark_auth::{Brand, Environment, UserKey};
    /// # let key = UserKey::generate(&Brand::default(), Environment::Live)?;
    /// assert_eq!(key.id().len(), 12);
    /// # Ok::<(), spark_auth::KeyError>(())
    /// ```
    pub fn id(&self) -> &str {
        let start = self.text.len() - BODY_LEN;
        &self.text[start..start + ID_LEN]
    }

    /// Whether it was made for live or for test use.
    ///
    /// # Example
    /// ```
    /// # use spark_auth::{Brand, Environment, UserKey};
    /// # let key = UserKey::generate(&Brand::default(), Environment::Test)?;
    /// assert_eq!(key.environment(), Environment::Test);
    /// # Ok::<(), spark_auth::KeyError>(())
    /// ```
    pub fn environment(&self) -> Environment {
        let end = self.text.len() - BODY_LEN;
        match &self.text[end - MARKER_LEN..end] {
            "sk_test_" | "mk_test_" => Environment::Test,
            _ => Environment::Live,
        }
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
            kind: PhantomData,
        }
    }
}

impl<K: KeyKind> FromStr for ApiKey<K> {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::parse(text)
    }
}

impl<K: KeyKind> fmt::Debug for ApiKey<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey")
            .field("kind", &K::KIND)
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
    /// All that its MAC is made of, in one piece.
    pub(crate) proven: &'a [u8; PROVEN_LEN],
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
    let Some((rest, proven)) = signed.split_last_chunk::<PROVEN_LEN>() else {
        return Err(wrong_length);
    };
    let Some((separator, brand)) = rest.split_last() else {
        return Err(wrong_length);
    };
    let (Some((marker, letters)), Some(body)) =
        (proven.split_first_chunk(), bytes.last_chunk::<BODY_LEN>())
    else {
        return Err(wrong_length);
    };
    let Some(id) = letters.first_chunk() else {
        return Err(wrong_length);
    };
    let (kind, environment) = match marker {
        _ if *separator != b'_' => return Err(KeyError::Marker),
        b"sk_live_" => (Kind::User, Environment::Live),
        b"mk_live_" => (Kind::Master, Environment::Live),
        b"sk_test_" => (Kind::User, Environment::Test),
        b"mk_test_" => (Kind::Master, Environment::Test),
        _ => return Err(KeyError::Marker),
    };
    if !is_brand(brand) {
        return Err(KeyError::Brand);
    }
    // All fifty are looked at, which compilers do sixteen at a time.
    if (body.iter()).fold(false, |odd, it| odd | !it.is_ascii_alphanumeric()) {
        return Err(KeyError::Character);
    }
    // The checksum is public arithmetic over what the caller sent: comparing it may take any time.
    if !base62::is_checksum(checksum, signed) {
        return Err(KeyError::Checksum);
    }
    Ok(KeyParts {
        kind,
        environment,
        id,
        proven,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(brand: &str, env: Environment) -> UserKey {
        UserKey::generate(&Brand::new(brand).unwrap(), env).unwrap()
    }

    #[test]
    fn the_longest_and_the_shortest_brand_give_keys_that_parse() {
        for brand in ["ab", "0123456789abcdef", "live", "sk"] {
            for env in [Environment::Live, Environment::Test] {
                let made = key(brand, env);
                let read = UserKey::parse(made.expose()).unwrap();
                assert_eq!((read.environment(), read.id()), (env, made.id()));
                let master = MasterKey::generate(&Brand::new(brand).unwrap(), env).unwrap();
                let read = MasterKey::parse(master.expose()).unwrap();
                assert_eq!((read.environment(), read.id()), (env, master.id()));
                assert_eq!(UserKey::parse(master.expose()).unwrap_err(), KeyError::Kind);
                assert_eq!(MasterKey::parse(made.expose()).unwrap_err(), KeyError::Kind);
            }
        }
        for brand in ["", "a", "Spark", "sp_ark", "spärk", "0123456789abcdefg"] {
            assert_eq!(Brand::new(brand), Err(KeyError::Brand), "{brand}");
        }
    }

    #[test]
    fn each_fault_is_named() {
        let good = key("spark", Environment::Live);
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
            assert_eq!(UserKey::parse(&text).unwrap_err(), expected);
        }
    }

    #[test]
    fn debug_shows_the_id_and_not_the_secret() {
        let key = key("spark", Environment::Live);
        let shown = format!("{key:?}");
        assert!(shown.contains(key.id()));
        let secret = &key.expose()[key.expose().len() - SECRET_LEN - 6..];
        assert!(!shown.contains(&secret[..8]));
    }

    #[test]
    fn the_pattern_finds_keys_wherever_they_stand() {
        let pattern = regex::Regex::new(KEY_PATTERN).unwrap();
        let found = |text: &str| -> Vec<String> {
            let found = pattern.captures_iter(text);
            found.map(|found| found[1].to_owned()).collect()
        };
        for brand in ["ab", "spark", "0123456789abcdef"] {
            for env in [Environment::Live, Environment::Test] {
                let user = key(brand, env);
                let master = MasterKey::generate(&Brand::new(brand).unwrap(), env).unwrap();
                for key in [user.expose(), master.expose()] {
                    for (before, after) in [
                        ("", ""),
                        ("the key is ", ", keep it"),
                        ("the key is ", "."),
                        ("{\"key\":\"", "\"}"),
                        ("SPARK_KEY=", "\n"),
                        ("API_KEY_", ""),
                        ("_", "_"),
                        ("**", "**"),
                        ("https://host/?key=", "&x=1"),
                        ("Authorization: Bearer ", "\r\n"),
                        ("key:", "\u{e9}"),
                        ("\u{e9}", " "),
                        ("KEY", "-old"),
                    ] {
                        let text = format!("{before}{key}{after}");
                        assert_eq!(found(&text), [key], "{text}");
                    }
                    let two = format!("{key} {key}\n{key}");
                    assert_eq!(found(&two), [key; 3]);
                }
            }
        }
    }

    #[test]
    fn the_pattern_passes_over_what_only_looks_like_a_key() {
        let pattern = regex::Regex::new(KEY_PATTERN).unwrap();
        let body = "A1b2C3d4E5".repeat(5);
        for text in [
            format!("sk_live_{body}"),
            format!("a_sk_live_{body}"),
            format!("spark_pk_live_{body}"),
            format!("spark_sk_prod_{body}"),
            format!("SPARK_SK_LIVE_{body}"),
            format!("Spark-sk-live-{body}"),
            format!("spark_sk_live_{}", &body[1..]),
            format!("spark_sk_live_{body}x"),
            format!("stripe_sk_live_{body}{body}"),
            format!("spark_sk_live_{}-{}", &body[..25], &body[25..]),
        ] {
            assert!(!pattern.is_match(&text), "{text}");
        }
        // What the pattern cannot tell, the checksum does.
        let made_up = format!("spark_sk_live_{body}");
        assert!(pattern.is_match(&made_up));
        assert_eq!(UserKey::parse(&made_up).unwrap_err(), KeyError::Checksum);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC{0,300}") {
            let _ = UserKey::parse(&text);
        }

        #[test]
        fn any_bytes_in_the_shape_of_a_key_are_read_without_a_panic(
            brand in "[a-z0-9_é]{0,20}", marker in "_(mk|sk|xx)_(live|test|none)_", body in "[ -~é]{40,60}"
        ) {
            let _ = UserKey::parse(&format!("{brand}{marker}{body}"));
        }

        #[test]
        fn a_single_changed_character_is_noticed(at in 0usize..64, to in "[0-9A-Za-z]") {
            let good = key("spark", Environment::Live);
            let mut text = good.expose().to_owned();
            prop_assume!(&text[at..=at] != to.as_str());
            text.replace_range(at..=at, &to);
            prop_assert!(UserKey::parse(&text).is_err());
        }
    }
}
