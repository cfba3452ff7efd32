//! Commands on the key store while no server runs: `spark-server keys …`.

use std::io::Write;
use std::time::Duration;

use spark_auth::{Authenticator, FileStore, Issued, KeyInfo, NewKey, StoreError};
use spark_core::{Clock, Name};

use crate::ask::chain;
use crate::cli::Keys;
use crate::config::{Config, check_tier};
use crate::secrets;

/// Does what is said, and prints the outcome as JSON, one object a line.
///
/// # Errors
/// A sentence with the mend.
pub(crate) fn keys(config: &Config, command: Keys) -> Result<(), String> {
    if matches!(command, Keys::NewMaster) {
        let key = secrets::new_master().map_err(|e| e.to_string())?;
        return print(key.expose());
    }
    let clock = Clock::system();
    let auth = open(config, &clock)?;
    let text = |error: spark_auth::AuthError| chain(&error);
    match command {
        Keys::NewMaster => Ok(()),
        Keys::List => auth.list().iter().try_for_each(print_json),
        Keys::Revoke { id } => print_json(&auth.revoke(&id).map_err(text)?),
        Keys::Rotate { id, overlap } => {
            print_issued(&auth.rotate(&id, overlap.duration()).map_err(text)?, &clock)
        }
        Keys::Issue {
            tenant,
            label,
            tier,
            scopes,
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
            new = new.expires_at(expires_at.map(Duration::from_secs));
            print_issued(&auth.issue(new).map_err(text)?, &clock)
        }
    }
}

fn open(config: &Config, clock: &Clock) -> Result<Authenticator, String> {
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
    let pepper = secrets::pepper(folder, variables).map_err(|e| e.to_string())?;
    Authenticator::builder()
        .clock(clock.clone())
        .pepper(pepper)
        .store(store)
        .max_keys(config.auth.max_keys)
        .build()
        .map_err(|error| chain(&error))
}

fn print_issued(issued: &Issued, clock: &Clock) -> Result<(), String> {
    let mut shown = serde_json::json!(KeyInfo::of(&issued.record, clock.unix_time()));
    shown["key"] = issued.key.expose().into();
    print(&shown.to_string())
}

fn print_json(info: &KeyInfo) -> Result<(), String> {
    print(&serde_json::json!(info).to_string())
}

fn print(line: &str) -> Result<(), String> {
    writeln!(std::io::stdout(), "{line}").map_err(|e| format!("standard output: {e}"))
}
