//! The embedded store: a folder with one append-only file.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fs4::TryLockError;

use crate::error::StoreError;
use crate::journal::{self, Fault, Replayed};
use crate::record::KeyRecord;
use crate::secret_file;
use crate::store::{Change, Changes, KeyStore, Loaded};
use spark_core::Name;

/// A file with fewer lines than this is never rewritten.
const COMPACT_FROM: usize = 1024;

/// Keys in a folder of this machine, for one process at a time.
///
/// `keys.log` holds one line per change, each with its checksum. A change is on the disk when
/// [`append`](KeyStore::append) returns. After a crash, a half-written last line is dropped: nobody
/// was told that it was kept. Any other damage stops the start with the number of the line, since
/// it may hide a revocation. When most lines are outdated the file is rewritten and put in place
/// by one rename. `keys.lock` is locked while the store is open, and holds the process id.
///
/// # Example
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let folder = dir.path();
/// use spark_auth::{Authenticator, FileStore, NewKey, Pepper, StoreError};
/// # use spark_core::Name;
/// let pepper = Pepper::generate()?;
/// let store = FileStore::open(folder)?;
/// assert!(matches!(FileStore::open(folder), Err(StoreError::Locked { .. })));
///
/// let auth = Authenticator::builder().pepper(pepper.clone()).store(store).build()?;
/// let key = auth.issue(NewKey::new(Name::new("acme")?))?.key;
/// drop(auth);
///
/// let store = FileStore::open(folder)?;
/// let auth = Authenticator::builder().pepper(pepper).store(store).build()?;
/// assert!(auth.verify(key.expose()).is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct FileStore {
    path: PathBuf,
    writer: Mutex<Writer>,
    /// Held, never read: closing it frees the folder.
    _lock: File,
}

struct Writer {
    file: File,
    lines: usize,
    len: u64,
    /// At how many lines the file may be worth rewriting.
    look_again_at: usize,
    /// Set when a write failed such that the disk may hold more than what was acknowledged.
    uncertain: bool,
    /// What was read at the start, until it is asked for.
    loaded: Option<Vec<KeyRecord>>,
}

impl FileStore {
    /// Opens the folder, or makes it, and mends what a crash left.
    ///
    /// # Errors
    /// [`StoreError::Locked`] while another process has it open, [`StoreError::Corrupt`] with the
    /// line when the file is damaged, [`StoreError::Io`] when the operating system refuses.
    ///
    /// # Example
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let store = spark_auth::FileStore::open(dir.path().join("spark-data"))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, StoreError> {
        let folder = folder.as_ref();
        make_folder(folder).map_err(io_error("make the folder", folder))?;
        let lock = lock(folder)?;
        let path = folder.join("keys.log");
        let file = open_file(&path)?;
        let found = read(&path)?;
        let mut writer = Writer::after(file, &found);
        writer.mend(&found).map_err(io_error("mend", &path))?;
        writer.tidy(&path, &found);
        writer.loaded = Some(found.records.into_values().collect());
        Ok(Self {
            path,
            writer: Mutex::new(writer),
            _lock: lock,
        })
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Shows none of the keys.
impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileStore")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl KeyStore for FileStore {
    fn load(&self) -> Result<Loaded, StoreError> {
        let mut writer = self.writer();
        let records = match writer.loaded.take() {
            Some(records) => records,
            None => read(&self.path)?.records.into_values().collect(),
        };
        Ok(Loaded {
            records,
            sequence: 0,
        })
    }

    fn changes_since(&self, _: u64) -> Result<Changes, StoreError> {
        Ok(Changes::Unknown)
    }

    fn touch(&self, _: &[(Name, std::time::Duration)]) -> Result<(), StoreError> {
        Ok(())
    }

    fn append(&self, changes: &[Change]) -> Result<u64, StoreError> {
        let line = journal::line(changes);
        if line.len() >= journal::MAX_LINE {
            return Err(StoreError::TooLarge {
                len: line.len(),
                limit: journal::MAX_LINE - 1,
            });
        }
        let mut writer = self.writer();
        writer.loaded = None;
        if writer.uncertain {
            let path = self.path.clone();
            return Err(StoreError::Uncertain { path });
        }
        writer
            .append(&line)
            .map_err(io_error("write", &self.path))?;
        if writer.lines >= writer.look_again_at {
            // Counting what is alive means reading the file, so it is done at every doubling only.
            match read(&self.path) {
                Ok(found) => writer.tidy(&self.path, &found),
                Err(error) => tracing::error!(%error, "the key file cannot be read back"),
            }
        }
        Ok(0)
    }
}

impl Writer {
    fn after(file: File, found: &Replayed) -> Self {
        Self {
            file,
            lines: found.lines,
            len: found.sound,
            look_again_at: COMPACT_FROM,
            uncertain: false,
            loaded: None,
        }
    }

    /// Cuts off a torn line, and ends one that lacks only its line end.
    fn mend(&mut self, found: &Replayed) -> io::Result<()> {
        if found.torn > 0 {
            tracing::warn!(
                bytes = found.torn,
                "the key file ends in a line that was never finished, as after a crash; dropping it"
            );
            self.file.set_len(found.sound)?;
            self.file.sync_all()?;
        }
        if found.unended {
            self.file.write_all(b"\n")?;
            self.file.sync_all()?;
            self.len += 1;
        }
        Ok(())
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all(line) {
            // A disk that is full takes half a line: take it back, and go on once there is room.
            let taken_back = self
                .file
                .set_len(self.len)
                .and_then(|()| self.file.sync_all());
            self.uncertain = taken_back.is_err();
            return Err(error);
        }
        if let Err(error) = self.file.sync_data() {
            // After a failed sync nobody can say what the disk holds, nor does a second one tell.
            let _ = self.file.set_len(self.len);
            self.uncertain = true;
            return Err(error);
        }
        self.lines += 1;
        self.len += line.len() as u64;
        Ok(())
    }

    /// Rewrites the file when more than half of it is outdated.
    fn tidy(&mut self, path: &Path, found: &Replayed) {
        if self.lines >= COMPACT_FROM.max(found.records.len().saturating_mul(2)) {
            self.compact(path, found);
        }
        self.look_again_at = COMPACT_FROM.max(self.lines.saturating_mul(2));
    }

    /// Rewrites the file. When that fails the old one stands, whole, and goes on being used.
    fn compact(&mut self, path: &Path, found: &Replayed) {
        let mut written = (0, 0);
        let replaced = secret_file::replace(path, |file| {
            written = journal::write(file, &found.records)?;
            Ok(())
        });
        match replaced {
            Ok(file) => {
                self.file = file;
                (self.lines, self.len) = written;
            }
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "the key file was not compacted");
                // The rename may have happened although the folder was not synced: whoever writes
                // on must write to the file that now has the name.
                match append_to(path) {
                    Ok((file, len)) if len == written.1 => {
                        self.file = file;
                        (self.lines, self.len) = written;
                    }
                    Ok((_, len)) if len == self.len => {}
                    _ => self.uncertain = true,
                }
            }
        }
    }
}

fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    // Each folder that is made is a name in the one above, which is lost unless that one is synced.
    let made: Vec<_> = (folder.ancestors())
        .take_while(|it| !it.as_os_str().is_empty() && !it.is_dir())
        .collect();
    builder.create(folder)?;
    made.into_iter().try_for_each(secret_file::sync_folder_of)
}

fn lock(folder: &Path) -> Result<File, StoreError> {
    let path = folder.join("keys.lock");
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let open = secret_file::private(&mut options).open(&path);
    let mut file = open.map_err(io_error("open", &path))?;
    match fs4::FileExt::try_lock(&file) {
        Ok(()) => {
            // The process id only helps whoever reads the error; without it the lock still holds.
            let _ = file.set_len(0);
            let _ = write!(file, "{}", std::process::id());
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let _ = file.take(16).read_to_string(&mut text);
            Err(StoreError::Locked {
                path: folder.to_owned(),
                pid: text.trim().parse().ok(),
            })
        }
        Err(TryLockError::Error(error)) => Err(io_error("lock", &path)(error)),
    }
}

/// Opens the file for appending; a missing or empty one is made.
fn open_file(path: &Path) -> Result<File, StoreError> {
    match append_to(path) {
        Ok((file, 1..)) => {
            if secret_file::is_open_to_others(&file) {
                tracing::warn!(path = %path.display(), "the key file was open to others; closing it");
                secret_file::close_to_others(&file).map_err(io_error("protect", path))?;
            }
            return Ok(file);
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io_error("open", path)(error));
        }
        Ok((_, 0)) | Err(_) => {}
    }
    let fresh = Replayed::default();
    secret_file::replace(path, |file| journal::write(file, &fresh.records).map(drop))
        .map_err(io_error("make", path))
}

fn append_to(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().read(true).append(true).open(path)?;
    let len = file.metadata()?.len();
    Ok((file, len))
}

fn read(path: &Path) -> Result<Replayed, StoreError> {
    let file = File::open(path).map_err(io_error("open", path))?;
    journal::replay(io::BufReader::with_capacity(64 * 1024, file)).map_err(|fault| match fault {
        Fault::Io(error) => io_error("read", path)(error),
        Fault::Line { line, problem } => StoreError::Corrupt {
            path: path.to_owned(),
            line,
            problem,
        },
    })
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io {
        action,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_write_that_cannot_be_taken_back_nothing_more_is_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::open(dir.path()).unwrap();
        // A handle without the right to write: writing fails, and so does cutting back.
        store.writer().file = File::open(&store.path).unwrap();
        let first = store.append(&[]).unwrap_err();
        assert!(
            matches!(
                first,
                StoreError::Io {
                    action: "write",
                    ..
                }
            ),
            "{first}"
        );
        let second = store.append(&[]).unwrap_err();
        assert!(matches!(second, StoreError::Uncertain { .. }), "{second}");
        drop(store);
        FileStore::open(dir.path()).unwrap().append(&[]).unwrap();
    }

    #[test]
    fn a_set_of_changes_that_could_not_be_read_back_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::open(dir.path()).unwrap();
        let id = spark_core::Name::new("abcdefghijkl").unwrap();
        let many = vec![Change::Forget(id); 60_000];
        assert!(matches!(
            store.append(&many),
            Err(StoreError::TooLarge { .. })
        ));
        assert!(store.load().unwrap().is_empty());
    }
}
