//! What can be wrong with a set of headers, found while it is built.

/// A header set that cannot be built; says which value and how to mend it.
///
/// # Example
/// ```
/// use spark_headers::Csp;
/// let error = Csp::api().directive("img-src", ["self"]).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     r#"Content-Security-Policy, img-src: "self": write the keyword in single quotes, as in 'self'"#
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeadersError {
    /// The policy names a directive that browsers do not know.
    #[error(
        "Content-Security-Policy: unknown directive {directive:?}; see the table at `Csp::directive`"
    )]
    UnknownDirective {
        /// As it was given.
        directive: String,
    },
    /// The policy names one directive twice: browsers ignore the second.
    #[error("Content-Security-Policy: {directive} stands twice; put all its sources in one")]
    RepeatedDirective {
        /// As it was given.
        directive: String,
    },
    /// A value of a directive does not belong there.
    #[error("Content-Security-Policy, {directive}: {value:?}: {mend}")]
    Source {
        /// The directive.
        directive: &'static str,
        /// The value at fault.
        value: String,
        /// How to mend it.
        mend: &'static str,
    },
    /// Not a header name.
    #[error("{name:?} is not a header name; use letters, digits and dashes")]
    Name {
        /// As it was given.
        name: String,
    },
    /// Not a header value.
    #[error("{name}: the value holds a line break or a control character; remove it")]
    Value {
        /// The header.
        name: String,
    },
    /// The header has a setter of its own, which checks it.
    #[error("{name} is not set by name; use `SecurityHeaders::{setter}`")]
    HasItsOwnSetter {
        /// The header.
        name: &'static str,
        /// The method to call.
        setter: &'static str,
    },
}
