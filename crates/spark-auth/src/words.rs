//! The words that stand before the random part of a key.

use crate::error::KeyError;

pub(crate) const MAX_BRAND_LEN: usize = 16;

/// What a key opens.
///
/// # Example
/// ```
/// assert_eq!(spark_auth::Kind::Master.as_str(), "mk");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The control plane: `mk`.
    Master,
    /// The data plane, for one tenant: `sk`.
    User,
}

impl Kind {
    /// The two letters that stand in the key.
    ///
    /// # Example
    /// ```
    /// assert_eq!(spark_auth::Kind::User.as_str(), "sk");
    /// ```
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Master => "mk",
            Self::User => "sk",
        }
    }
}

/// Where a key is meant to be used. It is proven along with the secret, so a test key cannot be
/// relabelled as a live one.
///
/// # Example
/// ```
/// assert_eq!(spark_auth::Environment::default().as_str(), "live");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Environment {
    /// `live`.
    #[default]
    Live,
    /// `test`.
    Test,
}

impl Environment {
    /// The word that stands in the key.
    ///
    /// # Example
    /// ```
    /// assert_eq!(spark_auth::Environment::Test.as_str(), "test");
    /// ```
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Test => "test",
        }
    }
}

/// The first word of a key: 2 to 16 of `a-z 0-9`. It tells people and scanners whose key it is,
/// and is not part of what the key proves.
///
/// # Example
/// ```
/// use spark_auth::Brand;
/// assert_eq!(Brand::default().as_str(), "spark");
/// assert!(Brand::new("My Company").is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Brand(Box<str>);

impl Brand {
    /// Checks and keeps `text`.
    ///
    /// # Errors
    /// [`KeyError::Brand`] when it is not 2 to 16 of `a-z 0-9`.
    ///
    /// # Example
    /// ```
    /// assert_eq!(spark_auth::Brand::new("acme")?.as_str(), "acme");
    /// # Ok::<(), spark_auth::KeyError>(())
    /// ```
    pub fn new(text: &str) -> Result<Self, KeyError> {
        if is_brand(text.as_bytes()) {
            Ok(Self(text.into()))
        } else {
            Err(KeyError::Brand)
        }
    }

    /// The word.
    ///
    /// # Example
    /// ```
    /// assert_eq!(spark_auth::Brand::default().as_str(), "spark");
    /// ```
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Brand {
    fn default() -> Self {
        Self("spark".into())
    }
}

pub(crate) fn is_brand(bytes: &[u8]) -> bool {
    (2..=MAX_BRAND_LEN).contains(&bytes.len())
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}
