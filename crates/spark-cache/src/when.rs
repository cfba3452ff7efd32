//! Which questions are cached.

/// Which questions are cached.
///
/// # Example
/// ```
/// use spark_cache::When;
/// assert_eq!("always".parse(), Ok(When::Always));
/// assert_eq!(When::default(), When::Deterministic);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum When {
    /// Those that ask for the same answer each time: `"temperature": 0`, or a `seed`.
    #[default]
    Deterministic,
    /// All of them.
    Always,
    /// None.
    Never,
}

impl std::str::FromStr for When {
    type Err = UnknownWhen;

    fn from_str(text: &str) -> Result<Self, UnknownWhen> {
        match text {
            "deterministic" => Ok(Self::Deterministic),
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            _ => Err(UnknownWhen),
        }
    }
}

/// Not the name of a [`When`].
///
/// # Example
/// ```
/// use spark_cache::When;
/// let error = "sometimes".parse::<When>().unwrap_err();
/// assert_eq!(error.to_string(), "must be `deterministic`, `always` or `never`");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be `deterministic`, `always` or `never`")]
pub struct UnknownWhen;
