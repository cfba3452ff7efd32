//! What threads share, in the form that the model checker knows (`--cfg spark_loom`).
//!
//! Counters that nothing is decided by are the standard library's in both.

#[cfg(spark_loom)]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU8, AtomicU32, AtomicU64, fence},
};
#[cfg(not(spark_loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU8, AtomicU32, AtomicU64, fence},
};

use std::ops::Deref;
use std::sync::PoisonError;

/// Locks, also after a panic elsewhere: no foreign code runs under our locks, so what they guard is
/// never left half written.
pub(crate) fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// On cache lines of its own, so that what is written at each call does not slow what is only read.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Line<T>(pub(crate) T);

impl<T> Deref for Line<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
