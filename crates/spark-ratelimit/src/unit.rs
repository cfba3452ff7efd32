//! What a quota counts.

/// What a policy's quota counts.
///
/// The limiter does not care: a request costs what it is charged with. The unit tells clients what
/// they are counted by. `RateLimit-Policy` names it: `requests` need no parameter, being the
/// default; `content-bytes` and `concurrent-requests` are registered and stand in `qu`; tokens are
/// not registered, and the draft keeps `qu` to the registered ones, so they stand in a parameter of
/// our own, `spark-unit`, which other clients take for a comment.
///
/// # Example
/// ```
/// use spark_ratelimit::{Key, Limiter, Policy, Quota, Unit};
/// use std::time::Duration;
///
/// const MINUTE: Duration = Duration::from_secs(60);
/// let limiter = Limiter::builder()
///     .policy(Policy::new("rpm", Quota::new(60, MINUTE)?)?)
///     .policy(Policy::new("upload", Quota::new(65_536, MINUTE)?)?.unit(Unit::ContentBytes))
///     .policy(Policy::new("tpm", Quota::new(90_000, MINUTE)?)?.unit(Unit::Tokens))
///     .build()?;
/// assert_eq!(
///     limiter.peek(&Key::shared(), None, 1).rate_limit_policy_field().unwrap(),
///     r#""rpm";q=60;w=60, "upload";q=65536;qu="content-bytes";w=60, "tpm";q=90000;w=60;spark-unit="tokens""#,
/// );
/// # Ok::<(), spark_ratelimit::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unit {
    /// Requests.
    #[default]
    Requests,
    /// Bytes of content.
    ContentBytes,
    /// Requests at the same time: for limits that have no window.
    ConcurrentRequests,
    /// Tokens of a language model.
    Tokens,
}

impl Unit {
    /// The name: of the registry where the unit is registered, otherwise our own.
    ///
    /// # Example
    /// ```
    /// use spark_ratelimit::Unit;
    /// assert_eq!(Unit::default().as_str(), "requests");
    /// assert_eq!(Unit::ContentBytes.as_str(), "content-bytes");
    /// ```
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::ContentBytes => "content-bytes",
            Self::ConcurrentRequests => "concurrent-requests",
            Self::Tokens => "tokens",
        }
    }
}
