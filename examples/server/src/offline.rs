//! Commands on the key store while no server runs: `spark-server keys …`.

use std::io::Write;
use std::time::Duration;

use spark_auth::{Authenticator, FileStore, Issued, KeyInfo, NewKey, Pepper, StoreError};
use spark_core::{Clock, Name};

use crate::ask::chain;
use crate::cli::Keys;
use crate::config::{Config, check_tier};
use crate::routes::keys::{Shown, environment_of, network_of};
use crate::secrets;

/// Does what is said, and prints the outcome as JSON, one object a line. Warnings and the audit go to
/// standard error.
///
/// # Errors
/// A sentence with the mend.
pub(crate) fn keys(config: &Config, command: Keys) -> Result<(), String> {
    if matches!(command, Keys::NewMaster) {
        let key = secrets::new_master().map_err(|e| e.to_string())?;
        return print(key.expose());
    }
    crate::log::start(config)?;
    let clock = Clock::system();
    let auth = open(config, &clock, &command)?;
    let text = |error: spark_auth::AuthError| chain(&error);
    match command {
        Keys::NewMaster => Ok(()),
        Keys::List => auth.list().iter().try_for_each(print_json),
        Keys::Suspend { id } => print_json(&auth.suspend(&id).map_err(text)?),
        Keys::Resume { id } => print_json(&auth.resume(&id).map_err(text)?),
        Keys::Revoke { id } => print_json(&auth.revoke(&id).map_err(text)?),
        Keys::Rotate { id, overlap } => {
            print_issued(&auth.rotate(&id, overlap.duration()).map_err(text)?, &clock)
        }
        Keys::Issue {
            tenant,
            label,
            tier,
            scopes,
            owner,
            ip_allow,
            env,
            not_before,
            expires_at,
        } => {
            let name =
                |field: &str, text: &str| Name::new(text).map_err(|e| format!("--{field}: {e}"));
            let mut new = NewKey::new(name("tenant", &tenant)?);
            if let Some(label) = label {
                new = new.label(label);
            }
            if let Some(tier) = tier {
                let tier = name("tier", &tier)?;
                check_tier(&config.ratelimit, &tier).map_err(|mend| format!("--tier: {mend}"))?;
                new = new.tier(tier);
            }
            let scopes = scopes.iter().map(|scope| name("scope", scope));
            new = new.scopes(scopes.collect::<Result<Vec<_>, _>>()?);
            if let Some(owner) = owner {
                new = new.owner(owner);
            }
            let networks = ip_allow.iter().map(|text| network_of(text));
            let networks = networks.collect::<Result<Vec<_>, _>>();
            new = new.ip_allow(networks.map_err(|mend| format!("--ip-allow {mend}"))?);
            let env = environment_of(&env).map_err(|mend| format!("--env {mend}"))?;
            new = new
                .environment(env)
                .not_before(not_before.map(Duration::from_secs))
                .expires_at(expires_at.map(Duration::from_secs));
            print_issued(&auth.issue(new).map_err(text)?, &clock)
        }
    }
}

fn open(config: &Config, clock: &Clock, command: &Keys) -> Result<Authenticator, String> {
    let folder = &config.server.data_dir;
    let store = FileStore::open(folder).map_err(|error| match error {
        StoreError::Locked { .. } => format!(
            "a server holds {}: use its route instead, as `curl http://{}/api/spark/keys -H \
             'Authorization: Bearer MASTER_KEY'`",
            folder.display(),
            config.server.admin_listen.unwrap_or(config.server.listen),
        ),
        other => chain(&other),
    })?;
    let variables = |name: &str| std::env::var(name).ok();
    let found = secrets::pepper(folder, variables).map_err(|e| e.to_string())?;
    let previous = secrets::previous_pepper(variables).map_err(|e| e.to_string())?;
    // What makes a key needs the pepper of the server, or the key would never work; what only takes
    // keys away must also be possible when the pepper is lost.
    let makes_keys = matches!(command, Keys::Issue { .. } | Keys::Rotate { .. });
    // For what makes nothing under it.
    let scratch = || Pepper::generate().map_err(|e| e.to_string());
    let pepper = match found {
        Some(pepper) => pepper,
        None if makes_keys => {
            let now = clock.unix_time();
            secrets::refuse_if_keys_live(folder, &store, now).map_err(|e| e.to_string())?;
            match command {
                Keys::Issue { .. } => secrets::make_pepper(folder).map_err(|e| e.to_string())?,
                // There is nothing to rotate.
                _ => scratch()?,
            }
        }
        None => scratch()?,
    };
    Authenticator::builder()
        .clock(clock.clone())
        .pepper(pepper)
        .previous_pepper(previous)
        .store(store)
        .accept_lost_keys(!makes_keys)
        .max_keys(config.auth.max_keys)
        .build()
        .map_err(|error| secrets::does_not_fit(&error))
}

fn print_issued(issued: &Issued, clock: &Clock) -> Result<(), String> {
    let shown = Shown::of(issued, clock.unix_time()).to_json();
    print(&shown.map_err(|e| e.to_string())?)
}

fn print_json(info: &KeyInfo) -> Result<(), String> {
    print(&serde_json::json!(info).to_string())
}

fn print(line: &str) -> Result<(), String> {
    writeln!(std::io::stdout(), "{line}").map_err(|e| format!("standard output: {e}"))
}
