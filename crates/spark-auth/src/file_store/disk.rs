//! What lies below the database: the file, whose failures are noted, and a copy of it in memory.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use redb::StorageBackend;

/// What has failed below an open database.
#[derive(Clone, Debug, Default)]
pub(super) struct Health(Arc<Failed>);

#[derive(Debug, Default)]
struct Failed {
    any: AtomicBool,
    sync: AtomicBool,
}

impl Health {
    /// After any failure a database does nothing more until it is opened anew.
    pub(super) fn has_failed(&self) -> bool {
        self.0.any.load(Ordering::Acquire)
    }

    pub(super) fn has_failed_to_sync(&self) -> bool {
        self.0.sync.load(Ordering::Acquire)
    }

    fn note<T>(&self, outcome: io::Result<T>) -> io::Result<T> {
        if outcome.is_err() {
            self.0.any.store(true, Ordering::Release);
        }
        outcome
    }
}

/// A disk whose failures are noted.
#[derive(Debug)]
pub(super) struct Watched<B> {
    pub(super) disk: B,
    pub(super) health: Health,
}

impl<B: StorageBackend> StorageBackend for Watched<B> {
    fn len(&self) -> io::Result<u64> {
        self.health.note(self.disk.len())
    }

    fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.health.note(self.disk.read(offset, len))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.health.note(self.disk.set_len(len))
    }

    fn sync_data(&self, eventual: bool) -> io::Result<()> {
        let synced = self.disk.sync_data(eventual);
        if synced.is_err() {
            self.health.0.sync.store(true, Ordering::Release);
        }
        self.health.note(synced)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.health.note(self.disk.write(offset, data))
    }
}

/// Bytes in memory: a copy of a file, to look at it without changing it.
#[derive(Debug, Default)]
pub(super) struct Memory(RwLock<Vec<u8>>);

impl Memory {
    pub(super) fn of(bytes: Vec<u8>) -> Self {
        Self(RwLock::new(bytes))
    }

    fn bytes(&self) -> RwLockReadGuard<'_, Vec<u8>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StorageBackend for Memory {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes().len() as u64)
    }

    fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let bytes = self.bytes();
        let from = usize::try_from(offset).ok();
        let part = from.and_then(|from| bytes.get(from..)?.get(..len));
        Ok(part.ok_or(io::ErrorKind::UnexpectedEof)?.to_vec())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let mut bytes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        bytes.resize(len, 0);
        Ok(())
    }

    fn sync_data(&self, _: bool) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut bytes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let from = usize::try_from(offset).ok();
        let part = from.and_then(|from| bytes.get_mut(from..)?.get_mut(..data.len()));
        part.ok_or(io::ErrorKind::UnexpectedEof)?
            .copy_from_slice(data);
        Ok(())
    }
}
