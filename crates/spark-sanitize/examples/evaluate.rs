//! Measures the rules on labelled texts of your own.
//!
//! `cargo run --release -p spark-sanitize --example evaluate -- FILE.jsonl [user|tool] [rules]`
//!
//! Each line is `{"text": "…", "label": 0 or 1, "source": "…"}`, 1 for an attack. Prints, for each
//! source, how many of its texts are flagged (or worse) and blocked; with `rules`, how often each
//! rule fires. No text is printed.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader},
};

use serde_json::Value;
use spark_sanitize::{Action, Origin, Sanitizer};

#[derive(Default)]
struct Count {
    rows: u32,
    flagged: u32,
    blocked: u32,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let path = args
        .next()
        .ok_or("usage: evaluate FILE.jsonl [user|tool] [rules]")?;
    let rest: Vec<String> = args.collect();
    let origin = match rest.iter().any(|a| a == "tool") {
        true => Origin::ToolOutput,
        false => Origin::User,
    };
    let sanitizer = Sanitizer::builder().build()?;

    let mut sources: BTreeMap<(u64, String), Count> = BTreeMap::new();
    let mut rules: BTreeMap<&'static str, [u32; 2]> = BTreeMap::new();
    for (number, line) in BufReader::new(File::open(&path)?).lines().enumerate() {
        let row: Value = serde_json::from_str(&line?)?;
        let (Some(text), Some(label), Some(source)) = (
            row["text"].as_str(),
            row["label"].as_u64(),
            row["source"].as_str(),
        ) else {
            return Err(format!("line {} lacks text, label or source", number + 1).into());
        };
        let report = sanitizer.inspect(text, origin);
        let stern = |f: &&spark_sanitize::Finding| f.kind != spark_sanitize::Kind::Unicode;
        let flagged = report.findings().iter().any(|f| stern(&f));
        for total in [source, "(all)"] {
            let count = sources.entry((label, total.to_owned())).or_default();
            count.rows += 1;
            count.flagged += u32::from(flagged);
            count.blocked += u32::from(report.action() == Action::Block);
        }
        let mut fired: Vec<_> = report.findings().iter().map(|f| f.rule).collect();
        fired.dedup();
        for rule in fired {
            rules.entry(rule).or_default()[usize::from(label == 1)] += 1;
        }
        if number % 1_000 == 999 {
            eprintln!("{} rows …", number + 1);
        }
    }

    println!(
        "{:<7} {:<20} {:>6} {:>9} {:>9}",
        "label", "source", "rows", "flagged", "blocked"
    );
    for (
        (label, source),
        Count {
            rows,
            flagged,
            blocked,
        },
    ) in &sources
    {
        let share = |n: &u32| f64::from(*n) * 100.0 / f64::from((*rows).max(1));
        let kind = if *label == 1 { "attack" } else { "benign" };
        println!(
            "{kind:<7} {source:<20} {rows:>6} {:>8.2}% {:>8.2}%",
            share(flagged),
            share(blocked)
        );
    }
    if rest.iter().any(|a| a == "rules") {
        println!("\n{:<32} {:>8} {:>8}", "rule", "benign", "attack");
        for (rule, [benign, attack]) in &rules {
            println!("{rule:<32} {benign:>8} {attack:>8}");
        }
    }
    Ok(())
}
