//! What is in the database, and the transactions on it.

use std::collections::HashMap;
use std::time::Duration;

use redb::{Builder, Database, Durability, ReadableTable, StorageBackend, TableDefinition};
use spark_core::Name;

use super::disk::Memory;
use super::fault::Fault;
use crate::codec;
use crate::record::KeyRecord;
use crate::store::{Change, Changes, Loaded, check_revisions};

/// The latest version of each record, by its id.
const RECORDS: TableDefinition<'_, &str, &str> = TableDefinition::new("records");
/// The last sets of changes, by their sequence.
const CHANGES: TableDefinition<'_, u64, &str> = TableDefinition::new("changes");
/// When a key was last used, in milliseconds since 1970, by its id.
const USED: TableDefinition<'_, &str, u64> = TableDefinition::new("used");

/// How many sets of changes are kept.
pub(super) const HISTORY: u64 = if cfg!(test) { 4 } else { 10_000 };
/// What the database may hold in memory. All keys are in memory anyway, so nothing is read twice.
const CACHE: usize = 4 << 20;
const MAGIC: &[u8] = b"redb\x1a\x0a\xa9\x0d\x0a";
/// Where a file says that it was not closed, and by which bit.
const NOT_CLOSED: (usize, u8) = (9, 2);

/// A database on this disk; on an empty one it is made, without tables.
pub(super) fn open(disk: impl StorageBackend) -> Result<Database, Fault> {
    let mut builder = Builder::new();
    builder
        .create_with_file_format_v3(true)
        .set_cache_size(CACHE);
    builder.create_with_backend(disk).map_err(Fault::of)
}

/// Makes the tables.
pub(super) fn make(db: &Database) -> Result<(), Fault> {
    let transaction = db.begin_write().map_err(Fault::of)?;
    transaction.open_table(RECORDS).map_err(Fault::of)?;
    transaction.open_table(CHANGES).map_err(Fault::of)?;
    transaction.open_table(USED).map_err(Fault::of)?;
    transaction.commit().map_err(Fault::of)
}

/// Reads a file's bytes, and checks every checksum and every record in them.
pub(super) fn check(mut file: Vec<u8>) -> Result<Loaded, Fault> {
    if !file.starts_with(MAGIC) {
        let problem = "it does not begin like a database of redb";
        return Err(Fault::Damaged(problem.to_owned()));
    }
    // The database looks at the checksums of its header only where it expects a crash.
    if let Some(flags) = file.get_mut(NOT_CLOSED.0) {
        *flags |= NOT_CLOSED.1;
    }
    let mut db = open(Memory::of(file))?;
    db.check_integrity().map_err(Fault::of)?;
    load(&db)
}

pub(super) fn load(db: &Database) -> Result<Loaded, Fault> {
    let transaction = db.begin_read().map_err(Fault::of)?;
    let records = transaction.open_table(RECORDS).map_err(Fault::of)?;
    let used = transaction.open_table(USED).map_err(Fault::of)?;
    let changes = transaction.open_table(CHANGES).map_err(Fault::of)?;
    let mut loaded = Loaded {
        records: Vec::new(),
        sequence: last(&changes)?,
    };
    for row in records.iter().map_err(Fault::of)? {
        let (id, text) = row.map_err(Fault::of)?;
        let mut record = decode(id.value(), text.value())?;
        let at = used.get(id.value()).map_err(Fault::of)?;
        record.last_used_at = at.map(|at| Duration::from_millis(at.value()));
        loaded.records.push(record);
    }
    Ok(loaded)
}

/// Keeps the changes, all or none; on return they are on the disk.
pub(super) fn append(db: &Database, changes: &[Change]) -> Result<u64, Fault> {
    // Immediate durability is the default: commit returns after the sync.
    let transaction = db.begin_write().map_err(Fault::of)?;
    let sequence = {
        let mut records = transaction.open_table(RECORDS).map_err(Fault::of)?;
        let mut used = transaction.open_table(USED).map_err(Fault::of)?;
        let mut history = transaction.open_table(CHANGES).map_err(Fault::of)?;
        let kept = revisions(&records, changes)?;
        check_revisions(changes, |id| Ok(kept.get(id).copied().unwrap_or(0)))?;
        for change in changes {
            match change {
                Change::Put(record) => {
                    let text = record.encode();
                    let insert = records.insert(record.id.as_str(), text.as_str());
                    insert.map_err(Fault::of)?;
                }
                Change::Forget(id) => {
                    records.remove(id.as_str()).map_err(Fault::of)?;
                    used.remove(id.as_str()).map_err(Fault::of)?;
                }
            }
        }
        let sequence = last(&history)? + 1;
        let text = codec::encode_changes(changes);
        (history.insert(sequence, text.as_str())).map_err(Fault::of)?;
        if let Some(old) = sequence.checked_sub(HISTORY) {
            (history.retain_in(..=old, |_, _| false)).map_err(Fault::of)?;
        }
        sequence
    };
    transaction.commit().map_err(Fault::of)?;
    Ok(sequence)
}

/// Commits nothing, so that both of the two roots which the database keeps lead to the last changes.
///
/// Which of them is in force is one bit of the file that no checksum covers, and a root that turns
/// out damaged is passed over for the other without a word: neither may bring a revoked key back.
pub(super) fn settle(db: &Database) -> Result<(), Fault> {
    let transaction = db.begin_write().map_err(Fault::of)?;
    transaction.commit().map_err(Fault::of)
}

pub(super) fn changes_since(db: &Database, sequence: u64) -> Result<Changes, Fault> {
    let transaction = db.begin_read().map_err(Fault::of)?;
    let history = transaction.open_table(CHANGES).map_err(Fault::of)?;
    let latest = last(&history)?;
    let oldest = history.first().map_err(Fault::of)?;
    let oldest = oldest.map_or(1, |(at, _)| at.value());
    // A number that is yet to come was given by a store that is no more, as before a backup was
    // put in its place.
    if sequence > latest || sequence.saturating_add(1) < oldest {
        return Ok(Changes::Unknown);
    }
    let mut changes = Vec::new();
    for row in history.range(sequence + 1..).map_err(Fault::of)? {
        let (at, text) = row.map_err(Fault::of)?;
        let set = codec::decode_changes(text.value());
        changes.extend(set.map_err(|error| damaged("change", at.value(), &error))?);
    }
    Ok(Changes::Known {
        changes,
        sequence: latest,
    })
}

/// Notes uses; a crash of the machine may lose them.
pub(super) fn touch(db: &Database, uses: &[(Name, Duration)]) -> Result<(), Fault> {
    let mut transaction = db.begin_write().map_err(Fault::of)?;
    // Not `None`: such commits alone would make the file grow for as long as no key changes.
    transaction.set_durability(Durability::Eventual);
    let mut changed = false;
    {
        let records = transaction.open_table(RECORDS).map_err(Fault::of)?;
        let mut used = transaction.open_table(USED).map_err(Fault::of)?;
        for (id, at) in uses {
            let id = id.as_str();
            let at = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
            let known = used.get(id).map_err(Fault::of)?.map(|known| known.value());
            if known < Some(at) && records.get(id).map_err(Fault::of)?.is_some() {
                used.insert(id, at).map_err(Fault::of)?;
                changed = true;
            }
        }
    }
    if changed {
        transaction.commit().map_err(Fault::of)
    } else {
        transaction.abort().map_err(Fault::of)
    }
}

/// The revisions of those records that are to be replaced.
fn revisions(
    records: &impl ReadableTable<&'static str, &'static str>,
    changes: &[Change],
) -> Result<HashMap<Name, u64>, Fault> {
    let mut kept = HashMap::new();
    for change in changes {
        if let Change::Put(record) = change
            && let Some(text) = records.get(record.id.as_str()).map_err(Fault::of)?
        {
            let revision = decode(record.id.as_str(), text.value())?.revision;
            kept.insert(record.id.clone(), revision);
        }
    }
    Ok(kept)
}

fn last(history: &impl ReadableTable<u64, &'static str>) -> Result<u64, Fault> {
    let last = history.last().map_err(Fault::of)?;
    Ok(last.map_or(0, |(sequence, _)| sequence.value()))
}

fn decode(id: &str, text: &str) -> Result<KeyRecord, Fault> {
    let record = KeyRecord::decode(text).map_err(|error| damaged("record", id, &error))?;
    if record.id.as_str() == id {
        Ok(record)
    } else {
        Err(damaged("record", id, &"it has the id of another"))
    }
}

fn damaged(what: &str, which: impl std::fmt::Display, why: &dyn std::fmt::Display) -> Fault {
    Fault::Damaged(format!("{what} {which}: {why}"))
}
