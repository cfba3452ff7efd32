//! The embedded store: a folder with one database file.

mod disk;
mod fault;
mod tables;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redb::backends::FileBackend;
use redb::{Database, DatabaseError, StorageBackend};
use spark_core::Name;

use self::disk::{Health, Watched};
use self::fault::{Fault, caught};
use crate::error::StoreError;
use crate::secret_file;
use crate::store::{Change, Changes, KeyStore, Loaded};

/// Keys in a folder of this machine, for one process at a time.
///
/// `keys.redb` is a database of [redb](https://docs.rs/redb). A change is on the disk when
/// [`append`](KeyStore::append) returns. After a crash each change is there whole or not at all.
/// Damage stops the start, and the file is left as it was found. `keys.lock` is locked while the
/// store is open, and holds the process id.
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
    state: Mutex<State>,
    reopen: Reopen,
    /// Held, never used: dropping it frees the folder.
    _lock: Option<FileBackend>,
}

/// Opens the file, now and after a failure.
type Reopen = Box<dyn Fn(Health) -> Result<(Database, Loaded), Fault> + Send + Sync>;

struct State {
    /// None after a failure, until it is opened anew.
    db: Option<Database>,
    health: Health,
    /// What was read at the start, until it is asked for.
    loaded: Option<Loaded>,
}

impl FileStore {
    /// Opens the folder, or makes it, checks all that the file holds, and mends what a crash left.
    ///
    /// # Errors
    /// [`StoreError::Locked`] while another process has it open, [`StoreError::Corrupt`] when the
    /// file is damaged or another program's, [`StoreError::Io`] when the operating system refuses.
    ///
    /// # Example
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let store = spark_auth::FileStore::open(dir.path().join("spark-data"))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, StoreError> {
        let folder = folder.as_ref();
        make_folder(folder).map_err(|error| Fault::from(error).at("make the folder", folder))?;
        let lock = lock(folder)?;
        let path = folder.join("keys.redb");
        make_file(&path).map_err(|fault| fault.at("make", &path))?;
        let file = path.clone();
        Self::on(
            path,
            Some(lock),
            Box::new(move |health| open(&file, health)),
        )
    }

    fn on(path: PathBuf, lock: Option<FileBackend>, reopen: Reopen) -> Result<Self, StoreError> {
        let health = Health::default();
        let opened = caught(|| reopen(health.clone()));
        let (db, loaded) = opened.map_err(|fault| fault.at("open", &path))?;
        Ok(Self {
            path,
            state: Mutex::new(State {
                db: Some(db),
                health,
                loaded: Some(loaded),
            }),
            reopen,
            _lock: lock,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the database, which is opened anew where it has failed before.
    fn with<T>(
        &self,
        state: &mut State,
        action: &'static str,
        act: impl FnOnce(&Database) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let db = match state.db.take() {
            Some(db) => db,
            None if state.health.has_failed_to_sync() => {
                let path = self.path.clone();
                return Err(StoreError::Uncertain { path });
            }
            None => {
                state.health = Health::default();
                let opened = caught(|| (self.reopen)(state.health.clone()));
                opened.map_err(|fault| fault.at("open", &self.path))?.0
            }
        };
        let health = &state.health;
        let done = caught(move || {
            let done = act(&db);
            // Dropped in here, where a panic of it is caught too.
            let sound = !health.has_failed() && !matches!(done, Err(Fault::Damaged(_)));
            Ok((done, sound.then_some(db)))
        });
        let done = done.and_then(|(done, db)| {
            state.db = db;
            done
        });
        done.map_err(|fault| fault.at(action, &self.path))
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
        let mut state = self.state();
        match state.loaded.take() {
            Some(loaded) => Ok(loaded),
            None => self.with(&mut state, "read", tables::load),
        }
    }

    fn append(&self, changes: &[Change]) -> Result<u64, StoreError> {
        let mut state = self.state();
        state.loaded = None;
        self.with(&mut state, "write", |db| {
            let sequence = tables::append(db, changes)?;
            if let Err(fault) = tables::settle(db) {
                // The changes are on the disk, so this is no reason to say that they are not.
                let error = fault.at("write", &self.path);
                tracing::error!(%error, "the key store failed after a change was kept");
            }
            Ok(sequence)
        })
    }

    fn changes_since(&self, sequence: u64) -> Result<Changes, StoreError> {
        self.with(&mut self.state(), "read", |db| {
            tables::changes_since(db, sequence)
        })
    }

    fn touch(&self, uses: &[(Name, Duration)]) -> Result<(), StoreError> {
        let mut state = self.state();
        state.loaded = None;
        self.with(&mut state, "write", |db| tables::touch(db, uses))
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

/// The database locks its own file too. This lock is held while that file is made as well, and
/// says by whom.
fn lock(folder: &Path) -> Result<FileBackend, StoreError> {
    let path = folder.join("keys.lock");
    let locked = || {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = secret_file::private(&mut options).open(&path)?;
        Ok((file.try_clone()?, FileBackend::new(file)))
    };
    let (mut file, lock) =
        locked().map_err(|error: io::Error| Fault::from(error).at("open", &path))?;
    match lock {
        Ok(lock) => {
            // The process id only helps whoever reads the error; without it the lock still holds.
            let _ = file.set_len(0);
            let _ = write!(file, "{}", std::process::id());
            Ok(lock)
        }
        Err(DatabaseError::DatabaseAlreadyOpen) => {
            let mut text = String::new();
            let _ = file.take(16).read_to_string(&mut text);
            Err(StoreError::Locked {
                path: folder.to_owned(),
                pid: text.trim().parse().ok(),
            })
        }
        Err(error) => Err(Fault::of(error).at("lock", &path)),
    }
}

/// Makes the file where there is none. An empty one is not made anew: it may be what is left of
/// one with keys.
fn make_file(path: &Path) -> Result<(), Fault> {
    match File::open(path) {
        Ok(file) => {
            // A folder of that name is not ours, and cannot be opened below.
            if file.metadata()?.is_file() && secret_file::is_open_to_others(&file) {
                tracing::warn!(path = %path.display(), "the key file was open to others; closing it");
                secret_file::close_to_others(&file)?;
            }
            Ok(())
        }
        // A crash in the middle of it leaves no file, or one with its tables.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            secret_file::replace(path, |file| {
                let disk = FileBackend::new(file.try_clone()?).map_err(Fault::of)?;
                tables::make(&tables::open(disk)?)
            })
        }
        Err(error) => Err(error.into()),
    }
}

/// Checks a copy of the file in memory, so that the file itself is touched only where it is sound.
fn open(path: &Path, health: Health) -> Result<(Database, Loaded), Fault> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let disk = FileBackend::new(file).map_err(Fault::of)?;
    open_disk(disk, health)
}

fn open_disk(disk: impl StorageBackend, health: Health) -> Result<(Database, Loaded), Fault> {
    let len = usize::try_from(disk.len()?).map_err(io::Error::other)?;
    let loaded = tables::check(disk.read(0, len)?)?;
    let db = tables::open(Watched { disk, health })?;
    Ok((db, loaded))
}
