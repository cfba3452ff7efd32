//! What every SPARK crate tests with: a clock that stands still, a body to order, and the contract
//! of tower as a function. Behind the feature `testing`; it panics where a test should fail.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test kit fails by panicking"
)]

mod body;
mod clock;
pub mod contract;
mod probe;

pub use body::{TestBody, TestError};
pub use clock::TestClock;
pub use probe::{Behaviour, Probe, ProbeError, ProbeFuture};
