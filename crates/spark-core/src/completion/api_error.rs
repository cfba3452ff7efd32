//! The error that a model provider reports, as a program may read it.

use serde_json::{Map, Value};

/// The longest word of an error that is kept, in bytes: those of the known providers are shorter.
const LONGEST_WORD: usize = 64;

/// The words of an error by which programs may tell errors apart. Its message is left out.
///
/// # Example
/// ```
/// use spark_core::completion::ApiError;
/// let body = br#"{"error":{"message":"m","type":"insufficient_quota","code":null}}"#;
/// assert_eq!(ApiError::read(body).unwrap().kind(), Some("insufficient_quota"));
/// let body = br#"{"error":{"code":503,"message":"m","status":"UNAVAILABLE"}}"#;
/// let error = ApiError::read(body).unwrap();
/// assert_eq!((error.http_status(), error.status()), (Some(503), Some("UNAVAILABLE")));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApiError {
    kind: Option<Box<str>>,
    code: Option<Box<str>>,
    status: Option<Box<str>>,
    http_status: Option<u16>,
}

impl ApiError {
    /// The error that a whole JSON text reports; `None` when it reports none or is no JSON object.
    ///
    /// # Example
    /// ```
    /// use spark_core::completion::ApiError;
    /// assert!(ApiError::read(br#"{"error":"busy"}"#).is_some());
    /// assert!(ApiError::read(br#"{"error":null,"choices":[]}"#).is_none());
    /// ```
    pub fn read(json: &[u8]) -> Option<Self> {
        match serde_json::from_slice(json) {
            Ok(Value::Object(map)) => Self::of(b"", &map),
            _ => None,
        }
    }

    /// The error that an event of this name reports.
    ///
    /// # Example
    /// ```
    /// use spark_core::completion::ApiError;
    /// let data = serde_json::json!({ "code": "server_error", "message": "…" });
    /// let data = data.as_object().unwrap();
    /// assert_eq!(ApiError::of(b"error", data).unwrap().code(), Some("server_error"));
    /// assert_eq!(ApiError::of(b"", data), None);
    /// ```
    pub fn of(name: &[u8], data: &Map<String, Value>) -> Option<Self> {
        let is_set = |error: &&Value| !error.is_null();
        let kind = data.get("type").and_then(Value::as_str);
        let found = match kind {
            Some("response.failed") => data.get("response").and_then(|it| it.get("error")),
            _ => data.get("error"),
        };
        match found.filter(is_set) {
            Some(Value::Object(error)) => Some(Self::from_fields(error)),
            Some(_) => Some(Self::default()),
            None if matches!(kind, Some("error" | "response.failed")) || name == b"error" => {
                let mut error = Self::from_fields(data);
                error.kind = error
                    .kind
                    .filter(|it| !matches!(&**it, "error" | "response.failed"));
                Some(error)
            }
            None => None,
        }
    }

    /// Its `type`.
    ///
    /// # Example
    /// ```
    /// # use spark_core::completion::ApiError;
    /// let error = ApiError::read(br#"{"error":{"type":"api_error"}}"#).unwrap();
    /// assert_eq!(error.kind(), Some("api_error"));
    /// ```
    pub fn kind(&self) -> Option<&str> {
        self.kind.as_deref()
    }

    /// Its `code`, where that is a word.
    ///
    /// # Example
    /// ```
    /// # use spark_core::completion::ApiError;
    /// let error = ApiError::read(br#"{"error":{"code":"rate_limit_exceeded"}}"#).unwrap();
    /// assert_eq!(error.code(), Some("rate_limit_exceeded"));
    /// ```
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    /// Its `status`, where that is a word.
    ///
    /// # Example
    /// ```
    /// # use spark_core::completion::ApiError;
    /// let error = ApiError::read(br#"{"error":{"status":"RESOURCE_EXHAUSTED"}}"#).unwrap();
    /// assert_eq!(error.status(), Some("RESOURCE_EXHAUSTED"));
    /// ```
    pub fn status(&self) -> Option<&str> {
        self.status.as_deref()
    }

    /// Its `code` or `status`, where that is an HTTP status of an error.
    ///
    /// # Example
    /// ```
    /// # use spark_core::completion::ApiError;
    /// let error = ApiError::read(br#"{"error":{"code":429}}"#).unwrap();
    /// assert_eq!(error.http_status(), Some(429));
    /// ```
    pub const fn http_status(&self) -> Option<u16> {
        self.http_status
    }

    fn from_fields(error: &Map<String, Value>) -> Self {
        let word = |key: &str| match error.get(key) {
            Some(Value::String(word)) if word.len() <= LONGEST_WORD => Some(Box::from(&**word)),
            _ => None,
        };
        let http_status = |key: &str| {
            let number = match error.get(key)? {
                Value::Number(number) => number.as_u64()?,
                Value::String(digits) => digits.parse().ok()?,
                _ => return None,
            };
            let number = u16::try_from(number).ok()?;
            (400..600).contains(&number).then_some(number)
        };
        Self {
            kind: word("type"),
            code: word("code"),
            status: word("status"),
            http_status: http_status("code").or_else(|| http_status("status")),
        }
    }
}
