//! openraft's view of the network: calls to one member.
//!
//! Why it exists: to put each call on the right connection and to note, for the lease, when what was sent that a
//! voter acknowledged.
//! What it never does: serve incoming calls; that is `listen.rs`.

use crate::clock::boottime;
use crate::frame::{
    Append, Appended, BadFrame, Ballot, Campaign, Chunk, Frame, Kind, SNAPSHOT_CHUNK_BYTES, Voted,
    snapshot_frame,
};
use crate::gate::Gate;
use crate::link::CallError;
use crate::peers::{Links, Peers, SNAPSHOT_CALL_LIMIT};
use crate::types::{Address, LogEntry, LogId, SnapshotHead, Types, Vote};
use openraft::error::{Fatal, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RaftNetwork, RaftNetworkFactory, Snapshot};
use policies::MemberId;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

type RpcError = RPCError<u64, Address, RaftError<u64>>;

/// Makes clients that share connections.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) peers: Arc<Peers>,
    pub(crate) gate: Arc<Gate>,
    /// When we last sent an append call or heartbeat to anybody, in [`boottime`] milliseconds.
    pub(crate) last_sent: Arc<AtomicU64>,
    /// Pause of openraft's replication after a call that did not reach the member.
    pub(crate) pause: Duration,
}

/// Calls to one member.
pub(crate) struct Client {
    member: u64,
    links: Links,
    gate: Arc<Gate>,
    last_sent: Arc<AtomicU64>,
    pause: Duration,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Client;

    async fn new_client(&mut self, member: u64, address: &Address) -> Client {
        let links = self.peers.links(member, &address.peer);
        let (gate, last_sent) = (Arc::clone(&self.gate), Arc::clone(&self.last_sent));
        Client { member, links, gate, last_sent, pause: self.pause }
    }
}

impl Network {
    /// Asks a voter to campaign now.
    pub(crate) async fn campaign(
        &self,
        member: u64,
        address: &Address,
        vote: Vote,
        limit: Duration,
    ) -> Result<(), CallError> {
        let link = self.peers.links(member, &address.peer).heartbeat;
        let bad = |source| CallError::Frame { peer: MemberId(member), source };
        let frame = Frame::json(Kind::Campaign, 0, &Campaign { vote }).map_err(bad)?;
        link.call(frame, limit).await.map(|_done| ())
    }
}

impl Client {
    fn bad(&self) -> impl Fn(BadFrame) -> CallError {
        let peer = MemberId(self.member);
        move |source| CallError::Frame { peer, source }
    }

    fn json<T: Serialize>(&self, kind: Kind, body: &T) -> Result<Frame, CallError> {
        Frame::json(kind, 0, body).map_err(self.bad())
    }

    fn parse<T: DeserializeOwned>(&self, frame: &Frame) -> Result<T, CallError> {
        frame.parse().map_err(self.bad())
    }

    async fn append(
        &self,
        request: AppendEntriesRequest<Types>,
        limit: Duration,
    ) -> Result<Appended, CallError> {
        let link = if request.entries.is_empty() { &self.links.heartbeat } else { &self.links.append };
        let append = Append {
            vote: request.vote.into(),
            previous: request.prev_log_id.map(LogId::from),
            entries: request.entries.iter().map(LogEntry::from).collect(),
            committed: request.leader_commit.map(LogId::from),
        };
        let frame = self.json(Kind::Append, &append)?;
        // Taken before the frame is even queued: for the lease, too early is safe and too late is not.
        let sent = boottime();
        self.last_sent.fetch_max(sent.0, Ordering::SeqCst);
        let appended = self.parse(&link.call(frame, limit).await?)?;
        match appended {
            Appended::All | Appended::Upto(_) => self.gate.acknowledge(append.vote, self.member, sent),
            Appended::Conflict | Appended::HigherVote(_) => {}
        }
        Ok(appended)
    }

    async fn ballot(&self, ballot: &Ballot, limit: Duration) -> Result<Voted, CallError> {
        let frame = self.json(Kind::Vote, ballot)?;
        self.parse(&self.links.heartbeat.call(frame, limit).await?)
    }

    /// Sends a snapshot in pieces. A failure anywhere fails the whole transfer; openraft begins a new one.
    async fn snapshot(&self, vote: Vote, head: SnapshotHead, data: &[u8]) -> Result<Vote, CallError> {
        let pieces = data.chunks(usize::try_from(SNAPSHOT_CHUNK_BYTES).unwrap_or(usize::MAX));
        let last = pieces.len().saturating_sub(1);
        let mut chunk = Chunk { vote, head, offset: 0, done: false };
        let mut newest = vote;
        for (number, piece) in pieces.enumerate() {
            chunk.done = number == last;
            let frame = snapshot_frame(&chunk, piece).map_err(self.bad())?;
            newest = self.parse(&self.links.snapshot.call(frame, SNAPSHOT_CALL_LIMIT).await?)?;
            if newest > vote {
                break;
            }
            chunk.offset += u64::try_from(piece.len()).unwrap_or(u64::MAX);
        }
        Ok(newest)
    }
}

/// openraft waits before it calls an unreachable member again; any other error it would repeat at once.
fn unreachable(error: &CallError) -> Unreachable {
    Unreachable::new(error)
}

impl RaftNetwork<Types> for Client {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RpcError> {
        let appended = self.append(request, option.hard_ttl()).await.map_err(|error| unreachable(&error))?;
        Ok(match appended {
            Appended::All => AppendEntriesResponse::Success,
            Appended::Upto(last) => AppendEntriesResponse::PartialSuccess(last.map(openraft::LogId::from)),
            Appended::Conflict => AppendEntriesResponse::Conflict,
            Appended::HigherVote(vote) => AppendEntriesResponse::HigherVote(vote.into()),
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, RpcError> {
        let ballot = Ballot { vote: request.vote.into(), last: request.last_log_id.map(LogId::from) };
        let voted = self.ballot(&ballot, option.hard_ttl()).await.map_err(|error| unreachable(&error))?;
        let vote = openraft::Vote::from(voted.vote);
        Ok(VoteResponse::new(vote, voted.last.map(openraft::LogId::from), voted.granted))
    }

    async fn full_snapshot(
        &mut self,
        vote: openraft::Vote<u64>,
        snapshot: Snapshot<Types>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<Types, Fatal<u64>>> {
        let head = SnapshotHead::from(&snapshot.meta);
        tokio::select! {
            sent = self.snapshot(vote.into(), head, &snapshot.snapshot) => match sent {
                Ok(newest) => Ok(SnapshotResponse::new(newest.into())),
                Err(error) => Err(StreamingError::Unreachable(unreachable(&error))),
            },
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(self.pause))
    }
}
