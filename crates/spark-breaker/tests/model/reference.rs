//! The slow reference.

use std::collections::VecDeque;

use spark_breaker::{Mode, RejectReason, State};

use crate::Ending;

pub(crate) const WINDOW_MS: u64 = 1_000;
pub(crate) const BUCKETS: u64 = 10;
pub(crate) const MIN_CALLS: usize = 4;
pub(crate) const CONSECUTIVE: usize = 6;
pub(crate) const OPEN_MS: u64 = 300;
pub(crate) const MAX_OPEN_MS: u64 = 1_000;
pub(crate) const PROBE_TIMEOUT_MS: u64 = 500;
pub(crate) const ABANDON_MS: u64 = 900;
pub(crate) const SLOW_MS: u64 = 350;
/// Where a ramp begins to count: the first word of SplitMix64 with a seed of 0.
const FIRST_WORD: u64 = 0xE220_A839_7B1D_CDAF;

const TICK_NANOS: u64 = SLOW_MS * 1_000_000 / 12;

/// What differs from case to case.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rules {
    /// The size of a window by count, else it is by time.
    pub(crate) count: Option<u32>,
    pub(crate) slow: bool,
    pub(crate) probes: u32,
    pub(crate) needed: u32,
    pub(crate) grace: u64,
    pub(crate) ramp: u64,
    /// How long it stays open for want of credit, without another word.
    pub(crate) exhausted: Option<u64>,
    /// How many calls that hang are too many.
    pub(crate) in_flight: Option<u32>,
}

/// A permit's own record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticket {
    generation: u64,
    started: u64,
    pub(crate) first_byte: Option<u64>,
    pub(crate) uncounted: bool,
    /// Its number among those that wait.
    waits: Option<u64>,
}

#[derive(Debug)]
pub(crate) enum Where {
    Closed,
    /// `NEVER`: until an operator acts.
    Open {
        until: u64,
        exhausted: bool,
    },
    HalfOpen {
        deadline: u64,
        held: u32,
        good: u32,
    },
}

#[derive(Debug)]
struct Entry {
    at: u64,
    failed: bool,
    slow: bool,
}

#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) now: u64,
    pub(crate) generation: u64,
    pub(crate) at: Where,
    pub(crate) mode: Mode,
    rules: Rules,
    /// Every outcome of this window.
    log: VecDeque<Entry>,
    run: usize,
    /// Until when a failure asked to be left alone.
    asked: u64,
    /// Until when it was open the last time.
    open_until: u64,
    streak: u32,
    closed_since: u64,
    ramping: bool,
    /// Calls that the ramp was asked about.
    ramped: u64,
    /// The number and the start of each call that has not been heard of, forgotten ones too.
    waiting: Vec<(u64, u64)>,
    numbered: u64,
    /// The tick in which somebody has looked at them.
    looked: Option<u64>,
    /// Since when ticks are counted: none of those that wait has begun before.
    ticks_since: u64,
}

pub(crate) const NEVER: u64 = u64::MAX;

impl Model {
    pub(crate) fn new(rules: Rules, now: u64) -> Self {
        Self {
            now,
            generation: 0,
            at: Where::Closed,
            mode: Mode::Auto,
            rules,
            log: VecDeque::new(),
            run: 0,
            asked: 0,
            streak: 0,
            closed_since: now,
            ramping: false,
            ramped: FIRST_WORD,
            waiting: Vec::new(),
            numbered: 0,
            looked: None,
            ticks_since: now,
            open_until: now,
        }
    }

    pub(crate) fn acquire(&mut self, background: bool) -> Result<Ticket, RejectReason> {
        match self.mode {
            Mode::ForcedOpen => return Err(RejectReason::ForcedOpen),
            Mode::Auto => {}
            Mode::Disabled => {
                return Ok(Ticket {
                    uncounted: true,
                    ..self.ticket()
                });
            }
            _ => {
                self.too_many_wait();
                return Ok(self.waiting_ticket());
            }
        }
        if matches!(self.at, Where::Closed) && self.too_many_wait() {
            self.open();
        }
        match self.at {
            Where::Closed => {
                let into = self.now - self.closed_since;
                self.ramping &= into < self.rules.ramp;
                if self.ramping {
                    let share = 0.1 + 0.9 * into as f64 / self.rules.ramp as f64;
                    let point = self.ramped.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 11;
                    self.ramped = self.ramped.wrapping_add(1);
                    if point as f64 / (1_u64 << 53) as f64 >= share {
                        return Err(RejectReason::Ramping);
                    }
                }
                return Ok(self.waiting_ticket());
            }
            Where::Open { until, exhausted } => {
                if self.now < until {
                    let open = [RejectReason::Open, RejectReason::Exhausted];
                    return Err(open[usize::from(exhausted)]);
                }
                self.open_until = until;
                if !background && self.now < until + self.rules.grace {
                    return Err(RejectReason::KeptForBackground);
                }
                self.half_open();
            }
            Where::HalfOpen { good: 0, .. }
                if !background && self.now < self.open_until + self.rules.grace =>
            {
                return Err(RejectReason::KeptForBackground);
            }
            Where::HalfOpen { deadline, .. } if self.now < deadline => {}
            // Those who came back were good, so that it goes on.
            Where::HalfOpen {
                held: 0,
                ref mut deadline,
                ..
            } => *deadline = self.now + PROBE_TIMEOUT_MS,
            Where::HalfOpen { .. } => self.half_open(),
        }
        let Rules { probes, needed, .. } = self.rules;
        let Where::HalfOpen { held, good, .. } = &mut self.at else {
            unreachable!()
        };
        if *held >= probes || *held + *good >= probes.max(needed) {
            return Err(RejectReason::ProbesBusy);
        }
        *held += 1;
        Ok(self.ticket())
    }

    fn ticket(&self) -> Ticket {
        Ticket {
            generation: self.generation,
            started: self.now,
            first_byte: None,
            uncounted: false,
            waits: None,
        }
    }

    fn waiting_ticket(&mut self) -> Ticket {
        let mut ticket = self.ticket();
        if self.rules.in_flight.is_some() {
            self.numbered += 1;
            self.waiting.push((self.numbered, self.now));
            ticket.waits = Some(self.numbered);
        }
        ticket
    }

    /// It has been heard of.
    pub(crate) fn first_byte(&mut self, ticket: &mut Ticket) {
        ticket.first_byte.get_or_insert(self.now);
        self.waits_no_more(ticket);
    }

    fn waits_no_more(&mut self, ticket: &Ticket) {
        self.waiting
            .retain(|(number, _)| Some(*number) != ticket.waits);
    }

    /// Whether too many hang, if nobody has looked in this tick.
    fn too_many_wait(&mut self) -> bool {
        let Some(limit) = self.rules.in_flight else {
            return false;
        };
        let tick = self.tick(self.now);
        self.looked.replace(tick) != Some(tick) && self.overdue() >= limit
    }

    fn tick(&self, ms: u64) -> u64 {
        (ms - self.ticks_since) * 1_000_000 / TICK_NANOS
    }

    /// Those that began so many ticks ago as make up the threshold, and one.
    pub(crate) fn overdue(&self) -> u32 {
        let old = (SLOW_MS * 1_000_000).div_ceil(TICK_NANOS) + 1;
        let now = self.tick(self.now);
        let is_old = |(_, started): &&(u64, u64)| now - self.tick(*started) >= old;
        self.waiting.iter().filter(is_old).count() as u32
    }

    fn half_open(&mut self) {
        self.go(Where::HalfOpen {
            deadline: self.now + PROBE_TIMEOUT_MS,
            held: 0,
            good: 0,
        });
    }

    pub(crate) fn end(&mut self, ticket: Ticket, ending: Ending) {
        self.waits_no_more(&ticket);
        if ticket.uncounted {
            return;
        }
        let age = self.now - ticket.started;
        let ending = match ending {
            Ending::Drop if age >= ABANDON_MS && ticket.first_byte.is_none() => Ending::Failure,
            ending => ending,
        };
        let heard = ticket.first_byte.unwrap_or(self.now);
        let slow = self.rules.slow && heard - ticket.started >= SLOW_MS;
        let current = ticket.generation == self.generation;
        let just_opened = ticket.generation + 1 == self.generation && self.mode == Mode::Auto;
        match (&mut self.at, ending) {
            (Where::Open { until, .. }, Ending::Throttled(wait) | Ending::Asking(wait))
                if just_opened =>
            {
                *until = (*until).max(self.now + wait);
            }
            (Where::Open { .. }, Ending::Exhausted(wait)) if just_opened => self.exhaust(wait),
            (Where::Closed, ending) if current => self.end_closed(ending, slow),
            (Where::HalfOpen { deadline, .. }, ending)
                if current && (self.now < *deadline || ending == Ending::Drop) =>
            {
                self.end_probe(ending, slow);
            }
            _ => {}
        }
    }

    fn end_closed(&mut self, ending: Ending, slow: bool) {
        let failed = match ending {
            Ending::Success => {
                self.run = 0;
                false
            }
            Ending::Failure | Ending::Asking(_) => {
                self.run += 1;
                true
            }
            Ending::Throttled(_) | Ending::Exhausted(_) => true,
            Ending::WrongRequest => {
                self.run = 0;
                return;
            }
            Ending::Local | Ending::Drop | Ending::Forget => return,
        };
        let at = self.now;
        self.log.push_back(Entry { at, failed, slow });
        match ending {
            Ending::Asking(wait) if wait > 0 => self.asked = self.asked.max(self.now + wait),
            Ending::Throttled(wait) if wait > 0 && self.mode == Mode::Auto => {
                return self.open_throttled(wait);
            }
            Ending::Exhausted(wait) if self.mode == Mode::Auto => return self.exhaust(wait),
            _ => {}
        }
        let in_a_row =
            matches!(ending, Ending::Failure | Ending::Asking(_)) && self.run >= CONSECUTIVE;
        let (calls, failures, slow_calls) = self.counts();
        let rates = calls >= MIN_CALLS
            && (failures * 2 >= calls || (self.rules.slow && slow_calls * 2 >= calls));
        if self.mode == Mode::Auto && (in_a_row || (rates && (failed || slow))) {
            self.open();
        }
    }

    fn end_probe(&mut self, ending: Ending, slow: bool) {
        let Where::HalfOpen { held, good, .. } = &mut self.at else {
            unreachable!()
        };
        *held -= 1;
        match ending {
            Ending::Success | Ending::WrongRequest if slow => self.open(),
            Ending::Success | Ending::WrongRequest => {
                *good += 1;
                self.close_if_recovered();
            }
            Ending::Failure | Ending::Throttled(0) => self.open(),
            Ending::Asking(wait) => {
                self.asked = self.now + wait;
                self.open();
            }
            Ending::Throttled(wait) => self.open_throttled(wait),
            Ending::Exhausted(wait) => self.exhaust(wait),
            Ending::Local | Ending::Drop | Ending::Forget => {}
        }
    }

    pub(crate) fn throttle(&mut self, wait: u64) {
        match &mut self.at {
            _ if wait == 0 || self.mode != Mode::Auto => {}
            Where::Open { until, .. } => *until = (*until).max(self.now + wait),
            Where::Closed | Where::HalfOpen { .. } => self.open_throttled(wait),
        }
    }

    /// Waiting does not help. One that is open stays in its generation.
    pub(crate) fn exhaust(&mut self, asked: Option<u64>) {
        if self.mode != Mode::Auto {
            return;
        }
        let wait = asked.filter(|wait| *wait > 0).or(self.rules.exhausted);
        let end = wait.map_or(NEVER, |wait| self.now + wait);
        match &mut self.at {
            Where::Open { until, exhausted } => {
                *until = (*until).max(end);
                *exhausted = true;
            }
            Where::Closed | Where::HalfOpen { .. } => {
                self.forget_after_calm();
                let until = end.max(std::mem::take(&mut self.asked));
                let exhausted = true;
                self.go(Where::Open { until, exhausted });
            }
        }
    }

    pub(crate) fn set_mode(&mut self, mode: Mode) {
        if mode == self.mode {
            return;
        }
        self.mode = mode;
        match mode {
            Mode::Auto => {
                self.generation += 1;
                self.forget_those_that_wait();
            }
            Mode::ForcedOpen => {
                let until = match self.at {
                    // Its credit may have been topped up.
                    Where::Open {
                        exhausted: true, ..
                    } => self.now,
                    Where::Open { until, .. } => until,
                    Where::Closed if self.asked > 0 => self.asked,
                    Where::Closed | Where::HalfOpen { .. } => self.now,
                };
                self.asked = 0;
                let exhausted = false;
                self.go(Where::Open { until, exhausted });
            }
            _ => self.close_by_hand(),
        }
    }

    pub(crate) fn reset(&mut self) {
        self.mode = Mode::Auto;
        self.close_by_hand();
    }

    pub(crate) fn reconfigure(&mut self, rules: Rules) {
        if rules.count != self.rules.count {
            self.log.clear();
        }
        self.looked = None;
        if rules.in_flight.is_none() || self.rules.in_flight.is_none() {
            self.forget_those_that_wait();
        }
        self.rules = rules;
        self.close_if_recovered();
    }

    fn close_by_hand(&mut self) {
        self.streak = 0;
        self.close();
        self.ramping = false;
    }

    fn close_if_recovered(&mut self) {
        if matches!(self.at, Where::HalfOpen { good, .. } if good >= self.rules.needed) {
            self.close();
            self.ramping = self.rules.ramp > 0;
        }
    }

    fn open(&mut self) {
        self.forget_after_calm();
        self.streak += 1;
        let time = (OPEN_MS << (self.streak - 1).min(20)).min(MAX_OPEN_MS);
        let until = (self.now + time).max(std::mem::take(&mut self.asked));
        let exhausted = false;
        self.go(Where::Open { until, exhausted });
    }

    fn open_throttled(&mut self, wait: u64) {
        self.forget_after_calm();
        let until = (self.now + wait).max(std::mem::take(&mut self.asked));
        let exhausted = false;
        self.go(Where::Open { until, exhausted });
    }

    fn forget_after_calm(&mut self) {
        let calm = match self.rules.count {
            Some(_) => 60_000,
            None => WINDOW_MS,
        };
        if matches!(self.at, Where::Closed) && self.now - self.closed_since >= calm {
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
        self.forget_those_that_wait();
    }

    fn forget_those_that_wait(&mut self) {
        self.waiting.clear();
        self.ticks_since = self.now;
        self.looked = None;
    }

    /// Calls, failures and slow ones in the window.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        if !matches!(self.at, Where::Closed) {
            return (0, 0, 0);
        }
        let bucket = WINDOW_MS / BUCKETS;
        let oldest = (self.now / bucket).saturating_sub(BUCKETS - 1);
        let skipped = match self.rules.count {
            Some(calls) => self.log.len().saturating_sub(calls as usize),
            None => self.log.partition_point(|entry| entry.at / bucket < oldest),
        };
        let inside = || self.log.iter().skip(skipped);
        (
            inside().count(),
            inside().filter(|entry| entry.failed).count(),
            inside().filter(|entry| entry.slow).count(),
        )
    }

    pub(crate) fn state(&self) -> State {
        match self.at {
            Where::Closed => State::Closed,
            Where::Open { .. } => State::Open,
            Where::HalfOpen { .. } => State::HalfOpen,
        }
    }
}
