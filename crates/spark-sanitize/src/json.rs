//! Is a body the JSON it should be? The shape is checked before anything is parsed.

use serde::de::IgnoredAny;

use crate::{
    config::Limits,
    error::JsonError,
    tokens::{Token, Tokens},
};

/// Checks a JSON body: depth, number of keys and values, length of strings, UTF-8, syntax.
///
/// Every check reads the body once, from left to right, and none recurses.
///
/// ```
/// use spark_sanitize::{JsonError, Limits, check_json};
///
/// let nested = vec![b'['; 100_000];
/// let error = check_json(&nested, &Limits::default()).unwrap_err();
/// assert_eq!(error, JsonError::TooDeep { limit: 32, offset: 32 });
/// assert_eq!(check_json(b"{\"prompt\": \"hi\"}", &Limits::default()), Ok("{\"prompt\": \"hi\"}"));
/// ```
///
/// # Errors
/// When a limit is passed, or the body is no UTF-8 or no JSON.
pub fn check_json<'b>(body: &'b [u8], limits: &Limits) -> Result<&'b str, JsonError> {
    check_shape(body, limits)?;
    let text = std::str::from_utf8(body).map_err(|error| JsonError::NotUtf8 {
        offset: error.valid_up_to(),
    })?;
    serde_json::from_str::<IgnoredAny>(text).map_err(|error| syntax(&error))?;
    Ok(text)
}

fn check_shape(body: &[u8], limits: &Limits) -> Result<(), JsonError> {
    let (mut depth, mut values) = (0_usize, 0_usize);
    for token in Tokens::new(body) {
        match token {
            Token::Open { at, .. } => {
                depth += 1;
                values += 1;
                if depth > limits.max_depth {
                    return Err(JsonError::TooDeep {
                        limit: limits.max_depth,
                        offset: at,
                    });
                }
            }
            Token::Close => depth = depth.saturating_sub(1),
            Token::Text { span, .. } => {
                values += 1;
                // Without the quotes.
                if span.len().saturating_sub(2) > limits.max_string_bytes {
                    let (limit, offset) = (limits.max_string_bytes, span.start);
                    return Err(JsonError::StringTooLong { limit, offset });
                }
            }
            Token::Other => values += 1,
            Token::Comma | Token::Colon => {}
        }
        if values > limits.max_values {
            return Err(JsonError::TooManyValues {
                limit: limits.max_values,
            });
        }
    }
    Ok(())
}

fn syntax(error: &serde_json::Error) -> JsonError {
    let (line, column) = (error.line(), error.column());
    // The parser says the place at the end of its message; it is said once.
    let reason = error.to_string();
    let reason = match reason.rfind(" at line ") {
        Some(end) => reason.get(..end).unwrap_or_default().to_owned(),
        None => reason,
    };
    JsonError::Syntax {
        line,
        column,
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &[u8]) -> Result<(), JsonError> {
        let limits = Limits {
            max_depth: 3,
            max_values: 10,
            max_string_bytes: 8,
            ..Limits::default()
        };
        check_json(body, &limits).map(drop)
    }

    #[test]
    fn limits_are_exact() {
        assert_eq!(check(b"[[[1]]]"), Ok(()));
        assert_eq!(
            check(b"[[[[1]]]]"),
            Err(JsonError::TooDeep {
                limit: 3,
                offset: 3
            })
        );
        assert_eq!(check(b"[{},{},[],[]]"), Ok(()));
        assert_eq!(check(b"[1,2,3,4,5,6,7,8,9]"), Ok(()));
        assert_eq!(
            check(b"[1,2,3,4,5,6,7,8,9,0]"),
            Err(JsonError::TooManyValues { limit: 10 })
        );
        assert_eq!(check(b"\"12345678\""), Ok(()));
        let long = Err(JsonError::StringTooLong {
            limit: 8,
            offset: 1,
        });
        assert_eq!(check(b" \"123456789\""), long);
    }

    #[test]
    fn brackets_in_strings_do_not_nest() {
        assert_eq!(check(br#"["[[[[[", "\"[[["]"#), Ok(()));
    }

    #[test]
    fn says_where_it_is_broken() {
        assert_eq!(
            check(b"{\"a\":\"\xFF\"}"),
            Err(JsonError::NotUtf8 { offset: 6 })
        );
        let error = check(b"{\n \"a\" 1}").unwrap_err();
        assert_eq!(
            error.to_string(),
            "the body is not valid JSON: expected `:` (line 2, column 6)"
        );
        for broken in [
            &b""[..],
            b"{",
            b"[1,]",
            b"nul",
            b"1 2",
            b"\"\n\"",
            b"\"\\x\"",
            b"'a'",
        ] {
            assert_eq!(
                check(broken).unwrap_err().code(),
                "invalid_json",
                "{broken:?}"
            );
        }
    }
}
