//! What one policy is asked for.

use crate::Key;

/// What one policy is asked for, where not all policies are asked for the same: see
/// [`Limiter::check_each`](crate::Limiter::check_each).
///
/// # Example
/// ```
/// use spark_ratelimit::{Charge, Key};
/// let request = Charge::new(Key::of("acme"), 1);
/// let tokens = Charge::estimate(Key::of("acme"), 4_000);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    pub(crate) key: Key,
    pub(crate) cost: u64,
    pub(crate) estimate: bool,
}

impl Charge {
    pub(crate) const NONE: Self = Self {
        key: Key::NONE,
        cost: 0,
        estimate: false,
    };

    /// So many units of this key's quota.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Charge, Key};
    /// assert_ne!(Charge::new(Key::of("acme"), 1), Charge::new(Key::of("acme"), 2));
    /// ```
    pub fn new(key: Key, cost: u64) -> Self {
        Self {
            key,
            cost,
            estimate: false,
        }
    }

    /// An estimate, which a [`Permit`](crate::Permit) settles later.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::{Charge, Key};
    /// assert_ne!(Charge::estimate(Key::of("acme"), 1), Charge::new(Key::of("acme"), 1));
    /// ```
    pub fn estimate(key: Key, cost: u64) -> Self {
        Self {
            key,
            cost,
            estimate: true,
        }
    }
}
