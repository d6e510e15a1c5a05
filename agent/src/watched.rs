//! The files that tell the agent its epoch and the age of the last disk write.
//!
//! Why it exists: looking at a file on a dead disk can take forever. Each file has a thread of its own which may hang
//! there; heartbeats go on and tell what was known, so a dead disk shows as a growing write age, not as silence.
//! What it never does: no caller of [`Watched::said`] ever waits for a file.

use crate::config::{Config, EpochSource, FILE_MAX};
use policies::{Epoch, Millis};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long the start waits for the first look at all files. Less: a spare's epoch 0 may be told for one heartbeat;
/// more: an agent on a dead disk starts later.
const FIRST_LOOK_MAX: Duration = Duration::from_millis(200);

/// No time of a write.
const NEVER: u64 = 0;

/// What the files said last.
#[derive(Debug)]
pub struct Watched {
    epoch: Arc<AtomicU64>,
    /// Milliseconds since 1970, [`NEVER`] if the file was never seen.
    written_at: Arc<AtomicU64>,
}

impl Watched {
    /// Begins to look at the configured files, once every interval, until this value is dropped.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn start(config: &Config) -> std::io::Result<Self> {
        let watched =
            Watched { epoch: Arc::new(AtomicU64::new(0)), written_at: Arc::new(AtomicU64::new(NEVER)) };
        let pause = Duration::from_millis(config.interval.0);
        let (looked, first_looks) = mpsc::channel();
        match &config.epoch {
            EpochSource::Fixed(epoch) => watched.epoch.store(epoch.0, Relaxed),
            EpochSource::File(file) => {
                keep_looking(&watched.epoch, file, pause, read_epoch, looked.clone())?;
            }
        }
        if let Some(probe) = &config.write_probe {
            keep_looking(&watched.written_at, &probe.file, pause, read_written_at, looked.clone())?;
        }
        drop(looked);
        let start = std::time::Instant::now();
        while first_looks.recv_timeout(FIRST_LOOK_MAX.saturating_sub(start.elapsed())).is_ok() {}
        Ok(watched)
    }

    /// The epoch, and the age of the last acknowledged write if one was ever seen. The age counts on the wall clock,
    /// as the file's modification time does: a clock that is set by a second makes it a second wrong, once.
    pub fn said(&self) -> (Epoch, Option<Millis>) {
        let written_at = self.written_at.load(Relaxed);
        let age = since_1970(SystemTime::now()).saturating_sub(written_at);
        (Epoch(self.epoch.load(Relaxed)), (written_at != NEVER).then_some(Millis(age)))
    }
}

/// Looks now and after each pause, as long as someone still holds `cell`.
fn keep_looking(
    cell: &Arc<AtomicU64>,
    file: &Path,
    pause: Duration,
    look: fn(&Path) -> Option<u64>,
    looked: mpsc::Sender<()>,
) -> std::io::Result<()> {
    let (cell, file) = (Arc::downgrade(cell), file.to_owned());
    let mut looked = Some(looked);
    let work = move || {
        loop {
            let seen = look(&file);
            let Some(cell) = cell.upgrade() else { return };
            if let Some(seen) = seen {
                cell.store(seen, Relaxed);
            }
            drop((cell, looked.take()));
            std::thread::sleep(pause);
        }
    };
    std::thread::Builder::new().name("watched-file".into()).spawn(work).map(drop)
}

/// The epoch in the file; 0 if there is no file; `None`, so that the known one stays, if it cannot be read.
fn read_epoch(file: &Path) -> Option<u64> {
    let mut text = String::new();
    match File::open(file).and_then(|file| file.take(FILE_MAX).read_to_string(&mut text)) {
        Ok(_) => text.trim().parse::<Epoch>().ok().map(|epoch| epoch.0),
        Err(error) => (error.kind() == ErrorKind::NotFound).then_some(0),
    }
}

/// When the file was last modified, in ms since 1970; `None`, so that the known time ages, if it cannot be told.
fn read_written_at(file: &Path) -> Option<u64> {
    std::fs::metadata(file).and_then(|meta| meta.modified()).ok().map(since_1970)
}

fn since_1970(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_read_if_it_is_one_and_no_file_is_a_spare() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("epoch");
        assert_eq!(read_epoch(&file), Some(0));
        for (text, epoch) in [("7\n", Some(7)), ("e12", Some(12)), ("", None), ("seven", None), ("-1", None)]
        {
            std::fs::write(&file, text).unwrap();
            assert_eq!(read_epoch(&file), epoch, "{text:?}");
        }
        assert_eq!(read_epoch(folder.path()), None, "a folder is no epoch, and no absence of one");
    }

    #[test]
    fn the_time_of_the_last_write_is_that_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("written");
        assert_eq!(read_written_at(&file), None);
        std::fs::write(&file, "").unwrap();
        let at = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        File::options().write(true).open(&file).unwrap().set_modified(at).unwrap();
        assert_eq!(read_written_at(&file), Some(1_700_000_000_123));
    }
}
