//! Short identifiers that are safe in a log, a header and a file.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A short identifier: a tenant, a tier, a scope, the id of a key.
///
/// 1 to 64 bytes of `A-Z a-z 0-9 . _ : -`, and `*` so that a scope may say `chat:*`. Cloning is one
/// atomic increment.
///
/// # Example
/// ```
/// use spark_core::Name;
/// let tenant: Name = "acme-eu".parse()?;
/// assert_eq!(tenant.as_str(), "acme-eu");
/// assert!(Name::new("two words").is_err());
/// # Ok::<(), spark_core::NameError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

/// The longest [`Name`], in bytes.
pub const MAX_NAME_LEN: usize = 64;

impl Name {
    /// Checks and keeps `text`.
    ///
    /// # Errors
    /// [`NameError`] says which rule `text` breaks; it never repeats `text`.
    ///
    /// # Example
    /// ```
    /// use spark_core::{Name, NameError};
    /// assert!(Name::new("pro").is_ok());
    /// assert_eq!(Name::new(""), Err(NameError::Empty));
    /// ```
    pub fn new(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > MAX_NAME_LEN {
            return Err(NameError::TooLong { len: text.len() });
        }
        match text.bytes().position(|byte| !is_allowed(byte)) {
            Some(at) => Err(NameError::Character { at }),
            None => Ok(Self(text.into())),
        }
    }

    /// The text.
    ///
    /// # Example
    /// ```
    /// # use spark_core::Name;
    /// assert_eq!(Name::new("pro")?.as_str(), "pro");
    /// # Ok::<(), spark_core::NameError>(())
    /// ```
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-' | b'*')
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl PartialEq<str> for Name {
    fn eq(&self, other: &str) -> bool {
        *self.0 == *other
    }
}

impl PartialEq<&str> for Name {
    fn eq(&self, other: &&str) -> bool {
        *self.0 == **other
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl TryFrom<&str> for Name {
    type Error = NameError;

    fn try_from(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

/// Why a text is not a [`Name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// There is no text.
    #[error("a name needs at least one character")]
    Empty,
    /// The text is longer than [`MAX_NAME_LEN`] bytes.
    #[error("a name has at most {MAX_NAME_LEN} bytes, this one has {len}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// A byte outside `A-Z a-z 0-9 . _ : - *`.
    #[error("a name holds only A-Z a-z 0-9 . _ : - *, but byte {at} is another one")]
    Character {
        /// Where it stands, counted in bytes from zero.
        at: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_name_is_accepted_and_one_byte_more_is_not() {
        assert!(Name::new(&"a".repeat(64)).is_ok());
        assert_eq!(
            Name::new(&"a".repeat(65)),
            Err(NameError::TooLong { len: 65 })
        );
    }

    #[test]
    fn anything_that_could_break_a_header_a_log_line_or_a_label_is_refused() {
        for text in [
            "a b", "a\n", "a\"", "a,b", "a;b", "ä", "a\u{0}", "a/b", "{a}",
        ] {
            assert!(
                matches!(Name::new(text), Err(NameError::Character { .. })),
                "{text:?}"
            );
        }
    }

    #[test]
    fn padding_applies_to_display() {
        assert_eq!(format!("{:>5}", Name::new("abc").unwrap()), "  abc");
    }
}
