//! The log, on standard error.
//!
//! That may be a pipe that nobody reads. A server whose log is stuck goes on serving and can be told
//! to stop: its lines wait in a queue, and what finds that full is dropped and counted.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::writer::MakeWriterExt;

use crate::config::{Config, LogFormat};

/// Lines that may wait: some megabytes.
const LINES: usize = 8_192;
const DROPPED_LINES: &str = "spark_server_log_lines_dropped_total";
/// The audit of keys. It comes from a thread of its own, which may wait for the log: the queue in
/// front of it drops denials first, and counts what it drops.
const AUDIT: &str = "spark_auth::audit";

static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();
/// Whoever drops it ends the log.
static GUARD: Mutex<Option<WorkerGuard>> = Mutex::new(None);

/// Starts the log of a command, which waits for its reader: no line is lost.
///
/// # Errors
/// A sentence that names the field and the mend.
pub(crate) fn start(config: &Config) -> Result<(), String> {
    start_with(config, std::io::stderr)
}

/// Starts the log of a server, which waits for no reader. Panics are written there too.
///
/// # Errors
/// A sentence that names the field and the mend.
pub(crate) fn start_lossy(config: &Config) -> Result<(), String> {
    filter(config)?;
    let (lines, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LINES)
        .thread_name("spark-log")
        .finish(std::io::stderr());
    let _ = DROPPED.set(lines.error_counter());
    *GUARD.lock().unwrap_or_else(PoisonError::into_inner) = Some(guard);
    let is_of_requests = |line: &tracing::Metadata<'_>| line.target() != AUDIT;
    let lines = lines.with_filter(is_of_requests);
    start_with(config, lines.or_else(std::io::stderr))?;
    std::panic::set_hook(Box::new(|panic| {
        let backtrace = Backtrace::capture();
        let backtrace = (backtrace.status() == BacktraceStatus::Captured).then_some(backtrace);
        let backtrace = backtrace.as_ref().map(tracing::field::display);
        tracing::error!(target: "panic", backtrace, "{panic}");
    }));
    Ok(())
}

fn start_with<W>(config: &Config, writer: W) -> Result<(), String>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(config)?)
        .with_writer(writer)
        .with_ansi(std::io::stderr().is_terminal());
    let done = match config.log.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    done.map_err(|e| format!("the log cannot start: {e}"))
}

/// What is to be logged.
///
/// # Errors
/// A sentence that names the field and the mend.
pub(crate) fn filter(config: &Config) -> Result<EnvFilter, String> {
    EnvFilter::try_new(&config.log.filter).map_err(|e| format!("log.filter: {e}"))
}

/// Ends the log of a server: writes what waits, for `deadline` at most.
pub(crate) fn finish(deadline: Duration) {
    let guard = GUARD.lock().unwrap_or_else(PoisonError::into_inner).take();
    // Where the log is stuck the guard says so, there.
    within(deadline, move || drop(guard));
}

/// Says why the process ends, if anybody listens.
pub(crate) fn last_words(error: &str) {
    let line = format!("error: {error}\n");
    within(Duration::from_secs(2), move || {
        // Standard error may be closed; the exit code remains.
        let _ = std::io::stderr().write_all(line.as_bytes());
    });
}

/// Does what may wait for ever on a thread of its own, and goes on without it after `deadline`.
fn within(deadline: Duration, work: impl FnOnce() + Send + 'static) {
    let (done, waiting) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new().spawn(move || {
        work();
        let _ = done.send(());
    });
    if thread.is_ok() {
        let _ = waiting.recv_timeout(deadline);
    }
}

/// Brings the metric of lost lines up to date, for a page of metrics that is about to be written.
pub(crate) fn count_dropped() {
    let lost = DROPPED.get().map_or(0, ErrorCounter::dropped_lines);
    metrics::counter!(DROPPED_LINES).absolute(u64::try_from(lost).unwrap_or(u64::MAX));
}

/// Describes the metric.
pub(crate) fn describe() {
    metrics::describe_counter!(
        DROPPED_LINES,
        metrics::Unit::Count,
        "Lines of the log that found its queue full, because nobody reads it fast enough"
    );
}
