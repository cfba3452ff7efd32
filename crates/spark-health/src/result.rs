//! What a check finds.

use std::borrow::Cow;

use serde_json::Value;

use crate::status::Status;

/// What a check found. Output and values are for the detailed report only; keep secrets out of them
/// all the same.
///
/// # Example
/// ```
/// use spark_health::CheckResult;
/// let open = 1;
/// let result = CheckResult::warn("1 of 2 providers is cut off")
///     .observed(open, "breakers")
///     .part("primary", CheckResult::fail("open"))
///     .part("secondary", CheckResult::pass());
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct CheckResult {
    pub(crate) status: Status,
    pub(crate) output: Option<Cow<'static, str>>,
    pub(crate) observed: Option<(Value, Cow<'static, str>)>,
    pub(crate) parts: Vec<(Cow<'static, str>, CheckResult)>,
}

impl CheckResult {
    /// All is well.
    ///
    /// # Example
    /// ```
    /// let result = spark_health::CheckResult::pass();
    /// ```
    pub fn pass() -> Self {
        Self {
            status: Status::Pass,
            output: None,
            observed: None,
            parts: Vec::new(),
        }
    }

    /// It works, but.
    ///
    /// # Example
    /// ```
    /// let result = spark_health::CheckResult::warn("the disk is 91 % full");
    /// ```
    pub fn warn(output: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status: Status::Warn,
            output: Some(output.into()),
            ..Self::pass()
        }
    }

    /// It does not work.
    ///
    /// # Example
    /// ```
    /// let result = spark_health::CheckResult::fail("the store cannot be written");
    /// ```
    pub fn fail(output: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status: Status::Fail,
            output: Some(output.into()),
            ..Self::pass()
        }
    }

    /// With what was measured, and in which unit.
    ///
    /// # Example
    /// ```
    /// let result = spark_health::CheckResult::pass().observed(17, "entries");
    /// ```
    pub fn observed(mut self, value: impl Into<Value>, unit: impl Into<Cow<'static, str>>) -> Self {
        self.observed = Some((value.into(), unit.into()));
        self
    }

    /// With one of several components. Its status stands in the report, and does not change that of
    /// the whole.
    ///
    /// # Example
    /// ```
    /// use spark_health::CheckResult;
    /// let result = CheckResult::pass().part("primary", CheckResult::pass());
    /// ```
    pub fn part(mut self, id: impl Into<Cow<'static, str>>, result: Self) -> Self {
        self.parts.push((id.into(), result));
        self
    }

    /// How it is.
    ///
    /// # Example
    /// ```
    /// use spark_health::{CheckResult, Status};
    /// assert_eq!(CheckResult::pass().status(), Status::Pass);
    /// ```
    pub fn status(&self) -> Status {
        self.status
    }
}
