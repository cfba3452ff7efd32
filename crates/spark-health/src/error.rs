//! What keeps a health from being built.

use spark_core::NameError;

/// Something in the builder cannot be; says what, and how to mend it.
///
/// # Example
/// ```
/// use spark_health::{CheckResult, Gate, Health};
/// let error = Health::builder().check_fn("a b", Gate::Info, CheckResult::pass).build().unwrap_err();
/// assert!(error.to_string().starts_with(r#"check "a b": "#));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HealthError {
    /// A check's name is not one.
    #[error("check {check:?}: {source}")]
    Name {
        /// As it was given.
        check: String,
        /// What is wrong with it.
        source: NameError,
    },
    /// Two checks have one name, or one has that of the built-in `uptime`.
    #[error("check {check:?} stands twice in the report; give it another name")]
    Repeated {
        /// As it was given.
        check: String,
    },
    /// No check could answer in no time.
    #[error("timeout is 0; give the checks some time: the default is 2 s")]
    NoTime,
}
