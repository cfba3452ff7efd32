//! What threads share, in the form that the model checker knows (`--cfg spark_loom`).

#[cfg(spark_loom)]
pub(crate) use loom::{
    sync::{Mutex, MutexGuard, atomic::AtomicU64},
    thread::yield_now,
};
#[cfg(not(spark_loom))]
pub(crate) use std::{
    sync::{Mutex, MutexGuard, atomic::AtomicU64},
    thread::yield_now,
};

use std::sync::PoisonError;

/// Locks, also after a panic elsewhere: what we guard is never left half written.
pub(crate) fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks if nobody else does.
#[cfg(not(spark_loom))]
pub(crate) fn try_hold<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    use std::sync::TryLockError::{Poisoned, WouldBlock};
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(Poisoned(error)) => Some(error.into_inner()),
        Err(WouldBlock) => None,
    }
}

/// Never: loom 0.7 lets a thread that is about to try wait like one that locks, and reports a
/// deadlock that is none. So the models always take the longer way.
#[cfg(spark_loom)]
pub(crate) fn try_hold<T>(_: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    None
}
