//! The store on disks that fail, lose power and rot.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use redb::StorageBackend;
use spark_core::Name;

use super::*;
use crate::codec::tests::a_record;
use crate::record::{KeyRecord, KeyState};
use crate::store::check_revisions;

/// A disk with a cache: what was written reaches it at a sync, or by chance before.
#[derive(Clone, Debug, Default)]
struct Disk(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// What is read.
    now: Vec<u8>,
    /// What is on the disk for sure.
    synced: Vec<u8>,
    /// What may be on it.
    pending: Vec<Call>,
    calls: usize,
    fail: Option<(usize, Failure)>,
    /// Set once a call has failed.
    failed: Option<Call>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Failure {
    /// This call alone.
    Once,
    /// This call and all that follow.
    Cut,
}

#[derive(Clone, Debug, PartialEq)]
enum Call {
    Write(usize, Vec<u8>),
    Resize(usize),
    Sync,
}

impl Call {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(at, data) => {
                let end = at + data.len();
                bytes.resize(bytes.len().max(end), 0);
                bytes[*at..end].copy_from_slice(data);
            }
            Self::Resize(len) => bytes.resize(*len, 0),
            Self::Sync => {}
        }
    }

    /// What a failure in the midst of it leaves done.
    fn torn(&self) -> Self {
        match self {
            Self::Write(at, data) => Self::Write(*at, data[..data.len() / 2].to_vec()),
            Self::Resize(_) | Self::Sync => Self::Sync,
        }
    }
}

impl Disk {
    fn with(bytes: &[u8], fail: Option<(usize, Failure)>) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            now: bytes.to_vec(),
            synced: bytes.to_vec(),
            fail,
            ..Inner::default()
        })))
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    fn call(&self, call: Call) -> io::Result<()> {
        let mut inner = self.inner();
        inner.calls += 1;
        let at = inner.calls;
        let fails = match inner.fail {
            Some((from, Failure::Once)) => at == from,
            Some((from, Failure::Cut)) => at >= from,
            None => false,
        };
        let done = if fails { call.torn() } else { call.clone() };
        done.apply(&mut inner.now);
        if fails {
            inner.failed.get_or_insert(call);
            inner.pending.push(done);
            return Err(io::ErrorKind::StorageFull.into());
        }
        if call == Call::Sync {
            inner.synced = inner.now.clone();
            inner.pending.clear();
        } else {
            inner.pending.push(call);
        }
        Ok(())
    }

    /// What may be found after a power cut: nothing of what was not synced, all of it, and some
    /// parts of it.
    fn after_a_power_cut(&self) -> Vec<Vec<u8>> {
        let inner = self.inner();
        let kept = |keeps: &dyn Fn(usize) -> bool, tear: bool| {
            let mut bytes = inner.synced.clone();
            for (at, call) in inner.pending.iter().enumerate() {
                match call {
                    // A length is kept in a journal of the file system: in order, or not at all.
                    call if keeps(at) || matches!(call, Call::Resize(_)) => call.apply(&mut bytes),
                    call if tear => call.torn().apply(&mut bytes),
                    _ => {}
                }
            }
            bytes
        };
        let seed = inner.calls;
        vec![
            kept(&|_| false, false),
            kept(&|_| true, false),
            kept(&|at| at % 2 == seed % 2, false),
            kept(&|at| (at * 7 + seed * 13) % 5 < 2, true),
            // Only what was written last, as the header is.
            kept(&|at| at + 1 >= inner.pending.len(), false),
        ]
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.inner().now.len() as u64)
    }

    fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let inner = self.inner();
        if matches!(
            (&inner.fail, &inner.failed),
            (Some((_, Failure::Cut)), Some(_))
        ) {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let from = usize::try_from(offset).unwrap();
        let part = inner.now.get(from..from + len);
        Ok(part.ok_or(io::ErrorKind::UnexpectedEof)?.to_vec())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.call(Call::Resize(usize::try_from(len).unwrap()))
    }

    fn sync_data(&self, _: bool) -> io::Result<()> {
        self.call(Call::Sync)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.call(Call::Write(usize::try_from(offset).unwrap(), data.to_vec()))
    }
}

fn open_on(disk: &Disk) -> Result<FileStore, StoreError> {
    let disk = disk.clone();
    let reopen = Box::new(move |health| open_disk(disk.clone(), health));
    FileStore::on(PathBuf::from("keys.redb"), None, reopen)
}

fn an_empty_file() -> Vec<u8> {
    let disk = Disk::default();
    tables::make(&tables::open(disk.clone()).unwrap()).unwrap();
    let inner = disk.inner();
    inner.now.clone()
}

/// What a store must hold: the records, and the number of the last change.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    records: BTreeMap<String, KeyRecord>,
    sequence: u64,
}

impl Model {
    fn of(loaded: Loaded) -> Self {
        let unused = |mut record: KeyRecord| {
            record.last_used_at = None;
            (record.id.to_string(), record)
        };
        Self {
            records: loaded.records.into_iter().map(unused).collect(),
            sequence: loaded.sequence,
        }
    }

    fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Put(record) => {
                    let record = KeyRecord::clone(record);
                    self.records.insert(record.id.to_string(), record);
                }
                Change::Forget(id) => {
                    self.records.remove(id.as_str());
                }
            }
        }
        self.sequence += 1;
    }
}

/// Up to ten records, always the same.
fn some_records(count: usize) -> Vec<KeyRecord> {
    static RECORDS: OnceLock<Vec<KeyRecord>> = OnceLock::new();
    let records = RECORDS.get_or_init(|| {
        let mut runner = TestRunner::deterministic();
        let mut record = || {
            let mut record = a_record().new_tree(&mut runner).unwrap().current();
            record.revision = 1;
            record.state = KeyState::Active;
            record
        };
        (0..10).map(|_| record()).collect()
    });
    records[..count].to_vec()
}

fn put(record: &KeyRecord) -> Change {
    Change::Put(Box::new(record.clone()))
}

fn revoked(record: &KeyRecord) -> KeyRecord {
    let mut record = record.clone();
    record.revision += 1;
    let at = Duration::from_millis(1);
    record.state = KeyState::Revoked { at };
    record
}

enum Step {
    Append(Vec<Change>),
    Touch(Name),
}

/// A life of a store: keys are issued, revoked, rotated, used and forgotten, and the oldest changes
/// are trimmed.
fn a_life() -> Vec<Step> {
    let of = some_records(5);
    vec![
        Step::Append(vec![put(&of[0])]),
        Step::Append(vec![put(&of[1]), put(&of[2])]),
        Step::Touch(of[2].id.clone()),
        Step::Append(vec![put(&revoked(&of[0]))]),
        Step::Append(vec![put(&of[3]), put(&revoked(&of[1]))]),
        Step::Touch(of[2].id.clone()),
        Step::Append(vec![Change::Forget(of[0].id.clone())]),
        Step::Append(vec![put(&of[4])]),
    ]
}

/// What the store holds as soon as `step` was acknowledged, or else may hold.
fn found_whole_or_absent(found: &Model, model: &Model, pending: Option<&[Change]>) -> bool {
    let with = pending.map(|changes| {
        let mut with = model.clone();
        with.apply(changes);
        with
    });
    found == model || with.is_some_and(|with| *found == with)
}

#[test]
fn the_power_may_be_cut_at_any_call() {
    let empty = an_empty_file();
    let mut cut_at = 0;
    loop {
        cut_at += 1;
        let disk = Disk::with(&empty, Some((cut_at, Failure::Cut)));
        let mut model = Model::default();
        let mut pending = None;
        if let Ok(store) = open_on(&disk) {
            for step in a_life() {
                match step {
                    Step::Append(changes) => match store.append(&changes) {
                        Ok(_) => model.apply(&changes),
                        Err(_) => {
                            pending = Some(changes);
                            break;
                        }
                    },
                    Step::Touch(id) => {
                        let _ = store.touch(&[(id, Duration::from_millis(5))]);
                    }
                }
            }
        }
        let over = disk.inner().failed.is_none();
        for (way, bytes) in disk.after_a_power_cut().into_iter().enumerate() {
            let store = open_on(&Disk::with(&bytes, None));
            let store = store.unwrap_or_else(|error| panic!("cut at {cut_at}, way {way}: {error}"));
            let found = Model::of(store.load().unwrap());
            assert!(
                found_whole_or_absent(&found, &model, pending.as_deref()),
                "cut at {cut_at}, way {way}: {found:?}\n{model:?}"
            );
            // It goes on from there.
            let next = some_records(7).remove(6);
            assert_eq!(store.append(&[put(&next)]).unwrap(), found.sequence + 1);
        }
        if over {
            break;
        }
    }
    assert!(cut_at > 100, "the life has {cut_at} calls");
}

#[test]
fn any_call_may_fail_once() {
    let empty = an_empty_file();
    let (mut resumed, mut closed) = (0, 0);
    for at in 1.. {
        let disk = Disk::with(&empty, Some((at, Failure::Once)));
        let store = open_on(&disk).or_else(|error| {
            assert!(matches!(error, StoreError::Io { .. }), "call {at}: {error}");
            open_on(&disk)
        });
        let store = store.unwrap();
        let mut model = Model::default();
        let mut uncertain = false;
        for step in a_life() {
            let Step::Append(changes) = step else {
                continue;
            };
            let Err(error) = store.append(&changes) else {
                assert!(!uncertain, "call {at}: accepted after a sync that failed");
                model.apply(&changes);
                continue;
            };
            if disk.inner().failed == Some(Call::Sync) {
                // A sync may fail after the change was kept, too; then it is the next that is told.
                let told = matches!(error, StoreError::Io { .. } | StoreError::Uncertain { .. });
                assert!(told, "call {at}: {error}");
                let again = store.append(&changes).unwrap_err();
                assert!(matches!(again, StoreError::Uncertain { .. }), "{again}");
                for bytes in disk.after_a_power_cut() {
                    let found = Model::of(tables::check(bytes).unwrap());
                    assert!(found_whole_or_absent(&found, &model, Some(&changes)));
                }
                uncertain = true;
                closed += 1;
                break;
            }
            assert!(matches!(error, StoreError::Io { .. }), "call {at}: {error}");
            // It goes on at once. A header that was written in half may have been the half that counts.
            let found = Model::of(store.load().unwrap());
            assert!(
                found_whole_or_absent(&found, &model, Some(&changes)),
                "call {at}"
            );
            if found == model {
                store.append(&changes).unwrap();
            }
            model.apply(&changes);
            resumed += 1;
        }
        if !uncertain {
            // Only the sync after a change may have failed, and nothing since.
            let synced = disk.inner().failed != Some(Call::Sync);
            if synced {
                assert!(Model::of(store.load().unwrap()) == model, "call {at}");
            }
            drop(store);
            let bytes = disk.inner().now.clone();
            assert!(
                Model::of(tables::check(bytes).unwrap()) == model,
                "call {at}"
            );
        }
        if disk.inner().failed.is_none() {
            break;
        }
    }
    assert!(resumed > 10 && closed > 5, "{resumed} {closed}");
}

/// A store with five changes: closed as it should be, and as a crash leaves it.
fn two_files() -> ([Vec<u8>; 2], Model) {
    let disk = Disk::with(&an_empty_file(), None);
    let store = open_on(&disk).unwrap();
    let mut model = Model::default();
    for step in a_life().into_iter().take(5) {
        match step {
            Step::Append(changes) => {
                store.append(&changes).unwrap();
                model.apply(&changes);
            }
            Step::Touch(id) => store.touch(&[(id, Duration::from_millis(5))]).unwrap(),
        }
    }
    let crashed = disk.inner().now.clone();
    drop(store);
    let closed = disk.inner().now.clone();
    ([closed, crashed], model)
}

/// Opens it as a file is opened. Returns whether the damage was noticed.
fn damage_is_noticed_or_harmless(bytes: &[u8], model: &Model, what: &str) -> bool {
    let disk = Disk::with(bytes, None);
    match open_on(&disk) {
        Ok(store) => {
            assert_eq!(Model::of(store.load().unwrap()), *model, "{what}");
            assert_eq!(store.append(&[]).unwrap(), model.sequence + 1, "{what}");
            false
        }
        Err(error) => {
            assert!(
                matches!(error, StoreError::Corrupt { .. }),
                "{what}: {error}"
            );
            assert_eq!(disk.inner().calls, 0, "{what}: something was changed");
            true
        }
    }
}

#[test]
fn any_bit_of_the_header_may_flip() {
    // The first 40 bytes have no checksum.
    let some = (0..320).step_by(3).chain((320..320 * 8).step_by(101));
    flip_bits(&some.collect::<Vec<_>>());
}

#[test]
fn any_page_may_rot_and_any_part_be_cut_off() {
    rot(1_499);
}

#[test]
#[ignore = "thousands of files: minutes; run it with --release"]
fn each_bit_of_the_header_and_each_fifth_byte_may_rot() {
    flip_bits(&(0..320 * 8).collect::<Vec<_>>());
    rot(5);
}

fn flip_bits(bits: &[usize]) {
    let (files, model) = two_files();
    for (which, file) in files.iter().enumerate() {
        let mut noticed = 0;
        for &bit in bits {
            let mut bytes = file.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let what = format!("file {which}, bit {bit}");
            noticed += usize::from(damage_is_noticed_or_harmless(&bytes, &model, &what));
        }
        assert!(noticed > 20, "file {which}: {noticed}");
    }
}

fn rot(step: usize) {
    let (files, model) = two_files();
    for (which, file) in files.iter().enumerate() {
        let mut noticed = 0;
        for at in (320..file.len()).filter(|at| file[*at] != 0).step_by(step) {
            let mut bytes = file.clone();
            bytes[at] ^= 1 << (at % 8);
            let what = format!("file {which}, byte {at}");
            noticed += usize::from(damage_is_noticed_or_harmless(&bytes, &model, &what));
        }
        assert!(noticed > 0, "file {which}: {noticed}");
        let used = |page: &usize| file[page * 4096..][..4096].iter().any(|byte| *byte != 0);
        for page in (0..file.len() / 4096).filter(used) {
            let mut bytes = file.clone();
            bytes[page * 4096..][..4096].fill(0);
            damage_is_noticed_or_harmless(&bytes, &model, &format!("file {which}, page {page}"));
        }
        for len in (0..4096)
            .step_by(8 * step)
            .chain((4096..file.len()).step_by(997 * step))
        {
            let what = format!("file {which} cut at {len}");
            let bytes = file[..len].to_vec();
            // An empty disk is made anew; an empty file is not, see `make_file`.
            if len > 0 {
                damage_is_noticed_or_harmless(&bytes, &model, &what);
            }
        }
    }
}

#[test]
fn old_changes_are_trimmed_and_then_unknown() {
    let store = open_on(&Disk::with(&an_empty_file(), None)).unwrap();
    let all = some_records(10);
    for record in &all {
        store.append(&[put(record)]).unwrap();
    }
    for sequence in 0..10 {
        let changes = store.changes_since(sequence).unwrap();
        if sequence < 10 - tables::HISTORY {
            assert_eq!(changes, Changes::Unknown, "{sequence}");
            continue;
        }
        let at = usize::try_from(sequence).unwrap();
        let changes_after = all[at..].iter().map(put).collect();
        let known = Changes::Known {
            changes: changes_after,
            sequence: 10,
        };
        assert_eq!(changes, known, "{sequence}");
    }
    assert_eq!(store.changes_since(11).unwrap(), Changes::Unknown);
    assert_eq!(store.changes_since(u64::MAX).unwrap(), Changes::Unknown);
}

#[test]
fn a_database_of_another_program_is_refused_as_it_is() {
    let disk = Disk::default();
    let db = tables::open(disk.clone()).unwrap();
    let transaction = db.begin_write().unwrap();
    let table = redb::TableDefinition::<u64, u64>::new("records");
    transaction.open_table(table).unwrap();
    transaction.commit().unwrap();
    drop(db);
    let bytes = disk.inner().now.clone();
    let disk = Disk::with(&bytes, None);
    let error = open_on(&disk).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert_eq!(disk.inner().now, bytes);
}

/// A panic of the database is an error, and the database is opened anew.
#[test]
fn a_panic_is_caught() {
    let store = open_on(&Disk::with(&an_empty_file(), None)).unwrap();
    let one = &some_records(1)[0];
    store.append(&[put(one)]).unwrap();
    let panicked = store.with(&mut store.state(), "read", |db| {
        let _transaction = db.begin_write().unwrap();
        if true {
            panic!("at the {}", "disco");
        }
        Ok(())
    });
    let text = panicked.unwrap_err().to_string();
    assert!(text.contains("at the disco"), "{text}");
    assert_eq!(store.append(&[put(&revoked(one))]).unwrap(), 2);
}

#[test]
fn revisions_are_checked_in_the_transaction() {
    let store = open_on(&Disk::with(&an_empty_file(), None)).unwrap();
    let [one, two] = &some_records(2)[..] else {
        unreachable!()
    };
    store.append(&[put(one)]).unwrap();
    for refused in [
        vec![put(one)],
        vec![put(two), put(one)],
        vec![put(&revoked(two))],
    ] {
        let error = store.append(&refused).unwrap_err();
        assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
    }
    assert!(check_revisions(&[put(&revoked(one))], |_| Ok(1)).is_ok());
    assert_eq!(store.append(&[put(two), put(&revoked(one))]).unwrap(), 2);
    assert_eq!(store.load().unwrap().records.len(), 2);
}
