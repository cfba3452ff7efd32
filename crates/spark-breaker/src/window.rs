//! What happened lately. Recording touches one slot, and reading at most sixty, however many
//! calls the window holds; neither takes a lock.
//!
//! Each window carries the generation whose results it takes. A transition changes that before it
//! is published, so that a result of an earlier generation finds nothing to be recorded in.

mod count;
mod time;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use spark_core::Clock;

use crate::Window;
use crate::sync::Line;
pub(crate) use count::{CountWindow, MOST_CALLS};
pub(crate) use time::TimeWindow;

/// How the calls in the window ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    pub(crate) calls: u32,
    pub(crate) failures: u32,
    pub(crate) slow: u32,
}

impl Counts {
    pub(crate) fn failure_rate(self) -> f64 {
        rate(self.failures, self.calls)
    }

    pub(crate) fn slow_rate(self) -> f64 {
        rate(self.slow, self.calls)
    }
}

fn rate(part: u32, whole: u32) -> f64 {
    if whole == 0 {
        0.0
    } else {
        f64::from(part) / f64::from(whole)
    }
}

/// How one call ended, as far as a window is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) failed: bool,
    pub(crate) slow: bool,
}

/// A success that was not slow.
pub(crate) const FINE: Mark = Mark {
    failed: false,
    slow: false,
};

/// Whether a result was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recorded {
    Yes,
    /// And numbered: it is among [`Windows::numbered`].
    Numbered,
    /// It is of another generation.
    Late,
    /// Once in many turns of the ring: somebody must [`renew`](Windows::renew) it first.
    Full,
}

/// The window by count and the window by time, of which one is in use.
#[derive(Debug)]
pub(crate) struct Windows {
    by_count: AtomicBool,
    count: Line<CountWindow>,
    time: OnceLock<Box<TimeWindow>>,
}

impl Windows {
    pub(crate) fn new(window: Window, generation: u64) -> Self {
        let windows = Self {
            by_count: AtomicBool::new(false),
            count: Line(CountWindow::new(generation)),
            time: OnceLock::new(),
        };
        windows.resize(window, 0, generation);
        windows
    }

    /// In the window that was in use when the caller asked: whether it has read the time hangs on
    /// that.
    #[inline]
    pub(crate) fn record(
        &self,
        by_count: bool,
        generation: u64,
        clock: &Clock,
        now: u64,
        mark: Mark,
    ) -> Recorded {
        if by_count {
            self.count.record(generation, mark)
        } else {
            match self.time.get() {
                Some(time) => time.record(generation, clock, now, mark),
                None => Recorded::Yes,
            }
        }
    }

    pub(crate) fn is_by_count(&self) -> bool {
        self.by_count.load(Relaxed)
    }

    pub(crate) fn counts(&self, now: u64) -> Counts {
        if self.by_count.load(Relaxed) {
            self.count.counts()
        } else {
            self.time
                .get()
                .map_or(Counts::default(), |it| it.counts(now))
        }
    }

    /// Outcomes that the window by count has numbered and not handed over.
    pub(crate) fn numbered(&self) -> u64 {
        self.count.numbered()
    }

    /// Another generation begins, with an empty window or with what is in it. Under the control
    /// lock, like all below. Returns what is no longer among the numbered.
    pub(crate) fn turn_over(&self, generation: u64, clear: bool) -> u64 {
        if let Some(time) = self.time.get() {
            time.turn_over(generation, clear);
        }
        self.count.turn_over(generation, clear)
    }

    /// Makes room for more numbers.
    pub(crate) fn renew(&self) -> u64 {
        self.count.renew()
    }

    /// Makes what may take a while to make, so that it is there when the lock is held.
    pub(crate) fn prepare(&self, window: Window) {
        if let Window::Count(calls) = window {
            self.count.prepare(calls);
        }
    }

    /// Another window, which starts empty, in the same generation.
    pub(crate) fn resize(&self, window: Window, now: u64, generation: u64) -> u64 {
        match window {
            Window::Count(calls) => {
                let handed_over = self.count.resize(calls);
                self.by_count.store(true, Relaxed);
                handed_over
            }
            Window::Time { length, buckets } => {
                let fresh = || Box::new(TimeWindow::new(generation));
                self.time.get_or_init(fresh).resize(length, buckets, now);
                self.by_count.store(false, Relaxed);
                0
            }
        }
    }
}
