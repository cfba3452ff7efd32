//! What the command line says, parsed into types that cannot hold nonsense.

use std::fmt;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::schedule::{Pattern, Rate};
use crate::target::Target;
use crate::units::{Share, parse_duration};
use crate::workload::Mix;

/// An open-model load generator with thresholds for spark-server.
///
/// Exit code: 0 when every threshold held, 1 when one did not, 2 for wrong usage or a run that
/// could not begin.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) scenario: Scenario,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Scenario {
    /// A steady mix of repeated prompts, fresh prompts and streams.
    Steady(Load),
    /// The same mix while a provider fails and recovers.
    Failing(Failing),
}

#[derive(Debug, Args)]
pub(crate) struct Load {
    /// The server: `http://host[:port]`.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    pub(crate) url: Target,
    /// Let the load leave this machine.
    #[arg(long)]
    pub(crate) allow_remote: bool,
    /// The user key to ask with (better in the environment: arguments show in process lists).
    #[arg(
        long,
        env = "SPARK_KEY",
        hide_env_values = true,
        conflicts_with = "master_key_file"
    )]
    pub(crate) key: Option<Secret>,
    /// A file with the master key: issue a user key for this run and revoke it afterwards. Wins
    /// over a key that is given.
    #[arg(long, value_name = "FILE")]
    pub(crate) master_key_file: Option<PathBuf>,
    /// The tier of the key that is issued.
    #[arg(long, default_value = "pro")]
    pub(crate) tier: String,

    /// Arrivals a second.
    #[arg(long, default_value = "10")]
    pub(crate) rate: Rate,
    /// How the arrivals are spaced.
    #[arg(long, value_enum, default_value_t = Pattern::Even)]
    pub(crate) arrivals: Pattern,
    /// How long requests are sent; `failing` needs longer (60s unless given).
    #[arg(long, value_parser = parse_duration)]
    pub(crate) duration: Option<Duration>,
    /// Requests under way at once; arrivals beyond are dropped and counted as errors.
    #[arg(long, default_value = "256")]
    pub(crate) max_in_flight: NonZeroUsize,
    /// When a request is given up.
    #[arg(long, value_parser = parse_duration, default_value = "30s")]
    pub(crate) timeout: Duration,

    /// How many in all repeat a prompt, ask a fresh one, ask for a stream.
    #[arg(long, default_value = "hits=60,misses=30,streams=10")]
    pub(crate) mix: Mix,
    /// How many different prompts are repeated.
    #[arg(long, default_value = "20")]
    pub(crate) prompts: NonZeroU32,
    /// `max_tokens` of each request: enough for whole answers, since cut ones are not cached.
    #[arg(long, default_value = "256")]
    pub(crate) max_tokens: NonZeroU32,
    /// Ask for this model.
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// Ask this provider.
    #[arg(long)]
    pub(crate) provider: Option<String>,

    /// The 99th percentile of all answers must not be above this [steady: 200ms, failing: 2s].
    #[arg(long, value_parser = parse_duration)]
    pub(crate) max_p99: Option<Duration>,
    /// The share of errors must not be above this [steady: 0.01, failing: 0.1].
    #[arg(long)]
    pub(crate) max_error_rate: Option<Share>,
    /// The share of 429 must not be above this [no limit].
    #[arg(long)]
    pub(crate) max_limited_rate: Option<Share>,
}

#[derive(Debug, Args)]
pub(crate) struct Failing {
    #[command(flatten)]
    pub(crate) load: Load,
    /// A spark-mock-upstream whose `/__mode` makes it fail and recover.
    #[arg(long, value_name = "URL")]
    pub(crate) upstream_control: Option<Target>,
    /// The mode that is the failure.
    #[arg(long, default_value = "error500", requires = "upstream_control")]
    pub(crate) fail_mode: String,
    /// When the failure begins [a sixth of the duration].
    #[arg(long, value_parser = parse_duration, requires = "upstream_control")]
    pub(crate) fail_after: Option<Duration>,
    /// How long it lasts [half of the duration].
    #[arg(long, value_parser = parse_duration, requires = "upstream_control")]
    pub(crate) fail_for: Option<Duration>,
    /// Answers must be back this soon after the failure ended (without `--upstream-control`: no
    /// spell without an answer may be longer).
    #[arg(long, value_parser = parse_duration, default_value = "30s")]
    pub(crate) max_recovery: Duration,
}

/// A credential: its `Debug` says nothing.
#[derive(Clone)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() {
            return Err("it is empty".into());
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_line_is_sound() {
        <Cli as clap::CommandFactory>::command().debug_assert();
        let cli = parse("spark-loadtest steady --key abc --rate 2.5 --max-p99 150ms").unwrap();
        let Scenario::Steady(load) = cli.scenario else {
            panic!("not steady")
        };
        assert_eq!(load.max_p99, Some(Duration::from_millis(150)));
        assert_eq!(load.key.as_ref().map(Secret::expose), Some("abc"));
        assert!(!format!("{load:?}").contains("abc"));
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "spark-loadtest",
            "spark-loadtest steady --rate 0",
            "spark-loadtest steady --rate -1",
            "spark-loadtest steady --duration 10",
            "spark-loadtest steady --max-in-flight 0",
            "spark-loadtest steady --max-error-rate 2",
            "spark-loadtest steady --url https://127.0.0.1",
            "spark-loadtest steady --mix hits=0",
            "spark-loadtest failing --fail-for 5s",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
