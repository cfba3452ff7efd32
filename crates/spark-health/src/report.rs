//! The report, as `application/health+json` has it.

use std::collections::BTreeMap;
use std::time::Duration;

use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use serde::Serialize;
use serde_json::Value;

use crate::check::Outcome;
use crate::date::rfc3339;
use crate::result::CheckResult;
use crate::status::Status;

/// Everything that is known, for an operator's eyes:
/// [draft-inadarei-api-health-check-06](https://datatracker.ietf.org/doc/html/draft-inadarei-api-health-check-06).
///
/// # Example
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use spark_health::{CheckResult, Gate, Health};
/// let health = Health::builder()
///     .check_fn("store", Gate::Warn, || CheckResult::fail("read-only"))
///     .build()?;
/// health.started();
/// let json = serde_json::to_value(health.report().await)?;
/// assert_eq!(json["status"], "warn");
/// assert_eq!(json["checks"]["store"][0]["output"], "read-only");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub(crate) status: Status,
    #[serde(rename = "releaseId", skip_serializing_if = "Option::is_none")]
    pub(crate) release: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) service_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) output: Option<&'static str>,
    pub(crate) checks: BTreeMap<String, Vec<Entry>>,
}

/// The status and nothing else, for anyone's eyes.
///
/// # Example
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let health = spark_health::Health::builder().release("1.2.3").build()?;
/// health.started();
/// let public = health.report().await.public();
/// assert_eq!(serde_json::to_string(&public)?, r#"{"status":"pass"}"#);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PublicReport {
    status: Status,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Entry {
    #[serde(skip_serializing_if = "Option::is_none")]
    component_id: Option<String>,
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    observed_value: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    observed_unit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<String>,
    time: String,
}

impl Report {
    /// How the whole is.
    ///
    /// # Example
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// # let health = spark_health::Health::builder().build().unwrap();
    /// use spark_health::Status;
    /// assert_eq!(health.report().await.status(), Status::Fail); // it has not started
    /// # }
    /// ```
    pub fn status(&self) -> Status {
        self.status
    }

    /// What anyone may see of it.
    ///
    /// # Example
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// # let health = spark_health::Health::builder().build().unwrap();
    /// let response = health.report().await.public().into_response();
    /// # }
    /// ```
    pub fn public(&self) -> PublicReport {
        PublicReport {
            status: self.status,
        }
    }

    /// The detailed report: 503 when it fails, otherwise 200. A `String` is a body that axum and
    /// hyper take.
    ///
    /// # Example
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// # let health = spark_health::Health::builder().build().unwrap();
    /// let response = health.report().await.into_response();
    /// assert_eq!(response.headers()["content-type"], "application/health+json");
    /// # }
    /// ```
    pub fn into_response(self) -> Response<String> {
        respond(self.status, &self)
    }
}

impl PublicReport {
    /// How the whole is.
    ///
    /// # Example
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// # let health = spark_health::Health::builder().build().unwrap();
    /// let report = health.report().await;
    /// assert_eq!(report.public().status(), report.status());
    /// # }
    /// ```
    pub fn status(&self) -> Status {
        self.status
    }

    /// As [`Report::into_response`].
    ///
    /// # Example
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// # let health = spark_health::Health::builder().build().unwrap();
    /// assert_eq!(health.report().await.public().into_response().status(), 503);
    /// # }
    /// ```
    pub fn into_response(self) -> Response<String> {
        respond(self.status, &self)
    }
}

impl Entry {
    /// The check itself, then its parts.
    pub(crate) fn list(outcome: &Outcome) -> Vec<Self> {
        let time = rfc3339(outcome.unix_time);
        let mut entries = Vec::with_capacity(1 + outcome.result.parts.len());
        entries.push(Self::new(None, &outcome.result, &time));
        for (id, part) in &outcome.result.parts {
            entries.push(Self::new(Some(id), part, &time));
        }
        entries
    }

    pub(crate) fn uptime(uptime: Duration, unix_time: Duration) -> Self {
        let result = CheckResult::pass().observed(uptime.as_secs(), "s");
        Self::new(None, &result, &rfc3339(unix_time))
    }

    fn new(id: Option<&str>, result: &CheckResult, time: &str) -> Self {
        let (value, unit) = match &result.observed {
            Some((value, unit)) => (Some(value.clone()), Some(unit.to_string())),
            None => (None, None),
        };
        Self {
            component_id: id.map(str::to_owned),
            status: result.status,
            observed_value: value,
            observed_unit: unit,
            output: result.output.as_deref().map(str::to_owned),
            time: time.to_owned(),
        }
    }
}

fn respond(status: Status, report: &impl Serialize) -> Response<String> {
    // Strings, numbers and JSON values under keys that are strings: that cannot fail.
    let mut response = Response::new(serde_json::to_string(report).unwrap_or_default());
    if status == Status::Fail {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/health+json"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
