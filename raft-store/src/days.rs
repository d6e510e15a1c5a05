//! What may be lost, in one sled database a day, so that what is old is dropped whole.
//!
//! Why it exists: the history and the flight record are kept alike: neither may grow without end, and sled gives purged
//! space back only with its directory (ADR 0002).
//! What it never does: stop the member. A day that does not open is moved aside and begun anew; a day that is too old is
//! dropped whole.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use policies::{Millis, Wall};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Days that are open at a time: today, yesterday around midnight, and two for a query. Each costs a cache and a
/// thread.
const OPEN_MAX: usize = 4;
/// Cache of one day, in bytes. sled's default of 1 GiB is for a database that is somebody's only one.
const CACHE_BYTES: u64 = 8 << 20;
/// sled writes to the kernel this often; what is not written is lost with the process.
const FLUSH_EVERY_MS: u64 = 500;

/// Why days could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DaysError {
    /// The file system refused.
    #[error("{doing} {}", path.display())]
    Files {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// sled refused.
    #[error("{doing} {}", path.display())]
    Engine {
        /// What was being done.
        doing: &'static str,
        /// To which day.
        path: PathBuf,
        /// Why not.
        #[source]
        source: sled::Error,
    },
    /// The member is shutting down.
    #[error("its days are closed")]
    Closed,
    /// The search stopped in the middle.
    #[error("the search through its days stopped: {0}")]
    Stopped(#[source] tokio::task::JoinError),
}

/// The databases, by day.
#[derive(Debug)]
pub(crate) struct Days {
    /// What is kept.
    what: &'static str,
    dir: PathBuf,
    keep: Millis,
    open: BTreeMap<Date, sled::Db>,
    closed: bool,
}

/// The day of a stamp, in UTC. A stamp beyond jiff's years belongs to the first or last day there is.
pub(crate) fn day_of(at: Wall) -> Date {
    let millis = i64::try_from(at.0).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX).to_zoned(TimeZone::UTC).date()
}

impl Days {
    /// No day is open yet. `what` it is that is kept, for the log.
    pub(crate) fn new(what: &'static str, dir: PathBuf, keep: Millis) -> Self {
        Days { what, dir, keep, open: BTreeMap::new(), closed: false }
    }

    /// Closes all days, for good: the next process may open them.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        self.open.clear();
    }

    /// Writes into a day; when it is the first time, old days are dropped.
    pub(crate) fn insert(
        &mut self,
        day: Date,
        key: impl AsRef<[u8]>,
        value: Vec<u8>,
    ) -> Result<(), DaysError> {
        let begins = !self.open.contains_key(&day);
        let written = self.day(day)?.insert(key, value);
        let path = self.path(day);
        written.map_err(|source| DaysError::Engine { doing: "write to", path, source })?;
        if begins {
            self.drop_old()?;
        }
        Ok(())
    }

    pub(crate) fn path(&self, day: Date) -> PathBuf {
        self.dir.join(day.to_string())
    }

    /// The database of a day, opened if necessary; the least recent day is closed if there are too many.
    pub(crate) fn day(&mut self, day: Date) -> Result<sled::Db, DaysError> {
        if self.closed {
            return Err(DaysError::Closed);
        }
        if let Some(db) = self.open.get(&day) {
            return Ok(db.clone());
        }
        while self.open.len() >= OPEN_MAX && self.open.pop_first().is_some() {}
        let db = self.open_day(day)?;
        self.open.insert(day, db.clone());
        Ok(db)
    }

    fn open_day(&self, day: Date) -> Result<sled::Db, DaysError> {
        let path = self.path(day);
        match open_sled(&path) {
            Ok(db) => Ok(db),
            Err(error) => {
                let aside = free_name(&path);
                tracing::warn!(what = self.what, day = %day, why = error, aside = %aside.display(),
                    "a day does not open; it is moved aside and begun anew");
                let files = |source| DaysError::Files { doing: "move aside", path: path.clone(), source };
                std::fs::rename(&path, &aside).map_err(files)?;
                open_sled(&path).map_err(|why| files(io::Error::other(why)))
            }
        }
    }

    /// The days on disk, oldest first. Other names in the directory are not ours to touch.
    pub(crate) fn stored(&self) -> Result<Vec<Date>, DaysError> {
        let files = |source| DaysError::Files { doing: "list", path: self.dir.clone(), source };
        let mut days = Vec::new();
        let list = match std::fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(days),
            list => list.map_err(files)?,
        };
        for entry in list {
            let name = entry.map_err(files)?.file_name();
            days.extend(name.to_str().and_then(|name| name.parse::<Date>().ok()));
        }
        days.sort_unstable();
        Ok(days)
    }

    /// Drops days that are older than `keep` by our clock *and* by the newest day: a clock that jumps ahead on one
    /// machine, or one wild stamp, must not wipe the history.
    fn drop_old(&mut self) -> Result<(), DaysError> {
        let stored = self.stored()?;
        let Some(&newest) = stored.last() else { return Ok(()) };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let today = day_of(Wall(u64::try_from(now).unwrap_or(u64::MAX)));
        for day in too_old(&stored, newest.min(today), self.keep) {
            self.drop_day(day)?;
        }
        Ok(())
    }

    /// Drops one day, whole.
    pub(crate) fn drop_day(&mut self, day: Date) -> Result<(), DaysError> {
        self.open.remove(&day);
        let path = self.path(day);
        std::fs::remove_dir_all(&path).map_err(|source| DaysError::Files { doing: "drop", path, source })?;
        tracing::info!(what = self.what, %day, "an old day was dropped");
        Ok(())
    }

    /// What the days take on disk, in bytes.
    pub(crate) fn bytes(&self) -> Result<u64, DaysError> {
        let files = |source| DaysError::Files { doing: "measure", path: self.dir.clone(), source };
        let days = self.stored()?;
        days.into_iter().try_fold(0_u64, |sum, day| Ok(sum + bytes_of(&self.path(day)).map_err(files)?))
    }
}

/// Days more than `keep` before `today`.
fn too_old(stored: &[Date], today: Date, keep: Millis) -> Vec<Date> {
    let keep_days = i64::try_from(keep.0.div_ceil(86_400_000)).unwrap_or(i64::MAX);
    let age = |day: &Date| day.until(today).map_or(0, |span| i64::from(span.get_days()));
    stored.iter().filter(|day| age(day) > keep_days).copied().collect()
}

/// sled panics on some damage where it should return an error; for a store that may be lost both are the same.
fn open_sled(path: &Path) -> Result<sled::Db, String> {
    let open = || {
        let config = sled::Config::new().path(path).cache_capacity(CACHE_BYTES);
        config.flush_every_ms(Some(FLUSH_EVERY_MS)).open()
    };
    match std::panic::catch_unwind(open) {
        Ok(opened) => opened.map_err(|error| error.to_string()),
        Err(_panic) => Err("sled panicked".to_owned()),
    }
}

fn free_name(path: &Path) -> PathBuf {
    let name = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".corrupt-{number}"));
        PathBuf::from(name)
    };
    (1..).map(name).find(|name| !name.exists()).unwrap_or_else(|| name(0))
}

/// The length of all files in a directory and below. One that goes away meanwhile takes nothing.
fn bytes_of(dir: &Path) -> io::Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        sum += match entry.metadata() {
            Ok(found) if found.is_dir() => bytes_of(&entry.path())?,
            Ok(found) => found.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_old_is_what_is_older_than_is_kept() {
        let day = |text: &str| text.parse::<Date>().unwrap();
        let stored = ["2026-11-01", "2026-11-20", "2026-11-23", "9999-12-31"].map(day);
        assert_eq!(too_old(&stored, day("2026-11-23"), Millis(7 * 86_400_000)), [day("2026-11-01")]);
    }
}
