//! What the command line asks for, and what came of it.

use std::cell::RefCell;
use std::time::Duration;

use crate::Race;
use crate::bar::{self, Bar, Nanos};
use crate::race::Outcome;

const ROUNDS: usize = 41;
/// Long against the clock's own cost, short against a scheduler's slice.
const TURN: Duration = Duration::from_millis(4);
/// What stands for many where nothing is timed.
const FEW: u32 = 2_000;

/// What the command line asks for: `[FILTER] [--exact] [--rounds N] [--turn MILLISECONDS]
/// [--side NAME] [--times N] [--sides]`.
///
/// `--side` runs the sides alone of which the name holds that, and `--times` runs each exactly so many
/// times in one turn, for whoever counts instructions; `--sides` names the sides and runs none. With
/// `--exact`, races and sides are asked for by their whole names.
///
/// Without `--bench`, which `cargo bench` adds, each side takes one short turn: `cargo test
/// --benches` sees that the benches work, and times nothing.
#[derive(Debug)]
pub struct Races {
    filter: Option<String>,
    side: Option<String>,
    exact: bool,
    pub(crate) list: bool,
    pub(crate) times: Option<u64>,
    pub(crate) rounds: usize,
    pub(crate) turn: Duration,
    timed: bool,
    outcomes: RefCell<Vec<Outcome>>,
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
            exact: false,
            list: false,
            times: None,
            rounds: 1,
            turn: Duration::from_micros(50),
            timed: false,
            outcomes: RefCell::default(),
        };
        let (mut rounds, mut turn) = (None, None);
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--bench" => {
                    races.rounds = ROUNDS;
                    races.turn = TURN;
                    races.timed = true;
                }
                "--exact" => races.exact = true,
                "--sides" => races.list = true,
                "--rounds" => rounds = args.next().and_then(|n| n.parse().ok()).filter(|n| *n > 0),
                "--turn" => turn = args.next().and_then(|n| n.parse().ok()).filter(|n| *n > 0),
                "--side" => races.side = args.next(),
                "--times" => races.times = args.next().and_then(|n| n.parse().ok()),
                filter if !filter.starts_with('-') => races.filter = Some(filter.to_owned()),
                other => panic!(
                    "{other} is not known: [FILTER] [--exact] [--rounds N] [--turn MILLISECONDS] [--side NAME] [--times N] [--sides]"
                ),
            }
        }
        races.rounds = rounds.unwrap_or(races.rounds);
        races.turn = turn.map_or(races.turn, Duration::from_millis);
        races
    }

    /// A race of that name, if it is asked for.
    pub fn race<'a>(&self, name: &str, set_up: impl FnOnce(Race<'a>) -> Race<'a>) {
        if self.asks(self.filter.as_deref(), name) {
            let outcome = set_up(Race::new(name)).run(self);
            self.outcomes.borrow_mut().push(outcome);
        }
    }

    /// So many when something is measured; a few where each side only shows that it works.
    #[must_use]
    pub fn many(&self, n: u32) -> u32 {
        if self.timed || self.times.is_some() {
            n
        } else {
            n.min(FEW)
        }
    }

    /// Says of each bar whether it is met, as far as its race was run and timed.
    pub fn bars(&self, bars: &[Bar<'_>]) {
        if self.timed && self.times.is_none() {
            bar::report(bars, &self.outcomes.borrow());
        }
    }

    /// Says of each of these whether it is met, as far as its race was run and timed.
    pub fn nanos(&self, bars: &[Nanos<'_>]) {
        if self.timed && self.times.is_none() {
            bar::report_nanos(bars, &self.outcomes.borrow());
        }
    }

    pub(crate) fn asks_side(&self, name: &str) -> bool {
        self.asks(self.side.as_deref(), name)
    }

    fn asks(&self, wanted: Option<&str>, name: &str) -> bool {
        wanted.is_none_or(|it| {
            if self.exact {
                name == it
            } else {
                name.contains(it)
            }
        })
    }
}
