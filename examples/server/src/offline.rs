//! Commands on the key store while no server runs: `spark-server keys …`.

use std::io::Write;

use spark_auth::{
    AuthError, Authenticator, FileStore, Issued, KeyInfo, NewKey, Pepper, StoreError,
};
use spark_core::{Clock, Name};

use crate::ask::chain;
use crate::cli::{Issue, Keys};
use crate::config::{Config, check_tier};
use crate::routes::keys::{Replaced, Shown, environment_of, network_of, rotate_key, time_of};
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
    let open = |purpose| open(config, &clock, purpose);
    match command {
        Keys::NewMaster => Ok(()),
        Keys::List => open(Purpose::LookAndStop)?
            .list()
            .iter()
            .try_for_each(print_json),
        Keys::Suspend { id } => print_done(open(Purpose::LookAndStop)?.suspend(&id)),
        Keys::Resume { id } => print_done(open(Purpose::LookAndStop)?.resume(&id)),
        Keys::Revoke { id } => print_done(open(Purpose::LookAndStop)?.revoke(&id)),
        Keys::Rotate { id, overlap } => {
            let done = rotate_key(&open(Purpose::Rotate)?, &id, overlap.duration());
            let (issued, replaced) = done.map_err(|e| text(&e))?;
            print_issued(&issued, Some(replaced), &clock)
        }
        Keys::Issue(said) => {
            // What is said wrongly is refused before anything is opened or made.
            let new = new_key(config, &said)?;
            new.check(clock.unix_time()).map_err(|e| text(&e))?;
            let issued = open(Purpose::Issue)?.issue(new).map_err(|e| text(&e))?;
            print_issued(&issued, None, &clock)
        }
    }
}

fn new_key(config: &Config, said: &Issue) -> Result<NewKey, String> {
    let name = |flag: &str, text: &str| {
        Name::new(text).map_err(|error| format!("--{flag} is not valid: {error}."))
    };
    let mut new = NewKey::new(name("tenant", &said.tenant)?);
    if let Some(label) = &said.label {
        new = new.label(label.as_str());
    }
    if let Some(tier) = &said.tier {
        let tier = name("tier", tier)?;
        check_tier(&config.ratelimit, &tier).map_err(|mend| format!("--tier {mend}"))?;
        new = new.tier(tier);
    }
    let scopes = said.scopes.iter().map(|scope| name("scope", scope));
    new = new.scopes(scopes.collect::<Result<Vec<_>, _>>()?);
    if let Some(owner) = &said.owner {
        new = new.owner(owner.as_str());
    }
    let networks = said.ip_allow.iter().map(|text| network_of(text));
    let networks = networks.collect::<Result<Vec<_>, _>>();
    let env = environment_of(&said.env).map_err(|mend| format!("--env {mend}"))?;
    let time = |flag: &str, seconds: Option<u64>| {
        let time = seconds.map(time_of).transpose();
        time.map_err(|mend| format!("--{flag} {mend}"))
    };
    Ok(new
        .ip_allow(networks.map_err(|mend| format!("--ip-allow {mend}"))?)
        .environment(env)
        .not_before(time("not-before", said.not_before)?)
        .expires_at(time("expires-at", said.expires_at)?))
}

/// In the words of the command line.
fn text(error: &AuthError) -> String {
    let AuthError::Invalid { field, problem } = error else {
        return chain(error);
    };
    let flag = match *field {
        "environment" => "env".to_owned(),
        "scopes" => "scope".to_owned(),
        field => field.replace('_', "-"),
    };
    format!("--{flag} is not valid: {problem}.")
}

/// What the key store is opened for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Makes the store and the pepper where they are missing, as a server does.
    Issue,
    /// Needs the pepper of the server, or the new key would never work.
    Rotate,
    /// Must also be possible when the pepper is lost.
    LookAndStop,
}

fn open(config: &Config, clock: &Clock, purpose: Purpose) -> Result<Authenticator, String> {
    let folder = &config.server.data_dir;
    if purpose != Purpose::Issue && !folder.join(secrets::KEYS).exists() {
        return Err(format!(
            "there is no key store in {}: name the folder of the server, as server.data_dir or in \
             SPARK_DATA_DIR",
            folder.display()
        ));
    }
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
    if found.is_none() && purpose != Purpose::LookAndStop {
        let now = clock.unix_time();
        secrets::refuse_if_keys_live(folder, &store, now).map_err(|e| e.to_string())?;
    }
    let pepper = match (found, purpose) {
        (Some(pepper), _) => pepper,
        (None, Purpose::Issue) => secrets::make_pepper(folder).map_err(|e| e.to_string())?,
        // Nothing is made under it: there is nothing to rotate.
        (None, _) => Pepper::generate().map_err(|e| e.to_string())?,
    };
    Authenticator::builder()
        .clock(clock.clone())
        .pepper(pepper)
        .previous_pepper(previous)
        .store(store)
        .accept_lost_keys(purpose == Purpose::LookAndStop)
        .max_keys(config.auth.max_keys)
        .build()
        .map_err(|error| secrets::does_not_fit(&error))
}

fn print_issued(issued: &Issued, replaces: Option<Replaced>, clock: &Clock) -> Result<(), String> {
    let shown = Shown::of(issued, replaces, clock.unix_time()).to_json();
    print(&shown.map_err(|e| e.to_string())?)
}

fn print_done(done: Result<KeyInfo, AuthError>) -> Result<(), String> {
    print_json(&done.map_err(|e| text(&e))?)
}

fn print_json(info: &KeyInfo) -> Result<(), String> {
    print(&serde_json::json!(info).to_string())
}

fn print(line: &str) -> Result<(), String> {
    writeln!(std::io::stdout(), "{line}").map_err(|e| format!("standard output: {e}"))
}
