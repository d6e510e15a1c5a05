//! openraft's view of the store: the log and the vote.
//!
//! Why it exists: to close two traps of openraft 0.9 (see ADR 0003) and to translate.
//! What it never does: keep anything that is not on disk.

use crate::disk::{Disk, DiskError};
use crate::types::{Entry, LogEntry, Types, Vote};
use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{AnyError, LogId, LogState, OptionalSend, RaftLogReader, StorageError, StorageIOError};
use policies::causes;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

/// Most bytes of log that go into one append call. Keeps a frame far below its limit even when JSON is sent, and one
/// call short enough for its time limit. At least one entry is always sent.
const REPLICATE_BYTES_MAX: usize = 1 << 20;

/// The log, as openraft wants it. Cheap to clone: every replication task has one.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    pub(crate) me: u64,
    pub(crate) disk: Arc<Disk>,
}

type IoError = StorageIOError<u64>;

fn wrap(kind: fn(AnyError) -> IoError) -> impl Fn(DiskError) -> StorageError<u64> {
    move |error| StorageError::IO { source: kind(AnyError::error(causes(&error))) }
}

impl Log {
    fn entries(&self, from: u64, until: u64, bytes_max: usize) -> Result<Vec<Entry>, DiskError> {
        let entries = self.disk.entries(from, until, bytes_max)?;
        Ok(entries.into_iter().map(Entry::from).collect())
    }
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError<u64>> {
        let from = match range.start_bound() {
            Bound::Included(&index) => index,
            Bound::Excluded(&index) => index.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let until = match range.end_bound() {
            Bound::Included(&index) => index.saturating_add(1),
            Bound::Excluded(&index) => index,
            Bound::Unbounded => u64::MAX,
        };
        self.entries(from, until, usize::MAX).map_err(wrap(IoError::read_logs))
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, StorageError<u64>> {
        self.entries(start, end, REPLICATE_BYTES_MAX).map_err(wrap(IoError::read_logs))
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Log;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError<u64>> {
        let bounds = self.disk.bounds().map_err(wrap(IoError::read_logs))?;
        Ok(LogState {
            last_purged_log_id: bounds.purged.map(LogId::from),
            last_log_id: bounds.last.map(LogId::from),
        })
    }

    async fn get_log_reader(&mut self) -> Log {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &openraft::Vote<u64>) -> Result<(), StorageError<u64>> {
        self.disk.save_vote(Vote::from(*vote)).await.map_err(wrap(IoError::write_vote))
    }

    /// Trap F2: if the stored vote is our own and committed, openraft resumes leadership in the same term without an
    /// election (0.9.25 `engine_impl.rs:157`) and may serve reads that miss what it had acknowledged: 7 of 1,000
    /// simulated seeds. So our own vote comes back as not committed, and a restarted leader must win an election.
    async fn read_vote(&mut self) -> Result<Option<openraft::Vote<u64>>, StorageError<u64>> {
        let vote = self.disk.vote().map_err(wrap(IoError::read_vote))?;
        let ours = |vote: Vote| Vote { committed: vote.committed && vote.member != self.me, ..vote };
        Ok(vote.map(|vote| openraft::Vote::from(ours(vote))))
    }

    async fn save_committed(&mut self, committed: Option<LogId<u64>>) -> Result<(), StorageError<u64>> {
        self.disk.save_committed(committed.map(Into::into)).await.map_err(wrap(IoError::write))
    }

    async fn read_committed(&mut self) -> Result<Option<LogId<u64>>, StorageError<u64>> {
        let committed = self.disk.committed().map_err(wrap(IoError::read))?;
        Ok(committed.map(LogId::from))
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<(), StorageError<u64>>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<LogEntry> = entries.into_iter().map(|entry| LogEntry::from(&entry)).collect();
        let result = self.disk.append(&entries).await;
        callback.log_io_completed(result.clone().map_err(io::Error::other));
        result.map_err(wrap(IoError::write_logs))
    }

    async fn truncate(&mut self, log_id: LogId<u64>) -> Result<(), StorageError<u64>> {
        self.disk.truncate(log_id.index).await.map_err(wrap(IoError::write_logs))
    }

    async fn purge(&mut self, log_id: LogId<u64>) -> Result<(), StorageError<u64>> {
        self.disk.purge(log_id.into()).await.map_err(wrap(IoError::write_logs))
    }
}
