//! Does the time of an answer tell more than the answer? `cargo run --release -p spark-auth --example timing`
//!
//! The method is that of dudect (Reparaz, Balasch, Verbauwhede: "Dude, is my code constant time?",
//! DATE 2017): one call is timed many times on inputs of two classes, in random order; the slow end
//! is cropped at several percentiles, since it is the machine's; and Welch's t says whether the means
//! of the classes differ. |t| < 4.5 is no evidence of a difference. It is evidence of none only for
//! this machine and so many measurements; and a caller across a network sees far less.
//!
//! Where a key lies in memory makes a few nanoseconds of difference, which is no secret and falls on
//! all calls with that key. So the samples of the test are the keys: of each one the mean.
//!
//! Whoever has the right secret of a revoked key may be told by the time that it was right: state is
//! looked at after the secret, so that nobody else learns of it.
//!
//! To see what the method sees, two more pairs are timed: unknown ids and other unknown ids, which are
//! the same; and a comparison of 32 bytes that stops at the first difference, which is some ten
//! nanoseconds. The command fails where two classes of which nobody holds a right secret differ by more
//! than [`MATTERS`] nanoseconds: below that, the machine's caches and branch predictor are seen.

#![allow(clippy::print_stdout, reason = "a command that reports")]

use std::collections::hash_map::RandomState;
use std::error::Error;
use std::hash::BuildHasher;
use std::hint::black_box;

use spark_auth::{Authenticator, KeyStore, Mac, MemoryStore, NewKey, Pepper, Rejected};
use spark_core::{Clock, Name};

/// In each class.
const KEYS: usize = 512;
const MEASUREMENTS: usize = 200_000;
/// Where the slow end is cut off.
const PERCENTILES: [f64; 4] = [1.0, 0.99, 0.95, 0.75];
const THRESHOLD: f64 = 4.5;
/// Nanoseconds.
const MATTERS: f64 = 5.0;

fn main() -> Result<(), Box<dyn Error>> {
    let measurements = match std::env::args().nth(1) {
        Some(text) => text.parse()?,
        None => MEASUREMENTS,
    };
    println!(
        "{measurements} measurements each; |t| < {THRESHOLD} is no evidence of a difference\n"
    );
    let report = report(measurements)?;
    if report.control < THRESHOLD {
        return Err("the method does not see what is there: measure more".into());
    }
    if report.worst >= MATTERS {
        return Err(format!("the classes differ by {:.1} ns", report.worst).into());
    }
    Ok(())
}

pub(crate) struct Report {
    /// The largest difference between classes without a right secret that is no accident, in
    /// nanoseconds.
    pub(crate) worst: f64,
    /// The |t| of the comparison that stops early.
    pub(crate) control: f64,
}

/// Prints the figures of each pair of classes.
pub(crate) fn report(measurements: usize) -> Result<Report, Box<dyn Error>> {
    let house = House::new()?;
    let verify = |text: &String| house.auth.verify(text).is_err();
    let mut worst = 0.0_f64;
    for (name, one, other) in [
        ("unknown id | wrong secret", &house.unknown, &house.wrong),
        (
            "differs in the first byte | in the last",
            &house.wrong,
            &house.nearly,
        ),
    ] {
        let found = show(name, &measure([one, other], measurements, verify));
        if found.t >= THRESHOLD {
            worst = worst.max(found.difference);
        }
    }
    println!("\nthe right secret of a revoked key:");
    for (name, one) in [
        ("unknown id | right secret, revoked", &house.unknown),
        ("wrong secret | right secret, revoked", &house.wrong),
    ] {
        show(name, &measure([one, &house.revoked], measurements, verify));
    }

    println!("\nwhat the method sees where nothing is, and where something is:");
    let pair = [&house.unknown, &house.unknown_too];
    show(
        "unknown id | unknown id",
        &measure(pair, measurements, verify),
    );
    let secret = "a".repeat(32);
    let early = vec![format!("b{}", &secret[1..]); KEYS];
    let late = vec![format!("{}b", &secret[1..]); KEYS];
    let stops_early = |text: &String| text.bytes().zip(secret.bytes()).all(|(a, b)| a == b);
    let times = measure([&early, &late], measurements, stops_early);
    let control = show("a comparison that stops early", &times).t;
    Ok(Report { worst, control })
}

/// Credentials that are all refused, each class for another reason.
struct House {
    auth: Authenticator,
    unknown: Vec<String>,
    unknown_too: Vec<String>,
    wrong: Vec<String>,
    nearly: Vec<String>,
    revoked: Vec<String>,
}

impl House {
    fn new() -> Result<Self, Box<dyn Error>> {
        let pepper = Pepper::generate()?;
        let store = MemoryStore::new();
        let auth = build(&pepper, store.clone())?;
        let mut classes: [Vec<String>; 3] = Default::default();
        for class in &mut classes {
            for _ in 0..KEYS {
                class.push(issue(&auth)?);
            }
        }
        let [wrong, nearly, revoked] = classes;
        let unknown = build(&pepper, MemoryStore::new())?;
        let strangers = || (0..KEYS).map(|_| issue(&unknown)).collect::<Result<_, _>>();
        let (unknown, unknown_too): (Vec<_>, _) = (strangers()?, strangers()?);

        // The right text under another MAC is a wrong secret for this id.
        for record in store.load()?.records {
            let place = wrong
                .iter()
                .position(|text| text.contains(record.id.as_str()));
            let nearly = nearly.iter().any(|text| text.contains(record.id.as_str()));
            let mut record = record;
            record.revision += 1;
            let mac = record.mac.to_hex();
            record.mac = match (place, nearly) {
                (Some(_), _) => other_mac(&mac, 0)?,
                (None, true) => other_mac(&mac, 63)?,
                (None, false) => continue,
            };
            store.append(&[spark_auth::Change::Put(Box::new(record))])?;
        }
        let auth = build(&pepper, store)?;
        for text in &revoked {
            let id = &text[text.len() - 50..text.len() - 38];
            auth.revoke(id)?;
        }
        for (class, reason) in [
            (&unknown, Rejected::UnknownKey),
            (&unknown_too, Rejected::UnknownKey),
            (&wrong, Rejected::WrongSecret),
            (&nearly, Rejected::WrongSecret),
            (&revoked, Rejected::Revoked),
        ] {
            let mut found = class.iter().map(|text| auth.verify(text));
            assert!(found.all(|it| it == Err(reason)), "the class of {reason}");
        }
        Ok(Self {
            auth,
            unknown,
            unknown_too,
            wrong,
            nearly,
            revoked,
        })
    }
}

fn build(pepper: &Pepper, store: MemoryStore) -> Result<Authenticator, Box<dyn Error>> {
    let builder = Authenticator::builder().pepper(pepper.clone()).store(store);
    Ok(builder.build()?)
}

fn issue(auth: &Authenticator) -> Result<String, Box<dyn Error>> {
    let issued = auth.issue(NewKey::new(Name::new("acme")?))?;
    Ok(issued.key.expose().to_owned())
}

/// The same but for one hexadecimal digit.
fn other_mac(hex: &str, digit: usize) -> Result<Mac, Box<dyn Error>> {
    let other = if &hex[digit..=digit] == "0" { "1" } else { "0" };
    let text = format!("{}{other}{}", &hex[..digit], &hex[digit + 1..]);
    Ok(Mac::parse_hex(&text).ok_or("64 digits")?)
}

/// A call: of which key, and its nanoseconds.
type Time = (usize, f64);

/// The calls of each class. Each time is the shortest of three, one after the other, so that
/// the first one brings the memory near.
fn measure(
    classes: [&Vec<String>; 2],
    measurements: usize,
    call: impl Fn(&String) -> bool,
) -> [Vec<Time>; 2] {
    let clock = Clock::system();
    let random = RandomState::new();
    let mut times: [Vec<Time>; 2] = Default::default();
    for n in 0..measurements {
        let bits = random.hash_one(n);
        let class = (bits & 1) as usize;
        let key = (bits >> 8) as usize % KEYS;
        let text = &classes[class][key];
        let shortest = (0..3)
            .map(|_| {
                let start = clock.now();
                black_box(call(black_box(text)));
                clock.now().saturating_duration_since(start).as_nanos() as f64
            })
            .fold(f64::INFINITY, f64::min);
        times[class].push((key, shortest));
    }
    times
}

struct Found {
    /// The largest |t|.
    t: f64,
    /// Of the means without the slowest hundredth, in nanoseconds.
    difference: f64,
}

/// Prints the figures of two classes.
fn show(name: &str, times: &[Vec<Time>; 2]) -> Found {
    let mut all: Vec<f64> = times.iter().flatten().map(|(_, time)| *time).collect();
    all.sort_by(f64::total_cmp);
    let t = PERCENTILES.map(|percentile| {
        let last = (all.len() as f64 * percentile) as usize;
        let limit = all[last.min(all.len() - 1)];
        let cropped = times
            .each_ref()
            .map(|class| means(class.iter().filter(|(_, time)| *time <= limit)));
        welch(&cropped)
    });
    let worst = t.iter().fold(0.0_f64, |worst, (t, _)| worst.max(t.abs()));
    // Of the cropped samples.
    let (difference, visible) = (t[1].0 * t[1].1, THRESHOLD * t[1].1);
    let t = t.map(|(t, _)| t);
    let median = |class: &[Time]| {
        let mut class: Vec<f64> = class.iter().map(|(_, time)| *time).collect();
        class.sort_by(f64::total_cmp);
        class[class.len() / 2]
    };
    let verdict = if worst < THRESHOLD {
        "no evidence"
    } else {
        "DIFFERENT"
    };
    println!(
        "{name:<40} medians {:>4.0} {:>4.0} ns   t {t:>6.1?}   {difference:>5.1} ns, visible from {visible:.1}   {verdict}",
        median(&times[0]),
        median(&times[1]),
    );
    Found {
        t: worst,
        difference: difference.abs(),
    }
}

/// The mean of each key that has calls.
fn means<'a>(times: impl Iterator<Item = &'a Time>) -> Vec<f64> {
    let mut sums = vec![(0.0, 0.0); KEYS];
    for (key, time) in times {
        sums[*key].0 += time;
        sums[*key].1 += 1.0;
    }
    let known = sums.into_iter().filter(|(_, calls)| *calls > 0.0);
    known.map(|(sum, calls)| sum / calls).collect()
}

/// Welch's t of two samples, and the standard error of the difference of their means.
fn welch(samples: &[Vec<f64>; 2]) -> (f64, f64) {
    let [(mean_a, error_a), (mean_b, error_b)] = samples.each_ref().map(|sample| {
        let n = sample.len() as f64;
        let mean = sample.iter().sum::<f64>() / n;
        let variance = sample.iter().map(|it| (it - mean).powi(2)).sum::<f64>() / (n - 1.0);
        (mean, variance / n)
    });
    let error = (error_a + error_b).sqrt();
    ((mean_a - mean_b) / error, error)
}
