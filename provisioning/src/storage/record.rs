//! What is wished for each volume, on disk.
//!
//! Why it exists: tgt forgets everything; the holder of a volume and the newest token seen must outlive it and us.
//! What it never does: it keeps nothing in memory, and takes a record that cannot be read for "nobody, no token".

use policies::{LogIndex, VolumeId};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{Error, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

/// Longest record that is read, in bytes.
const RECORD_MAX: u64 = 16 * 1024;

/// The wish for one volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    /// Who may use it.
    pub(super) holder: Option<String>,
    /// The newest token seen.
    pub(super) newest: LogIndex,
    /// The target at tgt that may carry rights.
    pub(super) target: Generation,
}

/// Which of tgt's targets for a volume may carry rights. A target that somebody lost is given up whole, since a login that had
/// begun before the right was taken is checked no more; its number is never used again, so such a login finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Generation {
    /// The target of this number.
    Current(u32),
    /// None; numbers up to this one were used.
    Spent(u32),
}

impl Default for Generation {
    fn default() -> Self {
        Generation::Spent(0)
    }
}

impl Generation {
    /// The greatest number used.
    pub(super) fn last(self) -> u32 {
        match self {
            Generation::Current(tid) | Generation::Spent(tid) => tid,
        }
    }
}

/// A record could not be read or kept.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {}", path.display())]
pub struct RecordError {
    doing: &'static str,
    path: PathBuf,
    source: Error,
}

/// The directory of records; locked, for two daemons would each give rights of their own.
#[derive(Debug)]
pub(super) struct Store {
    directory: PathBuf,
    _lock: File,
}

impl Store {
    /// Makes the directory if it is not there; the one above it must be.
    pub(super) fn open(directory: &Path) -> Result<Store, RecordError> {
        let lock = directory.join("lock");
        let error = |doing, path: &Path| {
            let path = path.to_owned();
            move |source| RecordError { doing, path, source }
        };
        match fs::create_dir(directory) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            // Without this a loss of power could take the directory with all records in it.
            made => made.and_then(|()| File::open(directory.join(".."))?.sync_all()),
        }
        .map_err(error("make", directory))?;
        let file = File::create(&lock).map_err(error("open", &lock))?;
        let locked = file.try_lock().map_err(Error::from);
        locked.map_err(error("lock (does another ha-storage run?)", &lock))?;
        Ok(Store { directory: directory.to_owned(), _lock: file })
    }

    /// Nobody and no token if it was never changed.
    pub(super) fn read(&self, volume: &VolumeId) -> Result<Record, RecordError> {
        let path = self.path(volume);
        match read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Record::default()),
            read => read.map_err(|source| RecordError { doing: "read", path, source }),
        }
    }

    /// The greatest number that any volume's target has had, also of volumes that are configured no more.
    pub(super) fn last(&self) -> Result<u32, RecordError> {
        let listed = |source| RecordError { doing: "list", path: self.directory.clone(), source };
        let mut last = 0;
        for entry in fs::read_dir(&self.directory).map_err(listed)? {
            let path = entry.map_err(listed)?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let record = read(&path).map_err(|source| RecordError { doing: "read", path, source })?;
                last = last.max(record.target.last());
            }
        }
        Ok(last)
    }

    /// Once this returns the record outlives a loss of power (rename(2), fsync(2) of file and directory).
    pub(super) fn keep(&self, volume: &VolumeId, record: &Record) -> Result<(), RecordError> {
        let path = self.path(volume);
        let keep = || {
            let new = path.with_extension("new");
            let mut file = File::create(&new)?;
            file.write_all(&serde_json::to_vec(record)?)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(&self.directory)?.sync_all()
        };
        keep().map_err(|source| RecordError { doing: "write", path: path.clone(), source })
    }

    fn path(&self, volume: &VolumeId) -> PathBuf {
        self.directory.join(format!("{volume}.json"))
    }
}

fn read(path: &Path) -> Result<Record, Error> {
    let mut text = Vec::new();
    File::open(path)?.take(RECORD_MAX).read_to_end(&mut text)?;
    serde_json::from_slice(&text).map_err(|error| Error::new(ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_kept_and_a_broken_one_is_no_empty_one() {
        let directory = tempfile::tempdir().unwrap();
        let volume: VolumeId = "v1".parse().unwrap();
        let store = Store::open(directory.path()).unwrap();
        assert_eq!(store.read(&volume).unwrap(), Record::default());
        let record =
            Record { holder: Some("iqn.n1".to_owned()), newest: LogIndex(7), target: Generation::Current(3) };
        assert_eq!(store.last().unwrap(), 0);
        store.keep(&volume, &record).unwrap();
        assert_eq!((store.read(&volume).unwrap(), store.last().unwrap()), (record, 3));
        for broken in ["", "{", "{}", r#"{"holder":null,"newest":1,"target":{"current":1},"x":1}"#] {
            fs::write(directory.path().join("v1.json"), broken).unwrap();
            assert!(store.read(&volume).is_err() && store.last().is_err(), "{broken}");
        }
        let second = Store::open(directory.path()).unwrap_err();
        assert!(second.to_string().contains("does another ha-storage run?"), "{second}");
    }
}
