//! What can be wrong with a tracker's settings.

/// A tracker, a hook or a redactor could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A setting is out of range.
    #[error("`{field}`: {mend}")]
    Setting {
        /// The builder method.
        field: &'static str,
        /// What to give instead.
        mend: &'static str,
    },
    /// Hooks run on a tokio runtime, and there is none.
    #[error("no tokio runtime: a tracker with hooks must be built inside one")]
    NoRuntime,
    /// A pattern to redact is not a regular expression.
    #[error("`pattern`: {0}")]
    Pattern(#[from] Box<regex::Error>),
    /// The webhook's address cannot be used.
    #[error("webhook url: {0}")]
    Url(&'static str),
}
