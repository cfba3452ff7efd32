//! Sides that take turns, and what is printed of them.

use std::hint::black_box;
use std::time::{Duration, Instant};

const ROUNDS: usize = 41;
/// Long against the clock's own cost, short against a scheduler's slice.
const TURN: Duration = Duration::from_millis(4);

/// What the command line asks for: `[FILTER] [--rounds N] [--side NAME] [--times N]`.
///
/// `--side` runs the sides alone of which the name holds that, and `--times` runs each exactly so many
/// times in one turn, for whoever counts instructions.
///
/// Without `--bench`, which `cargo bench` adds, each side takes one short turn: `cargo test
/// --benches` sees that the benches work, and times nothing.
#[derive(Debug)]
pub struct Races {
    filter: Option<String>,
    side: Option<String>,
    times: Option<u64>,
    rounds: usize,
    turn: Duration,
}

impl Races {
    /// Reads the command line of the process.
    ///
    /// # Panics
    /// When it says something else.
    #[must_use]
    pub fn from_args() -> Self {
        let mut races = Self {
            filter: None,
            side: None,
            times: None,
            rounds: 1,
            turn: Duration::from_micros(50),
        };
        let mut rounds = None;
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--bench" => {
                    races.rounds = ROUNDS;
                    races.turn = TURN;
                }
                "--rounds" => rounds = args.next().and_then(|n| n.parse().ok()).filter(|n| *n > 0),
                "--side" => races.side = args.next(),
                "--times" => races.times = args.next().and_then(|n| n.parse().ok()),
                filter if !filter.starts_with('-') => races.filter = Some(filter.to_owned()),
                other => {
                    panic!("{other} is not known: [FILTER] [--rounds N] [--side NAME] [--times N]")
                }
            }
        }
        races.rounds = rounds.unwrap_or(races.rounds);
        races
    }

    /// A race of that name, if it is asked for.
    pub fn race<'a>(&self, name: &str, set_up: impl FnOnce(Race<'a>) -> Race<'a>) {
        if self
            .filter
            .as_ref()
            .is_none_or(|it| name.contains(it.as_str()))
        {
            set_up(Race::new(name)).run(self);
        }
    }
}

/// Sides that do the same work. The first is ours; each later one is what it is compared with.
#[derive(Default)]
pub struct Race<'a> {
    name: String,
    base: Option<Side<'a>>,
    sides: Vec<Side<'a>>,
    between: Option<Box<dyn FnMut() + 'a>>,
}

struct Side<'a> {
    name: &'static str,
    /// So many times.
    run: Box<dyn FnMut(u64) + 'a>,
    times: u64,
    /// Nanoseconds for one time, by round.
    rounds: Vec<f64>,
}

impl std::fmt::Debug for Race<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Race")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl<'a> Race<'a> {
    fn new(name: &str) -> Self {
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

    /// Upkeep that belongs to no side, done between the turns and not timed.
    #[must_use]
    pub fn between(mut self, work: impl FnMut() + 'a) -> Self {
        self.between = Some(Box::new(work));
        self
    }

    fn run(mut self, races: &Races) {
        if let Some(name) = &races.side {
            self.base = None;
            self.sides.retain(|side| side.name.contains(name.as_str()));
        }
        let rounds = races.times.map_or(races.rounds, |_| 1);
        let mut sides: Vec<_> = self.base.iter_mut().chain(&mut self.sides).collect();
        let mut tidy = self.between.unwrap_or_else(|| Box::new(|| ()));
        for side in &mut sides {
            match races.times {
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
        report(&self.name, self.base.as_ref(), &self.sides);
    }
}

impl<'a> Side<'a> {
    fn new<T>(name: &'static str, mut work: impl FnMut() -> T + 'a) -> Self {
        Self {
            name,
            run: Box::new(move |times| {
                for _ in 0..times {
                    black_box(work());
                }
            }),
            times: 1,
            rounds: Vec::new(),
        }
    }

    /// Warms up, and finds how many times fill a turn.
    fn calibrate(&mut self, turn: Duration) {
        loop {
            let took = self.time();
            if took * 2 >= turn {
                let scale = turn.as_secs_f64() / took.as_secs_f64().max(1e-9);
                self.times = scaled(self.times, scale);
                return;
            }
            self.times *= 2;
        }
    }

    fn take_turn(&mut self) {
        let nanos = self.time().as_secs_f64() * 1e9;
        self.rounds.push(nanos / count(self.times));
    }

    fn time(&mut self) -> Duration {
        let start = now();
        (self.run)(self.times);
        start.elapsed()
    }

    fn min(&self) -> f64 {
        Spread::of(self.rounds.iter().copied()).min
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

struct Spread {
    min: f64,
    median: f64,
    max: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        Self {
            min: values[0],
            median: values[values.len() / 2],
            max: values[values.len() - 1],
        }
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
    let [ours, others @ ..] = sides else { return };
    let off = base.map_or(0.0, Side::min);
    for other in others {
        // Of minima, less the base; and of the turns within one round, the base in.
        let ratio = (ours.min() - off) / (other.min() - off);
        let rounds = ours.rounds.iter().zip(&other.rounds).map(|(a, b)| a / b);
        let Spread { min, median, max } = Spread::of(rounds);
        let (net, raw) = base.map_or(("", ""), |_| ("net ", " (raw)"));
        let label = format!("{net}ratio to {}", other.name);
        println!("  {label:<50}{ratio:>7.3}   rounds{raw}: {min:.3} / {median:.3} / {max:.3}");
    }
    println!();
}
