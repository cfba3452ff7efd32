//! Measures the embedded store on the disk under a folder:
//!
//! ```sh
//! cargo run --release -p spark-auth --example store_figures -- /var/tmp
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for a terminal, whose failure is to panic"
)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use spark_auth::{
    Authenticator, Change, FileStore, KeyRecord, KeyStore, MemoryStore, NewKey, Pepper,
};
use spark_core::{Clock, Name};

fn main() {
    let parent = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    let pepper = Pepper::generate().unwrap();
    for keys in [1_000, 100_000] {
        let dir = tempfile::tempdir_in(&parent).unwrap();
        println!("{keys} keys");
        fill(dir.path(), &pepper, keys);
        open(dir.path(), &pepper, keys);
        change(dir.path(), &pepper);
        size(dir.path());
        // Without a clean close, as after a kill, all is walked through twice.
        let store = FileStore::open(dir.path()).unwrap();
        let file = fs::read(dir.path().join("keys.redb")).unwrap();
        drop(store);
        fs::write(dir.path().join("keys.redb"), file).unwrap();
        println!("  as after a kill:");
        open(dir.path(), &pepper, keys + 200);
    }
    println!("most memory that was used: {} KiB", memory("VmHWM:"));
}

/// The records are kept in sets of a thousand; then enough changes follow to
/// trim those sets, so that the file is as one that has grown key by key.
fn fill(folder: &Path, pepper: &Pepper, keys: usize) {
    let maker = Authenticator::builder()
        .pepper(pepper.clone())
        .store(MemoryStore::new())
        .max_keys(keys)
        .build()
        .unwrap();
    let issue = || {
        let new = NewKey::new(Name::new("acme").unwrap())
            .label("a laptop")
            .tier(Name::new("pro").unwrap())
            .scopes([Name::new("metrics:read").unwrap()]);
        maker.issue(new).unwrap().record
    };
    // One record under many ids: what differs between them is as long as in this one.
    let one = issue();
    let with_id = |number| {
        let mut record = one.clone();
        record.id = Name::new(&format!("{number:012}")).unwrap();
        record
    };
    let mut records: Vec<KeyRecord> = (0..keys).map(with_id).collect();
    let store = FileStore::open(folder).unwrap();
    let put = |record: &KeyRecord| Change::Put(Box::new(record.clone()));
    for part in records.chunks(1_000) {
        store
            .append(&part.iter().map(put).collect::<Vec<_>>())
            .unwrap();
    }
    if keys > 10_000 {
        let clock = Clock::system();
        let start = clock.now();
        for record in &mut records[..10_000] {
            record.revision += 1;
            store.append(&[put(record)]).unwrap();
        }
        each("10,000 changes", start, &clock, 10_000);
    }
}

fn open(folder: &Path, pepper: &Pepper, keys: usize) {
    let clock = Clock::system();
    let (start, before) = (clock.now(), memory("VmRSS:"));
    let store = FileStore::open(folder).unwrap();
    each("  opening the store", start, &clock, 1);
    let start = clock.now();
    let auth = Authenticator::builder()
        .pepper(pepper.clone())
        .store(store)
        .max_keys(200_000)
        .build()
        .unwrap();
    each("  building the authenticator", start, &clock, 1);
    assert_eq!(auth.len(), keys);
    println!(
        "  memory: {before} KiB before, {} KiB now",
        memory("VmRSS:")
    );
}

fn change(folder: &Path, pepper: &Pepper) {
    let clock = Clock::system();
    let auth = Authenticator::builder()
        .pepper(pepper.clone())
        .store(FileStore::open(folder).unwrap())
        .max_keys(200_000)
        .build()
        .unwrap();
    let mut times: Vec<Duration> = (0..200)
        .map(|_| {
            let start = clock.now();
            auth.issue(NewKey::new(Name::new("acme").unwrap())).unwrap();
            clock.now().saturating_duration_since(start)
        })
        .collect();
    times.sort();
    println!(
        "  issue: median {:?}, of 200 the 198th {:?}",
        times[100], times[197]
    );
    let start = clock.now();
    let keys = auth.list();
    for key in keys.iter().rev().take(200) {
        auth.revoke(key.id.as_str()).unwrap();
    }
    each("  200 × revoke", start, &clock, 200);
}

fn size(folder: &Path) {
    let file = fs::metadata(folder.join("keys.redb")).unwrap();
    println!("  keys.redb: {} KiB", file.len() / 1024);
}

fn each(what: &str, start: spark_core::Instant, clock: &Clock, count: u32) {
    let took = clock.now().saturating_duration_since(start);
    println!("  {what}: {took:?}, {:?} each", took / count);
}

/// As Linux tells it; 0 elsewhere.
fn memory(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok())
        .unwrap_or(0)
}
