//! What can be wrong with a configuration: said when it is built, never at a request.

use spark_core::NameError;

/// Why a [`Quota`](crate::Quota), a [`Policy`](crate::Policy) or a [`Limiter`](crate::Limiter)
/// cannot be built.
///
/// # Example
/// ```
/// use spark_ratelimit::{ConfigError, Quota};
/// use std::time::Duration;
/// let error = Quota::new(0, Duration::from_secs(1)).unwrap_err();
/// assert_eq!(error, ConfigError::ZeroQuota);
/// assert!(error.to_string().contains("at least 1"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A quota that admits nothing.
    #[error("quota must be at least 1: a limit that admits nobody is not a rate limit")]
    ZeroQuota,
    /// A quota for no time at all.
    #[error("per must be longer than zero, such as 1s or 1m")]
    ZeroPeriod,
    /// A burst that admits nothing.
    #[error("burst must be at least 1, or be left out to equal the quota")]
    ZeroBurst,
    /// More units than the `RateLimit` fields can carry.
    #[error("quota and burst must be at most {max}, but one is {got}")]
    TooMany {
        /// What was asked for.
        got: u64,
        /// The most that is possible.
        max: u64,
    },
    /// A unit every few nanoseconds, which whole nanoseconds cannot express within one percent.
    #[error(
        "a quota of {quota} per {per_nanos} ns is too fast to count in whole nanoseconds: use at most one unit per 100 ns"
    )]
    TooFast {
        /// The units asked for.
        quota: u64,
        /// The period asked for, in nanoseconds.
        per_nanos: u64,
    },
    /// A period, or the time in which the burst refills, of more than 36 years.
    #[error(
        "per, and the time that the burst takes to refill, must be at most 36 years: lower the burst or raise the quota"
    )]
    TooLong,
    /// The name of a policy or of a tier does not fit into a header and a label.
    #[error("{what} is not usable: {source}")]
    Name {
        /// Which name it is.
        what: String,
        /// The rule that it breaks.
        source: NameError,
    },
    /// A limiter without a policy would admit everything.
    #[error("add at least one policy: a limiter without one limits nothing")]
    NoPolicy,
    /// Two policies of one name cannot be told apart in headers and when reloading.
    #[error("policy {name} is given twice: give each policy a name of its own")]
    DuplicatePolicy {
        /// The name.
        name: String,
    },
    /// One tier has two quotas in one policy.
    #[error("policy {policy} gives tier {tier} twice: keep one of the two quotas")]
    DuplicateTier {
        /// The policy.
        policy: String,
        /// The tier.
        tier: String,
    },
    /// More policies than one request may be charged to.
    #[error(
        "at most {max} policies can be charged by one limiter, but {got} are given: use a second limiter"
    )]
    TooManyPolicies {
        /// How many were given.
        got: usize,
        /// The most that is possible.
        max: usize,
    },
    /// One key has two quotas in one policy.
    #[error("policy {policy} gives one key two quotas: keep one of the two")]
    DuplicateKey {
        /// The policy.
        policy: String,
    },
    /// More quotas than an entry of the table can tell apart.
    #[error(
        "at most {max} quotas for tiers and single keys are possible in one policy, but {got} are given: put keys of the same quota into a tier"
    )]
    TooManyQuotas {
        /// How many were given.
        got: usize,
        /// The most that is possible.
        max: usize,
    },
    /// A concurrency limit that admits nobody.
    #[error("the most at once must be at least 1: a limit of 0 admits nobody")]
    ZeroConcurrency,
    /// A table without a slot, or one of more than 4 GiB.
    #[error("capacity must be 1 to {max} slots (16 bytes each, for every policy), but it is {got}")]
    Capacity {
        /// What was asked for.
        got: usize,
        /// The most that is possible.
        max: usize,
    },
}
