//! What can be wrong with a configuration, and with a body.

type Source = Box<dyn std::error::Error + Send + Sync>;

/// A [`Sanitizer`](crate::Sanitizer) or a [`Fields`](crate::Fields) that cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// An action was given for a name that is neither a rule nor a family.
    #[error(
        "`{name}` is neither a rule nor a family of rules: use a name that spark_sanitize::rules() \
         lists, or the part before its dot"
    )]
    UnknownRule {
        /// The name as it was given.
        name: String,
    },
    /// A limit that would refuse everything.
    #[error("`{field}` is 0, which would refuse every request: use at least 1")]
    ZeroLimit {
        /// The limit's name.
        field: &'static str,
    },
    /// A selector that does not parse.
    #[error(
        "the field `{path}` does not parse: write keys joined by dots, and `[]` after a key whose \
         value is an array, as in `messages[].content`"
    )]
    Field {
        /// The selector as it was given.
        path: String,
    },
    /// A rule's pattern does not compile: a defect of this crate.
    #[error("the pattern of the rule `{rule}` does not compile")]
    Pattern {
        /// The rule.
        rule: &'static str,
        /// What the compiler says.
        #[source]
        error: Source,
    },
    /// The rules' cues do not compile: a defect of this crate.
    #[error("the cues of the rules do not compile")]
    Cues {
        /// What the compiler says.
        #[source]
        error: Source,
    },
}

/// A body that is not the JSON it should be. No text of the body is in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// Not UTF-8.
    #[error("the body is not UTF-8 at byte {offset}: encode it as UTF-8")]
    NotUtf8 {
        /// The first byte that is no UTF-8.
        offset: usize,
    },
    /// Nested too deeply.
    #[error("the body's JSON is nested deeper than {limit} levels at byte {offset}: flatten it")]
    TooDeep {
        /// The limit.
        limit: usize,
        /// Where it was passed.
        offset: usize,
    },
    /// Too many values.
    #[error("the body's JSON has more than {limit} keys and values: split the request")]
    TooManyValues {
        /// The limit.
        limit: usize,
    },
    /// A string too long.
    #[error("the string at byte {offset} of the body is longer than {limit} bytes: shorten it")]
    StringTooLong {
        /// The limit.
        limit: usize,
        /// Where the string begins.
        offset: usize,
    },
    /// Not JSON.
    #[error("the body is not valid JSON: {reason} (line {line}, column {column})")]
    Syntax {
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
        /// What the parser says of it.
        reason: String,
    },
    /// A selected string holds an escape that stands for no character.
    #[error(
        "the field `{field}` holds a `\\u` escape that stands for no character: send the character itself"
    )]
    BadEscape {
        /// The field.
        field: String,
    },
}

impl JsonError {
    /// The reason for machines: one of a fixed set.
    ///
    /// ```
    /// use spark_sanitize::JsonError;
    /// assert_eq!(JsonError::NotUtf8 { offset: 3 }.code(), "invalid_utf8");
    /// ```
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotUtf8 { .. } => "invalid_utf8",
            Self::TooDeep { .. } => "json_too_deep",
            Self::TooManyValues { .. } => "json_too_many_values",
            Self::StringTooLong { .. } => "json_string_too_long",
            Self::Syntax { .. } | Self::BadEscape { .. } => "invalid_json",
        }
    }

    /// The field at fault, where one is known.
    ///
    /// ```
    /// use spark_sanitize::JsonError;
    /// assert_eq!(JsonError::BadEscape { field: "prompt".into() }.field(), Some("prompt"));
    /// ```
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::BadEscape { field } => Some(field),
            _ => None,
        }
    }
}
