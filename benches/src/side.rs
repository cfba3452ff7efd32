//! One way to do the work, and how long it took.

use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub(crate) struct Side<'a> {
    pub(crate) name: &'static str,
    /// On one thread.
    pub(crate) alone: bool,
    /// So many times; says how long they took.
    run: Box<dyn FnMut(u64) -> Duration + 'a>,
    pub(crate) times: u64,
    /// Nanoseconds for one time, by round.
    pub(crate) rounds: Vec<f64>,
}

impl<'a> Side<'a> {
    pub(crate) fn new<T>(name: &'static str, mut work: impl FnMut() -> T + 'a) -> Self {
        Self::running(name, move |times| counted_turn(times, &mut work))
    }

    pub(crate) fn fresh<S, T>(
        name: &'static str,
        mut make: impl FnMut() -> S + 'a,
        mut work: impl FnMut(&mut S) -> T + 'a,
    ) -> Self {
        Self::running(name, move |times| {
            let mut state = make();
            counted_turn(times, || work(&mut state))
        })
    }

    pub(crate) fn threads<T, F>(name: &'static str, mut works: Vec<F>) -> Self
    where
        F: FnMut() -> T + Send + 'a,
    {
        let side = Self::running(name, move |times| together(&mut works, times));
        Self {
            alone: false,
            ..side
        }
    }

    fn running(name: &'static str, run: impl FnMut(u64) -> Duration + 'a) -> Self {
        Self {
            name,
            alone: true,
            run: Box::new(run),
            times: 1,
            rounds: Vec::new(),
        }
    }

    /// Warms up, and finds how many times fill a turn.
    pub(crate) fn calibrate(&mut self, turn: Duration) {
        loop {
            let took = (self.run)(self.times);
            if took * 2 >= turn {
                let scale = turn.as_secs_f64() / took.as_secs_f64().max(1e-9);
                self.times = scaled(self.times, scale);
                return;
            }
            self.times *= 2;
        }
    }

    pub(crate) fn take_turn(&mut self) {
        let nanos = (self.run)(self.times).as_secs_f64() * 1e9;
        self.rounds.push(nanos / count(self.times));
    }

    pub(crate) fn min(&self) -> f64 {
        Spread::of(self.rounds.iter().copied()).min
    }
}

/// Not inlined: whoever counts instructions looks for it by its name, and counts in here alone.
#[inline(never)]
fn counted_turn<T>(times: u64, mut work: impl FnMut() -> T) -> Duration {
    let start = now();
    for _ in 0..times {
        black_box(work());
    }
    start.elapsed()
}

/// From when the last thread is there until the last is done.
fn together<T, F: FnMut() -> T + Send>(works: &mut [F], times: u64) -> Duration {
    let all = works.len();
    let there = &AtomicUsize::new(0);
    let run = |work: &mut F| {
        there.fetch_add(1, Ordering::AcqRel);
        while there.load(Ordering::Acquire) < all {
            spin_loop();
        }
        let start = now();
        for _ in 0..times {
            black_box(work());
        }
        (start, now())
    };
    std::thread::scope(|scope| {
        let threads = works.iter_mut().map(|work| scope.spawn(|| run(work)));
        let threads: Vec<_> = threads.collect();
        let spans = threads.into_iter().map(|thread| match thread.join() {
            Ok(span) => span,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        let whole = spans.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
        whole.map_or(Duration::ZERO, |(start, end)| end - start)
    })
}

/// The least, the middle one and the most.
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Spread {
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        Self {
            min: values[0],
            median: values[values.len() / 2],
            max: values[values.len() - 1],
        }
    }

    /// Of one's turns over the other's, within each round.
    pub(crate) fn of_ratios(ours: &[f64], theirs: &[f64]) -> Self {
        Self::of(ours.iter().zip(theirs).map(|(a, b)| a / b))
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a bench measures real time, and the clock of the crates is among what it measures"
)]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::cast_precision_loss, reason = "a turn is far from 2^52 times")]
fn count(times: u64) -> f64 {
    times as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "scaled by a small positive number"
)]
fn scaled(times: u64, scale: f64) -> u64 {
    ((count(times) * scale) as u64).max(1)
}
