//! The ingest: one UDP socket and one task for the heartbeats of all nodes.
//!
//! Why it exists: heartbeats never enter the log or the engine; they are read in batches, proved, and folded into the
//! watch table here, and only changes go out (facts/performance.md §1b).
//! What it never does: no judgement, no task for a node, no answer to a datagram but to a heartbeat that wants one and
//! passes every test ([`answer`]). A datagram that fails any test moves a counter and nothing else.
//!
//! Replay. A beat counts only if its sequence is above the newest of its life. The sequence is one for all paths, so
//! the copy over the second path is the *same* sequence (a duplicate, as it should be, which shows only that this path
//! works) and everything older is a replay or was overtaken; neither says anything that a newer beat has not said
//! better. What cannot be detected here: a member that has just started knows no sequences, so recordings can feign life
//! to it, or the farewell of a node that it has not heard yet. A verdict needs a majority of the members.

mod answer;

use crate::{clock, flight};
pub use answer::Answered;
use answer::{Answers, Outbox};
use ha_agent::inventory::{self, BadInventory, INVENTORY_BYTES_MAX};
use ha_agent::key::Key;
use ha_agent::wire::{BEAT_BYTES, NodeTag, WireError, peek_tag, verify};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, setsockopt, sockopt};
use policies::watch::{Change, Limits, Seen, Slot, Watch};
use policies::{Capabilities, MemberId, Millis, Mono, NodeId};
use raft_store::Tape;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tracing::{error, info};

/// Datagrams read by one system call. Measured best with tokio; more gains nothing (facts/performance.md §1b).
const BATCH: usize = 64;
/// A byte more than the longest datagram of ours, so that a longer one is seen to be longer.
const BUFFER_BYTES: usize = INVENTORY_BYTES_MAX + 1;
/// Wished-for receive buffer: about 90,000 heartbeats, which bridges a stall of a second at 20,000 nodes. Smaller: a
/// stall of this process drops heartbeats; larger: only memory that the kernel takes when it needs it.
const RECEIVE_BUFFER_BYTES: usize = 64 << 20;
/// Batches read at once before other work gets a turn: twice the receive buffer, so that all that had arrived when a
/// tick began is read before silence is looked for, and a flood cannot stop the ticks.
const BATCHES_AT_ONCE_MAX: usize = 2 * RECEIVE_BUFFER_BYTES / 768 / BATCH;
/// How often deadlines are looked at: the step of the wheel.
const TICK: Duration = Duration::from_millis(policies::watch::STEP_MS);
/// Commands that wait for the ingest: two for each node of the largest cluster.
const COMMANDS_MAX: usize = 2 * policies::OBJECTS_MAX;
/// Batches of news that wait for the loop; the ingest keeps further ones.
const BATCHES_MAX: usize = 64;
/// Batches of changes that wait for a slow receiver. When so many wait, the ingest stops reading and ticking, so that
/// nothing is lost and no silence is invented; commands are still served.
const WAITING_MAX: usize = 1024;

/// What the ingest is asked to do.
#[derive(Debug)]
pub enum Command {
    /// Watch a node. Asked again: new key and limits, all that was heard stays.
    Enroll {
        /// Which.
        node: NodeId,
        /// Its key.
        key: Key,
        /// When it is news.
        limits: Limits,
    },
    /// Watch it no more.
    Forget {
        /// Which.
        node: NodeId,
    },
    /// Tell what each node said last; `None` for one that was never heard.
    Snapshot(oneshot::Sender<BTreeMap<NodeId, Option<Seen>>>),
}

/// Changes that were noticed together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// When they were noticed.
    pub at: Mono,
    /// In the order in which they happened.
    pub changes: Vec<(NodeId, Change)>,
    /// The hardware that nodes told of, in the same order.
    pub found: Vec<(NodeId, Box<Capabilities>)>,
}

/// What became of the datagrams, for the metrics. Each datagram moves exactly one of them.
#[derive(Debug, Default)]
pub struct Counters {
    /// Heartbeats that were taken.
    pub accepted: AtomicU64,
    /// The newest heartbeat once more: over another path, or replayed.
    pub duplicate: AtomicU64,
    /// Older than the newest of its life: replayed, or overtaken on the way.
    pub replayed: AtomicU64,
    /// Authentic, of another life than the one that is being heard, or of one that was displaced: a cloned node, or
    /// replayed.
    pub other_life: AtomicU64,
    /// Not made with the node's key.
    pub bad_mac: AtomicU64,
    /// From a node that is not enrolled.
    pub unknown_node: AtomicU64,
    /// No heartbeat of a version that is known here.
    pub malformed: AtomicU64,
    /// Inventories that were taken.
    pub inventories: AtomicU64,
    /// Of the answers; they are counted apart.
    pub answered: Answered,
}

impl Counters {
    /// Name and value of each, for the metrics.
    pub fn totals(&self) -> [(&'static str, u64); 8] {
        [
            ("accepted", &self.accepted),
            ("duplicate", &self.duplicate),
            ("replayed", &self.replayed),
            ("other_life", &self.other_life),
            ("bad_mac", &self.bad_mac),
            ("unknown_node", &self.unknown_node),
            ("malformed", &self.malformed),
            ("inventory", &self.inventories),
        ]
        .map(|(name, counter)| (name, counter.load(Relaxed)))
    }
}

/// Why the ingest does not start, or why it ended.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The socket could not be opened.
    #[error("open the heartbeat socket at {at}")]
    Open {
        /// Where.
        at: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The socket could not be read.
    #[error("read heartbeats")]
    Receive {
        /// Why.
        source: io::Error,
    },
}

/// An ingest that runs, as the loop sees it.
pub struct Ears {
    /// What it is asked.
    pub commands: mpsc::Sender<Command>,
    /// What it notices.
    pub news: mpsc::Receiver<Batch>,
    /// The task. Its end is the end of the member: without ears every node would seem dead.
    pub listening: JoinHandle<Result<(), IngestError>>,
}

impl Ears {
    /// Starts what `run` makes of the far ends.
    pub fn of<R>(run: impl FnOnce(mpsc::Receiver<Command>, mpsc::Sender<Batch>) -> R) -> Self
    where
        R: Future<Output = Result<(), IngestError>> + Send + 'static,
    {
        let (commands, asked) = mpsc::channel(COMMANDS_MAX);
        let (batches, news) = mpsc::channel(BATCHES_MAX);
        Ears { commands, news, listening: tokio::spawn(run(asked, batches)) }
    }
}

/// The ingest, ready to run.
pub struct Ingest {
    socket: UdpSocket,
    local: SocketAddr,
    table: Table,
    tape: Tape,
}

impl Ingest {
    /// Opens the socket. From here on the kernel keeps what arrives.
    ///
    /// # Errors
    /// [`IngestError::Open`] if the address cannot be bound.
    pub fn bind(at: SocketAddr, counters: Arc<Counters>) -> Result<Self, IngestError> {
        let open = || {
            let socket = std::net::UdpSocket::bind(at)?;
            socket.set_nonblocking(true)?;
            // Beyond net.core.rmem_max only with CAP_NET_ADMIN; without it the kernel gives what it allows (socket(7)).
            if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES).is_err() {
                setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER_BYTES)?;
            }
            let bytes = nix::sys::socket::getsockopt(&socket, sockopt::RcvBuf)?;
            let local = socket.local_addr()?;
            info!(%local, receive_buffer_bytes = bytes, "listening for heartbeats");
            Ok((UdpSocket::from_std(socket)?, local))
        };
        let (socket, local) = open().map_err(|source| IngestError::Open { at, source })?;
        Ok(Ingest { socket, local, table: Table::new(clock::mono(), counters), tape: Tape::none() })
    }

    /// Tells this tape of gaps between heartbeats that are no news.
    pub fn recording(mut self, tape: Tape) -> Self {
        self.table.gaps = tape.runs().then(Vec::new);
        self.tape = tape;
        self
    }

    /// Answers in the name of this member.
    pub fn answering(mut self, me: MemberId) -> Self {
        self.table = self.table.answering(me);
        self
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Runs until all senders of `commands` or the receiver of `batches` are gone.
    ///
    /// # Errors
    /// [`IngestError::Receive`] if the socket fails; a member that hears nothing must not go on.
    pub async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        batches: mpsc::Sender<Batch>,
    ) -> Result<(), IngestError> {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut buffers = vec![[0; BUFFER_BYTES]; BATCH];
        let mut waiting: VecDeque<Batch> = VecDeque::new();
        let read = |source| IngestError::Receive { source };
        loop {
            let has_room = waiting.len() < WAITING_MAX;
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.table.obey(command, clock::mono()),
                    None => return Ok(()),
                },
                permit = batches.reserve(), if !waiting.is_empty() => match (permit, waiting.pop_front()) {
                    (Ok(permit), Some(batch)) => permit.send(batch),
                    (Ok(_), None) => {}
                    (Err(_), _) => return Ok(()),
                },
                _ = ticks.tick(), if has_room => {
                    // What has arrived comes before silence: a stall of this task must not look like dead nodes. Asks
                    // the kernel, since tokio may not have noticed yet that there is something to read.
                    or_empty(drain(&self.socket, &mut buffers, &mut self.table)).map_err(read)?;
                    self.table.tick(clock::mono());
                }
                ready = self.socket.readable(), if has_room => {
                    ready.map_err(read)?;
                    let Ingest { socket, table, .. } = &mut self;
                    let drained = socket.try_io(Interest::READABLE, || drain(socket, &mut buffers, table));
                    or_empty(drained).map_err(read)?;
                }
            }
            if let Some(batch) = self.table.take_news() {
                waiting.push_back(batch);
            }
            let gaps = self.table.take_gaps();
            if !gaps.is_empty() {
                let now = clock::now();
                self.tape.keep(gaps.into_iter().map(|(node, gap)| flight::gap(now, node, gap)).collect());
            }
        }
    }
}

/// Reads all that has arrived, until the limit (`Ok`) or until nothing is left (`WouldBlock`, as tokio wants to know).
fn drain(socket: &UdpSocket, buffers: &mut [[u8; BUFFER_BYTES]], table: &mut Table) -> io::Result<()> {
    let mut headers = MultiHeaders::preallocate(buffers.len(), None);
    let mut outbox = Outbox::default();
    for _ in 0..BATCHES_AT_ONCE_MAX {
        let received = receive(socket, buffers, &mut headers)?;
        let now = clock::mono();
        for (buffer, (length, from)) in buffers.iter().zip(received.into_iter().flatten()) {
            table.datagram(buffer.get(..length).unwrap_or(buffer), now);
            outbox.put(from, table.take_answer());
        }
        outbox.send(socket.as_raw_fd(), &table.counters.answered);
    }
    Ok(())
}

/// An empty queue is no error.
fn or_empty(drained: io::Result<()>) -> io::Result<()> {
    match drained {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        drained => drained,
    }
}

/// Length of a datagram, and where it came from.
type Received = (usize, Option<SockaddrStorage>);

/// One `recvmmsg(2)`: what is now in the first buffers.
fn receive(
    socket: &UdpSocket,
    buffers: &mut [[u8; BUFFER_BYTES]],
    headers: &mut MultiHeaders<SockaddrStorage>,
) -> io::Result<[Option<Received>; BATCH]> {
    let mut slices: Vec<[IoSliceMut<'_>; 1]> =
        buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
    let mut received = [None; BATCH];
    match recvmmsg(socket.as_raw_fd(), headers, &mut slices, MsgFlags::MSG_DONTWAIT, None) {
        Ok(messages) => {
            for (place, message) in received.iter_mut().zip(messages) {
                *place = Some((message.bytes, message.address));
            }
            Ok(received)
        }
        // A signal came first; the next call reads on.
        Err(Errno::EINTR) => Ok(received),
        Err(errno) => Err(errno.into()),
    }
}

/// What is needed to prove a node's heartbeats.
struct Peer {
    node: NodeId,
    tag: NodeTag,
    key: Key,
    /// The newest heartbeat that was taken: its life and sequence.
    newest: Option<(policies::BootId, u64)>,
    /// The newest inventory that was taken.
    told: Option<(policies::BootId, u64)>,
    /// The newest heartbeat that was answered.
    answered: Option<(policies::BootId, u64)>,
}

/// Who is who, and the watch table. No I/O: time and datagrams are arguments.
pub struct Table {
    watch: Watch,
    /// By slot; `None` is free.
    peers: Vec<Option<Peer>>,
    free: Vec<Slot>,
    slots: HashMap<NodeTag, Slot>,
    counters: Arc<Counters>,
    answers: Answers,
    news: Vec<(NodeId, Change)>,
    found: Vec<(NodeId, Box<Capabilities>)>,
    /// Gaps that were no news, for the flight recorder; `None`: nobody wants them.
    gaps: Option<Vec<(NodeId, Millis)>>,
    noticed_at: Mono,
    passed: Vec<(Slot, Change)>,
}

impl Table {
    /// An empty table whose time begins at `now`.
    pub fn new(now: Mono, counters: Arc<Counters>) -> Self {
        Table {
            watch: Watch::new(now),
            peers: vec![],
            free: vec![],
            slots: HashMap::new(),
            counters,
            answers: Answers::default(),
            news: vec![],
            found: vec![],
            gaps: None,
            noticed_at: now,
            passed: vec![],
        }
    }

    /// Answers in the name of this member.
    pub fn answering(mut self, me: MemberId) -> Self {
        self.answers.me = Some(me);
        self
    }

    /// Does what it is asked.
    pub fn obey(&mut self, command: Command, now: Mono) {
        match command {
            Command::Enroll { node, key, limits } => self.enroll(node, key, limits, now),
            Command::Forget { node } => self.forget(&node),
            Command::Snapshot(answer) => {
                let peers = (0..).map(Slot).zip(&self.peers);
                let seen = peers
                    .filter_map(|(slot, peer)| Some((peer.as_ref()?.node.clone(), self.watch.last(slot))))
                    .collect();
                // Whoever asked may have gone away; then nobody needs the answer.
                answer.send(seen).ok();
            }
        }
    }

    fn enroll(&mut self, node: NodeId, key: Key, limits: Limits, now: Mono) {
        let tag = NodeTag::of(node.as_str());
        let known = self.slots.get(&tag).copied();
        let slot = match known.or_else(|| self.free.pop()) {
            Some(slot) => slot,
            None => {
                let Ok(slot) = u32::try_from(self.peers.len()) else { return };
                self.peers.push(None);
                Slot(slot)
            }
        };
        let Some(place) = self.peers.get_mut(slot.0 as usize) else { return };
        match place {
            Some(peer) if peer.node != node => {
                // 2^-64 for a pair of names; renaming is the way out, silence would be a lie.
                error!(%node, other = %peer.node, %tag, "cannot be watched: two node names have the same tag; rename one");
                return;
            }
            Some(peer) => peer.key = key,
            None => *place = Some(Peer { node, tag, key, newest: None, told: None, answered: None }),
        }
        self.slots.insert(tag, slot);
        self.watch.enroll(slot, limits, now);
    }

    fn forget(&mut self, node: &NodeId) {
        let Some(slot) = self.slots.get(&NodeTag::of(node.as_str())).copied() else { return };
        let Some(place) = self.peers.get_mut(slot.0 as usize) else { return };
        let Some(peer) = place.take_if(|peer| peer.node == *node) else { return };
        self.slots.remove(&peer.tag);
        self.watch.forget(slot);
        self.free.push(slot);
    }

    /// Proves a datagram and takes what it says.
    pub fn datagram(&mut self, datagram: &[u8], now: Mono) {
        let count = |counter: &AtomicU64| {
            counter.fetch_add(1, Relaxed);
        };
        if inventory::is_inventory(datagram) {
            return self.inventory(datagram, now);
        }
        let counters = &self.counters;
        let Ok(tag) = peek_tag(datagram) else { return count(&counters.malformed) };
        let Some(slot) = self.slots.get(&tag).copied() else { return count(&counters.unknown_node) };
        let Some(Some(peer)) = self.peers.get_mut(slot.0 as usize) else {
            return count(&counters.unknown_node);
        };
        let beat = match verify(datagram, &peer.key) {
            Ok(beat) => beat,
            Err(WireError::WrongMac) => return count(&counters.bad_mac),
            Err(
                WireError::Length { .. } | WireError::Magic | WireError::Version { .. } | WireError::Fields,
            ) => return count(&counters.malformed),
        };
        if !self.watch.admits(slot, beat.said.boot) {
            return count(&counters.other_life);
        }
        if let Some((_, newest)) = peer.newest.filter(|(boot, _)| *boot == beat.said.boot)
            && beat.sequence <= newest
        {
            if beat.sequence < newest {
                return count(&counters.replayed);
            }
            self.answers.consider(&beat, &peer.key, &mut peer.answered);
            self.watch.came_by(slot, beat.path);
            return count(&counters.duplicate);
        }
        peer.newest = Some((beat.said.boot, beat.sequence));
        self.answers.consider(&beat, &peer.key, &mut peer.answered);
        count(&counters.accepted);
        if let Some(lasting) = self.watch.gap(slot, now)
            && let Some(gaps) = &mut self.gaps
        {
            gaps.push((peer.node.clone(), lasting));
        }
        if let Some(change) = self.watch.beat(slot, now, &beat.said) {
            self.noticed_at = now;
            self.news.push((peer.node.clone(), change));
        }
        self.watch.came_by(slot, beat.path);
    }

    /// The answer to the datagram that came last, for whoever sent it.
    pub fn take_answer(&mut self) -> Option<[u8; BEAT_BYTES]> {
        self.answers.take()
    }

    /// Proves an inventory and takes what it says, once, of the life that is being heard. A recording of an older life
    /// says nothing; where no heartbeat was taken yet, the next telling is minutes away and soon enough.
    fn inventory(&mut self, datagram: &[u8], now: Mono) {
        let count = |counter: &AtomicU64| {
            counter.fetch_add(1, Relaxed);
        };
        let counters = &self.counters;
        let Ok(tag) = inventory::peek_tag(datagram) else { return count(&counters.malformed) };
        let slot = self.slots.get(&tag).copied();
        let peer = slot.and_then(|slot| self.peers.get_mut(slot.0 as usize)).and_then(Option::as_mut);
        let Some(peer) = peer else { return count(&counters.unknown_node) };
        let told = match inventory::verify(datagram, &peer.key) {
            Ok(told) => told,
            Err(BadInventory::WrongMac) => return count(&counters.bad_mac),
            Err(BadInventory::Other | BadInventory::Content) => return count(&counters.malformed),
        };
        if peer.newest.is_none_or(|(boot, _)| boot != told.boot) {
            return count(&counters.other_life);
        }
        if let Some((_, newest)) = peer.told.filter(|(boot, _)| *boot == told.boot)
            && told.sequence <= newest
        {
            return count(if told.sequence == newest { &counters.duplicate } else { &counters.replayed });
        }
        peer.told = Some((told.boot, told.sequence));
        count(&counters.inventories);
        self.noticed_at = now;
        self.found.push((peer.node.clone(), Box::new(told.found)));
    }

    /// Notices who has been silent for too long.
    pub fn tick(&mut self, now: Mono) {
        self.watch.tick(now, &mut self.passed);
        for (slot, change) in self.passed.drain(..) {
            if let Some(Some(peer)) = self.peers.get(slot.0 as usize) {
                self.noticed_at = now;
                self.news.push((peer.node.clone(), change));
            }
        }
    }

    /// The gaps that ended since the last time and were no news.
    fn take_gaps(&mut self) -> Vec<(NodeId, Millis)> {
        self.gaps.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// What was noticed since the last time.
    pub fn take_news(&mut self) -> Option<Batch> {
        let (changes, found) = (std::mem::take(&mut self.news), std::mem::take(&mut self.found));
        let is_news = !changes.is_empty() || !found.is_empty();
        is_news.then_some(Batch { at: self.noticed_at, changes, found })
    }
}

#[cfg(test)]
mod tests;
