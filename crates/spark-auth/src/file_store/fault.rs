//! What can go wrong in the database, and what is said of it.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::error::StoreError;

/// Why something was not done, before it is known to which file.
#[derive(Debug)]
pub(super) enum Fault {
    Io(io::Error),
    /// Another process has the database open.
    Open,
    Damaged(String),
    Refused(StoreError),
}

impl Fault {
    /// The error for whoever asked to have `action` done to `path`.
    pub(super) fn at(self, action: &'static str, path: &Path) -> StoreError {
        let path = path.to_owned();
        match self {
            Self::Io(source) => StoreError::Io {
                action,
                path,
                source,
            },
            Self::Open => StoreError::Locked { path, pid: None },
            Self::Damaged(problem) => StoreError::Corrupt { path, problem },
            Self::Refused(error) => error,
        }
    }

    /// For `map_err` on each of the database's error types.
    pub(super) fn of(error: impl Into<redb::Error>) -> Self {
        match error.into() {
            redb::Error::Io(error) => error.into(),
            redb::Error::DatabaseAlreadyOpen => Self::Open,
            error @ redb::Error::PreviousIo => Self::Io(io::Error::other(error)),
            error => Self::Damaged(error.to_string()),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Damaged("it ends too early".to_owned()),
            _ => Self::Io(error),
        }
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Refused(error)
    }
}

/// Does it, and turns a panic into an error: on pages that are damaged in ways which it does not
/// check, the database panics. What `act` owns is dropped while the panic unwinds, and a database
/// writes nothing then.
pub(super) fn caught<T>(act: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|panic| {
        let problem = format!("the database panicked: {}", words(&*panic));
        Err(Fault::Damaged(problem))
    })
}

fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without a word")
}
