//! What is written down while a world is played, and what is read from it.

use crate::script::{END, MILLI, NORMAL, Outage, REPLICAS, SECOND};

const SLOT: u64 = 100 * MILLI;
const SLOTS: usize = (END / SLOT) as usize;
/// So long after an outage began, what still reaches the provider are probes.
const SETTLED: u64 = 12 * SECOND;
/// For so long after an outage, the greatest rush is looked for.
const RUSH: u64 = 30 * SECOND;
/// The service is back when, over so many seconds, this share of the normal number of callers is served.
const BACK: (usize, f64) = (5, 0.9);

/// What a caller met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Met {
    Refused,
    Sent,
    Served,
    Failed,
    GaveUp,
}

/// In a tenth of a second.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    asked: u32,
    sent: u32,
    refused: u32,
    failed: u32,
    /// Of those who asked in it, how many were served.
    served: u32,
}

#[derive(Debug)]
pub(crate) struct Ledger {
    slots: Vec<Slot>,
    /// When each replica refused somebody.
    refusals: Vec<Vec<u64>>,
    digest: u64,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self {
            slots: vec![Slot::default(); SLOTS],
            refusals: vec![Vec::new(); REPLICAS],
            digest: 0xCBF2_9CE4_8422_2325,
        }
    }

    pub(crate) fn note(&mut self, now: u64, asked: u64, replica: usize, met: Met) {
        for word in [now, replica as u64, met as u64] {
            for byte in word.to_le_bytes() {
                self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
            }
        }
        let slot = &mut self.slots[(now / SLOT) as usize];
        match met {
            Met::Refused => {
                slot.asked += 1;
                slot.refused += 1;
                self.refusals[replica].push(now);
            }
            Met::Sent => {
                slot.asked += 1;
                slot.sent += 1;
            }
            Met::Failed | Met::GaveUp => slot.failed += 1,
            Met::Served => self.slots[(asked / SLOT) as usize].served += 1,
        }
    }

    /// Of everything that happened, in its order.
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    /// Calls that reached the provider in each second.
    pub(crate) fn sent_per_second(&self) -> Vec<u32> {
        let second = |slots: &[Slot]| slots.iter().map(|slot| slot.sent).sum();
        self.slots.chunks(10).map(second).collect()
    }

    /// Refused while nothing was ever wrong.
    pub(crate) fn refused_before(&self, outage: Outage) -> u32 {
        self.sum(0, outage.from, |slot| slot.refused)
    }

    pub(crate) fn figures(&self, outage: Outage) -> Figures {
        let Outage { from, until, next } = outage;
        let mut noticed: Vec<f64> = self
            .refusals
            .iter()
            .map(|refusals| {
                let first = refusals.iter().find(|at| (from..until).contains(*at));
                first.map_or(f64::INFINITY, |at| (at - from) as f64 / SECOND as f64)
            })
            .collect();
        noticed.sort_by(f64::total_cmp);
        let after = until..next;
        let asked = self.sum(after.start, after.end, |slot| slot.asked);
        Figures {
            half_noticed: noticed[REPLICAS / 2],
            all_noticed: noticed[REPLICAS - 1],
            sent: self.sum(from, until, |slot| slot.sent).into(),
            probes_at_once: self.most_sent(from + SETTLED, until),
            back: self.back(until, next),
            rush: self.most_sent(until, until + RUSH) / NORMAL,
            overloaded: self.sum(after.start, after.end, |slot| slot.failed).into(),
            refused: 100.0 * f64::from(self.sum(after.start, after.end, |slot| slot.refused))
                / f64::from(asked.max(1)),
        }
    }

    fn slots(&self, from: u64, until: u64) -> &[Slot] {
        &self.slots[(from / SLOT) as usize..(until / SLOT) as usize]
    }

    fn sum(&self, from: u64, until: u64, what: impl Fn(&Slot) -> u32) -> u32 {
        self.slots(from, until).iter().map(what).sum()
    }

    fn most_sent(&self, from: u64, until: u64) -> f64 {
        let most = self.slots(from, until).iter().map(|slot| slot.sent).max();
        most.unwrap_or(0).into()
    }

    /// How long after `until` the service is back, and stays so. The last second is left out: its answers
    /// were still to come.
    fn back(&self, until: u64, next: u64) -> f64 {
        let (seconds, share) = BACK;
        let slots = self.slots(until, next - SECOND);
        let enough = share * NORMAL * (10 * seconds) as f64;
        let bad = |slots: &[Slot]| {
            let served: u32 = slots.iter().map(|slot| slot.served).sum();
            f64::from(served) < enough
        };
        let spans = slots.windows(10 * seconds).step_by(10);
        let spans: Vec<bool> = spans.map(bad).collect();
        match spans.iter().rposition(|bad| *bad) {
            None => 0.0,
            Some(last) if last + 1 == spans.len() => f64::INFINITY,
            Some(last) => (last + 1) as f64,
        }
    }
}

/// What one breaker did about one outage.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    /// Seconds until half of the replicas, and all, had refused somebody.
    pub(crate) half_noticed: f64,
    pub(crate) all_noticed: f64,
    /// Calls that reached the provider while it was down.
    pub(crate) sent: f64,
    /// The most of them in a tenth of a second, once it was noticed.
    pub(crate) probes_at_once: f64,
    /// Seconds until the service was back.
    pub(crate) back: f64,
    /// The most calls in a tenth of a second after it was up again, to the normal number.
    pub(crate) rush: f64,
    /// Calls that failed after it was up again.
    pub(crate) overloaded: f64,
    /// The share of those who asked after it was up again that was refused, in percent.
    pub(crate) refused: f64,
}
