//! What callers are told who are not let in.

use std::time::Duration;

use http::StatusCode;
use http::header::{HeaderValue, WWW_AUTHENTICATE};
use spark_core::{Name, Problem};

use crate::credential::CredentialError;

/// The name under which this crate refuses.
const BY: &str = "auth";

/// The `WWW-Authenticate` values of RFC 6750 for one realm, made once.
#[derive(Clone, Debug)]
pub(crate) struct Challenges {
    plain: HeaderValue,
    invalid_token: HeaderValue,
    invalid_request: HeaderValue,
    insufficient_scope: HeaderValue,
}

impl Challenges {
    /// With the scope that is asked for, where one is.
    pub(crate) fn new(realm: &str, scope: Option<&Name>) -> Self {
        // Names hold nothing that would have to be escaped in a quoted string.
        let challenge = |rest: &str| {
            let text = format!("Bearer realm=\"{realm}\"{rest}");
            HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("Bearer"))
        };
        let scope = scope
            .map(|scope| format!(", scope=\"{scope}\""))
            .unwrap_or_default();
        Self {
            plain: challenge(""),
            invalid_token: challenge(", error=\"invalid_token\""),
            invalid_request: challenge(", error=\"invalid_request\""),
            insufficient_scope: challenge(&format!(", error=\"insufficient_scope\"{scope}")),
        }
    }

    /// No credential was sent. RFC 6750, 3.1: no error code then.
    #[cold]
    pub(crate) fn missing(&self) -> Problem {
        let problem = Problem::new(StatusCode::UNAUTHORIZED, BY, "missing_credential").detail(
            "This route needs a key: send `Authorization: Bearer KEY` or `X-API-Key: KEY`.",
        );
        problem.header(WWW_AUTHENTICATE, self.plain.clone())
    }

    /// One answer for unknown, wrong, revoked and expired: telling them apart helps only those who
    /// guess.
    #[cold]
    pub(crate) fn invalid(&self) -> Problem {
        let problem = Problem::new(StatusCode::UNAUTHORIZED, BY, "invalid_credential")
            .detail("The credential is not valid.");
        problem.header(WWW_AUTHENTICATE, self.invalid_token.clone())
    }

    /// The credential headers cannot be used.
    #[cold]
    pub(crate) fn unusable(&self, error: CredentialError) -> Problem {
        let (status, code, challenge) = match error {
            CredentialError::Scheme => {
                (StatusCode::UNAUTHORIZED, "unsupported_scheme", &self.plain)
            }
            // What is too long never comes here: it is answered like any other bad credential.
            CredentialError::Repeated
            | CredentialError::Both
            | CredentialError::Malformed
            | CredentialError::TooLong => (
                StatusCode::BAD_REQUEST,
                "invalid_request",
                &self.invalid_request,
            ),
        };
        let problem = Problem::new(status, BY, code).detail(error.to_string());
        problem.header(WWW_AUTHENTICATE, challenge.clone())
    }

    /// The caller is known, and may not do this.
    #[cold]
    pub(crate) fn forbidden(&self, detail: &'static str) -> Problem {
        let problem = Problem::new(StatusCode::FORBIDDEN, BY, "insufficient_scope").detail(detail);
        problem.header(WWW_AUTHENTICATE, self.insufficient_scope.clone())
    }
}

/// The address has failed too often.
#[cold]
pub(crate) fn throttled(after: Duration) -> Problem {
    let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, BY, "too_many_failures")
        .detail("Too many credentials from this address were refused: wait before the next one.");
    problem.retry_after(after)
}
