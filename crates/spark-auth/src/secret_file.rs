//! Files that only their owner may read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// A secret is a line or two; whatever is longer is another file.
const MAX_LEN: u64 = 64 * 1024;

/// Writes `text` to a file that only its owner may read (mode 0600 on Unix), so that a crash
/// leaves either the old content or the new: for the pepper, and for a generated master key.
///
/// # Errors
/// Whatever the file system says.
///
/// # Example
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("pepper");
/// use spark_auth::{Pepper, read_secret_file, write_secret_file};
/// let pepper = Pepper::generate()?;
/// write_secret_file(&path, &pepper.expose_hex())?;
/// assert_eq!(Pepper::parse_hex(&read_secret_file(&path)?)?.id(), pepper.id());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write_secret_file(path: impl AsRef<Path>, text: &str) -> io::Result<()> {
    replace(path.as_ref(), |file| {
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")
    })
}

/// Reads a file that holds one secret, without the blanks and line ends around it. Warns when
/// others than its owner may read it.
///
/// # Errors
/// Whatever the file system says, and `InvalidData` when the file is larger than 64 KiB or not
/// UTF-8.
///
/// # Example
/// ```
/// assert!(spark_auth::read_secret_file("/nowhere/at/all").is_err());
/// ```
pub fn read_secret_file(path: impl AsRef<Path>) -> io::Result<Zeroizing<String>> {
    let path = path.as_ref();
    let file = File::open(path)?;
    if is_open_to_others(&file) {
        tracing::warn!(
            path = %path.display(),
            "a file with a secret can be read by others than its owner: chmod 600 it"
        );
    }
    // Reserved in full beforehand: growing would leave parts of the secret in freed memory.
    let room = file.metadata()?.len().min(MAX_LEN) + 1;
    let mut text = Zeroizing::new(String::with_capacity(usize::try_from(room).unwrap_or(0)));
    if file.take(MAX_LEN + 1).read_to_string(&mut text)? as u64 > MAX_LEN {
        let problem = "the file is larger than any secret";
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    }
    Ok(Zeroizing::new(text.trim().to_owned()))
}

/// Writes a new file beside `path` and puts it in its place. On return it would survive a power
/// cut.
pub(crate) fn replace<E: From<io::Error>>(
    path: &Path,
    write: impl FnOnce(&mut File) -> Result<(), E>,
) -> Result<(), E> {
    let beside = beside(path);
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let mut file =
        private(OpenOptions::new().read(true).write(true).create_new(true)).open(&beside)?;
    let written = write(&mut file).and_then(|()| Ok(file.sync_all()?));
    if let Err(error) = written.and_then(|()| Ok(fs::rename(&beside, path)?)) {
        let _ = fs::remove_file(&beside);
        return Err(error);
    }
    Ok(sync_folder_of(path)?)
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

/// A name in a folder survives a power cut only once the folder itself was synced.
pub(crate) fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if cfg!(unix) {
        File::open(folder)?.sync_all()
    } else {
        Ok(())
    }
}

/// What is created through these options can be read and written by its owner alone.
pub(crate) fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

/// Whether group or others may read or write it. Unknown, and so false, where there is no mode.
pub(crate) fn is_open_to_others(file: &File) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.metadata()
            .is_ok_and(|data| data.permissions().mode() & 0o077 != 0)
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        false
    }
}

/// Takes the right to read and write from group and others.
#[cfg(feature = "redb")]
pub(crate) fn close_to_others(file: &File) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.set_permissions(fs::Permissions::from_mode(0o600))
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_written_for_its_owner_alone_and_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        write_secret_file(&path, "one").unwrap();
        fs::write(dir.path().join("secret.new"), "left over").unwrap();
        write_secret_file(&path, "two").unwrap();
        assert_eq!(*read_secret_file(&path).unwrap(), "two");
        assert!(!is_open_to_others(&File::open(&path).unwrap()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_large_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("large");
        fs::write(&path, vec![b'a'; 70 * 1024]).unwrap();
        assert_eq!(
            read_secret_file(&path).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
    }
}
