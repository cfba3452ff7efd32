//! JSON seen from above: brackets, strings and the rest, without their meaning.

use std::ops::Range;

/// A piece of JSON. What lies between the pieces is white space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// `{` or `[`, and whether it is an object.
    Open { object: bool, at: usize },
    /// `}` or `]`.
    Close,
    /// `,`.
    Comma,
    /// `:`.
    Colon,
    /// A string with its quotes, and whether it has an escape.
    Text { span: Range<usize>, escaped: bool },
    /// A number, `true`, `false`, `null`, or rubbish.
    Other,
}

/// Splits JSON in one pass, with no stack: any bytes will do.
#[derive(Debug)]
pub(crate) struct Tokens<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Tokens<'b> {
    pub(crate) fn new(bytes: &'b [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn text(&mut self, start: usize) -> Token {
        let mut escaped = false;
        let mut at = start + 1;
        loop {
            match self.bytes.get(at) {
                Some(b'"') => break at += 1,
                Some(b'\\') => {
                    escaped = true;
                    at += 2;
                }
                Some(_) => at += 1,
                None => break,
            }
        }
        self.at = at.min(self.bytes.len());
        Token::Text {
            span: start..self.at,
            escaped,
        }
    }
}

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
        let start = self.at;
        let first = *self.bytes.get(start)?;
        self.at += 1;
        Some(match first {
            b'{' | b'[' => Token::Open {
                object: first == b'{',
                at: start,
            },
            b'}' | b']' => Token::Close,
            b',' => Token::Comma,
            b':' => Token::Colon,
            b'"' => self.text(start),
            _ => {
                let ends = |b: &&u8| {
                    matches!(
                        b,
                        b'{' | b'}'
                            | b'['
                            | b']'
                            | b','
                            | b':'
                            | b'"'
                            | b' '
                            | b'\n'
                            | b'\r'
                            | b'\t'
                    )
                };
                while self.bytes.get(self.at).as_ref().is_some_and(|b| !ends(b)) {
                    self.at += 1;
                }
                Token::Other
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_any_bytes() {
        let tokens: Vec<_> = Tokens::new(br#" {"a\"b" : [1,true] }"#).collect();
        assert_eq!(
            tokens,
            [
                Token::Open {
                    object: true,
                    at: 1
                },
                Token::Text {
                    span: 2..8,
                    escaped: true
                },
                Token::Colon,
                Token::Open {
                    object: false,
                    at: 11
                },
                Token::Other,
                Token::Comma,
                Token::Other,
                Token::Close,
                Token::Close,
            ]
        );
        for broken in [&b"\"\\"[..], b"\"abc", b"\xFF\xFE{", b"]]]", b""] {
            assert!(Tokens::new(broken).count() <= broken.len());
        }
    }
}
