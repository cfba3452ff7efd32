//! Sides that take turns, and what is printed of them.

use crate::Races;
use crate::side::{Side, Spread};

/// Sides that do the same work. The first is ours; each later one is what it is compared with.
#[derive(Default)]
pub struct Race<'a> {
    name: String,
    base: Option<Side<'a>>,
    sides: Vec<Side<'a>>,
    between: Option<Box<dyn FnMut() + 'a>>,
    times: Option<u64>,
}

/// What a race showed.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) race: String,
    /// Each side's name, and its nanoseconds for one time, by round.
    pub(crate) sides: Vec<(&'static str, Vec<f64>)>,
}

impl std::fmt::Debug for Race<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Race")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl<'a> Race<'a> {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::default()
        }
    }

    /// What every side does beside the work that is compared. It takes turns as well, and is taken
    /// off before the ratio is formed.
    #[must_use]
    pub fn base<T>(mut self, name: &'static str, work: impl FnMut() -> T + 'a) -> Self {
        self.base = Some(Side::new(name, work));
        self
    }

    /// A side.
    #[must_use]
    pub fn side<T>(mut self, name: &'static str, work: impl FnMut() -> T + 'a) -> Self {
        self.sides.push(Side::new(name, work));
        self
    }

    /// A side whose every turn begins with a new state. Making and dropping it are not timed.
    #[must_use]
    pub fn fresh<S, T>(
        mut self,
        name: &'static str,
        make: impl FnMut() -> S + 'a,
        work: impl FnMut(&mut S) -> T + 'a,
    ) -> Self {
        self.sides.push(Side::fresh(name, make, work));
        self
    }

    /// A side that does each of these on a thread of its own, all at the same time. One time is one
    /// of each; its nanoseconds are what each thread waits for its own.
    #[must_use]
    pub fn threads<T, F>(mut self, name: &'static str, works: Vec<F>) -> Self
    where
        F: FnMut() -> T + Send + 'a,
    {
        self.sides.push(Side::threads(name, works));
        self
    }

    /// Upkeep that belongs to no side, done between the turns and not timed.
    #[must_use]
    pub fn between(mut self, work: impl FnMut() + 'a) -> Self {
        self.between = Some(Box::new(work));
        self
    }

    /// A turn is so many times for every side, however long it takes.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times.into());
        self
    }

    pub(crate) fn run(mut self, races: &Races) -> Outcome {
        self.base = self.base.filter(|base| races.asks_side(base.name));
        self.sides.retain(|side| races.asks_side(side.name));
        if races.list {
            list(&self.name, self.base.iter().chain(&self.sides));
        } else {
            self.take_turns(races);
            report(&self.name, self.base.as_ref(), &self.sides);
        }
        let sides = self.base.into_iter().chain(self.sides);
        Outcome {
            race: self.name,
            sides: sides.map(|side| (side.name, side.rounds)).collect(),
        }
    }

    fn take_turns(&mut self, races: &Races) {
        let rounds = races.times.map_or(races.rounds, |_| 1);
        let mut sides: Vec<_> = self.base.iter_mut().chain(&mut self.sides).collect();
        let mut nothing = || ();
        let tidy: &mut dyn FnMut() = match &mut self.between {
            Some(tidy) => tidy,
            None => &mut nothing,
        };
        for side in &mut sides {
            match races.times.or(self.times) {
                Some(times) => side.times = times.max(1),
                None => side.calibrate(races.turn),
            }
            tidy();
        }
        for round in 0..rounds {
            // Who goes first changes, so that nobody always follows the same one.
            let first = round % sides.len().max(1);
            let (head, tail) = sides.split_at_mut(first);
            for side in tail.iter_mut().chain(head) {
                side.take_turn();
                tidy();
            }
        }
    }
}

#[expect(clippy::print_stdout, reason = "somebody asked")]
fn list<'a: 's, 's>(race: &str, sides: impl Iterator<Item = &'s Side<'a>>) {
    // Instructions of several threads at once are nobody's: what they wait is counted with them.
    for side in sides.filter(|side| side.alone) {
        println!("{race}\t{}", side.name);
    }
}

#[expect(clippy::print_stdout, reason = "it is what a bench is for")]
fn report(name: &str, base: Option<&Side<'_>>, sides: &[Side<'_>]) {
    println!("{name:<46}{:>12}{:>12}{:>12}", "min", "median", "max");
    for side in base.into_iter().chain(sides) {
        let Spread { min, median, max } = Spread::of(side.rounds.iter().copied());
        print!("  {:<44}{min:>12.1}{median:>12.1}{max:>12.1} ns", side.name);
        match base {
            Some(base) if !std::ptr::eq(base, side) => {
                println!("   net {:>10.1} ns", min - base.min());
            }
            _ => println!(),
        }
    }
    if let [ours, others @ ..] = sides {
        let off = base.map_or(0.0, Side::min);
        for other in others {
            // Of minima, less the base; and of the turns within one round, the base in.
            let ratio = (ours.min() - off) / (other.min() - off);
            let Spread { min, median, max } = Spread::of_ratios(&ours.rounds, &other.rounds);
            let (net, raw) = base.map_or(("", ""), |_| ("net ", " (raw)"));
            let label = format!("{net}ratio to {}", other.name);
            println!("  {label:<50}{ratio:>7.3}   rounds{raw}: {min:.3} / {median:.3} / {max:.3}");
        }
    }
    println!();
}
