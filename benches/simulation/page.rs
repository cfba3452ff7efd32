//! What was found, as Markdown and as a drawing.

use std::fmt::Write as _;
use std::path::Path;

use crate::ledger::{Figures, Ledger};
use crate::script::{END, FAILS, HANGS, Outage, SECOND};
use crate::world::Play;

/// One breaker, in worlds of several seeds.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    worlds: Vec<Box<dyn Play>>,
}

/// Worlds by seed and breaker become rows by breaker.
pub(crate) fn rows(seeds: Vec<Vec<Box<dyn Play>>>) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for world in seeds.into_iter().flatten() {
        match rows.iter_mut().find(|row| row.name == world.name()) {
            Some(row) => row.worlds.push(world),
            None => rows.push(Row {
                name: world.name(),
                worlds: vec![world],
            }),
        }
    }
    rows
}

impl Row {
    pub(crate) fn ledgers(&self) -> impl Iterator<Item = &Ledger> {
        self.worlds.iter().map(|world| world.ledger())
    }
}

/// What a column is called, the figure, its digits and its unit.
type Column = (&'static str, fn(&Figures) -> f64, usize, &'static str);

const COLUMNS: [Column; 8] = [
    ("half notice", |it| it.half_noticed, 1, " s"),
    ("all notice", |it| it.all_noticed, 1, " s"),
    ("calls while down", |it| it.sent, 0, ""),
    ("most probes at once", |it| it.probes_at_once, 0, ""),
    ("back after", |it| it.back, 0, " s"),
    ("rush", |it| it.rush, 1, " ×"),
    ("overloaded", |it| it.overloaded, 0, ""),
    ("refused after", |it| it.refused, 1, " %"),
];

/// A table for each outage: the median of the seeds, and the least and the most of them.
pub(crate) fn tables(rows: &[Row]) -> String {
    let mut text = String::new();
    for (what, outage) in [
        ("It answers with 500, for 30 seconds", FAILS),
        ("It hangs, for 40 seconds", HANGS),
    ] {
        let _ = writeln!(text, "{what}:\n");
        let names: Vec<_> = COLUMNS.iter().map(|column| column.0).collect();
        let _ = writeln!(text, "| | {} |", names.join(" | "));
        let _ = writeln!(text, "|---|{}", "---:|".repeat(COLUMNS.len()));
        for row in rows {
            let _ = writeln!(
                text,
                "| {} | {} |",
                row.name,
                cells(row, outage).join(" | ")
            );
        }
        text.push('\n');
    }
    let before: Vec<u32> = rows
        .iter()
        .flat_map(|row| row.ledgers().map(|it| it.refused_before(FAILS)))
        .collect();
    let _ = writeln!(
        text,
        "Refused before anything was wrong, by all of them together: {}.",
        before.iter().sum::<u32>()
    );
    text
}

fn cells(row: &Row, outage: Outage) -> Vec<String> {
    let figures: Vec<Figures> = row.ledgers().map(|it| it.figures(outage)).collect();
    let cell = |(_, figure, digits, unit): &Column| {
        let mut values: Vec<f64> = figures.iter().map(figure).collect();
        values.sort_by(f64::total_cmp);
        let median = value(values[values.len() / 2], *digits, unit);
        let (least, most) = (values[0], values[values.len() - 1]);
        if least == most {
            return median;
        }
        let (least, most) = (value(least, *digits, ""), value(most, *digits, ""));
        // A word joiner on either side of the dash: no line is broken there.
        format!("{median} ({least}\u{2060}–\u{2060}{most})")
    };
    COLUMNS.iter().map(cell).collect()
}

fn value(it: f64, digits: usize, unit: &str) -> String {
    if it.is_infinite() {
        return "never".to_owned();
    }
    format!("{it:.digits$}{unit}")
}

const WIDTH: usize = 800;
const HEIGHT: usize = 54;
const LEFT: usize = 210;
/// Calls per second at the top of a strip.
const TOP: f64 = 800.0;

/// Calls that reach the provider in each second, a strip for each breaker. In one piece, without an empty
/// line, so that Markdown leaves it alone.
pub(crate) fn drawing(rows: &[Row]) -> String {
    let second = WIDTH as f64 / (END / SECOND) as f64;
    let height = rows.len() * (HEIGHT + 10) + 30;
    let (width, foot) = (LEFT + WIDTH + 10, rows.len() * (HEIGHT + 10));
    let mut svg = format!(
        "<svg viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"13\" \
         fill=\"currentColor\" role=\"img\" aria-label=\"calls that reach the provider, by second\">\n"
    );
    for (outage, what) in [(FAILS, "answers 500"), (HANGS, "hangs")] {
        let from = LEFT as f64 + (outage.from / SECOND) as f64 * second;
        let long = ((outage.until - outage.from) / SECOND) as f64 * second;
        let _ = writeln!(
            svg,
            "<rect x=\"{from:.0}\" y=\"0\" width=\"{long:.0}\" height=\"{foot}\" fill=\"#d33\" \
             fill-opacity=\"0.15\"/><text x=\"{:.0}\" y=\"{}\">{what}</text>",
            from + 4.0,
            foot + 16,
        );
    }
    for (strip, row) in rows.iter().enumerate() {
        let Some(ledger) = row.ledgers().next() else {
            continue;
        };
        let base = strip * (HEIGHT + 10) + HEIGHT;
        let _ = write!(
            svg,
            "<text x=\"0\" y=\"{}\">{}</text><path fill=\"#37c\" d=\"M{LEFT} {base}",
            base - HEIGHT / 3,
            row.name,
        );
        for (at, sent) in ledger.sent_per_second().iter().enumerate() {
            let x = LEFT as f64 + at as f64 * second;
            let y = base as f64 - (f64::from(*sent) / TOP).min(1.0) * HEIGHT as f64;
            let _ = write!(svg, "V{y:.0}H{:.0}", x + second);
        }
        let _ = writeln!(svg, "V{base}Z\"/>");
    }
    for at in (0..=END / SECOND).step_by(50) {
        let x = LEFT as f64 + at as f64 * second;
        let _ = writeln!(
            svg,
            "<text x=\"{x:.0}\" y=\"{}\" text-anchor=\"end\" fill-opacity=\"0.6\">{at} s</text>",
            foot + 28,
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// The page of the manual, of which the parts between two marks are written by the bench.
pub(crate) const PAGE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../crates/spark-breaker/src/docs/simulation.md"
);

/// What the page says between the marks of that name.
///
/// # Errors
/// When it cannot be read, or has no such marks.
pub(crate) fn part(name: &str) -> std::io::Result<String> {
    let page = std::fs::read_to_string(PAGE)?;
    let (from, until) = between(&page, name)?;
    Ok(page[from..until].to_owned())
}

/// Writes it there.
///
/// # Errors
/// As [`part`].
pub(crate) fn write(name: &str, text: &str) -> std::io::Result<()> {
    let mut page = std::fs::read_to_string(PAGE)?;
    let (from, until) = between(&page, name)?;
    page.replace_range(from..until, text);
    std::fs::write(Path::new(PAGE), page)
}

fn between(page: &str, name: &str) -> std::io::Result<(usize, usize)> {
    let mark = |edge: &str| format!("<!-- {name}: {edge} -->\n");
    let (begin, end) = (mark("begin"), mark("end"));
    let from = page.find(&begin).map(|at| at + begin.len());
    let until = page.find(&end);
    from.zip(until)
        .filter(|(from, until)| from <= until)
        .ok_or_else(|| std::io::Error::other(format!("{PAGE} has no marks for {name}")))
}
