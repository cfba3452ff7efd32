//! Fifty replicas, their callers and their provider, played event by event.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::dice::Dice;
use crate::ledger::{Ledger, Met};
use crate::script::{END, Fate, GAP, PATIENCE, Provider, REPLICAS, RETURNS, SECOND};

/// One replica's breaker.
pub(crate) trait Replica {
    /// What is held while a call is under way.
    type Call;

    /// Lets a call through, or not.
    fn ask(&mut self) -> Option<Self::Call>;

    /// The provider answered.
    fn answered(&mut self, call: Self::Call, well: bool);

    /// The caller's patience is over: what it awaited is dropped.
    fn given_up(&mut self, call: Self::Call) {
        drop(call);
    }
}

/// A world that can be played as far as a moment.
pub(crate) trait Play {
    /// Plays what happens up to `now`, and says when something happens next.
    fn play(&mut self, now: u64) -> u64;

    fn name(&self) -> &'static str;

    fn ledger(&self) -> &Ledger;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// Somebody new, after whom the next one comes.
    Comes,
    /// Somebody who was refused or failed before, so many times.
    Returns(u8),
    /// The call in this place is answered.
    Answered { place: usize, well: bool },
    /// The caller in this place has waited for long enough.
    GivenUp { place: usize },
}

struct UnderWay<C> {
    call: C,
    asked: u64,
    returned: u8,
}

pub(crate) struct World<R: Replica> {
    name: &'static str,
    replicas: Vec<R>,
    set_time: Box<dyn FnMut(u64)>,
    provider: Provider,
    callers: Vec<Dice>,
    returns: Dice,
    under_way: Vec<Option<UnderWay<R::Call>>>,
    free: Vec<usize>,
    /// By time, then in the order in which they were thought of.
    events: BinaryHeap<Reverse<(u64, u64, usize, Event)>>,
    thought_of: u64,
    ledger: Ledger,
}

impl<R: Replica> World<R> {
    /// `set_time` is told of each moment before anything happens in it.
    pub(crate) fn new(
        name: &'static str,
        seed: u64,
        replica: impl FnMut(u64) -> R,
        set_time: impl FnMut(u64) + 'static,
    ) -> Self {
        let mut world = Self {
            name,
            replicas: (0..REPLICAS as u64).map(replica).collect(),
            set_time: Box::new(set_time),
            provider: Provider::new(seed),
            callers: (0..REPLICAS as u64)
                .map(|replica| Dice::new(seed, 1_000 + replica))
                .collect(),
            returns: Dice::new(seed, 2),
            under_way: Vec::new(),
            free: Vec::new(),
            events: BinaryHeap::new(),
            thought_of: 0,
            ledger: Ledger::new(),
        };
        for replica in 0..REPLICAS {
            let at = world.callers[replica].gap(GAP);
            world.plan(at, replica, Event::Comes);
        }
        world
    }

    fn plan(&mut self, at: u64, replica: usize, event: Event) {
        self.thought_of += 1;
        let event = Reverse((at, self.thought_of, replica, event));
        self.events.push(event);
    }

    fn happens(&mut self, now: u64, replica: usize, event: Event) {
        (self.set_time)(now);
        match event {
            Event::Comes => {
                let next = now + self.callers[replica].gap(GAP);
                self.plan(next, replica, Event::Comes);
                self.asks(now, replica, 0);
            }
            Event::Returns(returned) => self.asks(now, replica, returned),
            Event::Answered { place, well } => {
                let Some(it) = self.take(place) else { return };
                self.replicas[replica].answered(it.call, well);
                let met = if well { Met::Served } else { Met::Failed };
                self.ledger.note(now, it.asked, replica, met);
                if !well {
                    self.comes_again(now, replica, it.returned);
                }
            }
            Event::GivenUp { place } => {
                let Some(it) = self.take(place) else { return };
                self.replicas[replica].given_up(it.call);
                self.ledger.note(now, it.asked, replica, Met::GaveUp);
                self.comes_again(now, replica, it.returned);
            }
        }
    }

    fn asks(&mut self, now: u64, replica: usize, returned: u8) {
        let Some(call) = self.replicas[replica].ask() else {
            self.ledger.note(now, now, replica, Met::Refused);
            return self.comes_again(now, replica, returned);
        };
        self.ledger.note(now, now, replica, Met::Sent);
        let place = self.keep(UnderWay {
            call,
            asked: now,
            returned,
        });
        match self.provider.call(now) {
            Fate::Answer { after, well } if after < PATIENCE => {
                self.plan(now + after, replica, Event::Answered { place, well });
            }
            Fate::Answer { .. } | Fate::Silence => {
                self.plan(now + PATIENCE, replica, Event::GivenUp { place });
            }
        }
    }

    fn comes_again(&mut self, now: u64, replica: usize, returned: u8) {
        if returned < RETURNS {
            let at = now + self.returns.between(SECOND, 3 * SECOND);
            self.plan(at, replica, Event::Returns(returned + 1));
        }
    }

    fn keep(&mut self, call: UnderWay<R::Call>) -> usize {
        match self.free.pop() {
            Some(place) => {
                self.under_way[place] = Some(call);
                place
            }
            None => {
                self.under_way.push(Some(call));
                self.under_way.len() - 1
            }
        }
    }

    fn take(&mut self, place: usize) -> Option<UnderWay<R::Call>> {
        let it = self.under_way[place].take();
        self.free.push(place);
        it
    }
}

impl<R: Replica> Play for World<R> {
    fn play(&mut self, now: u64) -> u64 {
        while let Some(Reverse((at, _, replica, event))) = self.events.peek().copied() {
            if at > now || at >= END {
                return at;
            }
            self.events.pop();
            self.happens(at, replica, event);
        }
        END
    }

    fn name(&self) -> &'static str {
        self.name
    }

    fn ledger(&self) -> &Ledger {
        &self.ledger
    }
}
