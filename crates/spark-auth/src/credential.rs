//! Finding the one credential of a request.

use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};

use crate::key::MAX_CREDENTIAL_LEN;

/// The header for clients that cannot set `Authorization`.
pub(crate) const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The longest header value that is looked at: a credential, its scheme, and some blanks.
const MAX_VALUE_LEN: usize = MAX_CREDENTIAL_LEN + 64;

/// Why the credential headers of a request cannot be used.
///
/// # Example
/// ```
/// use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
/// use spark_auth::{CredentialError, credential};
/// let mut headers = HeaderMap::new();
/// headers.append(AUTHORIZATION, HeaderValue::from_static("Bearer one"));
/// headers.append(AUTHORIZATION, HeaderValue::from_static("Bearer two"));
/// assert_eq!(credential(&headers), Err(CredentialError::Repeated));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// A credential header stands there twice.
    #[error("send the credential once: a credential header is repeated")]
    Repeated,
    /// Both headers are there.
    #[error("send either Authorization or X-API-Key, not both")]
    Both,
    /// There is no key where one belongs, or it holds a blank, a comma or no visible ASCII.
    #[error("the credential header is malformed: send `Bearer KEY`, or the key alone in X-API-Key")]
    Malformed,
    /// It is longer than any credential, and was not read.
    #[error("a credential has at most {MAX_CREDENTIAL_LEN} bytes")]
    TooLong,
    /// `Authorization` speaks of another scheme.
    #[error("this authorization scheme is not supported: send `Authorization: Bearer KEY`")]
    Scheme,
}

/// The credential that a request carries: the token of `Authorization: Bearer KEY` (the scheme in
/// any case) or the value of `X-API-Key: KEY`. None when neither header is there.
///
/// Whatever could be read in two ways is an error: two servers on the way must not see two callers.
/// At most [`MAX_CREDENTIAL_LEN`] bytes are a credential, and of a longer header only the scheme is
/// read.
///
/// # Errors
/// [`CredentialError`] when there is more than one, or it is not in that form.
///
/// # Example
/// ```
/// use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
/// use spark_auth::credential;
/// let mut headers = HeaderMap::new();
/// assert_eq!(credential(&headers), Ok(None));
/// headers.insert(AUTHORIZATION, HeaderValue::from_static("bearer abc"));
/// assert_eq!(credential(&headers), Ok(Some("abc")));
/// ```
pub fn credential(headers: &HeaderMap) -> Result<Option<&str>, CredentialError> {
    match (only(headers, &AUTHORIZATION)?, only(headers, &X_API_KEY)?) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(CredentialError::Both),
        (Some(value), None) => bearer(value.as_bytes()).and_then(token).map(Some),
        (None, Some(value)) => token(value.as_bytes()).map(Some),
    }
}

/// Takes the credential headers out, or marks them so that they are not logged.
pub(crate) fn put_away(headers: &mut HeaderMap, keep: bool) {
    for name in [AUTHORIZATION, X_API_KEY] {
        if !keep {
            headers.remove(name);
        } else if let Some(value) = headers.get_mut(name) {
            value.set_sensitive(true);
        }
    }
}

fn only<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a HeaderValue>, CredentialError> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        (_, Some(_)) => Err(CredentialError::Repeated),
    }
}

fn bearer(value: &[u8]) -> Result<&[u8], CredentialError> {
    let (read, unread) = value.split_at(value.len().min(MAX_VALUE_LEN));
    let head = read.trim_ascii_start();
    let end = (head.iter().position(|&byte| byte == b' ' || byte == b'\t')).unwrap_or(head.len());
    let (scheme, rest) = head.split_at(end);
    if scheme.eq_ignore_ascii_case(b"bearer") {
        match unread {
            [] => Ok(rest),
            _ => Err(CredentialError::TooLong),
        }
    } else if scheme.is_empty() {
        Err(CredentialError::Malformed)
    } else {
        Err(CredentialError::Scheme)
    }
}

/// A comma would be where some proxy joined two headers into one.
fn token(value: &[u8]) -> Result<&str, CredentialError> {
    if value.len() > MAX_VALUE_LEN {
        return Err(CredentialError::TooLong);
    }
    let value = value.trim_ascii();
    if value.len() > MAX_CREDENTIAL_LEN {
        return Err(CredentialError::TooLong);
    }
    let is_clean = |byte: &u8| byte.is_ascii_graphic() && *byte != b',';
    match std::str::from_utf8(value) {
        Ok(text) if !text.is_empty() && value.iter().all(is_clean) => Ok(text),
        _ => Err(CredentialError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(lines: &[(&'static str, &[u8])]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let value = HeaderValue::from_bytes(value).unwrap();
            headers.append(HeaderName::from_static(name), value);
        }
        headers
    }

    #[test]
    fn each_form_is_read_or_refused() {
        use CredentialError::{Both, Malformed, Repeated, Scheme, TooLong};
        type Lines<'a> = &'a [(&'static str, &'a [u8])];
        let long = [b'a'; 64 * 1024];
        let longest = "k".repeat(MAX_CREDENTIAL_LEN);
        let bearer = |token: &[u8]| [b"Bearer ", token].concat();
        let (long_bearer, longest_bearer) = (bearer(&long), bearer(longest.as_bytes()));
        let one_more = bearer(format!("{longest}k").as_bytes());
        let blanks = [b"Bearer".as_slice(), &[b' '; 64 * 1024], b"k"].concat();
        let negotiate = [b"Negotiate ".as_slice(), &long].concat();
        let table: &[(Lines<'_>, Result<Option<&str>, CredentialError>)] = &[
            (&[], Ok(None)),
            (&[("authorization", b"Bearer k")], Ok(Some("k"))),
            (&[("authorization", b"bEaReR   k ")], Ok(Some("k"))),
            (&[("authorization", b"Bearer\tk")], Ok(Some("k"))),
            (&[("x-api-key", b" k\t")], Ok(Some("k"))),
            (&[("authorization", b"")], Err(Malformed)),
            (&[("authorization", b"Bearer")], Err(Malformed)),
            (&[("authorization", b"Bearer ")], Err(Malformed)),
            (&[("authorization", b"Bearer a,b")], Err(Malformed)),
            (&[("authorization", b"Bearer a, Bearer b")], Err(Malformed)),
            (&[("authorization", b"Bearer a b")], Err(Malformed)),
            (&[("authorization", b"Bearer \xff\xfe")], Err(Malformed)),
            (&[("authorization", "Bearer é".as_bytes())], Err(Malformed)),
            (&[("authorization", b"Bearerk")], Err(Scheme)),
            (&[("authorization", b"Basic dTpw")], Err(Scheme)),
            (&[("authorization", b"k")], Err(Scheme)),
            (&[("x-api-key", b"")], Err(Malformed)),
            (&[("x-api-key", b"a b")], Err(Malformed)),
            (
                &[
                    ("authorization", b"Bearer k"),
                    ("authorization", b"Bearer k"),
                ],
                Err(Repeated),
            ),
            (&[("x-api-key", b"k"), ("x-api-key", b"k")], Err(Repeated)),
            (
                &[("authorization", b"Bearer k"), ("x-api-key", b"k")],
                Err(Both),
            ),
            (
                &[("authorization", b"Basic dTpw"), ("x-api-key", b"k")],
                Err(Both),
            ),
            (&[("authorization", &longest_bearer)], Ok(Some(&longest))),
            (&[("x-api-key", longest.as_bytes())], Ok(Some(&longest))),
            (&[("authorization", &one_more)], Err(TooLong)),
            (&[("authorization", &long_bearer)], Err(TooLong)),
            (&[("authorization", &blanks)], Err(TooLong)),
            (&[("x-api-key", &long)], Err(TooLong)),
            // A ticket of another scheme may be long.
            (&[("authorization", &negotiate)], Err(Scheme)),
            (&[("authorization", &long)], Err(Scheme)),
        ];
        for (lines, expected) in table {
            assert_eq!(&credential(&headers(lines)), expected);
        }
    }

    proptest! {
        #[test]
        fn any_header_is_read_without_a_panic(
            values in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..80)), 0..3)
        ) {
            let mut headers = HeaderMap::new();
            for (authorization, value) in values {
                let name = if authorization { AUTHORIZATION } else { X_API_KEY };
                if let Ok(value) = HeaderValue::from_bytes(&value) {
                    headers.append(name, value);
                }
            }
            if let Ok(Some(found)) = credential(&headers) {
                prop_assert!(found.bytes().all(|byte| byte.is_ascii_graphic() && byte != b','));
            }
        }
    }
}
