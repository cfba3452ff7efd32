//! How full the tables are.

/// One policy's table.
///
/// # Example
/// ```
/// # use spark_ratelimit::{Limiter, Policy, Quota};
/// # use std::time::Duration;
/// # let policy = Policy::new("requests", Quota::new(1, Duration::from_secs(1))?)?;
/// # let limiter = Limiter::builder().policy(policy).build()?;
/// for table in limiter.stats() {
///     println!("{}: {} of {} slots in use", table.policy, table.occupied, table.capacity);
/// }
/// # Ok::<(), spark_ratelimit::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TableStats {
    /// The policy's name.
    pub policy: String,
    /// How many slots it has, for good.
    pub capacity: usize,
    /// How many of them hold a debt, about: estimated from a sample in a table of over 1,024 slots.
    pub occupied: usize,
    /// How many debts were forgotten because their set of slots was full. More than now and then
    /// means: raise the capacity.
    pub evicted_live: u64,
}
