//! `spark-server`: the SPARK crates composed into one server in front of AI providers.
//!
//! Start reading at `stack.rs`: it assembles the layers, with the reason above each.
#![forbid(unsafe_code)]

mod app;
mod ask;
mod cli;
mod config;
mod edge;
mod healthcheck;
mod hooks;
mod ledger;
mod log;
mod offline;
mod provider;
mod relay;
mod reload;
mod routes;
mod run;
mod secrets;
mod signals;
mod spending;
mod stack;
mod watch;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};
use crate::config::{Config, unknown_variables};

fn main() -> ExitCode {
    match command(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            log::last_words(&error);
            ExitCode::from(2)
        }
    }
}

fn command(cli: Cli) -> Result<ExitCode, String> {
    let variables = |name: &str| std::env::var(name).ok();
    if let Some(Command::Keys(cli::Keys::NewMaster)) = &cli.command {
        // Needs no configuration.
        offline::keys(&Config::default(), cli::Keys::NewMaster)?;
        return Ok(ExitCode::SUCCESS);
    }
    let config = Config::load(cli.config.as_deref(), variables).map_err(|e| e.to_string())?;
    for name in unknown_variables(
        &config,
        std::env::vars_os().filter_map(|(n, _)| n.into_string().ok()),
    ) {
        let _ = writeln!(
            std::io::stderr(),
            "warning: {name} is set and means nothing here"
        );
    }
    let _ = reload::CONFIG_PATH.set(cli.config);
    match cli.command.unwrap_or(Command::Serve) {
        Command::Serve => run::serve(config),
        Command::Check => run::check(config),
        Command::Stack => run::print_stack(config),
        Command::Keys(keys) => offline::keys(&config, keys).map(|()| ExitCode::SUCCESS),
        Command::Healthcheck => healthcheck::ask(&config),
    }
}
