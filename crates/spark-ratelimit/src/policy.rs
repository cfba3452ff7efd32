//! A named quota, with others for named tiers.

use spark_core::Name;

use crate::{ConfigError, Key, Quota, Unit};

/// A named quota. Callers of a tier that is named here have a quota of their own; everybody else
/// has the policy's.
///
/// It counts requests, unless told another [`Unit`]. The name goes into the `RateLimit` fields, into
/// problem details and into a metric's label, so it has the characters of a [`Name`].
///
/// # Example
/// ```
/// use spark_ratelimit::{Policy, Quota};
/// use std::time::Duration;
///
/// const MINUTE: Duration = Duration::from_secs(60);
/// let policy = Policy::new("requests", Quota::new(60, MINUTE)?.burst(20)?)?
///     .tier("pro", Quota::new(600, MINUTE)?.burst(100)?);
/// assert_eq!(policy.name(), "requests");
/// # Ok::<(), spark_ratelimit::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub(crate) name: Name,
    pub(crate) quota: Quota,
    pub(crate) tiers: Vec<(String, Quota)>,
    pub(crate) keys: Vec<(Key, Quota)>,
    pub(crate) unit: Unit,
    pub(crate) shadow: bool,
}

impl Policy {
    /// A policy of this name, with the quota of those whose tier is not named.
    ///
    /// # Errors
    /// When `name` is not 1 to 64 characters of `A-Z a-z 0-9 . _ : - *`.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Policy, Quota};
    /// # use std::time::Duration;
    /// let quota = Quota::new(1_000, Duration::from_secs(86_400))?;
    /// assert!(Policy::new("daily", quota).is_ok());
    /// assert!(Policy::new("no \"quotes\"", quota).is_err());
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    pub fn new(name: &str, quota: Quota) -> Result<Self, ConfigError> {
        let name = Name::new(name).map_err(|source| ConfigError::Name {
            what: "the name of a policy".to_owned(),
            source,
        })?;
        Ok(Self {
            name,
            quota,
            tiers: Vec::new(),
            keys: Vec::new(),
            unit: Unit::Requests,
            shadow: false,
        })
    }

    /// Gives the callers of a tier a quota of their own. The tier's name is checked when the
    /// limiter is built.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Policy, Quota};
    /// # use std::time::Duration;
    /// # let second = Duration::from_secs(1);
    /// let policy = Policy::new("requests", Quota::new(1, second)?)?
    ///     .tier("pro", Quota::new(10, second)?)
    ///     .tier("team", Quota::new(50, second)?);
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    #[must_use]
    pub fn tier(mut self, name: impl Into<String>, quota: Quota) -> Self {
        self.tiers.push((name.into(), quota));
        self
    }

    /// Gives one key a quota of its own, whatever its tier. A policy can tell 32,767 tiers and keys
    /// apart; where many keys have the same quota, give them a tier instead.
    ///
    /// To change it while running: [`Limiter::reconfigure`](crate::Limiter::reconfigure).
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Key, Limiter, Policy, Quota};
    /// # use std::time::Duration;
    /// # let second = Duration::from_secs(1);
    /// let policy = Policy::new("requests", Quota::new(1, second)?)?
    ///     .key(Key::of("our-best-customer"), Quota::new(500, second)?);
    /// let limiter = Limiter::builder().policy(policy).build()?;
    /// assert!(limiter.check(&Key::of("our-best-customer"), None, 500).allowed());
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    #[must_use]
    pub fn key(mut self, key: Key, quota: Quota) -> Self {
        self.keys.push((key, quota));
        self
    }

    /// What the quota counts, as clients are told; requests unless said.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Policy, Quota, Unit};
    /// # use std::time::Duration;
    /// let quota = Quota::new(90_000, Duration::from_secs(60))?;
    /// let policy = Policy::new("tokens", quota)?.unit(Unit::Tokens);
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    #[must_use]
    pub fn unit(mut self, unit: Unit) -> Self {
        self.unit = unit;
        self
    }

    /// Counts and never refuses: to see whom a new quota would refuse before it does. Clients are
    /// not told of it: it stands in no header field.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Key, Limiter, Policy, Quota};
    /// # use std::time::Duration;
    /// const MINUTE: Duration = Duration::from_secs(60);
    /// let limiter = Limiter::builder()
    ///     .policy(Policy::new("requests", Quota::new(60, MINUTE)?)?)
    ///     .policy(Policy::new("stricter", Quota::new(30, MINUTE)?)?.shadow())
    ///     .build()?;
    /// assert_eq!(
    ///     limiter.peek(&Key::shared(), None, 1).rate_limit_policy_field().unwrap(),
    ///     r#""requests";q=60;w=60"#,
    /// );
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    #[must_use]
    pub fn shadow(mut self) -> Self {
        self.shadow = true;
        self
    }

    /// The name.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Policy, Quota};
    /// # use std::time::Duration;
    /// let policy = Policy::new("daily", Quota::new(9, Duration::from_secs(86_400))?)?;
    /// assert_eq!(policy.name(), "daily");
    /// # Ok::<(), spark_ratelimit::ConfigError>(())
    /// ```
    pub fn name(&self) -> &str {
        self.name.as_str()
    }
}
