//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// SPARK's example server: the hardening crates in front of AI providers.
#[derive(Debug, Parser)]
#[command(name = "spark-server", version)]
pub(crate) struct Cli {
    /// The configuration file.
    #[arg(long, global = true, env = "SPARK_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server (what happens without a command).
    Serve,
    /// Validate the configuration and exit.
    Check,
    /// Print the layers in their order, with their settings.
    Stack,
    /// Work on the key store while no server runs.
    #[command(subcommand)]
    Keys(Keys),
    /// Ask the running server whether it is ready: exit 0 or 1.
    Healthcheck,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    /// Make a master key for SPARK_MASTER_KEY and print it.
    NewMaster,
    /// Issue a user key and print it, this once.
    Issue(Issue),
    /// List the keys, without their secrets.
    List,
    /// Put a new key in the place of an old one, and print it.
    Rotate {
        /// The id of the old key.
        id: String,
        /// How long the old key goes on working.
        #[arg(long, default_value = "1d")]
        overlap: crate::config::Span,
    },
    /// Let a key not work until it is resumed.
    Suspend {
        /// The id of the key.
        id: String,
    },
    /// Let a suspended key work again.
    Resume {
        /// The id of the key.
        id: String,
    },
    /// Take a key back, for good.
    Revoke {
        /// The id of the key.
        id: String,
    },
}

/// What a new key shall be.
#[derive(Debug, Args)]
pub(crate) struct Issue {
    /// Whose quota, cache and usage it is.
    #[arg(long)]
    pub tenant: String,
    /// A word for people.
    #[arg(long)]
    pub label: Option<String>,
    /// Which quota applies.
    #[arg(long)]
    pub tier: Option<String>,
    /// What the key may do beyond the data routes; may be given again.
    #[arg(long = "scope")]
    pub scopes: Vec<String>,
    /// Who answers for it: a person, a team, an address to write to.
    #[arg(long)]
    pub owner: Option<String>,
    /// From where it may be used, as 192.0.2.0/24; may be given again. From anywhere without it.
    #[arg(long = "ip-allow", value_name = "NETWORK")]
    pub ip_allow: Vec<String>,
    /// Whether the key says that it is for live or for test use.
    #[arg(long, value_name = "live|test", default_value = "live")]
    pub env: String,
    /// From when on it works, in seconds since 1970-01-01 UTC.
    #[arg(long)]
    pub not_before: Option<u64>,
    /// When it ends, in seconds since 1970-01-01 UTC.
    #[arg(long)]
    pub expires_at: Option<u64>,
}
