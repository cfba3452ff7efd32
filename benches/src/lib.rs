//! Two ways to do the same work, timed in turns on the same machine in the same seconds.
//!
//! A [`Race`] runs its sides alternately, some milliseconds each, for many rounds. What a neighbour
//! on the machine takes away, it takes from all sides; so what counts is the ratio of the fastest
//! rounds, and beside it how far the ratio of single rounds strays. A [`Bar`] says what a ratio
//! ought to be, [`Nanos`] what a side ought to take.
#![forbid(unsafe_code)]

mod bar;
mod race;
mod races;
mod side;
mod turn;

pub use bar::{Bar, Nanos};
pub use race::Race;
pub use races::Races;
pub use turn::{call, drain, turn};
