//! openraft's view of the state machine: applies proposals, makes and installs snapshots, tells the supervisor.
//!
//! Why it exists: `policies::ClusterState` is pure; somebody must hold it, feed it committed entries in order, and
//! keep its snapshots on disk.
//! What it never does: decide. What an entry means is `ClusterState::apply`'s business alone.

use crate::disk::{Disk, DiskError};
use crate::history::Recorder;
use crate::seal::{self, BadRecord};
use crate::store::StoreEvent;
use crate::types::{Address, Entry, Reply, SnapshotHead, SnapshotMeta, Types};
use openraft::storage::{RaftStateMachine, Snapshot};
use openraft::{
    AnyError, EntryPayload, LogId, OptionalSend, RaftSnapshotBuilder, StorageError, StorageIOError,
};
use policies::{ClusterState, Command, LeaderEpoch, LogIndex, Proposal, causes};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use tokio::sync::mpsc::UnboundedSender;

type IoError = StorageIOError<u64>;
type StoredMembership = openraft::StoredMembership<u64, Address>;

/// The replicated state, shared with readers.
pub(crate) type Shared = Arc<RwLock<ClusterState>>;

/// The newest leadership that was applied here, with the term and the member that put its entry into the log.
pub(crate) type TookOver = Arc<Mutex<Option<(LeaderEpoch, u64, u64)>>>;

/// Holds the state and what openraft must know about it.
#[derive(Debug)]
pub(crate) struct Machine {
    disk: Arc<Disk>,
    state: Shared,
    took_over: TookOver,
    applied: Option<LogId<u64>>,
    membership: StoredMembership,
    events: UnboundedSender<StoreEvent>,
    history: Recorder,
}

impl Machine {
    /// Starts from the snapshot on disk, or from the beginning, and announces that state.
    pub(crate) fn open(
        disk: Arc<Disk>,
        events: UnboundedSender<StoreEvent>,
        history: Recorder,
    ) -> Result<Machine, DiskError> {
        let damaged =
            |source| DiskError::Record { what: "the snapshot's data".to_owned(), source: Arc::new(source) };
        let (state, meta) = match disk.snapshot()? {
            None => (ClusterState::default(), SnapshotMeta::default()),
            Some((head, data)) => (seal::open(&data).map_err(damaged)?, SnapshotMeta::from(head)),
        };
        let machine = Machine {
            disk,
            state: Arc::default(),
            took_over: TookOver::default(),
            applied: meta.last_log_id,
            membership: meta.last_membership,
            events,
            history,
        };
        machine.replace(state);
        Ok(machine)
    }

    /// The state, for readers.
    pub(crate) fn shared(&self) -> Shared {
        Arc::clone(&self.state)
    }

    /// The newest leadership, for the lease.
    pub(crate) fn took_over(&self) -> TookOver {
        Arc::clone(&self.took_over)
    }

    fn remember_leadership(&self, leadership: Option<(LeaderEpoch, u64, u64)>) {
        *self.took_over.lock().unwrap_or_else(PoisonError::into_inner) = leadership;
    }

    /// A send fails only when the supervisor has dropped its end, at shutdown; then nobody is left to be told.
    fn announce(&self, event: StoreEvent) {
        drop(self.events.send(event));
    }

    fn replace(&self, state: ClusterState) {
        let mut current = self.state.write().unwrap_or_else(PoisonError::into_inner);
        *current = state.clone();
        // A snapshot does not say in which term its leadership began; whoever got one has to take over anew.
        self.remember_leadership(None);
        self.announce(StoreEvent::Installed(Arc::new(state)));
    }

    fn apply_one(&mut self, entry: Entry) -> Reply {
        self.applied = Some(entry.log_id);
        match entry.payload {
            EntryPayload::Blank => Reply(None),
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
                Reply(None)
            }
            EntryPayload::Normal(proposal) => {
                let (index, by) = (entry.log_id.index, entry.log_id.leader_id);
                if let Command::TookOver { .. } = proposal.command {
                    self.remember_leadership(Some((LeaderEpoch(index), by.term, by.node_id)));
                }
                self.apply_proposal(LogIndex(index), proposal)
            }
        }
    }

    fn apply_proposal(&self, index: LogIndex, proposal: Proposal) -> Reply {
        // Announced under the lock: whoever reads this state finds its event already on the way. Neither waits.
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let result = state.apply(index, &proposal);
        if let Ok(applied) = &result {
            self.history.record(&applied.events);
        }
        self.announce(StoreEvent::Applied { index, proposal: Arc::new(proposal) });
        Reply(Some(result))
    }
}

fn bad_snapshot(error: &BadRecord) -> StorageError<u64> {
    StorageError::IO { source: IoError::read_snapshot(None, AnyError::error(causes(error))) }
}

fn unwritten_snapshot(error: &DiskError) -> StorageError<u64> {
    StorageError::IO { source: IoError::write_snapshot(None, AnyError::error(causes(error))) }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId<u64>>, StoredMembership), StorageError<u64>> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Reply>, StorageError<u64>>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        Ok(entries.into_iter().map(|entry| self.apply_one(entry)).collect())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            disk: Arc::clone(&self.disk),
            state: Arc::new(self.state.read().unwrap_or_else(PoisonError::into_inner).clone()),
            applied: self.applied,
            membership: self.membership.clone(),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Vec<u8>>, StorageError<u64>> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Vec<u8>>,
    ) -> Result<(), StorageError<u64>> {
        let data = *snapshot;
        let state = seal::open(&data).map_err(|error| bad_snapshot(&error))?;
        let head = SnapshotHead::from(meta);
        self.disk.save_snapshot(&head, data).await.map_err(|error| unwritten_snapshot(&error))?;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.replace(state);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, StorageError<u64>> {
        let read = |error: DiskError| StorageError::IO {
            source: IoError::read_snapshot(None, AnyError::error(causes(&error))),
        };
        let snapshot = self.disk.snapshot().map_err(read)?;
        Ok(snapshot.map(|(head, data)| Snapshot { meta: head.into(), snapshot: Box::new(data) }))
    }
}

/// A copy of the state on its way to disk, so that applying goes on meanwhile.
#[derive(Debug)]
pub(crate) struct Builder {
    disk: Arc<Disk>,
    state: Arc<ClusterState>,
    applied: Option<LogId<u64>>,
    membership: StoredMembership,
}

impl RaftSnapshotBuilder<Types> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError<u64>> {
        let meta = SnapshotMeta {
            last_log_id: self.applied,
            last_membership: self.membership.clone(),
            snapshot_id: self.applied.map_or_else(|| "empty".to_owned(), |last| last.to_string()),
        };
        // Off the runtime: tens of megabytes take long enough to delay a heartbeat.
        let state = Arc::clone(&self.state);
        let sealed = self.disk.workers.run(move || seal::seal(&*state)).await;
        let unsealed = |error: AnyError| StorageError::IO { source: IoError::write_snapshot(None, error) };
        let sealed = sealed.map_err(|error| unsealed(AnyError::error(causes(&error))))?;
        let data = sealed.map_err(|error| unsealed(AnyError::error(causes(&error))))?;
        let head = SnapshotHead::from(&meta);
        self.disk.save_snapshot(&head, data.clone()).await.map_err(|error| unwritten_snapshot(&error))?;
        Ok(Snapshot { meta, snapshot: Box::new(data) })
    }
}
