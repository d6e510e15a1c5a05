//! The memory of a member: propose, read, watch, change members.
//!
//! Why it exists: this is all that the rest of the program sees of Raft. No type of openraft, redb or sled leaves
//! this crate.
//! What it never does: live on half dead. When the Raft core or the disk fails, [`StoreEvent::Fatal`] is sent, every
//! call fails, and the process should exit; a restart is the repair.

use crate::clock::boottime;
use crate::config::{Config, Settings, Timing};
use crate::disk::Disk;
use crate::gate::Gate;
use crate::ground::{Door, Ground, Wire};
use crate::history::{self, History, Recorder};
use crate::identity::{self, DirLock, Home, OpenError};
use crate::listen::{self, Service};
use crate::log::Log;
use crate::machine::{Machine, Shared, TookOver};
use crate::network::Network;
use crate::peers::{Acquaintances, Peers};
use crate::tls_wire::{TlsDoor, TlsWire};
use crate::types::{Address, Member, Types, Vote};
use openraft::error::{CheckIsLeaderError, ClientWriteError, InitializeError, RaftError};
use openraft::metrics::RaftMetrics;
use openraft::{Raft, ServerState, SnapshotPolicy};
use policies::{
    Applied, ClusterState, LeaderEpoch, LogIndex, MemberId, Millis, Mono, Proposal, Rejected, causes,
};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{RwLock, mpsc};
use tokio::task::JoinSet;

/// Largest proposal, as JSON. Far above any command, far below a frame.
pub const PROPOSAL_BYTES_MAX: usize = 1 << 20;
/// Largest message between members.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// What happened to the member's memory.
#[derive(Debug, Clone, PartialEq)]
pub enum StoreEvent {
    /// A committed entry was applied. In order, each once per process and [`StoreEvent::Installed`].
    Applied {
        /// Its index.
        index: LogIndex,
        /// What was applied.
        proposal: Arc<Proposal>,
    },
    /// The whole state was replaced: at opening, and when a snapshot came from the leader.
    Installed(Arc<ClusterState>),
    /// Leadership changed, as far as we can see.
    Leader {
        /// Who leads.
        term_leader: Option<MemberId>,
        /// Whether it is we.
        me: bool,
    },
    /// Another member of the cluster sent this to us. TLS vouches for the sender.
    Message {
        /// The sender.
        from: MemberId,
        /// What it sent.
        bytes: Vec<u8>,
    },
    /// The memory is dead; the process should exit. The text says why.
    Fatal(String),
}

/// How far the log is; for people and metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// The last entry on our disk.
    pub last: Option<LogIndex>,
    /// The last entry applied here.
    pub applied: Option<LogIndex>,
    /// The last entry in the snapshot.
    pub snapshot: Option<LogIndex>,
    /// The last entry that is gone from the log.
    pub purged: Option<LogIndex>,
    /// The last entry that each member has; empty unless we lead.
    pub replicated: BTreeMap<MemberId, LogIndex>,
}

/// Why a proposal has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// We are not the leader; nothing was proposed.
    #[error("this member is not the leader{}", says(leader.as_ref()))]
    NotLeader {
        /// Who is, if we know.
        leader: Option<Member>,
    },
    /// It may have been committed, or may be yet.
    #[error("the outcome is unknown: {why}")]
    OutcomeUnknown {
        /// What happened instead of an answer.
        why: String,
    },
    /// It is too large; nothing was proposed.
    #[error("the proposal has {found} bytes, more than {PROPOSAL_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        found: usize,
    },
    /// The memory is dead.
    #[error("this member's memory is dead: {0}")]
    Fatal(String),
}

/// Why the state cannot be shown to be the newest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BarrierError {
    /// We are not the leader.
    #[error("this member is not the leader{}", says(leader.as_ref()))]
    NotLeader {
        /// Who is, if we know.
        leader: Option<Member>,
    },
    /// Too few members confirmed in time that we lead.
    #[error("too few members confirm that this member leads: {why}")]
    NoQuorum {
        /// What happened instead.
        why: String,
    },
    /// The memory is dead.
    #[error("this member's memory is dead: {0}")]
    Fatal(String),
}

/// Why a cluster was not begun.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BootstrapError {
    /// The member given is not we.
    #[error("this is {me}, so it cannot begin a cluster as {given}")]
    NotMe {
        /// Our id.
        me: MemberId,
        /// The id given.
        given: MemberId,
    },
    /// The store holds something.
    #[error("this member is part of a cluster already")]
    NotEmpty,
    /// The memory is dead.
    #[error("this member's memory is dead: {0}")]
    Fatal(String),
}

fn says(leader: Option<&Member>) -> String {
    leader.map_or_else(String::new, |leader| format!("; {} is, at {}", leader.id, leader.api))
}

/// The memory of one member. Cheap to clone; all clones are the same memory.
#[derive(Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) me: MemberId,
    pub(crate) timing: Timing,
    pub(crate) raft: Raft<Types>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) network: Network,
    /// While leadership is being handed over, nothing is proposed and no lease is given.
    pub(crate) transferring: AtomicBool,
    disk: Arc<Disk>,
    state: Shared,
    took_over: TookOver,
    history: History,
    local: SocketAddr,
    tasks: Mutex<JoinSet<()>>,
    closing: Arc<AtomicBool>,
    lock: Mutex<Option<DirLock>>,
}

/// What a memory is made of, whatever it stands on.
struct Base {
    started: Mono,
    home: Home,
    wire: Arc<dyn Wire>,
    door: Box<dyn Door>,
    history: (History, Recorder),
    local: SocketAddr,
    dir: PathBuf,
}

impl Store {
    /// Opens the memory in `config.dir`, or makes an empty one if there never was one, and joins the member traffic.
    ///
    /// The first event is [`StoreEvent::Installed`] with the state of the last snapshot; the committed entries after
    /// it follow as [`StoreEvent::Applied`].
    ///
    /// # Errors
    /// [`OpenError`], which says what to do. A store that is missing or damaged is never replaced by an empty one.
    pub async fn open(config: Config) -> Result<(Store, mpsc::UnboundedReceiver<StoreEvent>), OpenError> {
        config.validate()?;
        let started = boottime();
        let (dir, me, cluster) = (config.dir.clone(), config.me, config.cluster.clone());
        let home = tokio::task::spawn_blocking(move || identity::open(&dir, me, &cluster)).await;
        let home = home.map_err(|error| OpenError::Core(causes(&error)))??;
        let listen = |source| OpenError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
        let local = listener.local_addr().map_err(listen)?;
        let wire = Arc::new(TlsWire::new(&config.tls));
        let door = Box::new(TlsDoor::new(listener, &config.tls));
        let history = history::open(config.dir.join("history"), config.history_keep);
        Self::assemble(config.settings(), Base { started, home, wire, door, history, local, dir: config.dir })
            .await
    }

    /// Opens the memory on something else than a machine; without a searchable history.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub async fn open_on(
        ground: Ground,
        settings: Settings,
    ) -> Result<(Store, mpsc::UnboundedReceiver<StoreEvent>), OpenError> {
        settings.validate()?;
        let started = boottime();
        let home = identity::open_on(&ground.medium, settings.me, &settings.cluster)?;
        let (history, local, dir) = (history::none(), SocketAddr::from(([0; 4], 0)), PathBuf::new());
        Self::assemble(
            settings,
            Base { started, home, wire: ground.wire, door: ground.door, history, local, dir },
        )
        .await
    }

    async fn assemble(
        settings: Settings,
        base: Base,
    ) -> Result<(Store, mpsc::UnboundedReceiver<StoreEvent>), OpenError> {
        let Base { started, home, wire, door, history: (history, recorder), local, dir } = base;
        let (me, timing) = (settings.me, settings.timing);
        let (events, receiver) = mpsc::unbounded_channel();
        let disk = Arc::new(home.disk);
        let damaged = |error| identity::damaged(&dir, me, &error);
        let machine = Machine::open(Arc::clone(&disk), events.clone(), recorder).map_err(damaged)?;
        let (state, took_over) = (machine.shared(), machine.took_over());
        let gate = Arc::new(Gate::new(home.fresh, started, timing.election_max));
        let acquaintances = Arc::new(Acquaintances::open(Arc::clone(&disk)).map_err(damaged)?);
        let network = Network {
            peers: Arc::new(Peers::new(home.identity.clone(), wire, timing, Arc::clone(&acquaintances))),
            gate: Arc::clone(&gate),
            last_sent: Arc::default(),
            pause: Duration::from_millis(timing.heartbeat.0),
        };
        let log = Log { me: me.0, disk: Arc::clone(&disk) };
        let core = core_config(&settings, home.fresh)?;
        let raft = Raft::new(me.0, Arc::new(core), network.clone(), log, machine).await;
        let raft = raft.map_err(|error| OpenError::Core(causes(&error)))?;
        // The core publishes who the members are before it takes its first question.
        raft.with_raft_state(|_| ()).await.map_err(|error| OpenError::Core(causes(&error)))?;

        let service = Service {
            identity: home.identity,
            raft: raft.clone(),
            gate: Arc::clone(&gate),
            acquaintances,
            events: events.clone(),
            promise: timing.election_max,
            hearing: RwLock::default(),
        };
        let closing = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        tasks.spawn(listen::accept(door, Arc::new(service)));
        tasks.spawn(watch(raft.clone(), Arc::clone(&network.peers), me, events, Arc::clone(&closing)));
        if !home.fresh {
            tasks.spawn(campaign_later(raft.clone(), timing.election_min));
        }
        let inner = Inner {
            me,
            timing,
            raft,
            gate,
            network,
            disk,
            state,
            took_over,
            history,
            local,
            closing,
            transferring: AtomicBool::new(false),
            tasks: Mutex::new(tasks),
            lock: Mutex::new(home.lock),
        };
        Ok((Store { inner: Arc::new(inner) }, receiver))
    }

    /// Begins a new cluster with ourselves as its only member.
    ///
    /// # Errors
    /// [`BootstrapError`]; nothing has changed then.
    pub async fn bootstrap(&self, member: &Member) -> Result<(), BootstrapError> {
        let me = self.inner.me;
        if member.id != me {
            return Err(BootstrapError::NotMe { me, given: member.id });
        }
        let first = BTreeMap::from([(me.0, member.to_address())]);
        self.inner.raft.initialize(first).await.map_err(|error| match error {
            RaftError::APIError(InitializeError::NotAllowed(_)) => BootstrapError::NotEmpty,
            RaftError::APIError(InitializeError::NotInMembers(error)) => {
                BootstrapError::Fatal(causes(&error))
            }
            RaftError::Fatal(fatal) => BootstrapError::Fatal(causes(&fatal)),
        })
    }

    /// Proposes a command, and waits until it is committed and applied here; its [`StoreEvent::Applied`] is sent
    /// before this returns.
    ///
    /// # Errors
    /// [`ProposeError::NotLeader`] and [`ProposeError::TooLarge`] mean that nothing was proposed; after
    /// [`ProposeError::OutcomeUnknown`] only the log can tell.
    pub async fn propose(
        &self,
        proposal: Proposal,
    ) -> Result<(LogIndex, Result<Applied, Rejected>), ProposeError> {
        let found = serde_json::to_vec(&proposal).map_or(usize::MAX, |json| json.len());
        if found > PROPOSAL_BYTES_MAX {
            return Err(ProposeError::TooLarge { found });
        }
        // Asked here, because openraft's `ForwardToLeader` does not tell "never proposed" from "proposed, then
        // truncated by a new leader"; the latter may still be committed by a third.
        if !self.is_leader() || self.inner.transferring.load(Ordering::SeqCst) {
            return Err(self.dead().map_or_else(
                || ProposeError::NotLeader {
                    leader: self.leader().filter(|leader| leader.id != self.inner.me),
                },
                ProposeError::Fatal,
            ));
        }
        let limit = self.inner.timing.propose_limit;
        let written = self.inner.raft.client_write(proposal);
        let unknown = |why| ProposeError::OutcomeUnknown { why };
        let late = |_elapsed| unknown(format!("it was not committed within {limit}"));
        let written = tokio::time::timeout(Duration::from_millis(limit.0), written).await.map_err(late)?;
        let written = written.map_err(|error| match error {
            RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => {
                unknown("leadership was lost meanwhile".to_owned())
            }
            RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => unknown(causes(&error)),
            RaftError::Fatal(fatal) => ProposeError::Fatal(causes(&fatal)),
        })?;
        let index = LogIndex(written.log_id.index);
        let result = written.data.0.ok_or_else(|| unknown("the entry was not a proposal".to_owned()))?;
        Ok((index, result))
    }

    /// Looks at the state as of the last entry applied here. Keep `look` short: applying waits for it.
    pub fn read<T>(&self, look: impl FnOnce(&ClusterState) -> T) -> T {
        look(&self.inner.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// After this, [`Store::read`] shows everything that was committed anywhere before the call (ReadIndex, Raft
    /// dissertation §6.4).
    ///
    /// # Errors
    /// [`BarrierError`]; then it may show an older state.
    pub async fn barrier(&self) -> Result<(), BarrierError> {
        if self.inner.transferring.load(Ordering::SeqCst) {
            return Err(BarrierError::NotLeader { leader: None });
        }
        let limit = self.inner.timing.propose_limit;
        let late = |_elapsed| BarrierError::NoQuorum { why: format!("no answer within {limit}") };
        let confirmed = self.inner.raft.ensure_linearizable();
        let confirmed =
            tokio::time::timeout(Duration::from_millis(limit.0), confirmed).await.map_err(late)?;
        confirmed.map(|_upto| ()).map_err(|error| match error {
            RaftError::APIError(CheckIsLeaderError::ForwardToLeader(forward)) => {
                let leader = forward.leader_id.and_then(|id| self.member(MemberId(id)));
                BarrierError::NotLeader { leader }
            }
            RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(error)) => {
                BarrierError::NoQuorum { why: causes(&error) }
            }
            RaftError::Fatal(fatal) => BarrierError::Fatal(causes(&fatal)),
        })
    }

    /// Until when nobody else can be leader, on CLOCK_BOOTTIME (R5); it may be past. `None` if we are not leader.
    ///
    /// Asking is promising: until the returned time this member votes for nobody.
    pub fn lease_end(&self) -> Option<Mono> {
        self.lease(|_| true)
    }

    /// The same, if `leadership` is what this member leads by now. A member that was deposed and elected again may not
    /// have noticed, and would go on with what it wanted before; others have decided since (R10).
    pub fn lease_end_of(&self, leadership: LeaderEpoch) -> Option<Mono> {
        let took_over = *self.inner.took_over.lock().unwrap_or_else(PoisonError::into_inner);
        let (newest, term, member) = took_over?;
        self.lease(|vote| newest == leadership && (vote.term, vote.member) == (term, member))
    }

    fn lease(&self, fits: impl Fn(Vote) -> bool) -> Option<Mono> {
        if self.inner.transferring.load(Ordering::SeqCst) || self.dead().is_some() {
            return None;
        }
        let metrics = self.inner.raft.metrics();
        let (vote, membership) = {
            let metrics = metrics.borrow();
            leading(&metrics, self.inner.me)?;
            (Vote::from(metrics.vote), Arc::clone(&metrics.membership_config))
        };
        if !fits(vote) {
            return None;
        }
        let voters = membership.membership().get_joint_config();
        self.inner.gate.hand_out(vote, self.inner.me.0, voters, boottime(), self.inner.timing.election_min)
    }

    /// The members, by id, as of the newest membership that we know.
    pub fn members(&self) -> Vec<Member> {
        members_of(&self.inner.raft.metrics().borrow())
    }

    pub(crate) fn member(&self, id: MemberId) -> Option<Member> {
        self.members().into_iter().find(|member| member.id == id)
    }

    /// Who leads, as far as we can see.
    pub fn leader(&self) -> Option<Member> {
        let leader = self.inner.raft.metrics().borrow().current_leader;
        leader.and_then(|id| self.member(MemberId(id)))
    }

    /// Whether we lead, as far as we can see. Not enough to act on: see [`Store::lease_end`].
    pub fn is_leader(&self) -> bool {
        self.dead().is_none() && leading(&self.inner.raft.metrics().borrow(), self.inner.me).is_some()
    }

    /// How far the log is.
    pub fn progress(&self) -> Progress {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow();
        let index = |id: Option<openraft::LogId<u64>>| id.map(|id| LogIndex(id.index));
        let replicated = metrics.replication.iter().flatten();
        Progress {
            last: metrics.last_log_index.map(LogIndex),
            applied: index(metrics.last_applied),
            snapshot: index(metrics.snapshot),
            purged: index(metrics.purged),
            replicated: replicated.filter_map(|(&id, &upto)| Some((MemberId(id), index(upto)?))).collect(),
        }
    }

    /// Our own id.
    pub fn me(&self) -> MemberId {
        self.inner.me
    }

    /// Where we accept other members' connections.
    pub fn local_address(&self) -> SocketAddr {
        self.inner.local
    }

    /// Sends `bytes` to all other members, best effort: what a slow or absent member cannot take is dropped. Returns
    /// `false` if it is larger than [`MESSAGE_BYTES_MAX`] and was sent to nobody.
    pub fn broadcast(&self, bytes: &[u8]) -> bool {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return false;
        }
        let metrics = self.inner.raft.metrics();
        let membership = Arc::clone(&metrics.borrow().membership_config);
        let others = membership.nodes().filter(|(id, _)| **id != self.inner.me.0);
        let addresses = others.map(|(&id, address)| (id, address.peer.clone()));
        self.inner.network.peers.broadcast(addresses, bytes);
        true
    }

    /// The searchable history.
    pub fn history(&self) -> &History {
        &self.inner.history
    }

    /// Stops and closes everything. Queued writes are finished; every later call fails.
    pub async fn shutdown(&self) {
        self.inner.closing.store(true, Ordering::SeqCst);
        let tasks = std::mem::take(&mut *self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        drop(tasks);
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::warn!(%error, "the Raft core did not stop cleanly");
        }
        self.inner.network.peers.keep(|_| false);
        let inner = Arc::clone(&self.inner);
        let close = move || {
            inner.disk.close();
            inner.history.close();
            drop(inner.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
        };
        if let Err(error) = tokio::task::spawn_blocking(close).await {
            tracing::warn!(%error, "the store did not close cleanly");
        }
    }

    /// Why the memory is dead, if it is.
    pub(crate) fn dead(&self) -> Option<String> {
        let metrics = self.inner.raft.metrics();
        let stopped = metrics.borrow().running_state.as_ref().err().map(|fatal| causes(fatal));
        let panicked = metrics.has_changed().is_err().then(|| "the Raft core ended".to_owned());
        stopped.or(panicked)
    }
}

/// `Some` if `me` is an established leader.
pub(crate) fn leading(metrics: &RaftMetrics<u64, Address>, me: MemberId) -> Option<()> {
    let leads = metrics.state == ServerState::Leader
        && metrics.vote.committed
        && metrics.vote.leader_id.node_id == me.0
        && metrics.current_leader == Some(me.0);
    leads.then_some(())
}

fn members_of(metrics: &RaftMetrics<u64, Address>) -> Vec<Member> {
    let membership = metrics.membership_config.membership();
    let voter = |id: u64| membership.get_joint_config().iter().any(|voters| voters.contains(&id));
    let member = |(&id, address): (&u64, &Address)| Member {
        id: MemberId(id),
        address: address.peer.clone(),
        api: address.api.clone(),
        voter: voter(id),
    };
    membership.nodes().map(member).collect()
}

fn core_config(config: &Settings, fresh: bool) -> Result<openraft::Config, OpenError> {
    let timing = config.timing;
    let core = openraft::Config {
        cluster_name: config.cluster.clone(),
        heartbeat_interval: timing.heartbeat.0,
        election_timeout_min: timing.election_min.0,
        election_timeout_max: timing.election_max.0,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshots.after_entries),
        max_in_snapshot_log_to_keep: config.snapshots.keep_entries,
        enable_elect: fresh,
        ..openraft::Config::default()
    };
    core.validate().map_err(|error| OpenError::Core(causes(&error)))
}

/// A restarted member campaigns no sooner than `election_min` after its start. openraft sees to that where there are
/// several voters, because the age of the stored vote counts from the start (0.9.25 `storage/helper.rs:172`,
/// `raft_core.rs:1494`), but a single voter elects itself at the first tick (`raft_core.rs:1463`), and its own lease
/// from before the restart may still run.
async fn campaign_later(raft: Raft<Types>, election_min: Millis) {
    tokio::time::sleep(Duration::from_millis(election_min.0)).await;
    raft.runtime_config().elect(true);
}

/// Tells the supervisor who leads and when the core died, and forgets connections to former members.
async fn watch(
    raft: Raft<Types>,
    peers: Arc<Peers>,
    me: MemberId,
    events: mpsc::UnboundedSender<StoreEvent>,
    closing: Arc<AtomicBool>,
) {
    let mut metrics = raft.metrics();
    let mut told = None;
    loop {
        let (leader, term, stopped, membership) = {
            let now = metrics.borrow_and_update();
            let leader = (now.current_leader.map(MemberId), leading(&now, me).is_some());
            let term = leader.1.then_some(now.vote.leader_id.term);
            // openraft says the causes with the error; to follow them would say them again.
            let stopped = now.running_state.as_ref().err().map(|fatal| said_plainly(fatal.to_string()));
            (leader, term, stopped, Arc::clone(&now.membership_config))
        };
        // A failed send means that the supervisor has dropped its end, at shutdown: nobody is left to be told.
        if told != Some((leader, term)) {
            // Another leadership of ours, and we missed the one between: else nobody would take over anew.
            if leader.1 && told.is_some_and(|(before, _): ((_, bool), _)| before.1) {
                drop(events.send(StoreEvent::Leader { term_leader: None, me: false }));
            }
            told = Some((leader, term));
            drop(events.send(StoreEvent::Leader { term_leader: leader.0, me: leader.1 }));
        }
        peers.keep(|id| membership.membership().get_node(&id).is_some());
        let ended = metrics.changed().await.is_err().then(|| "the Raft core ended".to_owned());
        if let Some(why) = stopped.or(ended) {
            if !closing.load(Ordering::SeqCst) {
                drop(events.send(StoreEvent::Fatal(why)));
            }
            return;
        }
    }
}
/// Why a leader's Raft core ended that was deposed while it began to send a snapshot: openraft 0.9.25 (`raft_core.rs`,
/// `Command::Replicate`) takes the end of a replication task that has just seen a newer vote for a failed disk. The process
/// ends and is started again; it would have become a follower.
pub const DEPOSED_MEANWHILE: &str = "another member took the lead while this one began to send a snapshot, and openraft \
     ended instead of following it; nothing is wrong with the disk";

fn said_plainly(fatal: String) -> String {
    if fatal.contains("replication channel closed") { DEPOSED_MEANWHILE.to_owned() } else { fatal }
}
