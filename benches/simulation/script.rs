//! What happens: who calls how often, and how the provider does. All times in nanoseconds.

use crate::dice::Dice;

pub(crate) const SECOND: u64 = 1_000_000_000;
pub(crate) const MILLI: u64 = 1_000_000;

pub(crate) const REPLICAS: usize = 50;
/// Between two callers of one replica, on average.
pub(crate) const GAP: u64 = SECOND / 4;
/// Of all replicas, in a tenth of a second.
pub(crate) const NORMAL: f64 = REPLICAS as f64 * (SECOND / 10) as f64 / GAP as f64;
/// The callers' patience, which is the timeout around the breaker.
pub(crate) const PATIENCE: u64 = 10 * SECOND;
/// Who is refused or fails comes again so often, after between one and three seconds.
pub(crate) const RETURNS: u8 = 3;

pub(crate) const END: u64 = 200 * SECOND;
pub(crate) const FAILS: Outage = Outage {
    from: 30 * SECOND,
    until: 60 * SECOND,
    next: 110 * SECOND,
};
pub(crate) const HANGS: Outage = Outage {
    from: 110 * SECOND,
    until: 150 * SECOND,
    next: END,
};

/// When the provider is down, and until when what comes after is looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outage {
    pub(crate) from: u64,
    pub(crate) until: u64,
    pub(crate) next: u64,
}

/// For so long after an outage the provider takes fewer calls than it will.
const WARMS_UP: u64 = 20 * SECOND;
/// The share of the normal calls that it takes at first, and when it is warm.
const COLD: f64 = 0.3;
const WARM: f64 = 2.0;

/// What becomes of a call that reaches the provider.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fate {
    /// It is answered after so long.
    Answer { after: u64, well: bool },
    /// It is never answered.
    Silence,
}

/// The provider: one for all replicas.
#[derive(Debug)]
pub(crate) struct Provider {
    dice: Dice,
    slot: u64,
    taken: f64,
}

impl Provider {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            dice: Dice::new(seed, 1),
            slot: 0,
            taken: 0.0,
        }
    }

    pub(crate) fn call(&mut self, now: u64) -> Fate {
        let failure = Fate::Answer {
            after: self.dice.between(10 * MILLI, 30 * MILLI),
            well: false,
        };
        if down(now, FAILS) {
            return failure;
        }
        if down(now, HANGS) {
            return Fate::Silence;
        }
        let slot = now / (100 * MILLI);
        if slot != self.slot {
            (self.slot, self.taken) = (slot, 0.0);
        }
        self.taken += 1.0;
        if self.taken > capacity(now) * NORMAL {
            return failure;
        }
        let after = self.dice.between(200 * MILLI, 800 * MILLI);
        // What it had begun when it hung up is not answered either.
        if down(now + after, HANGS) {
            return Fate::Silence;
        }
        Fate::Answer { after, well: true }
    }
}

fn down(now: u64, outage: Outage) -> bool {
    (outage.from..outage.until).contains(&now)
}

/// The share of the normal calls that it takes in a tenth of a second.
fn capacity(now: u64) -> f64 {
    let warming = |outage: Outage| now.checked_sub(outage.until).filter(|it| *it < WARMS_UP);
    match warming(FAILS).or(warming(HANGS)) {
        Some(into) => COLD + (WARM - COLD) * into as f64 / WARMS_UP as f64,
        None => WARM,
    }
}
