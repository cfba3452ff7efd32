//! The embedded store as a folder: what is kept, who may read it, who may open it.
#![cfg(feature = "redb")]
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::{name, user_key};
use proptest::prelude::*;
use spark_auth::{
    Authenticator, Change, Changes, FileStore, Issued, KeyRecord, KeyStore, MemoryStore, NewKey,
    Pepper, Rejected, StoreError,
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

/// Records as they are issued, without a store of theirs.
fn records(count: usize) -> Vec<KeyRecord> {
    let auth = Authenticator::builder()
        .pepper(Pepper::generate().unwrap())
        .store(MemoryStore::new())
        .build()
        .unwrap();
    (0..count).map(|_| issue(&auth).record).collect()
}

fn put(record: &KeyRecord) -> Change {
    Change::Put(Box::new(record.clone()))
}

fn sorted(store: &impl KeyStore) -> (Vec<KeyRecord>, u64) {
    let mut loaded = store.load().unwrap();
    loaded.records.sort_by(|a, b| a.id.cmp(&b.id));
    (loaded.records, loaded.sequence)
}

#[test]
fn keys_survive_a_restart_as_they_were_left() {
    let (dir, pepper) = house();
    let auth = open(dir.path(), &pepper);
    let (kept, revoked, rotated) = (issue(&auth), issue(&auth), issue(&auth));
    auth.revoke(revoked.record.id.as_str()).unwrap();
    let successor = auth
        .rotate(rotated.record.id.as_str(), Duration::ZERO)
        .unwrap();
    drop(auth);
    let auth = open(dir.path(), &pepper);
    assert!(auth.verify(kept.key.expose()).is_ok());
    assert!(auth.verify(successor.key.expose()).is_ok());
    assert_eq!(auth.verify(revoked.key.expose()), Err(Rejected::Revoked));
    assert_eq!(auth.verify(rotated.key.expose()), Err(Rejected::Revoked));
    assert_eq!(auth.verify(user_key().expose()), Err(Rejected::UnknownKey));
    assert_eq!(auth.len(), 4);
}

#[derive(Clone, Debug)]
enum Call {
    Put(usize),
    Forget(usize),
    Touch(usize, u64),
    Reopen,
}

fn a_call() -> impl Strategy<Value = Call> {
    prop_oneof![
        4 => (0..4usize).prop_map(Call::Put),
        1 => (0..4usize).prop_map(Call::Forget),
        2 => (0..4usize, 0..100u64).prop_map(|(which, at)| Call::Touch(which, at)),
        1 => Just(Call::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is called, it holds what a store in memory holds, and still does when it is opened
    /// anew.
    #[test]
    fn it_holds_what_a_store_in_memory_holds(calls in prop::collection::vec(a_call(), 1..24)) {
        let dir = tempfile::tempdir().unwrap();
        let mut file = FileStore::open(dir.path()).unwrap();
        let memory = MemoryStore::new();
        let mut all = records(4);
        for call in calls {
            match call {
                Call::Put(which) => {
                    let changes = [put(&all[which])];
                    let told = memory.append(&changes).is_ok();
                    prop_assert_eq!(file.append(&changes).is_ok(), told);
                    all[which].revision += u64::from(told);
                }
                Call::Forget(which) => {
                    let id = all[which].id.clone();
                    memory.append(&[Change::Forget(id.clone())]).unwrap();
                    file.append(&[Change::Forget(id)]).unwrap();
                    all[which].revision = 1;
                }
                Call::Touch(which, at) => {
                    let uses = [(all[which].id.clone(), Duration::from_millis(at))];
                    memory.touch(&uses).unwrap();
                    file.touch(&uses).unwrap();
                }
                Call::Reopen => {
                    drop(file);
                    file = FileStore::open(dir.path()).unwrap();
                }
            }
            prop_assert_eq!(sorted(&file), sorted(&memory));
            let (_, sequence) = sorted(&file);
            for since in [0, sequence / 2, sequence, sequence + 1] {
                let (found, wanted) = (file.changes_since(since), memory.changes_since(since));
                prop_assert_eq!(found.unwrap(), wanted.unwrap());
            }
        }
    }
}

#[test]
fn a_version_that_does_not_follow_is_refused_whole() {
    let (dir, _) = house();
    let store = FileStore::open(dir.path()).unwrap();
    let [one, two] = &records(2)[..] else {
        unreachable!()
    };
    store.append(&[put(one)]).unwrap();
    let error = store.append(&[put(two), put(one)]).unwrap_err();
    assert!(matches!(&error, StoreError::Conflict { id } if *id == one.id));
    assert_eq!(sorted(&store), (vec![one.clone()], 1));
}

#[test]
fn changes_are_known_across_a_restart_and_a_number_to_come_is_not() {
    let (dir, _) = house();
    let store = FileStore::open(dir.path()).unwrap();
    let all = records(3);
    for (at, record) in all.iter().enumerate() {
        assert_eq!(store.append(&[put(record)]).unwrap(), at as u64 + 1);
    }
    drop(store);
    let store = FileStore::open(dir.path()).unwrap();
    let known = Changes::Known {
        changes: vec![put(&all[2])],
        sequence: 3,
    };
    assert_eq!(store.changes_since(2).unwrap(), known);
    assert_eq!(store.changes_since(4).unwrap(), Changes::Unknown);
}

/// As when the folder is put back to what it was while another process remembers more.
#[test]
fn a_restored_backup_does_not_pass_for_what_followed_it() {
    let (dir, _) = house();
    let all = records(2);
    let store = FileStore::open(dir.path()).unwrap();
    store.append(&[put(&all[0])]).unwrap();
    drop(store);
    let backup = fs::read(dir.path().join("keys.redb")).unwrap();
    let store = FileStore::open(dir.path()).unwrap();
    let seen = store.append(&[put(&all[1])]).unwrap();
    drop(store);
    fs::write(dir.path().join("keys.redb"), backup).unwrap();
    let store = FileStore::open(dir.path()).unwrap();
    assert_eq!(store.changes_since(seen).unwrap(), Changes::Unknown);
    assert_eq!(sorted(&store), (vec![all[0].clone()], 1));
}

#[test]
fn the_later_use_is_kept_and_unknown_keys_are_passed_over() {
    let (dir, _) = house();
    let store = FileStore::open(dir.path()).unwrap();
    let one = &records(1)[0];
    store.append(&[put(one)]).unwrap();
    let at = Duration::from_millis;
    for (id, used) in [(&one.id, 7), (&one.id, 5), (&name("abcdefghijkl"), 9)] {
        store.touch(&[(id.clone(), at(used))]).unwrap();
    }
    // A new version of the record keeps it.
    let mut next = one.clone();
    next.revision = 2;
    store.append(&[put(&next)]).unwrap();
    drop(store);
    let store = FileStore::open(dir.path()).unwrap();
    next.last_used_at = Some(at(7));
    assert_eq!(sorted(&store), (vec![next], 2));
}

#[test]
fn a_second_process_is_told_who_holds_the_folder() {
    let (dir, _) = house();
    let first = FileStore::open(dir.path()).unwrap();
    let error = FileStore::open(dir.path()).unwrap_err();
    assert!(
        matches!(error, StoreError::Locked { pid: Some(pid), .. } if pid == std::process::id())
    );
    let text = error.to_string();
    assert!(text.contains("in use by another process"), "{text}");
    drop(first);
    // The file has a lock of its own, for programs that know nothing of ours.
    let file = fs::File::options()
        .read(true)
        .write(true)
        .open(dir.path().join("keys.redb"))
        .unwrap();
    let other = redb::backends::FileBackend::new(file).unwrap();
    let error = FileStore::open(dir.path()).unwrap_err();
    assert!(
        matches!(error, StoreError::Locked { pid: None, .. }),
        "{error}"
    );
    drop(other);
    FileStore::open(dir.path()).unwrap();
}

#[cfg(unix)]
#[test]
fn a11_files_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, pepper) = house();
    let folder = dir.path().join("new").join("folder");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    issue(&open(&folder, &pepper));
    assert_eq!(mode(&folder), 0o700);
    for file in ["keys.redb", "keys.lock"] {
        assert_eq!(mode(&folder.join(file)), 0o600, "{file}");
    }
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
    fs::set_permissions(folder.join("keys.redb"), fs::Permissions::from_mode(0o644)).unwrap();
    open(&folder, &pepper);
    assert_eq!(mode(&folder.join("keys.redb")), 0o600);
}

#[test]
fn a11_what_is_no_key_store_is_refused_as_it_is() {
    let (dir, _) = house();
    let path = dir.path().join("keys.redb");
    drop(FileStore::open(dir.path()).unwrap());
    let whole = fs::read(&path).unwrap();
    let files: [&[u8]; 6] = [
        b"",
        b"something else\n",
        &[0; 9_000],
        &whole[..4],
        &whole[..400],
        &whole[..whole.len() - 1],
    ];
    for file in files {
        fs::write(&path, file).unwrap();
        let error = FileStore::open(dir.path()).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
        let text = error.to_string();
        assert!(
            text.contains("keys.redb") && text.contains("backup"),
            "{text}"
        );
        assert_eq!(fs::read(&path).unwrap(), file, "something was changed");
    }
    fs::write(&path, whole).unwrap();
    FileStore::open(dir.path()).unwrap();
}

#[cfg(unix)]
#[test]
fn a_folder_in_the_place_of_the_file_keeps_its_permissions() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("keys.redb");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(FileStore::open(dir.path()).is_err());
    let mode = fs::metadata(&folder).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
}

#[test]
fn a_crash_while_the_file_is_made_leaves_nothing_in_the_way() {
    let (dir, pepper) = house();
    fs::write(dir.path().join("keys.redb.new"), "half a fi").unwrap();
    let kept = issue(&open(dir.path(), &pepper));
    assert!(open(dir.path(), &pepper).verify(kept.key.expose()).is_ok());
    assert!(!dir.path().join("keys.redb.new").exists());
}

#[test]
fn the_store_can_be_read_again_while_it_is_open() {
    let (dir, pepper) = house();
    let store = Arc::new(FileStore::open(dir.path()).unwrap());
    let auth = Authenticator::builder()
        .pepper(pepper)
        .store(store.clone())
        .build()
        .unwrap();
    let issued = issue(&auth);
    assert_eq!(sorted(&*store), (vec![issued.record], 1));
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
    drop(auth);
    let file = fs::read(dir.path().join("keys.redb")).unwrap();
    let holds = |text: &str| file.windows(text.len()).any(|part| part == text.as_bytes());
    let text = issued.key.expose();
    assert!(holds(issued.key.id()));
    assert!(!holds(&text[text.len() - 38..text.len() - 6]));
    assert!(!holds(&pepper.expose_hex()));
}
