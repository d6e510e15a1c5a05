//! Accepts other members' connections and serves their calls.
//!
//! Why it exists: this is the door. On a wire that has proven the peer's identity (mutual TLS), a peer must say who it is
//! (and the proof must agree), which cluster it belongs to, which version it speaks and which store it has, before
//! anything that it sends reaches openraft.
//! What it never does: trust a leader or candidate that speaks for somebody else.

use crate::clock::boottime;
use crate::frame::{
    self, Append, Appended, Ballot, Campaign, Chunk, FRAME_BYTES_MAX, Frame, HELLO_BYTES_MAX, Hello, Kind,
    PROTOCOL, Purpose, Refusal, SNAPSHOT_BYTES_MAX, Voted, Welcome,
};
use crate::gate::Gate;
use crate::ground::{Door, Knock, Proven, Stream};
use crate::identity::Identity;
use crate::peers::Acquaintances;
use crate::store::StoreEvent;
use crate::types::{Entry, LogId, Types, Vote};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest};
use openraft::{Raft, Snapshot, TokioInstant};
use policies::{MemberId, Millis, causes};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{RwLock, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Connections at a time: four for each of seven members, and as many again that are half dead.
const CONNECTIONS_MAX: usize = 64;
/// TLS handshake and hello together.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// A connection that says nothing for this long is closed; its owner makes a new one when it has something to say.
const IDLE_LIMIT: Duration = Duration::from_secs(300);
/// After a failed accept (out of file descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Everything that a call may touch.
pub(crate) struct Service {
    pub(crate) identity: Identity,
    pub(crate) raft: Raft<Types>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) acquaintances: Arc<Acquaintances>,
    pub(crate) events: mpsc::UnboundedSender<StoreEvent>,
    /// How long a member that heard its leader does not campaign, not even when asked.
    pub(crate) promise: Millis,
    /// Held for reading while openraft hears a leader, and for writing while it is decided whether to campaign.
    pub(crate) hearing: RwLock<()>,
}

/// Why a connection is refused or a call not done; the text goes to the peer and, for connections, into our log.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("the first frame must be a hello, not a {0:?}")]
    NoHello(Kind),
    #[error("this member speaks protocol {PROTOCOL}, the peer {0}")]
    Protocol(u32),
    #[error("this member belongs to cluster {ours:?}, the peer to {theirs:?}")]
    Cluster { ours: String, theirs: String },
    #[error("the peer's certificate is not that of {0}: it lacks the name member-{n}", n = .0.0)]
    Certificate(MemberId),
    #[error(transparent)]
    Stranger(#[from] crate::peers::Stranger),
    #[error("a {0:?} is not a request")]
    NotARequest(Kind),
    #[error("{0} speaks for another member")]
    NotItself(MemberId),
    #[error(transparent)]
    Frame(#[from] crate::frame::BadFrame),
    #[error("not now: {0}")]
    Closed(#[from] crate::gate::Closed),
    #[error("a piece of a snapshot at offset {found}, expected {expected}")]
    Piece { expected: u64, found: u64 },
    #[error("a snapshot of more than {SNAPSHOT_BYTES_MAX} bytes")]
    Snapshot,
    #[error("the leadership that would be handed over is not the newest")]
    OldLeader,
    #[error("this member heard its leader {0:?} ago and has promised not to campaign yet")]
    Promised(Duration),
    #[error("the Raft core: {0}")]
    Core(String),
}

fn core(error: impl std::error::Error) -> Refused {
    Refused::Core(causes(&error))
}

/// Accepts until it is dropped; then all connections close.
pub(crate) async fn accept(door: Box<dyn Door>, service: Arc<Service>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match door.accept().await {
            Err(error) => {
                tracing::warn!(%error, "accept a member's connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            Ok(knock) => {
                let service = Arc::clone(&service);
                connections.spawn(async move {
                    let address = knock.from.clone();
                    match connection(&service, knock).await {
                        Ok(()) => {}
                        Err(error) if is_goodbye(&error) => {
                            tracing::debug!(address, %error, "connection ended");
                        }
                        Err(error) => {
                            tracing::warn!(address, why = causes(&error), "a connection was refused");
                        }
                    }
                    drop(place);
                });
            }
        }
    }
}

/// Peers that restart or give up a connection close it without ceremony.
fn is_goodbye(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | BrokenPipe | ConnectionAborted)
}

async fn connection(service: &Service, knock: Knock) -> io::Result<()> {
    let late = |_elapsed| io::Error::new(io::ErrorKind::TimedOut, "no hello in time");
    let welcomed = timeout(HANDSHAKE_LIMIT, handshake(service, knock)).await.map_err(late)??;
    let (mut stream, hello) = welcomed;
    let mut session = Session { service, peer: hello.member, receiving: Vec::new() };
    let idle = |_elapsed| io::Error::new(io::ErrorKind::UnexpectedEof, "idle");
    loop {
        let frame = timeout(IDLE_LIMIT, frame::read(&mut stream, FRAME_BYTES_MAX)).await.map_err(idle)??;
        if hello.purpose == Purpose::Message && frame.kind == Kind::Message {
            session.message(frame.body);
            continue;
        }
        let id = frame.id;
        let reply = match session.call(&frame).await {
            Ok(reply) => Frame { id, ..reply },
            Err(refused) => refusal(Kind::Failed, id, &refused)?,
        };
        timeout(HANDSHAKE_LIMIT, frame::write(&mut stream, &reply)).await.map_err(idle)??;
    }
}

fn refusal(kind: Kind, id: u64, refused: &Refused) -> io::Result<Frame> {
    Frame::json(kind, id, &Refusal { why: causes(refused) }).map_err(io::Error::other)
}

async fn handshake(service: &Service, knock: Knock) -> io::Result<(Box<dyn Stream>, Hello)> {
    let (mut stream, proven) = knock.enters.await?;
    let first = frame::read(&mut stream, HELLO_BYTES_MAX).await?;
    match check_hello(service, &proven, &first).await {
        Ok(hello) => {
            let welcome = Welcome { store: service.identity.store };
            let frame = Frame::json(Kind::Welcome, 0, &welcome).map_err(io::Error::other)?;
            frame::write(&mut stream, &frame).await?;
            Ok((stream, hello))
        }
        Err(refused) => {
            frame::write(&mut stream, &refusal(Kind::Refused, 0, &refused)?).await?;
            Err(io::Error::other(refused))
        }
    }
}

async fn check_hello(service: &Service, proven: &Proven, first: &Frame) -> Result<Hello, Refused> {
    if first.kind != Kind::Hello {
        return Err(Refused::NoHello(first.kind));
    }
    let hello: Hello = first.parse()?;
    if hello.protocol != PROTOCOL {
        return Err(Refused::Protocol(hello.protocol));
    }
    let ours = &service.identity.cluster;
    if hello.cluster != *ours {
        return Err(Refused::Cluster { ours: ours.clone(), theirs: hello.cluster });
    }
    let member = MemberId(hello.member);
    if !proven(hello.member) {
        return Err(Refused::Certificate(member));
    }
    service.acquaintances.meet(member, hello.store).await?;
    Ok(hello)
}

/// One connection whose peer we know.
struct Session<'a> {
    service: &'a Service,
    peer: u64,
    /// The pieces of a snapshot so far.
    receiving: Vec<u8>,
}

impl Session<'_> {
    fn message(&self, bytes: Vec<u8>) {
        let from = MemberId(self.peer);
        let metrics = self.service.raft.server_metrics();
        if metrics.borrow().membership_config.membership().get_node(&self.peer).is_none() {
            tracing::debug!(peer = %from, "a message of somebody who is no member was dropped");
            return;
        }
        // Fails only when the supervisor has dropped its end, at shutdown.
        drop(self.service.events.send(StoreEvent::Message { from, bytes }));
    }

    async fn call(&mut self, frame: &Frame) -> Result<Frame, Refused> {
        match frame.kind {
            Kind::Append => Ok(Frame::json(Kind::Reply, 0, &self.append(frame.parse()?).await?)?),
            Kind::Vote => Ok(Frame::json(Kind::Reply, 0, &self.vote(frame.parse()?).await?)?),
            Kind::Snapshot => {
                let (chunk, data) = frame::parse_snapshot(frame)?;
                Ok(Frame::json(Kind::Reply, 0, &self.snapshot(chunk, &data).await?)?)
            }
            Kind::Campaign => Ok(Frame::json(Kind::Reply, 0, &self.campaign(frame.parse()?).await?)?),
            Kind::Hello | Kind::Welcome | Kind::Refused | Kind::Reply | Kind::Failed | Kind::Message => {
                Err(Refused::NotARequest(frame.kind))
            }
        }
    }

    /// A leader or candidate may only speak for itself.
    fn must_be_of_peer(&self, vote: Vote) -> Result<(), Refused> {
        if vote.member == self.peer { Ok(()) } else { Err(Refused::NotItself(MemberId(self.peer))) }
    }

    async fn append(&self, append: Append) -> Result<Appended, Refused> {
        self.must_be_of_peer(append.vote)?;
        let request = AppendEntriesRequest {
            vote: append.vote.into(),
            prev_log_id: append.previous.map(openraft::LogId::from),
            entries: append.entries.into_iter().map(Entry::from).collect(),
            leader_commit: append.committed.map(openraft::LogId::from),
        };
        let _hearing = self.service.hearing.read().await;
        Ok(match self.service.raft.append_entries(request).await.map_err(core)? {
            AppendEntriesResponse::Success => Appended::All,
            AppendEntriesResponse::PartialSuccess(last) => Appended::Upto(last.map(LogId::from)),
            AppendEntriesResponse::Conflict => Appended::Conflict,
            AppendEntriesResponse::HigherVote(vote) => Appended::HigherVote(vote.into()),
        })
    }

    async fn vote(&self, ballot: Ballot) -> Result<Voted, Refused> {
        self.must_be_of_peer(ballot.vote)?;
        let in_hand = self.service.gate.admit(boottime(), ballot.vote)?;
        let request = VoteRequest::new(ballot.vote.into(), ballot.last.map(openraft::LogId::from));
        let response = self.service.raft.vote(request).await.map_err(core)?;
        if !response.vote_granted {
            in_hand.refused();
        }
        let last = response.last_log_id.map(LogId::from);
        Ok(Voted { vote: response.vote.into(), granted: response.vote_granted, last })
    }

    async fn snapshot(&mut self, chunk: Chunk, data: &[u8]) -> Result<Vote, Refused> {
        self.must_be_of_peer(chunk.vote)?;
        if chunk.offset == 0 {
            self.receiving.clear();
        }
        let expected = u64::try_from(self.receiving.len()).unwrap_or(u64::MAX);
        if chunk.offset != expected {
            return Err(Refused::Piece { expected, found: chunk.offset });
        }
        if expected.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX)) > SNAPSHOT_BYTES_MAX {
            return Err(Refused::Snapshot);
        }
        self.receiving.extend_from_slice(data);
        if !chunk.done {
            return self.newest_vote().await;
        }
        let _hearing = self.service.hearing.read().await;
        let snapshot = Box::new(std::mem::take(&mut self.receiving));
        let snapshot = Snapshot { meta: chunk.head.into(), snapshot };
        let response = self.service.raft.install_full_snapshot(chunk.vote.into(), snapshot).await;
        Ok(response.map_err(core)?.vote.into())
    }

    async fn newest_vote(&self) -> Result<Vote, Refused> {
        let vote = self.service.raft.with_raft_state(|state| *state.vote_ref()).await.map_err(core)?;
        Ok(Vote::from(vote))
    }

    /// The leader hands its leadership to us. The request may come late, after that leader went on to lead: then we
    /// have promised again, and campaigning would break its lease. While this is decided openraft hears no leader,
    /// and its queue is in order, so nothing is promised between the look and the campaign.
    async fn campaign(&self, campaign: Campaign) -> Result<(), Refused> {
        self.must_be_of_peer(campaign.vote)?;
        let _deaf = self.service.hearing.write().await;
        let look = |state: &openraft::RaftState<_, _, TokioInstant>| {
            (Vote::from(*state.vote_ref()), state.vote_last_modified().map(|heard| heard.elapsed()))
        };
        let (newest, heard) =
            self.service.raft.with_raft_state(move |state| look(state)).await.map_err(core)?;
        if newest != campaign.vote {
            return Err(Refused::OldLeader);
        }
        let promise = Duration::from_millis(self.service.promise.0);
        match heard {
            Some(ago) if ago < promise => Err(Refused::Promised(ago)),
            Some(_) | None => self.service.raft.trigger().elect().await.map_err(core),
        }
    }
}
