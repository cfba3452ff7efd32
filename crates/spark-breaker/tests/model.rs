//! The breaker against a slow reference that remembers everything.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::VecDeque;
use std::time::Duration;

use proptest::prelude::*;
use spark_breaker::{Breaker, Config, FailKind, Outcome, Permit, State, Window};
use spark_core::testing::TestClock;

const WINDOW_MS: u64 = 1_000;
const BUCKETS: u64 = 10;
const MIN_CALLS: usize = 4;
const CONSECUTIVE: usize = 6;
const OPEN_MS: u64 = 300;
const MAX_OPEN_MS: u64 = 1_000;
const PROBES: usize = 2;
const PROBE_TIMEOUT_MS: u64 = 500;
const ABANDON_MS: u64 = 900;

#[derive(Debug, Clone, Copy)]
enum Op {
    Acquire,
    Success(usize),
    Failure(usize),
    /// A failure that asks to be left alone for so long.
    Asking(usize, u64),
    /// The same, other than by the answer to a call.
    Throttle(u64),
    Throttled(usize, u64),
    Ignore(usize),
    Drop(usize),
    Forget(usize),
    Advance(u64),
    Reset,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => Just(Op::Acquire),
        3 => any::<usize>().prop_map(Op::Success),
        4 => any::<usize>().prop_map(Op::Failure),
        1 => (any::<usize>(), 0u64..900).prop_map(|(at, wait)| Op::Throttled(at, wait)),
        1 => (any::<usize>(), 0u64..900).prop_map(|(at, wait)| Op::Asking(at, wait)),
        1 => (0u64..900, 0u64..5).prop_map(|(wait, n)| if n == 0 { Op::Throttle(wait) } else { Op::Acquire }),
        1 => any::<usize>().prop_map(Op::Ignore),
        1 => any::<usize>().prop_map(Op::Drop),
        1 => any::<usize>().prop_map(Op::Forget),
        4 => (0u64..400).prop_map(Op::Advance),
        1 => (0u64..3).prop_map(|n| if n == 0 { Op::Reset } else { Op::Acquire }),
    ]
}

/// A permit's generation and start.
type Ticket = (u64, u64);

#[derive(Debug)]
enum Where {
    Closed,
    Open {
        until: u64,
    },
    HalfOpen {
        deadline: u64,
        held: usize,
        good: usize,
    },
}

#[derive(Debug)]
struct Model {
    now: u64,
    generation: u64,
    at: Where,
    /// Every outcome of this closed generation: when, and whether it failed.
    log: VecDeque<(u64, bool)>,
    run: usize,
    /// Until when a failure asked to be left alone.
    asked: u64,
    streak: u32,
    closed_since: u64,
}

impl Model {
    fn acquire(&mut self) -> Option<Ticket> {
        match self.at {
            Where::Closed => return Some((self.generation, self.now)),
            Where::Open { until } if self.now < until => return None,
            Where::HalfOpen { deadline, .. } if self.now < deadline => {}
            Where::Open { .. } | Where::HalfOpen { .. } => {
                self.generation += 1;
                self.at = Where::HalfOpen {
                    deadline: self.now + PROBE_TIMEOUT_MS,
                    held: 0,
                    good: 0,
                };
            }
        }
        let Where::HalfOpen { held, good, .. } = &mut self.at else {
            unreachable!()
        };
        (*held + *good < PROBES).then(|| {
            *held += 1;
            (self.generation, self.now)
        })
    }

    fn end(&mut self, ticket: Ticket, op: Op) {
        let (generation, started) = ticket;
        let op = match op {
            Op::Drop(at) if self.now - started >= ABANDON_MS => Op::Failure(at),
            op => op,
        };
        let current = generation == self.generation;
        match (&mut self.at, op) {
            (Where::Open { until }, Op::Throttled(_, wait) | Op::Asking(_, wait))
                if generation + 1 == self.generation =>
            {
                *until = (*until).max(self.now + wait);
            }
            (Where::Closed, op) if current => match op {
                Op::Success(_) => {
                    self.run = 0;
                    self.log.push_back((self.now, false));
                }
                Op::Failure(_) | Op::Asking(..) => {
                    self.run += 1;
                    self.log.push_back((self.now, true));
                    if let Op::Asking(_, wait) = op {
                        self.asked = self.asked.max(self.now + wait);
                    }
                    let (calls, failures) = self.counts();
                    if self.run >= CONSECUTIVE || (calls >= MIN_CALLS && failures * 2 >= calls) {
                        self.open();
                    }
                }
                Op::Throttled(_, wait) => {
                    self.log.push_back((self.now, true));
                    if wait > 0 {
                        self.open_throttled(wait);
                    } else {
                        let (calls, failures) = self.counts();
                        if calls >= MIN_CALLS && failures * 2 >= calls {
                            self.open();
                        }
                    }
                }
                _ => {}
            },
            (
                Where::HalfOpen {
                    held,
                    good,
                    deadline,
                },
                op,
            ) if current => {
                if self.now >= *deadline && !matches!(op, Op::Drop(_)) {
                    return;
                }
                *held -= 1;
                match op {
                    Op::Success(_) => {
                        *good += 1;
                        if *good == PROBES {
                            self.closed_since = self.now;
                            self.close();
                        }
                    }
                    Op::Failure(_) | Op::Throttled(_, 0) => self.open(),
                    Op::Asking(_, wait) => {
                        self.asked = self.now + wait;
                        self.open();
                    }
                    Op::Throttled(_, wait) => self.open_throttled(wait),
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn open(&mut self) {
        self.forget_after_calm();
        self.streak += 1;
        let time = (OPEN_MS << (self.streak - 1).min(20)).min(MAX_OPEN_MS);
        let until = (self.now + time).max(std::mem::take(&mut self.asked));
        self.go(Where::Open { until });
    }

    fn open_throttled(&mut self, wait: u64) {
        self.forget_after_calm();
        let until = (self.now + wait).max(std::mem::take(&mut self.asked));
        self.go(Where::Open { until });
    }

    fn throttle(&mut self, wait: u64) {
        match &mut self.at {
            _ if wait == 0 => {}
            Where::Open { until } => *until = (*until).max(self.now + wait),
            Where::Closed | Where::HalfOpen { .. } => self.open_throttled(wait),
        }
    }

    fn forget_after_calm(&mut self) {
        if matches!(self.at, Where::Closed) && self.now - self.closed_since >= WINDOW_MS {
            self.streak = 0;
        }
    }

    fn close(&mut self) {
        self.closed_since = self.now;
        self.log.clear();
        self.run = 0;
        self.asked = 0;
        self.go(Where::Closed);
    }

    fn go(&mut self, at: Where) {
        self.at = at;
        self.generation += 1;
    }

    fn counts(&self) -> (usize, usize) {
        if !matches!(self.at, Where::Closed) {
            return (0, 0);
        }
        let bucket = WINDOW_MS / BUCKETS;
        let oldest = (self.now / bucket).saturating_sub(BUCKETS - 1);
        let inside = || self.log.iter().filter(|(at, _)| at / bucket >= oldest);
        (
            inside().count(),
            inside().filter(|(_, failed)| *failed).count(),
        )
    }

    fn state(&self) -> State {
        match self.at {
            Where::Closed => State::Closed,
            Where::Open { .. } => State::Open,
            Where::HalfOpen { .. } => State::HalfOpen,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    #[allow(clippy::mem_forget, reason = "a forgotten permit is one of the operations")]
    fn equals_the_reference(ops in prop::collection::vec(op(), 1..300)) {
        let clock = TestClock::new();
        clock.advance(Duration::from_secs(5));
        let config = Config::standard()
            .window(Window::Time { length: Duration::from_millis(WINDOW_MS), buckets: BUCKETS as u8 })
            .min_calls(MIN_CALLS as u32)
            .failure_rate(0.5)
            .consecutive(CONSECUTIVE as u32)
            .open_for(Duration::from_millis(OPEN_MS))
            .max_open_for(Duration::from_millis(MAX_OPEN_MS))
            .jitter(0.0)
            .probes(PROBES as u32)
            .probe_timeout(Duration::from_millis(PROBE_TIMEOUT_MS))
            .abandon_after(Duration::from_millis(ABANDON_MS));
        let breaker = Breaker::new("model", config, clock.clock()).unwrap();
        let mut model = Model {
            now: 5_000,
            generation: 0,
            at: Where::Closed,
            log: VecDeque::new(),
            run: 0,
            asked: 0,
            streak: 0,
            closed_since: 5_000,
        };
        let mut held: Vec<(Permit, Ticket)> = Vec::new();
        for op in ops {
            match op {
                Op::Acquire => {
                    let real = breaker.try_acquire();
                    let expected = model.acquire();
                    prop_assert_eq!(real.is_ok(), expected.is_some());
                    if let (Ok(permit), Some(ticket)) = (real, expected) {
                        held.push((permit, ticket));
                    }
                }
                Op::Advance(ms) => {
                    clock.advance(Duration::from_millis(ms));
                    model.now += ms;
                }
                Op::Reset => {
                    breaker.reset();
                    model.streak = 0;
                    model.close();
                }
                Op::Throttle(ms) => {
                    breaker.throttle(Duration::from_millis(ms));
                    model.throttle(ms);
                }
                Op::Success(at) | Op::Failure(at) | Op::Throttled(at, _) | Op::Asking(at, _) | Op::Ignore(at)
                | Op::Drop(at) | Op::Forget(at) => {
                    if held.is_empty() {
                        continue;
                    }
                    let (permit, ticket) = held.swap_remove(at % held.len());
                    match op {
                        Op::Success(_) => permit.success(),
                        Op::Failure(_) => permit.failure(FailKind::Other),
                        Op::Throttled(_, ms) => permit.throttled(Some(Duration::from_millis(ms))),
                        Op::Asking(_, ms) => permit.record(
                            Outcome::failure(FailKind::Other).with_retry_after(Duration::from_millis(ms)),
                        ),
                        Op::Ignore(_) => permit.ignore(),
                        Op::Forget(_) => { std::mem::forget(permit); continue; }
                        _ => drop(permit),
                    }
                    model.end(ticket, op);
                }
            }
            let snapshot = breaker.snapshot();
            prop_assert_eq!(snapshot.state, model.state(), "after {:?}", op);
            prop_assert_eq!(snapshot.generation, model.generation, "after {:?}", op);
            let counts = (snapshot.calls as usize, snapshot.failures as usize);
            prop_assert_eq!(counts, model.counts(), "after {:?}", op);
            if let Where::Open { until } = model.at {
                let left = Duration::from_millis(until.saturating_sub(model.now));
                prop_assert_eq!(snapshot.retry_after, Some(left));
            }
        }
    }
}
