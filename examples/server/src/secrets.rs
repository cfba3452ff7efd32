//! The pepper and the master key: from the environment, from a file, or made at the first start.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use spark_auth::{
    Brand, BuildError, Environment, KeyStatus, KeyStore, MAX_OVERLAP, MasterKey, MasterVerifier,
    Pepper, read_secret_file, write_secret_file,
};
use zeroize::Zeroizing;

use crate::ask::chain;

/// What the key store is called in its folder.
pub(crate) const KEYS: &str = "keys.redb";
const PEPPER: &str = "pepper";
const MASTER_MAC: &str = "master.mac";
const MASTER_KEY: &str = "master.key";

const PREVIOUS_MASTER: &str = "SPARK_MASTER_KEY_PREVIOUS";
const PREVIOUS_MASTER_UNTIL: &str = "SPARK_MASTER_KEY_PREVIOUS_UNTIL";

/// What keys are checked with.
pub(crate) struct Secrets {
    pub pepper: Pepper,
    pub previous_pepper: Option<Pepper>,
    pub master: MasterVerifier,
    pub previous_master: Option<MasterVerifier>,
}

/// Why there are no secrets to start with: a sentence with the mend.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct SecretError(String);

fn error(text: impl Into<String>) -> SecretError {
    SecretError(text.into())
}

/// Finds the secrets at the time `now` since 1970, and makes what is missing.
///
/// # Errors
/// When a variable or a file holds no sound secret, when the pepper of the keys in `store` is missing,
/// and when a master key would have to be made for a server that others can reach.
pub(crate) fn load(
    folder: &Path,
    store: &impl KeyStore,
    listen: &[SocketAddr],
    now: Duration,
    variables: impl Fn(&str) -> Option<String>,
) -> Result<Secrets, SecretError> {
    make_folder(folder)?;
    let previous_pepper = previous_pepper(&variables)?;
    let pepper = match pepper(folder, &variables)? {
        Some(pepper) => pepper,
        None => {
            // One that takes the place of another is made although there are keys.
            if previous_pepper.is_none() {
                refuse_if_keys_live(folder, store, now)?;
            }
            make_pepper(folder)?
        }
    };
    let previous_master = previous_master(&pepper, now, &variables)?;
    let master = match from_environment("SPARK_MASTER_KEY", &variables)? {
        Some(text) => {
            let master = master_of("SPARK_MASTER_KEY", &pepper, &text)?;
            void_generated(folder)?;
            master
        }
        None => stored_or_made(folder, listen, &pepper)?,
    };
    Ok(Secrets {
        pepper,
        previous_pepper,
        master,
        previous_master,
    })
}

/// The pepper, if there is one.
///
/// # Errors
/// When a variable or a file holds no sound pepper.
pub(crate) fn pepper(
    folder: &Path,
    variables: impl Fn(&str) -> Option<String>,
) -> Result<Option<Pepper>, SecretError> {
    if let Some(text) = from_environment("SPARK_PEPPER", &variables)? {
        return Pepper::parse_hex(&text)
            .map(Some)
            .map_err(|e| error(format!("SPARK_PEPPER or SPARK_PEPPER_FILE: {e}")));
    }
    let path = folder.join(PEPPER);
    if !path.exists() {
        return Ok(None);
    }
    Pepper::parse_hex(&read(&path)?)
        .map(Some)
        .map_err(|e| error(format!("{}: {e}", path.display())))
}

/// The pepper before it, under which keys may still be kept.
///
/// # Errors
/// When a variable or a file holds no sound pepper.
pub(crate) fn previous_pepper(
    variables: impl Fn(&str) -> Option<String>,
) -> Result<Option<Pepper>, SecretError> {
    let text = from_environment("SPARK_PEPPER_PREVIOUS", variables)?;
    text.map(|text| Pepper::parse_hex(&text))
        .transpose()
        .map_err(|e| {
            error(format!(
                "SPARK_PEPPER_PREVIOUS or SPARK_PEPPER_PREVIOUS_FILE: {e}"
            ))
        })
}

/// Refuses where keys live, which would never work under a new pepper.
///
/// # Errors
/// How many there are, and the mend.
pub(crate) fn refuse_if_keys_live(
    folder: &Path,
    store: &impl KeyStore,
    now: Duration,
) -> Result<(), SecretError> {
    let loaded = store.load().map_err(|e| error(chain(&e)))?;
    let lives = |status| !matches!(status, KeyStatus::Revoked | KeyStatus::Expired);
    let live = loaded.records.iter();
    match live.filter(|record| lives(record.status(now))).count() {
        0 => Ok(()),
        live => Err(error(format!(
            "there is no pepper, and {live} keys were made under one: set SPARK_PEPPER or \
             SPARK_PEPPER_FILE, or restore {}; {LOST}",
            folder.join(PEPPER).display()
        ))),
    }
}

const LOST: &str = "where it is lost, `spark-server keys list` shows those keys and `spark-server \
                    keys revoke` ends them, so that a start makes a new one";

/// Why keys and secrets do not fit together, for somebody who has a server and not the library.
pub(crate) fn does_not_fit(error: &BuildError) -> String {
    match error {
        BuildError::WrongPepper { keys, given } => format!(
            "{keys} keys were made under another pepper than that which was given ({given}): give it, \
             in SPARK_PEPPER[_FILE] or in SPARK_PEPPER_PREVIOUS[_FILE]; {LOST}"
        ),
        BuildError::MasterPepper { wanted } => format!(
            "the master key that was made here is kept under pepper {wanted}, which was not given: \
             set SPARK_MASTER_KEY to a key of your own (`spark-server keys new-master` makes one), or \
             give that pepper in SPARK_PEPPER_PREVIOUS[_FILE]"
        ),
        other => chain(other),
    }
}

/// Makes a pepper where there is none.
///
/// # Errors
/// When the operating system gives no random bytes, or the file cannot be written.
pub(crate) fn make_pepper(folder: &Path) -> Result<Pepper, SecretError> {
    make_folder(folder)?;
    let path = folder.join(PEPPER);
    let pepper = Pepper::generate().map_err(|e| error(e.to_string()))?;
    write(&path, &pepper.expose_hex())?;
    tracing::warn!(
        path = %path.display(),
        "made a pepper: keep a copy apart from the keys, for without it every key is void"
    );
    Ok(pepper)
}

/// A master key that was replaced works until a time that the operator says: one that was made up at
/// each start would move on with each of them.
fn previous_master(
    pepper: &Pepper,
    now: Duration,
    variables: impl Fn(&str) -> Option<String>,
) -> Result<Option<MasterVerifier>, SecretError> {
    let until = variables(PREVIOUS_MASTER_UNTIL);
    let Some(text) = from_environment(PREVIOUS_MASTER, &variables)? else {
        if until.is_some() {
            tracing::warn!("{PREVIOUS_MASTER_UNTIL} is set, and {PREVIOUS_MASTER} is not");
        }
        return Ok(None);
    };
    let example = "in seconds since 1970-01-01 UTC, as `date -d '+1 day' +%s` prints them";
    let Some(until) = until else {
        return Err(error(format!(
            "{PREVIOUS_MASTER} is set without an end: set {PREVIOUS_MASTER_UNTIL} to the time from \
             which on it is wrong, {example}"
        )));
    };
    let until = until.trim().parse().map(Duration::from_secs).map_err(|_| {
        error(format!(
            "{PREVIOUS_MASTER_UNTIL} is no time: write it {example}"
        ))
    })?;
    if until > now.saturating_add(MAX_OVERLAP) {
        return Err(error(format!(
            "{PREVIOUS_MASTER_UNTIL} is more than 30 days ahead: write an earlier time, {example}"
        )));
    }
    if until <= now {
        tracing::warn!("{PREVIOUS_MASTER} has ended, as {PREVIOUS_MASTER_UNTIL} says: unset both");
    }
    let master = master_of(PREVIOUS_MASTER, pepper, &text)?;
    Ok(Some(master.expires_at(until)))
}

/// Secrets that are good for nothing, to build an app that serves nobody.
///
/// # Errors
/// When the operating system gives no random bytes.
pub(crate) fn scratch() -> Result<Secrets, SecretError> {
    let pepper = Pepper::generate().map_err(|e| error(e.to_string()))?;
    let master = MasterVerifier::of(&pepper, &new_master()?);
    Ok(Secrets {
        pepper,
        previous_pepper: None,
        master,
        previous_master: None,
    })
}

/// A master key for `SPARK_MASTER_KEY`.
///
/// # Errors
/// When the operating system gives no random bytes.
pub(crate) fn new_master() -> Result<MasterKey, SecretError> {
    let made = MasterKey::generate(&Brand::default(), Environment::Live);
    made.map_err(|e| error(e.to_string()))
}

/// The value of a variable, or what stands in the file that `<variable>_FILE` names.
///
/// # Errors
/// When both are set, when the value is empty, and when the file cannot be read.
pub(crate) fn from_environment(
    variable: &str,
    variables: impl Fn(&str) -> Option<String>,
) -> Result<Option<Zeroizing<String>>, SecretError> {
    let file_variable = format!("{variable}_FILE");
    let text = variables(variable).map(Zeroizing::new);
    match (text, variables(&file_variable)) {
        (Some(_), Some(_)) => Err(error(format!(
            "{variable} and {file_variable} are both set: unset one of them"
        ))),
        (Some(text), None) if text.trim().is_empty() => Err(error(format!(
            "{variable} is set and empty: unset it, or give it a value"
        ))),
        (Some(text), None) => Ok(Some(Zeroizing::new(text.trim().to_owned()))),
        (None, Some(path)) => match read_secret_file(&path) {
            Ok(text) => Ok(Some(text)),
            Err(e) => Err(error(format!(
                "{file_variable}: {path} cannot be read: {e}"
            ))),
        },
        (None, None) => Ok(None),
    }
}

fn master_of(variable: &str, pepper: &Pepper, text: &str) -> Result<MasterVerifier, SecretError> {
    MasterVerifier::from_secret(pepper, text).map_err(|e| {
        error(format!(
            "{variable}: {e} (`spark-server keys new-master` makes a good one)"
        ))
    })
}

/// A key from the environment takes the place of one that was made here, for good.
fn void_generated(folder: &Path) -> Result<(), SecretError> {
    for name in [MASTER_MAC, MASTER_KEY] {
        let path = folder.join(name);
        match std::fs::remove_file(&path) {
            Ok(()) => tracing::warn!(
                path = %path.display(),
                "removed: the master key comes from the environment now"
            ),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => {
                return Err(error(format!(
                    "{} holds a void master key and cannot be removed: {e}",
                    path.display()
                )));
            }
        }
    }
    Ok(())
}

fn stored_or_made(
    folder: &Path,
    listen: &[SocketAddr],
    pepper: &Pepper,
) -> Result<MasterVerifier, SecretError> {
    let path = folder.join(MASTER_MAC);
    if path.exists() {
        return MasterVerifier::from_stored(&read(&path)?)
            .map_err(|e| error(format!("{}: {e}", path.display())));
    }
    if let Some(open) = listen.iter().find(|address| !address.ip().is_loopback()) {
        return Err(error(format!(
            "no master key is set, and none is made up for a server that listens on {open}, beyond \
             this machine: set SPARK_MASTER_KEY or SPARK_MASTER_KEY_FILE \
             (`spark-server keys new-master` makes one)"
        )));
    }
    let key = new_master()?;
    let master = MasterVerifier::of(pepper, &key);
    // The key first: a crash in between leaves a key without a MAC, and the next start makes both.
    let key_path = folder.join(MASTER_KEY);
    write(&key_path, key.expose())?;
    write(&path, &master.to_stored())?;
    show_once(&key, &key_path, listen);
    Ok(master)
}

/// To a person, never to a log.
fn show_once(key: &MasterKey, path: &Path, listen: &[SocketAddr]) {
    let address = listen.first().map_or_else(String::new, ToString::to_string);
    let mut out = std::io::stdout();
    if !out.is_terminal() {
        tracing::warn!(path = %path.display(), "made a master key: read it there, then move it away");
        return;
    }
    // A terminal that is gone is no reason not to start.
    let _ = writeln!(
        out,
        "\nThe master key of this server, shown this once (it is also in {path}):\n\n  {key}\n\n\
         Issue a key for a user with it:\n\n  curl -s http://{address}/api/spark/keys \\\n    \
         -H 'Authorization: Bearer {key}' \\\n    -H 'Content-Type: application/json' \\\n    \
         -d '{{\"tenant\":\"me\"}}'\n",
        path = path.display(),
        key = key.expose(),
    );
}

fn make_folder(folder: &Path) -> Result<(), SecretError> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(|e| {
        error(format!(
            "the folder {} cannot be made: {e}",
            folder.display()
        ))
    })
}

fn read(path: &PathBuf) -> Result<Zeroizing<String>, SecretError> {
    read_secret_file(path)
        .map_err(|e| error(format!("{} cannot be read: {}", path.display(), chain(&e))))
}

fn write(path: &PathBuf, text: &str) -> Result<(), SecretError> {
    write_secret_file(path, text).map_err(|e| {
        error(format!(
            "{} cannot be written: {}",
            path.display(),
            chain(&e)
        ))
    })
}

#[cfg(test)]
mod tests {
    use spark_auth::{Authenticator, MemoryStore, NewKey};
    use spark_core::Name;

    use super::*;

    const NOW: Duration = Duration::from_secs(1_900_000_000);
    const LOCAL: [SocketAddr; 1] = [SocketAddr::new(
        std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        8080,
    )];

    fn none() -> MemoryStore {
        MemoryStore::new()
    }

    #[test]
    fn no_pepper_is_made_while_keys_live_that_were_made_under_one() {
        let dir = tempfile::tempdir().unwrap();
        let store = none();
        let auth = Authenticator::builder()
            .pepper(Pepper::generate().unwrap())
            .store(store.clone())
            .build()
            .unwrap();
        let key = auth.issue(NewKey::new(Name::new("acme").unwrap())).unwrap();
        let id = key.record.id.as_str();
        let start = || load(dir.path(), &store, &LOCAL, NOW, |_| None);
        for suspended in [false, true] {
            if suspended {
                auth.suspend(id).unwrap();
            }
            let refused = start().err().unwrap().to_string();
            assert!(
                refused.contains("SPARK_PEPPER_FILE") && refused.contains("keys revoke"),
                "{refused}"
            );
            assert!(!dir.path().join(PEPPER).exists());
        }
        auth.revoke(id).unwrap();
        assert!(start().is_ok());
    }

    #[test]
    fn the_first_start_makes_what_the_second_finds() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("spark-data");
        let first = load(&folder, &none(), &LOCAL, NOW, |_| None).unwrap();
        let key = std::fs::read_to_string(folder.join(MASTER_KEY)).unwrap();
        assert!(key.starts_with("spark_mk_live_"));
        let second = load(&folder, &none(), &LOCAL, NOW, |_| None).unwrap();
        assert_eq!(first.master.to_stored(), second.master.to_stored());
        #[cfg(unix)]
        for name in [PEPPER, MASTER_KEY, MASTER_MAC] {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(folder.join(name))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn no_master_key_is_made_up_beyond_loopback() {
        let dir = tempfile::tempdir().unwrap();
        let open: SocketAddr = "0.0.0.0:8080".parse().unwrap();
        let refused = load(dir.path(), &none(), &[open], NOW, |_| None)
            .err()
            .unwrap()
            .to_string();
        assert!(refused.contains("SPARK_MASTER_KEY"), "{refused}");
        assert!(!dir.path().join(MASTER_KEY).exists());
    }

    #[test]
    fn a_key_from_the_environment_voids_a_generated_one() {
        let dir = tempfile::tempdir().unwrap();
        load(dir.path(), &none(), &LOCAL, NOW, |_| None).unwrap();
        let key = new_master().unwrap();
        let variables = |name: &str| (name == "SPARK_MASTER_KEY").then(|| key.expose().to_owned());
        load(dir.path(), &none(), &LOCAL, NOW, variables).unwrap();
        assert!(!dir.path().join(MASTER_KEY).exists());
        assert!(!dir.path().join(MASTER_MAC).exists());
    }

    #[test]
    fn weak_or_doubled_keys_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for weak in ["", "changeme", "short"] {
            let variables = |name: &str| (name == "SPARK_MASTER_KEY").then(|| weak.to_owned());
            assert!(
                load(dir.path(), &none(), &LOCAL, NOW, variables).is_err(),
                "{weak:?}"
            );
        }
        let both = |name: &str| name.starts_with("SPARK_MASTER_KEY").then(|| "x".repeat(40));
        assert!(load(dir.path(), &none(), &LOCAL, NOW, both).is_err());
    }

    #[test]
    fn a_previous_master_key_needs_an_end_that_is_near() {
        let dir = tempfile::tempdir().unwrap();
        let key = new_master().unwrap();
        let with = |until: Option<&str>| {
            load(dir.path(), &none(), &LOCAL, NOW, |name| match name {
                PREVIOUS_MASTER => Some(key.expose().to_owned()),
                PREVIOUS_MASTER_UNTIL => until.map(str::to_owned),
                _ => None,
            })
        };
        for until in [
            None,
            Some(""),
            Some("tomorrow"),
            Some("-1"),
            Some("1900000000.5"),
            // Milliseconds.
            Some("1900000000000"),
            Some("1902592001"),
        ] {
            let refused = with(until).err().unwrap().to_string();
            assert!(refused.contains(PREVIOUS_MASTER_UNTIL), "{refused}");
            assert!(!refused.contains(key.expose()), "{refused}");
        }
        for until in ["1900086400", " 1902592000\n", "1900000000", "0"] {
            assert!(with(Some(until)).unwrap().previous_master.is_some());
        }
        let alone = |name: &str| (name == PREVIOUS_MASTER_UNTIL).then(|| "1900086400".to_owned());
        let none = load(dir.path(), &none(), &LOCAL, NOW, alone).unwrap();
        assert!(none.previous_master.is_none());
    }

    #[test]
    fn the_previous_pepper_comes_from_a_variable_or_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let old = load(dir.path(), &none(), &LOCAL, NOW, |_| None)
            .unwrap()
            .pepper;
        let path = dir.path().join("pepper.previous");
        std::fs::rename(dir.path().join(PEPPER), &path).unwrap();
        assert!(pepper(dir.path(), |_| None).unwrap().is_none());
        let file = path.display().to_string();
        let hex = old.expose_hex().to_string();
        for (variable, value) in [
            ("SPARK_PEPPER_PREVIOUS_FILE", file),
            ("SPARK_PEPPER_PREVIOUS", hex),
        ] {
            let variables = |name: &str| (name == variable).then(|| value.clone());
            let secrets = load(dir.path(), &none(), &LOCAL, NOW, variables).unwrap();
            assert_eq!(secrets.previous_pepper.map(|it| it.id()), Some(old.id()));
            assert_ne!(secrets.pepper.id(), old.id());
        }
        let variables = |name: &str| (name == "SPARK_PEPPER_PREVIOUS").then(|| "short".to_owned());
        let refused = load(dir.path(), &none(), &LOCAL, NOW, variables)
            .err()
            .unwrap();
        assert!(refused.to_string().contains("SPARK_PEPPER_PREVIOUS"));
    }
}
