//! A JSON document by its meaning.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use sha2::{Digest as _, Sha256};

/// Every integer up to here is one `f64` and one only.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// A JSON document, read for its meaning, in the manner of [RFC 8785]: white space, the order of
/// keys, escapes (`"\u0061"`) and the spelling of numbers (`1`, `1.0`, `1e0`, `-0`) make no
/// difference to its digest.
///
/// It never guesses. Where two readers might understand a document differently, the digest is of
/// its raw bytes: a name that occurs twice in an object, an integer beyond 2^53, a lone surrogate,
/// more than 127 levels, and whatever is not JSON at all. Such a document still has a digest of its
/// own; it only meets itself, byte for byte.
///
/// [RFC 8785]: https://www.rfc-editor.org/rfc/rfc8785
///
/// # Example
/// ```
/// use spark_cache::Canonical;
/// let digest = |json: &str| Canonical::of(json.as_bytes()).digest();
///
/// assert_eq!(digest(r#"{"a":1,"b":[true]}"#), digest(r#" {"b":[true], "a":1e0} "#));
/// assert_ne!(digest("[1,2]"), digest("[2,1]"));
/// assert_ne!(digest(r#"{"a":1,"a":2}"#), digest(r#"{"a":2}"#), "which of the two was meant?");
/// ```
#[derive(Debug)]
pub struct Canonical<'a> {
    raw: &'a [u8],
    root: Option<Json<'a>>,
    twice: bool,
}

impl<'a> Canonical<'a> {
    /// Reads `bytes`, in one pass.
    ///
    /// # Example
    /// ```
    /// use spark_cache::Canonical;
    /// assert!(Canonical::of(b"{}").is_json());
    /// assert!(!Canonical::of(b"{").is_json());
    /// ```
    pub fn of(bytes: &'a [u8]) -> Self {
        let mut root: Option<Json<'a>> = serde_json::from_slice(bytes).ok();
        let twice = root.as_mut().is_some_and(Json::sort);
        Self {
            raw: bytes,
            root,
            twice,
        }
    }

    /// Whether this is a JSON document.
    ///
    /// # Example
    /// ```
    /// # use spark_cache::Canonical;
    /// assert!(Canonical::of(b"[1]").is_json());
    /// assert!(!Canonical::of(b"\"\\ud800\"").is_json(), "a lone surrogate");
    /// ```
    pub fn is_json(&self) -> bool {
        self.root.is_some()
    }

    /// The member `name` of the outermost object, unless a name occurs twice anywhere in the
    /// document: then nobody can say what it means.
    ///
    /// # Example
    /// ```
    /// use spark_cache::{Canonical, Scalar};
    /// let of = |json: &'static str| Canonical::of(json.as_bytes());
    /// assert_eq!(of(r#"{"temperature":0}"#).member("temperature"), Some(Scalar::Number(0.0)));
    /// assert_eq!(of(r#"{"temperature":0,"temperature":1}"#).member("temperature"), None);
    /// ```
    pub fn member(&self, name: &str) -> Option<Scalar> {
        let Some(Json::Object(members)) = &self.root else {
            return None;
        };
        if self.twice {
            return None;
        }
        let (_, value) = members.iter().find(|(key, _)| key == name)?;
        Some(match value {
            Json::Null => Scalar::Null,
            Json::Bool(value) => Scalar::Bool(*value),
            Json::Number(value) => Scalar::Number(*value),
            Json::Text(_) | Json::Array(_) | Json::Object(_) => Scalar::Other,
        })
    }

    /// SHA-256 of the meaning, or of the raw bytes where the meaning is open to doubt. The two never
    /// meet.
    ///
    /// # Example
    /// ```
    /// # use spark_cache::Canonical;
    /// assert_ne!(Canonical::of(b"1").digest(), Canonical::of(b"2").digest());
    /// ```
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        // The kinds are equally long: neither begins the other.
        hash.update(self.kind());
        match &self.root {
            Some(root) if self.is_plain() => root.write(&mut hash),
            _ => hash.update(self.raw),
        }
        hash.finalize().into()
    }

    fn kind(&self) -> &'static str {
        if self.is_plain() { "json" } else { "byte" }
    }

    fn is_plain(&self) -> bool {
        !self.twice && self.root.as_ref().is_some_and(Json::is_exact)
    }
}

/// A member of a [`Canonical`] document, as far as a policy needs it.
///
/// # Example
/// ```
/// use spark_cache::{Canonical, Scalar};
/// assert_eq!(Canonical::of(br#"{"stream":true}"#).member("stream"), Some(Scalar::Bool(true)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Scalar {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, rounded to the nearest `f64`.
    Number(f64),
    /// A string, an array or an object.
    Other,
}

enum Json<'a> {
    Null,
    Bool(bool),
    Number(f64),
    Text(Cow<'a, str>),
    Array(Vec<Json<'a>>),
    Object(Vec<(Cow<'a, str>, Json<'a>)>),
}

// The depth of each of these recursions is the reader's: serde_json stops at 127 levels.
impl Json<'_> {
    /// Sorts the members of every object; true when a name occurs twice in one.
    fn sort(&mut self) -> bool {
        match self {
            Self::Array(items) => items
                .iter_mut()
                .fold(false, |twice, item| item.sort() | twice),
            Self::Object(members) => {
                members.sort_by(|(a, _), (b, _)| by_utf16(a, b));
                let twice = members.windows(2).any(|pair| pair[0].0 == pair[1].0);
                members
                    .iter_mut()
                    .fold(twice, |twice, (_, value)| value.sort() | twice)
            }
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::Text(_) => false,
        }
    }

    fn is_exact(&self) -> bool {
        match self {
            Self::Number(number) => number.abs() <= EXACT,
            Self::Array(items) => items.iter().all(Self::is_exact),
            Self::Object(members) => members.iter().all(|(_, value)| value.is_exact()),
            Self::Null | Self::Bool(_) | Self::Text(_) => true,
        }
    }

    /// Writes it so that no two values write the same: a tag, a length, the content.
    fn write(&self, hash: &mut Sha256) {
        match self {
            Self::Null => hash.update(b"z"),
            Self::Bool(false) => hash.update(b"f"),
            Self::Bool(true) => hash.update(b"t"),
            Self::Number(number) => {
                hash.update(b"n");
                // `-0` is `0`; there is no NaN in JSON.
                hash.update((number + 0.0).to_bits().to_be_bytes());
            }
            Self::Text(text) => {
                hash.update(b"s");
                write_text(hash, text);
            }
            Self::Array(items) => {
                hash.update(b"a");
                hash.update((items.len() as u64).to_be_bytes());
                items.iter().for_each(|item| item.write(hash));
            }
            Self::Object(members) => {
                hash.update(b"o");
                hash.update((members.len() as u64).to_be_bytes());
                for (name, value) in members {
                    write_text(hash, name);
                    value.write(hash);
                }
            }
        }
    }
}

fn write_text(hash: &mut Sha256, text: &str) {
    hash.update((text.len() as u64).to_be_bytes());
    hash.update(text.as_bytes());
}

/// RFC 8785, §3.2.3. Bytes of ASCII sort the same way.
fn by_utf16(a: &str, b: &str) -> Ordering {
    if a.is_ascii() && b.is_ascii() {
        a.cmp(b)
    } else {
        a.encode_utf16().cmp(b.encode_utf16())
    }
}

impl fmt::Debug for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Json(..)")
    }
}

impl<'de> Deserialize<'de> for Json<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Json::Bool(value))
    }

    // Beyond 2^53 these round, to a number that is at least 2^53. `is_exact` lets 2^53 itself pass,
    // to which 2^53 + 1 rounds: so those that rounded are moved out of its reach.
    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        let number = value as f64;
        let exact = value <= EXACT as u64;
        Ok(Json::Number(if exact {
            number
        } else {
            number.max(2.0 * EXACT)
        }))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        let number = value as f64;
        let exact = value.unsigned_abs() <= EXACT as u64;
        Ok(Json::Number(if exact {
            number
        } else {
            number.min(-2.0 * EXACT)
        }))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        // Written with a fraction or an exponent, or too long for 64 bits: at 2^53 it may have been
        // rounded to it.
        let doubtful = value.abs() >= EXACT;
        Ok(Json::Number(if doubtful { 2.0 * value } else { value }))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(Json::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Json::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Json::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some((Name(name), value)) = map.next_entry()? {
            members.push((name, value));
        }
        Ok(Json::Object(members))
    }
}

/// The name of a member, borrowed where it has no escapes.
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl<'de> Visitor<'de> for NameVisitor {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Borrowed(value)))
            }

            fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Owned(value.to_owned())))
            }
        }
        deserializer.deserialize_str(NameVisitor)
    }
}

#[cfg(test)]
#[path = "canonical_tests.rs"]
mod tests;
