//! What was tried, and what came of it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

/// One thing that is tried.
pub(crate) struct Gap {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&mut Found),
}

/// What was found when it was tried.
#[derive(Debug, Default)]
pub(crate) struct Found(Vec<(&'static str, String)>);

impl Found {
    /// By ours, or by a peer.
    pub(crate) fn note(&mut self, who: &'static str, what: impl Into<String>) {
        self.0.push((who, what.into()));
    }
}

/// Tries them one after the other, and prints what was found at the end.
pub(crate) fn run<'a>(gaps: impl Iterator<Item = &'a Gap>) -> ExitCode {
    let mut failed = Vec::new();
    let mut table = String::from("\n| | who | what |\n|---|---|---|\n");
    for gap in gaps {
        let start = now();
        let mut found = Found::default();
        let passed = catch_unwind(AssertUnwindSafe(|| (gap.run)(&mut found))).is_ok();
        let said = if passed { "ok" } else { "FAILED" };
        println!("{} ... {said} ({:.1?})", gap.name, start.elapsed());
        if !passed {
            failed.push(gap.name);
        }
        for (row, (who, what)) in found.0.iter().enumerate() {
            let name = match row {
                0 => gap.name.replace('_', " "),
                _ => String::new(),
            };
            table.push_str(&format!("| {name} | {who} | {what} |\n"));
        }
    }
    println!("{table}");
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("failed: {}", failed.join(", "));
    ExitCode::FAILURE
}

#[expect(clippy::disallowed_methods, reason = "the peers read no other clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
