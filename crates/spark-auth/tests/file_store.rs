//! The embedded store: what survives a crash, and what stops the start.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod common;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use common::{name, user_key};
use spark_auth::{
    Authenticator, FileStore, Issued, KeyStore, NewKey, Pepper, Rejected, StoreError,
};
use tempfile::TempDir;

fn open(folder: &Path, pepper: &Pepper) -> Authenticator {
    Authenticator::builder()
        .pepper(pepper.clone())
        .store(FileStore::open(folder).unwrap())
        .build()
        .unwrap()
}

fn issue(auth: &Authenticator) -> Issued {
    let new = NewKey::new(name("acme"))
        .label("ünïcode")
        .scopes([name("metrics:read")]);
    auth.issue(new).unwrap()
}

fn house() -> (TempDir, Pepper) {
    (tempfile::tempdir().unwrap(), Pepper::generate().unwrap())
}

/// Issues, rotates and revokes; cuts the file at every byte of the last line; starts again.
#[test]
fn a_crash_at_any_byte_of_the_last_record_loses_nothing_that_was_acknowledged() {
    let (dir, pepper) = house();
    let log = dir.path().join("keys.log");
    let auth = open(dir.path(), &pepper);
    let (kept, revoked, rotated) = (issue(&auth), issue(&auth), issue(&auth));
    auth.revoke(revoked.record.id.as_str()).unwrap();
    let before = fs::metadata(&log).unwrap().len();
    let successor = auth
        .rotate(rotated.record.id.as_str(), Duration::ZERO)
        .unwrap();
    drop(auth);
    let whole = fs::read(&log).unwrap();
    let before = usize::try_from(before).unwrap();

    for len in before..=whole.len() {
        let crashed = tempfile::tempdir().unwrap();
        fs::write(crashed.path().join("keys.log"), &whole[..len]).unwrap();
        let auth = open(crashed.path(), &pepper);
        assert!(auth.verify(kept.key.expose()).is_ok());
        assert_eq!(auth.verify(revoked.key.expose()), Err(Rejected::Revoked));
        // The rotation is there with both of its records, or with none.
        let old = auth.verify(rotated.key.expose());
        let new = auth.verify(successor.key.expose());
        if len + 1 >= whole.len() {
            assert_eq!(old, Err(Rejected::Revoked), "cut at {len}");
            assert!(new.is_ok(), "cut at {len}");
        } else {
            assert!(old.is_ok(), "cut at {len}");
            assert_eq!(new, Err(Rejected::UnknownKey), "cut at {len}");
        }
        // It goes on, and what follows survives the next start.
        let next = issue(&auth);
        drop(auth);
        let auth = open(crashed.path(), &pepper);
        assert!(auth.verify(next.key.expose()).is_ok(), "cut at {len}");
        assert!(auth.verify(kept.key.expose()).is_ok());
    }
}

#[test]
fn a_tail_of_zeros_as_after_a_power_cut_is_dropped() {
    let (dir, pepper) = house();
    let auth = open(dir.path(), &pepper);
    let kept = issue(&auth);
    drop(auth);
    let mut log = OpenOptions::new()
        .append(true)
        .open(dir.path().join("keys.log"))
        .unwrap();
    log.write_all(&[0; 4_096]).unwrap();
    assert!(open(dir.path(), &pepper).verify(kept.key.expose()).is_ok());
}

#[test]
fn a_damaged_line_stops_the_start_and_is_named() {
    let (dir, pepper) = house();
    let log = dir.path().join("keys.log");
    let auth = open(dir.path(), &pepper);
    for _ in 0..3 {
        issue(&auth);
    }
    drop(auth);
    let whole = fs::read(&log).unwrap();
    let ends: Vec<_> = (0..whole.len()).filter(|at| whole[*at] == b'\n').collect();
    assert_eq!(ends.len(), 4);
    for (line, end) in ends.iter().enumerate() {
        let mut damaged = whole.clone();
        damaged[end - 20] ^= 1;
        fs::write(&log, &damaged).unwrap();
        let error = FileStore::open(dir.path()).unwrap_err();
        let StoreError::Corrupt { line: found, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!(*found, line + 1);
        let text = error.to_string();
        assert!(
            text.contains("keys.log line") && text.contains("backup"),
            "{text}"
        );
        assert_eq!(fs::read(&log).unwrap(), damaged, "nothing was changed");
    }
    fs::write(&log, "something else\n").unwrap();
    assert!(matches!(
        FileStore::open(dir.path()),
        Err(StoreError::Corrupt { line: 1, .. })
    ));
}

#[test]
fn a_file_whose_first_line_is_damaged_is_left_as_it_is() {
    let (dir, _) = house();
    let log = dir.path().join("keys.log");
    drop(FileStore::open(dir.path()).unwrap());
    let whole = fs::read(&log).unwrap();
    for len in 1..whole.len() - 1 {
        fs::write(&log, &whole[..len]).unwrap();
        let error = FileStore::open(dir.path()).unwrap_err();
        assert!(
            matches!(error, StoreError::Corrupt { line: 1, .. }),
            "cut at {len}: {error}"
        );
        assert_eq!(
            fs::read(&log).unwrap(),
            &whole[..len],
            "nothing was changed"
        );
    }
}

#[test]
fn a_second_process_is_told_who_holds_the_folder() {
    let (dir, _) = house();
    let first = FileStore::open(dir.path()).unwrap();
    let error = FileStore::open(dir.path()).unwrap_err();
    assert!(
        matches!(error, StoreError::Locked { pid: Some(pid), .. } if pid == std::process::id())
    );
    assert!(
        error.to_string().contains("in use by another process"),
        "{error}"
    );
    drop(first);
    FileStore::open(dir.path()).unwrap();
}

#[cfg(unix)]
#[test]
fn files_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, pepper) = house();
    let folder = dir.path().join("new").join("folder");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    issue(&open(&folder, &pepper));
    assert_eq!(mode(&folder), 0o700);
    for file in ["keys.log", "keys.lock"] {
        assert_eq!(mode(&folder.join(file)), 0o600, "{file}");
    }
    fs::set_permissions(folder.join("keys.log"), fs::Permissions::from_mode(0o644)).unwrap();
    open(&folder, &pepper);
    assert_eq!(mode(&folder.join("keys.log")), 0o600);
}

#[test]
fn the_file_is_compacted_and_nothing_is_lost() {
    let (dir, pepper) = house();
    let log = dir.path().join("keys.log");
    let store = FileStore::open(dir.path()).unwrap();
    let auth = Authenticator::builder()
        .pepper(pepper.clone())
        .store(store)
        .max_keys(20)
        .build()
        .unwrap();
    let kept = issue(&auth);
    let mut shrunk = 0;
    let mut last = 0;
    for _ in 0..600 {
        let issued = issue(&auth);
        auth.revoke(issued.record.id.as_str()).unwrap();
        let len = fs::metadata(&log).unwrap().len();
        shrunk += usize::from(len < last);
        last = len;
    }
    assert!(
        shrunk >= 1,
        "3 lines for each of 600 keys, of which 20 are kept"
    );
    let one_more = issue(&auth);
    drop(auth);
    let auth = open(dir.path(), &pepper);
    assert_eq!(auth.len(), 20);
    for key in [&kept, &one_more] {
        assert!(auth.verify(key.key.expose()).is_ok());
    }
    assert!(!dir.path().join("keys.log.new").exists());
}

#[test]
fn a_crash_in_the_middle_of_compaction_leaves_the_old_file() {
    let (dir, pepper) = house();
    let auth = open(dir.path(), &pepper);
    let kept = issue(&auth);
    drop(auth);
    fs::write(dir.path().join("keys.log.new"), "half a fi").unwrap();
    let auth = open(dir.path(), &pepper);
    assert!(auth.verify(kept.key.expose()).is_ok());
    assert_eq!(auth.verify(user_key().expose()), Err(Rejected::UnknownKey));
}

#[test]
fn the_store_can_be_read_again_while_it_is_open() {
    let (dir, pepper) = house();
    let store = std::sync::Arc::new(FileStore::open(dir.path()).unwrap());
    let auth = Authenticator::builder()
        .pepper(pepper)
        .store(store.clone())
        .build()
        .unwrap();
    let issued = issue(&auth);
    assert_eq!(store.load().unwrap(), [issued.record]);
}

#[test]
fn an_unreadable_folder_is_an_error_with_its_path() {
    let (dir, _) = house();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = FileStore::open(&file).unwrap_err();
    assert!(error.to_string().contains("file"), "{error}");
}

/// The file holds MACs, never keys.
#[test]
fn no_key_is_in_the_file() {
    let (dir, pepper) = house();
    let auth = open(dir.path(), &pepper);
    let issued = issue(&auth);
    let log = fs::read_to_string(dir.path().join("keys.log")).unwrap();
    let text = issued.key.expose();
    let secret = &text[text.len() - 38..text.len() - 6];
    assert!(log.contains(issued.key.id()));
    assert!(!log.contains(secret));
    assert!(!log.contains(&**pepper.expose_hex()));
}
