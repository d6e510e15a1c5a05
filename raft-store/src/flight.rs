//! The flight recorder: what this member observed, in blocks, one sled database a day.
//!
//! Why it exists: a policy that is not in force can be tried on what really happened (ADR 0012).
//! What it never does: stop or slow the member. Whoever records hands over and goes on; what the disk does not take is
//! counted as lost, said once, and then everything is told anew. Both bounds drop whole days; if one day alone is above
//! the bound in bytes, the rest of it is not kept.
//!
//! A block is some records, one after the other (`policies::flight`). Keys are `moment of its first record: u64 big
//! endian | number: u64 big endian`; a day is a UTC day by the member's own clock.

use crate::days::{Days, DaysError, day_of};
use jiff::civil::Date;
use policies::flight::Record;
use policies::{Millis, Wall};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

/// Messages that wait to be written; most hold one record, and one holds all nodes. A full queue means that the disk
/// hangs.
const QUEUE_MAX: usize = 4096;
/// Largest block: large enough that sled's own bytes do not count, small enough for one insert.
const BLOCK_BYTES_MAX: usize = 64 << 10;
/// The directory is measured after so many bytes: a walk over some tens of files.
const MEASURE_EVERY_BYTES: usize = 1 << 20;
/// Bytes that one read gives at least, if there are so many.
const READ_BYTES: usize = 1 << 20;

/// How the recorder is, for the metrics and for whoever records. Clones of a [`Tape`] share it.
#[derive(Debug, Default)]
pub struct TapeState {
    /// Records that were kept.
    pub kept: AtomicU64,
    /// Records that were lost.
    pub lost: AtomicU64,
    /// What all days took on disk when last measured.
    pub bytes: AtomicU64,
    /// Set when everything must be told anew.
    anew: AtomicBool,
    /// Set while the disk does not take records, so that it is said once.
    failing: AtomicBool,
}

impl TapeState {
    /// Counts what could not be kept, and says so the first time.
    fn lose(&self, records: usize, why: &str) {
        self.lost.fetch_add(records as u64, Relaxed);
        self.anew.store(true, Relaxed);
        if !self.failing.swap(true, Relaxed) {
            tracing::warn!(why, "flight records are lost; a replay will see less, nothing else is affected");
        }
    }
}

/// The record, for whoever writes it. Never waits, never fails. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Tape {
    to: Option<(SyncSender<Vec<Record>>, Arc<TapeState>)>,
}

impl Tape {
    /// Keeps nothing: for members that stand on no disk.
    pub fn none() -> Self {
        Tape { to: None }
    }

    /// True if what is handed over is kept.
    pub fn runs(&self) -> bool {
        self.to.is_some()
    }

    /// Hands records over to be written.
    pub fn keep(&self, records: Vec<Record>) {
        let Some((queue, state)) = &self.to else { return };
        let count = records.len();
        if queue.try_send(records).is_err() {
            state.lose(count, "the disk does not keep up");
        }
    }

    /// True once after a new day began or records were lost: everything must be told anew.
    pub fn wants_all(&self) -> bool {
        self.to.as_ref().is_some_and(|(_, state)| state.anew.swap(false, Relaxed))
    }

    /// How it is.
    pub fn state(&self) -> Option<&TapeState> {
        self.to.as_ref().map(|(_, state)| state.as_ref())
    }
}

/// Where a read goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    day: Date,
    key: Option<[u8; 16]>,
}

/// Some blocks, and where to go on; `None`: that was all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// Oldest first.
    pub blocks: Vec<Vec<u8>>,
    /// For the next read.
    pub next: Option<Cursor>,
}

/// The record, for readers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Flight {
    days: Arc<Mutex<Days>>,
}

impl Flight {
    /// Opens the record in `dir`. Cannot fail: what does not open is moved aside, or the member goes without. Nothing is
    /// opened before the first record or read: by then the store must hold its lock.
    pub fn open(dir: PathBuf, keep: Millis, bytes_max: u64) -> (Flight, Tape) {
        let days = Arc::new(Mutex::new(Days::new("flight record", dir, keep)));
        let (queue, waiting) = sync_channel(QUEUE_MAX);
        let state = Arc::new(TapeState::default());
        let flight = Flight { days: Arc::clone(&days) };
        let writer =
            Writer { days, state: Arc::clone(&state), bytes_max, number: 0, day: None, unmeasured: 0 };
        let run = move || writer.write_all(&waiting);
        match std::thread::Builder::new().name("flight".to_owned()).spawn(run) {
            Ok(_) => (flight, Tape { to: Some((queue, state)) }),
            Err(error) => {
                tracing::warn!(%error, "no thread for the flight record; this member runs without");
                (flight, Tape::none())
            }
        }
    }

    /// Where the record of the day of this moment begins, or of the first day after it that there is.
    ///
    /// # Errors
    /// [`DaysError`] if the directory could not be read.
    pub fn begin(&self, since: Wall) -> Result<Option<Cursor>, DaysError> {
        Ok(self.day_from(day_of(since))?.map(|day| Cursor { day, key: None }))
    }

    /// Some blocks from there on. May read from the disk: not for async threads.
    ///
    /// # Errors
    /// [`DaysError`] if a day could not be read.
    pub fn read(&self, from: Cursor) -> Result<Blocks, DaysError> {
        let db = self.lock().day(from.day)?;
        let mut blocks = Blocks { blocks: vec![], next: None };
        let mut bytes = 0;
        let after = match from.key {
            Some(key) => {
                db.range::<[u8; 16], _>((std::ops::Bound::Excluded(key), std::ops::Bound::Unbounded))
            }
            None => db.iter(),
        };
        for item in after {
            let path = self.lock().path(from.day);
            let (key, block) = item.map_err(|source| DaysError::Engine { doing: "read", path, source })?;
            bytes += block.len();
            blocks.blocks.push(block.to_vec());
            if bytes >= READ_BYTES {
                blocks.next =
                    key.as_ref().try_into().ok().map(|key| Cursor { day: from.day, key: Some(key) });
                return Ok(blocks);
            }
        }
        let next = from.day.tomorrow().ok().map(|day| self.day_from(day)).transpose()?.flatten();
        blocks.next = next.map(|day| Cursor { day, key: None });
        Ok(blocks)
    }

    /// Closes it, for good: the next process may open it.
    pub fn close(&self) {
        self.lock().close();
    }

    fn day_from(&self, first: Date) -> Result<Option<Date>, DaysError> {
        Ok(self.lock().stored()?.into_iter().find(|day| *day >= first))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Days> {
        self.days.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What stands between the queue and the days.
struct Writer {
    days: Arc<Mutex<Days>>,
    state: Arc<TapeState>,
    bytes_max: u64,
    number: u64,
    day: Option<Date>,
    unmeasured: usize,
}

impl Writer {
    fn write_all(mut self, waiting: &Receiver<Vec<Record>>) {
        while let Ok(first) = waiting.recv() {
            let (mut block, mut count, mut begins) = (vec![], 0, None);
            for record in first.into_iter().chain(waiting.try_iter().flatten()) {
                let at = *begins.get_or_insert(record.at);
                record.encode(&mut block);
                count += 1;
                if block.len() >= BLOCK_BYTES_MAX || day_of(record.at) != day_of(at) {
                    self.write(at, std::mem::take(&mut block), std::mem::take(&mut count));
                    begins = None;
                }
            }
            if let Some(at) = begins {
                self.write(at, block, count);
            }
        }
    }

    fn write(&mut self, at: Wall, block: Vec<u8>, count: usize) {
        let day = day_of(at);
        // A reader that begins with a day must find all nodes in it.
        if self.day.replace(day).is_some_and(|before| before != day) {
            self.state.anew.store(true, Relaxed);
        }
        self.unmeasured += block.len();
        self.number += 1;
        let key = (u128::from(at.0) << 64 | u128::from(self.number)).to_be_bytes();
        let written = self.insert(day, key, block);
        match written {
            Ok(true) => {
                self.state.kept.fetch_add(count as u64, Relaxed);
                if self.state.failing.swap(false, Relaxed) {
                    tracing::info!("flight records are kept again");
                }
            }
            Ok(false) => self.state.lose(count, "this day alone takes flight.bytes_max"),
            // The member is shutting down.
            Err(DaysError::Closed) => {}
            Err(error) => self.state.lose(count, &policies::causes(&error)),
        }
    }

    /// Keeps the block, unless this day alone is too large already.
    fn insert(&mut self, day: Date, key: [u8; 16], block: Vec<u8>) -> Result<bool, DaysError> {
        let mut days = self.days.lock().unwrap_or_else(PoisonError::into_inner);
        if self.unmeasured >= MEASURE_EVERY_BYTES || self.state.bytes.load(Relaxed) > self.bytes_max {
            self.unmeasured = 0;
            let mut bytes = days.bytes()?;
            while bytes > self.bytes_max {
                let Some(oldest) = days.stored()?.first().copied().filter(|oldest| *oldest < day) else {
                    break;
                };
                days.drop_day(oldest)?;
                bytes = days.bytes()?;
            }
            self.state.bytes.store(bytes, Relaxed);
            if bytes > self.bytes_max {
                return Ok(false);
            }
        }
        days.insert(day, key, block).map(|()| true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policies::flight::{Fact, Sign};

    const DAY: u64 = 86_400_000;

    fn today() -> u64 {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
        u64::try_from(now).unwrap() / DAY * DAY
    }

    fn gap(at: u64, lasting: u64) -> Record {
        let sign = Sign::Gap { lasting: Millis(lasting) };
        Record { at: Wall(at), fact: Fact::Node("n1".parse().unwrap(), sign) }
    }

    fn read_all(flight: &Flight, since: u64) -> Vec<Record> {
        let (mut records, mut next) = (vec![], flight.begin(Wall(since)).unwrap());
        while let Some(cursor) = next {
            let read = flight.read(cursor).unwrap();
            for block in &read.blocks {
                let mut rest = block.as_slice();
                while let Some(record) = Record::decode(&mut rest).unwrap() {
                    records.push(record);
                }
            }
            next = read.next;
        }
        records
    }

    /// Ends the writer, so that all is written.
    fn writer(dir: &std::path::Path, keep: u64, bytes_max: u64) -> (Writer, Flight) {
        let days = Arc::new(Mutex::new(Days::new("flight record", dir.to_owned(), Millis(keep))));
        let state = Arc::default();
        let writer =
            Writer { days: Arc::clone(&days), state, bytes_max, number: 0, day: None, unmeasured: 0 };
        (writer, Flight { days })
    }

    fn write(writer: Writer, records: &[Record]) {
        let (queue, waiting) = sync_channel(records.len());
        records.iter().for_each(|record| queue.try_send(vec![record.clone()]).unwrap());
        drop(queue);
        writer.write_all(&waiting);
    }

    #[test]
    fn what_is_kept_is_read_from_its_day_on_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let (writer, flight) = writer(dir.path(), 30 * DAY, u64::MAX);
        let begin = today() - 3 * DAY;
        let records: Vec<Record> = (0..90).map(|hour| gap(begin + hour * 3_600_000, hour)).collect();
        write(writer, &records);
        // A day's last block may reach a little into the next day; nothing is lost or comes twice.
        assert_eq!(read_all(&flight, begin), records);
        let later = read_all(&flight, begin + DAY + 5);
        assert!(later.len() >= 60 && records.ends_with(&later), "{}", later.len());
        assert_eq!(read_all(&flight, begin + 10 * DAY), []);
    }

    #[test]
    fn a_large_record_is_read_in_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let (writer, flight) = writer(dir.path(), 30 * DAY, u64::MAX);
        let records: Vec<Record> = (0..200_000).map(|number| gap(today() + number, number)).collect();
        write(writer, &records);
        let first = flight.read(flight.begin(Wall(today())).unwrap().unwrap()).unwrap();
        assert!(first.next.is_some() && first.blocks.len() > 1);
        assert_eq!(read_all(&flight, today()), records);
    }

    #[test]
    fn too_many_bytes_drop_the_oldest_days_and_then_the_rest_of_today() {
        let dir = tempfile::tempdir().unwrap();
        let (writer, flight) = writer(dir.path(), 30 * DAY, 1);
        let state = Arc::clone(&writer.state);
        write(writer, &[gap(today() - DAY, 1), gap(today() - DAY + 1, 2)]);
        let (mut again, _) = super::tests::writer(dir.path(), 30 * DAY, 1);
        again.days = Arc::clone(&flight.days);
        again.unmeasured = MEASURE_EVERY_BYTES;
        again.state = Arc::clone(&state);
        write(again, &[gap(today(), 3)]);
        let days: Vec<u64> = read_all(&flight, 0).iter().map(|record| record.at.0).collect();
        assert!(!days.contains(&(today() - DAY)), "{days:?}");
        assert_eq!(state.kept.load(Relaxed) + state.lost.load(Relaxed), 3);
    }

    #[test]
    fn a_broken_disk_is_counted_and_said_once() {
        let dir = tempfile::tempdir().unwrap();
        let blocked = dir.path().join("blocked");
        std::fs::write(&blocked, b"a file where the directory should be").unwrap();
        let (writer, _flight) = writer(&blocked, 30 * DAY, u64::MAX);
        let state = Arc::clone(&writer.state);
        write(writer, &[gap(today(), 1), gap(today() + 1, 2)]);
        assert_eq!((state.kept.load(Relaxed), state.lost.load(Relaxed)), (0, 2));
        assert!(state.anew.load(Relaxed));
    }

    #[test]
    fn no_tape_keeps_nothing() {
        let tape = Tape::none();
        tape.keep(vec![gap(1, 1)]);
        assert!(!tape.runs() && !tape.wants_all());
    }
}
