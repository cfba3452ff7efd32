//! What the error of a model provider means, by the status that it stands for.

use http::StatusCode;
use spark_core::completion::ApiError;

use crate::{FailKind, IgnoreKind, Outcome, Scope};

/// The credit is used up: waiting does not help.
const EXHAUSTED: [&str; 8] = [
    "insufficient_quota",
    "credit_balance_exhausted",
    "organization_spend_limit_exceeded",
    "organization_usage_limit_exceeded",
    "project_spend_limit_exceeded",
    "billing_hard_limit_reached",
    "billing_not_active",
    "billing_error",
];

/// The status that goes with each word; those of Gemini's are in capitals.
const WORDS: [(u16, &[&str]); 13] = [
    (
        400,
        &[
            "invalid_request_error",
            "invalid_prompt",
            "context_length_exceeded",
            "content_policy_violation",
            "INVALID_ARGUMENT",
            "FAILED_PRECONDITION",
            "OUT_OF_RANGE",
        ],
    ),
    (
        401,
        &["authentication_error", "invalid_api_key", "UNAUTHENTICATED"],
    ),
    (403, &["permission_error", "PERMISSION_DENIED"]),
    (404, &["not_found_error", "model_not_found", "NOT_FOUND"]),
    (409, &["ABORTED", "ALREADY_EXISTS"]),
    (413, &["request_too_large"]),
    (
        429,
        &[
            "rate_limit_error",
            "rate_limit_exceeded",
            "requests",
            "tokens",
            "RESOURCE_EXHAUSTED",
        ],
    ),
    (499, &["CANCELLED"]),
    (
        500,
        &[
            "api_error",
            "server_error",
            "internal_error",
            "INTERNAL",
            "UNKNOWN",
            "DATA_LOSS",
        ],
    ),
    (501, &["UNIMPLEMENTED"]),
    (503, &["service_unavailable", "UNAVAILABLE"]),
    (504, &["timeout_error", "DEADLINE_EXCEEDED"]),
    (
        OVERLOADED,
        &[
            "overloaded_error",
            "engine_overloaded_error",
            "server_is_overloaded",
        ],
    ),
];

const OVERLOADED: u16 = 529;

/// What a status says that is an error.
pub(crate) fn of_status(status: u16, callers_key: bool) -> Outcome {
    match status {
        401..=403 | 429 if callers_key => Outcome::Ignored(IgnoreKind::Client),
        401..=403 => Outcome::failure(FailKind::Auth),
        429 => Outcome::throttled(),
        // Between an edge and all that is behind it.
        520..=527 | 530 => Outcome::failure(FailKind::Status(status)).with_scope(Scope::Provider),
        408 | 425 | 500..=599 => Outcome::failure(FailKind::Status(status)),
        _ => Outcome::Ignored(IgnoreKind::Client),
    }
}

/// What an error says that comes where an answer was promised. One in no known words is the
/// provider's.
pub(crate) fn of_error(error: &ApiError, callers_key: bool) -> Outcome {
    if is_exhausted(error) {
        return match callers_key {
            true => Outcome::Ignored(IgnoreKind::Client),
            false => Outcome::exhausted(),
        };
    }
    let told = error.http_status().or_else(|| of_words(error));
    of_status(told.unwrap_or(500), callers_key)
}

/// What an error status says, with the error of its body.
pub(crate) fn of_refusal(head: Outcome, error: &ApiError) -> Outcome {
    if is_exhausted(error) {
        let after = match head {
            Outcome::Throttled { retry_after, .. } | Outcome::Failure { retry_after, .. } => {
                retry_after
            }
            _ => None,
        };
        return Outcome::exhausted().with_retry_after(after);
    }
    match head {
        // Not this key asks too much, but all together.
        Outcome::Throttled { .. } if of_words(error) == Some(OVERLOADED) => {
            head.with_scope(Scope::Model)
        }
        _ => head,
    }
}

/// Whether an answer says that the credit is used up: asking again does not help.
pub(crate) fn says_exhausted(status: StatusCode, body: &[u8]) -> bool {
    may_be_exhausted(status) && ApiError::read(body).is_some_and(|error| is_exhausted(&error))
}

/// Whether answers of this status say so, if any do.
pub(crate) fn may_be_exhausted(status: StatusCode) -> bool {
    matches!(status.as_u16(), 402 | 403 | 429)
}

fn is_exhausted(error: &ApiError) -> bool {
    words(error).any(|word| EXHAUSTED.contains(&word))
}

/// The first word that is known, from the most exact.
fn of_words(error: &ApiError) -> Option<u16> {
    words(error).find_map(|word| {
        let known = WORDS.iter().find(|(_, words)| words.contains(&word));
        known.map(|(status, _)| *status)
    })
}

fn words(error: &ApiError) -> impl Iterator<Item = &str> {
    [error.code(), error.kind(), error.status()]
        .into_iter()
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> ApiError {
        ApiError::read(json.as_bytes()).unwrap()
    }

    #[test]
    fn errors_stand_for_their_status() {
        for (status, error) in [
            (529, r#"{"type":"overloaded_error","message":"m"}"#),
            (429, r#"{"type":"rate_limit_error"}"#),
            (429, r#"{"type":"tokens","code":"rate_limit_exceeded"}"#),
            (429, r#"{"code":429,"status":"RESOURCE_EXHAUSTED"}"#),
            (400, r#"{"type":"invalid_request_error"}"#),
            (
                400,
                r#"{"type":"invalid_request_error","code":"a_new_one"}"#,
            ),
            (
                404,
                r#"{"type":"invalid_request_error","code":"model_not_found"}"#,
            ),
            (
                401,
                r#"{"type":"invalid_request_error","code":"invalid_api_key"}"#,
            ),
            (401, r#"{"type":"authentication_error"}"#),
            (403, r#"{"type":"permission_error"}"#),
            (413, r#"{"type":"request_too_large"}"#),
            (500, r#"{"type":"api_error"}"#),
            (500, r#"{"type":"server_error","code":null}"#),
            (502, r#"{"code":502,"message":"m"}"#),
            (503, r#"{"code":503,"status":"UNAVAILABLE"}"#),
            (503, r#"{"status":"UNAVAILABLE"}"#),
            (400, r#"{"type":"BadRequestError","code":"400"}"#),
            (504, r#"{"type":"timeout_error"}"#),
            (500, r#"{"type":"nobody_knows"}"#),
            (500, r#"{"code":200}"#),
            (500, r#""a text: rate_limit_error, insufficient_quota""#),
            (500, r#"{"message":"insufficient_quota"}"#),
        ] {
            let error = read(&format!("{{\"error\":{error}}}"));
            for callers_key in [false, true] {
                let expected = of_status(status, callers_key);
                assert_eq!(of_error(&error, callers_key), expected, "{error:?}");
            }
        }
    }

    #[test]
    fn a_credit_that_is_used_up_is_terminal_and_keeps_its_time() {
        let after = std::time::Duration::from_secs(5);
        for word in EXHAUSTED {
            for field in ["type", "code"] {
                let error = read(&format!("{{\"error\":{{\"{field}\":\"{word}\"}}}}"));
                assert_eq!(of_error(&error, false), Outcome::exhausted());
                let ignored = Outcome::Ignored(IgnoreKind::Client);
                assert_eq!(of_error(&error, true), ignored);
                for head in [Outcome::throttled(), Outcome::failure(FailKind::Auth)] {
                    let found = of_refusal(head.with_retry_after(after), &error);
                    assert_eq!(found, Outcome::exhausted().with_retry_after(after));
                }
            }
        }
    }

    #[test]
    fn a_throttle_for_overload_is_the_models() {
        let head = Outcome::throttled();
        let error = read(r#"{"error":{"type":"engine_overloaded_error"}}"#);
        assert_eq!(of_refusal(head, &error), head.with_scope(Scope::Model));
        let error = read(r#"{"error":{"type":"rate_limit_error"}}"#);
        assert_eq!(of_refusal(head, &error), head);
    }
}
