//! The file `DIR/raft.redb`: log, vote, snapshot and identity of one member.
//!
//! Why it exists: what a member acknowledged it must still know after any crash, or the cluster may fence twice.
//! What it never does: retry a write or an fsync that failed (after a failed fsync the kernel may have dropped the
//! data and will report success the next time; LWN 752063), or start empty in place of a store that was there.
//!
//! One thread writes (on a simulated medium: one task). It takes everything that waits, makes one transaction of it with
//! one fsync (`Durability::Immediate`), and only then answers. The order of the queue is the order on disk, so a vote never
//! overtakes an append. Readers use redb's snapshots and never wait for the writer.

use crate::ground::{Backend, Medium, Workers};
use crate::identity::Identity;
use crate::seal::{self, BadRecord};
use crate::types::{LogEntry, LogId, SnapshotHead, Vote};
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use tokio::sync::{mpsc, oneshot};

/// Big-endian index to sealed [`LogEntry`]; big-endian, so that key order is log order.
const LOG: TableDefinition<'_, [u8; 8], &[u8]> = TableDefinition::new("log");
/// Sealed records by name.
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
/// `head` and `data` of the current snapshot, sealed.
const SNAPSHOT: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("snapshot");

const IDENTITY: &str = "identity";
const VOTE: &str = "vote";
const COMMITTED: &str = "committed";
const PURGED: &str = "purged";
const ACQUAINTANCES: &str = "acquaintances";
const HEAD: &str = "head";
const DATA: &str = "data";

/// Most queued writes that become one transaction. Bounds the memory of a transaction, not its safety.
const BATCH_MAX: usize = 1024;

/// Why the store could not be read or written.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum DiskError {
    #[error("{doing}")]
    Engine {
        doing: &'static str,
        #[source]
        source: Arc<redb::Error>,
    },
    #[error("{what} is damaged")]
    Record {
        what: String,
        #[source]
        source: Arc<BadRecord>,
    },
    #[error("{0}")]
    Inconsistent(String),
    #[error("encode {what}")]
    Encode {
        what: &'static str,
        #[source]
        source: Arc<serde_json::Error>,
    },
    #[error("an earlier write failed, and nothing is written after that: {0}")]
    Stopped(String),
    #[error("the store is closed")]
    Closed,
}

/// Wraps any of redb's errors.
fn engine<E: Into<redb::Error>>(doing: &'static str) -> impl FnOnce(E) -> DiskError {
    move |source| DiskError::Engine { doing, source: Arc::new(source.into()) }
}

fn encode<T: Serialize>(what: &'static str, value: &T) -> Result<Vec<u8>, DiskError> {
    seal::seal(value).map_err(|source| DiskError::Encode { what, source: Arc::new(source) })
}

fn decode<T: DeserializeOwned>(bytes: &[u8], what: impl FnOnce() -> String) -> Result<T, DiskError> {
    seal::open(bytes).map_err(|source| DiskError::Record { what: what(), source: Arc::new(source) })
}

/// One change. Everything is encoded before it is queued, so that the writer has nothing left to refuse.
enum Write {
    Append(Vec<([u8; 8], Vec<u8>)>),
    Truncate { from: u64 },
    Purge { upto: u64, record: Vec<u8> },
    Meta { key: &'static str, record: Vec<u8> },
    Snapshot { last: Option<LogId>, head: Vec<u8>, data: Vec<u8> },
}

impl Write {
    /// How far the log is committed is only a hint, so it rides along with the next durable write.
    fn must_be_durable(&self) -> bool {
        match self {
            Write::Meta { key, .. } => *key != COMMITTED,
            Write::Append(_) | Write::Truncate { .. } | Write::Purge { .. } | Write::Snapshot { .. } => true,
        }
    }
}

struct Queued {
    write: Write,
    done: oneshot::Sender<Result<(), DiskError>>,
}

/// The open store. Shared by everything that reads or writes it.
#[derive(Debug)]
pub(crate) struct Disk {
    /// `None` once closed.
    db: Arc<RwLock<Option<Database>>>,
    queue: Mutex<Option<mpsc::UnboundedSender<Queued>>>,
    pub(crate) workers: Workers,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
}

/// The file is closed when this returns, so that it can be opened again at once.
impl Drop for Disk {
    fn drop(&mut self) {
        self.close();
    }
}

/// What the log holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogBounds {
    pub(crate) purged: Option<LogId>,
    pub(crate) last: Option<LogId>,
}

impl Disk {
    /// Makes a store that holds nothing but `identity`.
    pub(crate) fn create(path: &Path, identity: &Identity) -> Result<(), DiskError> {
        Disk::fill(&Database::create(path).map_err(engine("create the store"))?, identity)
    }

    /// The same on a medium.
    pub(crate) fn create_on(medium: &Arc<dyn Medium>, identity: &Identity) -> Result<(), DiskError> {
        let db = Database::builder().create_with_backend(Backend(Arc::clone(medium)));
        Disk::fill(&db.map_err(engine("create the store"))?, identity)
    }

    pub(crate) fn fill(db: &Database, identity: &Identity) -> Result<(), DiskError> {
        let record = encode("the identity", identity)?;
        let transaction = begin(db, Durability::Immediate)?;
        transaction.open_table(LOG).map_err(engine("create the log table"))?;
        transaction.open_table(SNAPSHOT).map_err(engine("create the snapshot table"))?;
        write(&transaction, Write::Meta { key: IDENTITY, record })?;
        transaction.commit().map_err(engine("write the identity"))
    }

    /// Opens an existing store.
    pub(crate) fn open(path: &Path) -> Result<(Disk, Identity), DiskError> {
        Disk::over(engine_settings().open(path).map_err(engine("open the store"))?)
    }

    /// Opens an existing store on a medium. Must be called within a runtime.
    pub(crate) fn open_on(medium: &Arc<dyn Medium>) -> Result<(Disk, Identity), DiskError> {
        let db = engine_settings().create_with_backend(Backend(Arc::clone(medium)));
        Disk::start(db.map_err(engine("open the store"))?, Workers::Tasks(Arc::clone(medium)))
    }

    /// The same for a store that is not in a file of its own.
    pub(crate) fn over(db: Database) -> Result<(Disk, Identity), DiskError> {
        Disk::start(db, Workers::Threads)
    }

    /// Reads all of it once, every record must be whole and the log without a hole, and starts the writer.
    fn start(db: Database, workers: Workers) -> Result<(Disk, Identity), DiskError> {
        let db = Arc::new(RwLock::new(Some(db)));
        let (queue, waiting) = mpsc::unbounded_channel();
        let writer = Writer { db: Arc::clone(&db), waiting, failed: None };
        let thread = match &workers {
            Workers::Threads => {
                let named = std::thread::Builder::new().name("raft-store".to_owned());
                let thread = named.spawn(move || writer.run());
                let failed = |error| DiskError::Inconsistent(format!("start the writer thread: {error}"));
                Some(thread.map_err(failed)?)
            }
            Workers::Tasks(medium) => {
                drop(tokio::spawn(writer.run_at_the_pace_of(Arc::clone(medium))));
                None
            }
        };
        let disk = Disk { db, queue: Mutex::new(Some(queue)), workers, writer: Mutex::new(thread) };
        let identity = disk
            .meta::<Identity>(IDENTITY)?
            .ok_or_else(|| DiskError::Inconsistent("it does not say whose store it is".to_owned()))?;
        disk.check()?;
        Ok((disk, identity))
    }

    /// Whether the store has never taken part in anything: no vote, no entry, no snapshot.
    pub(crate) fn is_fresh(&self) -> Result<bool, DiskError> {
        let bounds = self.bounds()?;
        Ok(self.vote()?.is_none() && bounds.last.is_none() && self.snapshot_head()?.is_none())
    }

    /// Waits for queued writes and closes the file. Every later call fails.
    pub(crate) fn close(&self) {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if writer.is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the thread that writes the store panicked");
        }
        drop(self.db.write().unwrap_or_else(PoisonError::into_inner).take());
    }

    // --- writing ---

    pub(crate) async fn append(&self, entries: &[LogEntry]) -> Result<(), DiskError> {
        let record = |entry: &LogEntry| Ok((entry.id.index.to_be_bytes(), encode("a log entry", entry)?));
        let entries = entries.iter().map(record).collect::<Result<_, DiskError>>()?;
        self.write(Write::Append(entries)).await
    }

    /// Forgets the entries from `from` on.
    pub(crate) async fn truncate(&self, from: u64) -> Result<(), DiskError> {
        self.write(Write::Truncate { from }).await
    }

    /// Forgets the entries up to `upto`.
    pub(crate) async fn purge(&self, upto: LogId) -> Result<(), DiskError> {
        self.write(Write::Purge { upto: upto.index, record: encode("the purged position", &upto)? }).await
    }

    pub(crate) async fn save_vote(&self, vote: Vote) -> Result<(), DiskError> {
        self.write(Write::Meta { key: VOTE, record: encode("the vote", &vote)? }).await
    }

    pub(crate) async fn save_committed(&self, committed: Option<LogId>) -> Result<(), DiskError> {
        self.write(Write::Meta { key: COMMITTED, record: encode("the committed position", &committed)? })
            .await
    }

    /// Replaces the snapshot, unless the one that is there is newer: a snapshot that was being built while the leader's was
    /// installed must not take its place, for the log may be purged up to the newer one. `data` is sealed already.
    pub(crate) async fn save_snapshot(&self, head: &SnapshotHead, data: Vec<u8>) -> Result<(), DiskError> {
        let record = encode("the snapshot's head", head)?;
        self.write(Write::Snapshot { last: head.last, head: record, data }).await
    }

    async fn write(&self, write: Write) -> Result<(), DiskError> {
        let (done, answer) = oneshot::channel();
        let queue =
            self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or(DiskError::Closed)?;
        queue.send(Queued { write, done }).map_err(|_gone| DiskError::Closed)?;
        answer.await.map_err(|_gone| DiskError::Closed)?
    }

    // --- reading ---

    fn read<T>(
        &self,
        reader: impl FnOnce(&redb::ReadTransaction) -> Result<T, DiskError>,
    ) -> Result<T, DiskError> {
        let db = self.db.read().unwrap_or_else(PoisonError::into_inner);
        let db = db.as_ref().ok_or(DiskError::Closed)?;
        reader(&db.begin_read().map_err(engine("begin to read"))?)
    }

    fn meta<T: DeserializeOwned>(&self, key: &'static str) -> Result<Option<T>, DiskError> {
        self.record(META, key)
    }

    fn record<T: DeserializeOwned>(
        &self,
        table: TableDefinition<'_, &str, &[u8]>,
        key: &'static str,
    ) -> Result<Option<T>, DiskError> {
        let bytes = self.bytes(table, key)?;
        bytes.map(|bytes| decode(&bytes, || format!("the record {key:?}"))).transpose()
    }

    fn bytes(
        &self,
        table: TableDefinition<'_, &str, &[u8]>,
        key: &'static str,
    ) -> Result<Option<Vec<u8>>, DiskError> {
        self.read(|transaction| {
            let table = transaction.open_table(table).map_err(engine("open a table"))?;
            let value = table.get(key).map_err(engine("read a record"))?;
            Ok(value.map(|value| value.value().to_vec()))
        })
    }

    pub(crate) fn vote(&self) -> Result<Option<Vote>, DiskError> {
        self.meta(VOTE)
    }

    pub(crate) async fn save_acquaintances(&self, known: &BTreeMap<u64, u64>) -> Result<(), DiskError> {
        self.write(Write::Meta { key: ACQUAINTANCES, record: encode("the known members", known)? }).await
    }

    /// Which store each member that we ever talked to had.
    pub(crate) fn acquaintances(&self) -> Result<BTreeMap<u64, u64>, DiskError> {
        Ok(self.meta(ACQUAINTANCES)?.unwrap_or_default())
    }

    /// How far the log was known to be committed. It is a hint that may be older than the truth, or newer than a log
    /// that was truncated by hand; openraft takes the smaller of it and what it finds.
    pub(crate) fn committed(&self) -> Result<Option<LogId>, DiskError> {
        Ok(self.meta::<Option<LogId>>(COMMITTED)?.flatten())
    }

    /// The entries of `range`, at most `bytes_max` bytes of them but at least one if there is any.
    pub(crate) fn entries(
        &self,
        from: u64,
        until: u64,
        bytes_max: usize,
    ) -> Result<Vec<LogEntry>, DiskError> {
        self.read(|transaction| {
            let table = transaction.open_table(LOG).map_err(engine("open the log"))?;
            let range =
                table.range(from.to_be_bytes()..until.to_be_bytes()).map_err(engine("read the log"))?;
            let mut entries = Vec::new();
            let mut bytes = 0_usize;
            for item in range {
                let (key, value) = item.map_err(engine("read a log entry"))?;
                bytes = bytes.saturating_add(value.value().len());
                if bytes > bytes_max && !entries.is_empty() {
                    break;
                }
                entries.push(log_entry(key.value(), value.value())?);
            }
            Ok(entries)
        })
    }

    pub(crate) fn bounds(&self) -> Result<LogBounds, DiskError> {
        let purged = self.meta::<LogId>(PURGED)?;
        let last = self.read(|transaction| {
            let table = transaction.open_table(LOG).map_err(engine("open the log"))?;
            let last = table.last().map_err(engine("read the last log entry"))?;
            last.map(|(key, value)| log_entry(key.value(), value.value())).transpose()
        })?;
        Ok(LogBounds { purged, last: last.map(|entry| entry.id).or(purged) })
    }

    pub(crate) fn snapshot_head(&self) -> Result<Option<SnapshotHead>, DiskError> {
        self.record(SNAPSHOT, HEAD)
    }

    /// Head and sealed data of the current snapshot.
    pub(crate) fn snapshot(&self) -> Result<Option<(SnapshotHead, Vec<u8>)>, DiskError> {
        let Some(head) = self.snapshot_head()? else { return Ok(None) };
        let data = self.bytes(SNAPSHOT, DATA)?;
        let missing = || DiskError::Inconsistent("a snapshot's head is there, but not its data".to_owned());
        data.map(|data| Some((head, data))).ok_or_else(missing)
    }

    /// Reads everything once. openraft believes a store without looking, so we look.
    fn check(&self) -> Result<(), DiskError> {
        self.vote()?;
        self.committed()?;
        let purged = self.meta::<LogId>(PURGED)?;
        let snapshot = self.snapshot()?.and_then(|(head, _)| head.last);
        if purged > snapshot {
            return Err(DiskError::Inconsistent(format!(
                "the log was purged up to {purged:?}, but the snapshot reaches only {snapshot:?}"
            )));
        }
        self.read(|transaction| {
            let table = transaction.open_table(LOG).map_err(engine("open the log"))?;
            let items = table.iter().map_err(engine("read the log"))?;
            for (expected, item) in (purged.map_or(0, |id| id.index.saturating_add(1))..).zip(items) {
                let (key, value) = item.map_err(engine("read a log entry"))?;
                let found = log_entry(key.value(), value.value())?.id.index;
                if found != expected {
                    return Err(DiskError::Inconsistent(format!(
                        "the log has a hole: expected entry {expected}, found {found}"
                    )));
                }
            }
            Ok(())
        })
    }
}

/// How the store is opened. redb believes a file that was closed in order: a damaged key in one of its pages would
/// merely not be found, and a vote that is not found can be given twice. So every page's checksum is looked at first;
/// the whole file is read at opening anyway.
pub(crate) fn engine_settings() -> redb::Builder {
    let mut settings = Database::builder();
    settings.set_check_integrity_on_open(true);
    settings
}

fn log_entry(key: [u8; 8], value: &[u8]) -> Result<LogEntry, DiskError> {
    let index = u64::from_be_bytes(key);
    let entry: LogEntry = decode(value, || format!("log entry {index}"))?;
    if entry.id.index != index {
        return Err(DiskError::Inconsistent(format!("log entry {index} says that it is {}", entry.id.index)));
    }
    Ok(entry)
}

fn begin(db: &Database, durability: Durability) -> Result<WriteTransaction, DiskError> {
    let mut transaction = db.begin_write().map_err(engine("begin to write"))?;
    transaction.set_durability(durability).map_err(engine("begin to write durably"))?;
    Ok(transaction)
}

fn write(transaction: &WriteTransaction, write: Write) -> Result<(), DiskError> {
    match write {
        Write::Append(entries) => {
            let mut log = transaction.open_table(LOG).map_err(engine("open the log"))?;
            for (index, record) in entries {
                log.insert(index, record.as_slice()).map_err(engine("append to the log"))?;
            }
        }
        Write::Truncate { from } => {
            let mut log = transaction.open_table(LOG).map_err(engine("open the log"))?;
            log.retain_in(from.to_be_bytes().., |_, _| false).map_err(engine("truncate the log"))?;
        }
        Write::Purge { upto, record } => {
            // `purged` first: should the order ever matter, a log that says too much was purged is safe.
            let mut meta = transaction.open_table(META).map_err(engine("open the records"))?;
            meta.insert(PURGED, record.as_slice()).map_err(engine("write the purged position"))?;
            let mut log = transaction.open_table(LOG).map_err(engine("open the log"))?;
            log.retain_in(..=upto.to_be_bytes(), |_, _| false).map_err(engine("purge the log"))?;
        }
        Write::Meta { key, record } => {
            let mut meta = transaction.open_table(META).map_err(engine("open the records"))?;
            meta.insert(key, record.as_slice()).map_err(engine("write a record"))?;
        }
        Write::Snapshot { last, head, data } => {
            let mut snapshot = transaction.open_table(SNAPSHOT).map_err(engine("open the snapshot"))?;
            let there = snapshot.get(HEAD).map_err(engine("read the snapshot's head"))?;
            let there =
                there.map(|head| decode::<SnapshotHead>(head.value(), || "the snapshot's head".to_owned()));
            if there.transpose()?.is_some_and(|there| there.last > last) {
                return Ok(());
            }
            snapshot.insert(HEAD, head.as_slice()).map_err(engine("write the snapshot's head"))?;
            snapshot.insert(DATA, data.as_slice()).map_err(engine("write the snapshot's data"))?;
        }
    }
    Ok(())
}

/// One transaction for all of `writes`.
fn commit(db: &RwLock<Option<Database>>, writes: Vec<Write>) -> Result<(), DiskError> {
    let db = db.read().unwrap_or_else(PoisonError::into_inner);
    let db = db.as_ref().ok_or(DiskError::Closed)?;
    let durable = writes.iter().any(Write::must_be_durable);
    let durability = if durable { Durability::Immediate } else { Durability::None };
    let transaction = begin(db, durability)?;
    for one in writes {
        write(&transaction, one)?;
    }
    transaction.commit().map_err(engine("commit to disk"))
}

/// The one that writes: ends when the store is closed. After a failure it only refuses.
struct Writer {
    db: Arc<RwLock<Option<Database>>>,
    waiting: mpsc::UnboundedReceiver<Queued>,
    failed: Option<DiskError>,
}

impl Writer {
    fn run(mut self) {
        while let Some(first) = self.waiting.blocking_recv() {
            self.write(first);
        }
    }

    async fn run_at_the_pace_of(mut self, medium: Arc<dyn Medium>) {
        while let Some(first) = self.waiting.recv().await {
            tokio::time::sleep(medium.pace()).await;
            self.write(first);
        }
    }

    /// One transaction for `first` and everything else that waits by now; then the answers.
    fn write(&mut self, first: Queued) {
        let waiting = std::iter::from_fn(|| self.waiting.try_recv().ok());
        let queued = std::iter::once(first).chain(waiting.take(BATCH_MAX - 1));
        let (writes, done): (Vec<_>, Vec<_>) = queued.map(|one| (one.write, one.done)).unzip();
        let result = match &self.failed {
            None => commit(&self.db, writes),
            Some(error) => Err(DiskError::Stopped(error.to_string())),
        };
        if let (Err(error), None) = (&result, &self.failed) {
            tracing::error!(error = error as &dyn std::error::Error, "write to the store; this member stops");
            self.failed = Some(error.clone());
        }
        for done in done {
            // Whoever asked may have been cancelled; the write is on disk all the same.
            drop(done.send(result.clone()));
        }
    }
}
