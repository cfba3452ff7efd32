//! What threads can do to each other, in every order of their steps.
//!
//! `RUSTFLAGS="--cfg spark_loom" cargo test -p spark-breaker --lib --no-default-features models`.
//! (The cfg is our own, since `--cfg loom` switches other crates too.) Counters that nothing is
//! decided by are not modelled, nor are the rules that calls read one by one, nor how a ring comes to
//! be, which is `OnceLock`'s.

mod opening;
mod probes;
mod waiting;
mod windows;

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use loom::thread;
use spark_core::testing::TestClock;

use crate::{Breaker, Config, FailKind, Permit, Window};

const SECOND: Duration = Duration::from_secs(1);

/// A window by count writes the least.
fn config() -> Config {
    Config::standard()
        .window(Window::Count(2))
        .min_calls(2)
        .jitter(0.0)
        .consecutive(None)
}

fn breaker(config: Config) -> (Breaker, TestClock) {
    let clock = TestClock::new();
    (Breaker::new("a", config, clock.clock()).unwrap(), clock)
}

/// Open, and its time is over.
fn due(config: Config) -> (Breaker, TestClock) {
    let (breaker, clock) = breaker(config);
    breaker.throttle(SECOND);
    clock.advance(SECOND);
    (breaker, clock)
}

/// Both at once; what they return. Each in a thread of its own: were one of them this thread, orders
/// would be left out.
fn race<A, B>(a: impl FnOnce() -> A + 'static, b: impl FnOnce() -> B + 'static) -> (A, B)
where
    A: 'static,
    B: 'static,
{
    let (a, b) = if STARTS.get() == 0 {
        let a = thread::spawn(a);
        (a, thread::spawn(b))
    } else {
        let b = thread::spawn(b);
        (thread::spawn(a), b)
    };
    (a.join().unwrap(), b.join().unwrap())
}

/// Three at once.
fn race3<T: 'static>(mut threads: [Box<dyn FnOnce() -> T>; 3]) -> Vec<T> {
    threads.rotate_left(STARTS.get());
    let threads = threads.map(thread::spawn);
    let mut results = threads.map(|thread| thread.join().unwrap());
    results.rotate_right(STARTS.get());
    results.into()
}

thread_local! {
    /// Which of the threads of a race is started first.
    static STARTS: Cell<usize> = const { Cell::new(0) };
}

/// Every order of two threads, of which there are at least so many: where there are few, nobody
/// meets.
fn orders(least: usize, model: impl Fn() + Sync + Send + 'static) {
    check(2, None, least, model);
}

/// Those with at most so many changes of thread where none was needed: else there are too many.
fn bounded(preemptions: usize, least: usize, model: impl Fn() + Sync + Send + 'static) {
    check(2, Some(preemptions), least, model);
}

/// Where the threads do the same, it is all one which of them starts.
fn alike(preemptions: usize, least: usize, model: impl Fn() + Sync + Send + 'static) {
    check(1, Some(preemptions), least, model);
}

/// And of three threads.
fn bounded3(preemptions: usize, least: usize, model: impl Fn() + Sync + Send + 'static) {
    check(3, Some(preemptions), least, model);
}

/// Each thread starts first once: the checker does not see that an exchange meets an earlier reading
/// of another thread when its own thread has read in between, so that it would try some orders only
/// from the other end.
fn check(
    threads: usize,
    preemptions: Option<usize>,
    least: usize,
    model: impl Fn() + Sync + Send + 'static,
) {
    let model = Arc::new(model);
    let tried = Arc::new(AtomicUsize::new(0));
    for first in 0..threads {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = preemptions;
        let (model, tried) = (Arc::clone(&model), Arc::clone(&tried));
        builder.check(move || {
            STARTS.set(first);
            tried.fetch_add(1, Relaxed);
            model();
        });
    }
    let tried = tried.load(Relaxed);
    println!("{tried} orders");
    assert!(tried >= least, "no more than {tried} orders");
}

fn fail(permit: Permit) {
    permit.failure(FailKind::Other);
}

fn nanos(seconds: u64) -> u64 {
    seconds * 1_000_000_000
}
