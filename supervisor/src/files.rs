//! Reading and writing the small files of a member's directory.
//!
//! Why it exists: keys must never be readable by others, not even for the moment between creation and `chmod`, and a
//! file that a power cut left half written must not stop a member. What it never does: overwrite silently, or read
//! without a limit.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only its owner (mode 0600).
    Private,
    /// Everyone (mode 0644).
    Public,
}

impl Access {
    fn mode(self) -> u32 {
        match self {
            Access::Private => 0o600,
            Access::Public => 0o644,
        }
    }
}

/// A file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system refused.
    #[error("{doing} {}", path.display())]
    Io {
        /// What was being done: "create", "read", ...
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Larger than such a file can be.
    #[error("read {}: it is larger than {bytes_max} bytes, so it is not what it should be", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit in bytes.
        bytes_max: u64,
    },
    /// Not text.
    #[error("read {}: it is not UTF-8 text", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
}

/// Largest file of a member's directory, in bytes. The largest in use, an inventory of 10,000 nodes, is below 8 MB;
/// the limit keeps a wrong path (a disk image, `/dev/zero`) from filling the memory.
pub const FILE_BYTES_MAX: u64 = 16 << 20;

/// Creates a file that must not exist yet, and makes it durable.
///
/// # Errors
/// [`FileError::Io`], with `AlreadyExists` if it is there.
pub fn create(path: &Path, content: &[u8], access: Access) -> Result<(), FileError> {
    write_new(path, content, access).map_err(|source| io_error("create", path, source))
}

/// Replaces a file in one step: readers see the old or the new content, also after a power cut.
///
/// # Errors
/// [`FileError::Io`].
pub fn replace(path: &Path, content: &[u8], access: Access) -> Result<(), FileError> {
    let aside = aside(path);
    let replaced = remove_if_there(&aside)
        .and_then(|()| write_new(&aside, content, access))
        .and_then(|()| fs::rename(&aside, path))
        .and_then(|()| sync_parent(path));
    replaced.map_err(|source| io_error("replace", path, source))
}

/// Replaces the content of a file in one step, as [`replace`] does; who owns it and who may read it stays as it was, and
/// a link goes on pointing to it.
///
/// # Errors
/// [`FileError::Io`]; then the file is as it was.
pub fn rewrite(path: &Path, content: &[u8]) -> Result<(), FileError> {
    let target = fs::canonicalize(path).map_err(|source| io_error("find", path, source))?;
    let aside = aside(&target);
    let rewritten = remove_if_there(&aside)
        .and_then(|()| write_new(&aside, content, Access::Private))
        .and_then(|()| keep_access(&target, &aside))
        .and_then(|()| fs::rename(&aside, &target))
        .and_then(|()| sync_parent(&target));
    rewritten.map_err(|source| io_error("replace", path, source))
}

/// Gives a new file the owner and the permissions of the one that it replaces.
fn keep_access(old: &Path, new: &Path) -> io::Result<()> {
    let (was, is) = (fs::metadata(old)?, fs::metadata(new)?);
    // Only root may give a file away, so nobody else should fail for asking in vain.
    if (was.uid(), was.gid()) != (is.uid(), is.gid()) {
        chown(new, Some(was.uid()), Some(was.gid()))?;
    }
    fs::set_permissions(new, was.permissions())?;
    File::open(new)?.sync_all()
}

fn aside(path: &Path) -> PathBuf {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    PathBuf::from(aside)
}

/// Removes a file, durably; that it is not there is success.
///
/// # Errors
/// [`FileError::Io`].
pub fn remove(path: &Path) -> Result<(), FileError> {
    let removed = remove_if_there(path).and_then(|()| sync_parent(path));
    removed.map_err(|source| io_error("remove", path, source))
}

/// Creates a directory that only its owner may enter; that it is there already is success.
///
/// # Errors
/// [`FileError::Io`].
pub fn create_dir(path: &Path) -> Result<(), FileError> {
    let created = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    created.map_err(|source| io_error("create directory", path, source))
}

/// Reads a text file of at most [`FILE_BYTES_MAX`] bytes.
///
/// # Errors
/// [`FileError`].
pub fn read_text(path: &Path) -> Result<String, FileError> {
    read_text_of(path, FILE_BYTES_MAX)
}

/// Reads a text file of at most so many bytes.
///
/// # Errors
/// [`FileError`].
pub fn read_text_of(path: &Path, bytes_max: u64) -> Result<String, FileError> {
    let file = File::open(path).map_err(|source| io_error("open", path, source))?;
    let mut content = Vec::new();
    let read = file.take(bytes_max + 1).read_to_end(&mut content);
    read.map_err(|source| io_error("read", path, source))?;
    if content.len() as u64 > bytes_max {
        return Err(FileError::TooLarge { path: path.to_owned(), bytes_max });
    }
    String::from_utf8(content).map_err(|_| FileError::NotText { path: path.to_owned() })
}

fn write_new(path: &Path, content: &[u8], access: Access) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(access.mode()).open(path)?;
    file.write_all(content)?;
    file.sync_all()?;
    sync_parent(path)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// A new or removed name is durable only once its directory is.
fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

fn io_error(doing: &'static str, path: &Path, source: io::Error) -> FileError {
    FileError::Io { doing, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_private_file_is_private_and_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        create(&path, b"one", Access::Private).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let again = create(&path, b"two", Access::Private).unwrap_err();
        assert_eq!(again.to_string(), format!("create {}", path.display()));
        assert_eq!(read_text(&path).unwrap(), "one");
    }

    #[test]
    fn replacing_swaps_the_content_even_over_a_left_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        fs::write(dir.path().join("tokens.new"), "left over by a crash").unwrap();
        replace(&path, b"one", Access::Private).unwrap();
        replace(&path, b"two", Access::Private).unwrap();
        assert_eq!(read_text(&path).unwrap(), "two");
        assert!(!dir.path().join("tokens.new").exists());
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn what_is_too_large_or_no_text_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(matches!(read_text(&path), Err(FileError::NotText { .. })));
        File::create(&path).unwrap().set_len(FILE_BYTES_MAX + 1).unwrap();
        assert!(matches!(read_text(&path), Err(FileError::TooLarge { .. })));
    }
}
