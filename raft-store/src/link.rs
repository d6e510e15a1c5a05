//! One outgoing connection to one member for one purpose.
//!
//! Why it exists: openraft makes clients by the dozen and drops calls half-way; behind them there must be one
//! connection that is made when it is needed, noticed when it is dead, and made again without a storm.
//! What it never does: try a call twice (openraft does, and knows when it is safe), or queue without limit.

use crate::frame::{
    self, BadFrame, Frame, HELLO_BYTES_MAX, Hello, Kind, PROTOCOL, Purpose, Refusal, Welcome,
};
use crate::ground::{Stream, Wire};
use crate::peers::Acquaintances;
use policies::{MemberId, Millis};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncRead;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

/// Calls and messages that wait for one connection. openraft has at most a handful in flight; beyond that the peer is
/// not keeping up, and the caller should know.
const QUEUE_MAX: usize = 64;
/// Calls that wait for an answer on one connection, the given-up ones included.
const UNANSWERED_MAX: usize = 1024;
/// Pause after a failed connection attempt: doubled each time from the first to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(320));

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("{peer} ({address}) cannot be reached: {why}")]
    Unreachable { peer: MemberId, address: String, why: String },
    #[error("the connection to {peer} was lost before it answered")]
    Lost { peer: MemberId },
    #[error("{peer} did not answer in {limit}")]
    TimedOut { peer: MemberId, limit: Millis },
    #[error("{peer} did not do it: {why}")]
    Failed { peer: MemberId, why: String },
    #[error("more than {QUEUE_MAX} calls wait for {peer}")]
    Busy { peer: MemberId },
    #[error("talk to {peer}")]
    Frame {
        peer: MemberId,
        #[source]
        source: BadFrame,
    },
}

/// Where a link leads and how it introduces itself.
#[derive(Clone)]
pub(crate) struct Route {
    pub(crate) peer: MemberId,
    pub(crate) address: String,
    pub(crate) purpose: Purpose,
    pub(crate) me: MemberId,
    pub(crate) cluster: String,
    pub(crate) store: u64,
    pub(crate) wire: Arc<dyn Wire>,
    pub(crate) acquaintances: Arc<Acquaintances>,
    /// A connection attempt, or one write, may take this long.
    pub(crate) connect_limit: Duration,
    /// A connection on which a call went unanswered for longer than this is given up.
    pub(crate) silence_max: Duration,
}

struct Job {
    frame: Frame,
    /// `None` for messages, which have no answer.
    reply: Option<Reply>,
}

/// The near end of a link. The connection closes when it is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    peer: MemberId,
    jobs: mpsc::Sender<Job>,
}

impl Link {
    /// Makes a link. Nothing is connected before the first call.
    pub(crate) fn new(route: Route) -> Link {
        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        let peer = route.peer;
        tokio::spawn(run(route, queue));
        Link { peer, jobs }
    }

    /// Sends a request and waits for its reply, at most `limit`.
    pub(crate) async fn call(&self, frame: Frame, limit: Duration) -> Result<Frame, CallError> {
        let peer = self.peer;
        let (reply, answer) = oneshot::channel();
        let busy = |_full| CallError::Busy { peer };
        self.jobs.try_send(Job { frame, reply: Some(reply) }).map_err(busy)?;
        let millis = Millis(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
        let answer =
            timeout(limit, answer).await.map_err(|_late| CallError::TimedOut { peer, limit: millis })?;
        let frame = answer.map_err(|_gone| CallError::Lost { peer })??;
        let bad = |source| CallError::Frame { peer, source };
        match frame.kind {
            Kind::Reply => Ok(frame),
            Kind::Failed => Err(CallError::Failed { peer, why: frame.parse::<Refusal>().map_err(bad)?.why }),
            Kind::Hello
            | Kind::Welcome
            | Kind::Refused
            | Kind::Append
            | Kind::Vote
            | Kind::Snapshot
            | Kind::Campaign
            | Kind::Message => {
                Err(CallError::Failed { peer, why: format!("its answer was a {:?}", frame.kind) })
            }
        }
    }

    /// Sends a message, best effort: if the queue is full it is dropped and `false` returned.
    pub(crate) fn send(&self, frame: Frame) -> bool {
        self.jobs.try_send(Job { frame, reply: None }).is_ok()
    }
}

impl Job {
    /// Whoever waited may have given up; then there is nobody to tell.
    fn fail(self, route: &Route, why: &str) {
        if let Some(reply) = self.reply {
            let (peer, address) = (route.peer, route.address.clone());
            drop(reply.send(Err(CallError::Unreachable { peer, address, why: why.to_owned() })));
        }
    }
}

/// The far end: one task for the life of the link.
async fn run(route: Route, mut jobs: mpsc::Receiver<Job>) {
    let mut pause = PAUSE.0;
    let mut reachable = true;
    while let Some(first) = jobs.recv().await {
        let slow = |_elapsed| io::Error::new(io::ErrorKind::TimedOut, "no answer to the connection attempt");
        match timeout(route.connect_limit, connect(&route)).await.map_err(slow).flatten() {
            Ok(stream) => {
                if !reachable {
                    tracing::info!(peer = %route.peer, purpose = ?route.purpose, "member can be reached again");
                }
                (pause, reachable) = (PAUSE.0, true);
                serve(&route, stream, first, &mut jobs).await;
            }
            Err(error) => {
                let why = error.to_string();
                if reachable {
                    tracing::warn!(peer = %route.peer, address = route.address, purpose = ?route.purpose, why,
                        "member cannot be reached");
                    reachable = false;
                }
                first.fail(&route, &why);
                refuse_until(Instant::now() + pause, &route, &why, &mut jobs).await;
                pause = (pause * 2).min(PAUSE.1);
            }
        }
    }
}

/// After a failed attempt calls fail at once for a while, instead of knocking again and again.
async fn refuse_until(end: Instant, route: &Route, why: &str, jobs: &mut mpsc::Receiver<Job>) {
    while let Ok(Some(job)) = tokio::time::timeout_at(end, jobs.recv()).await {
        job.fail(route, why);
    }
}

async fn connect(route: &Route) -> io::Result<Box<dyn Stream>> {
    let mut stream = route.wire.dial(route.peer.0, &route.address).await?;
    let hello = Hello {
        protocol: PROTOCOL,
        cluster: route.cluster.clone(),
        member: route.me.0,
        store: route.store,
        purpose: route.purpose,
    };
    frame::write(&mut stream, &Frame::json(Kind::Hello, 0, &hello).map_err(io::Error::other)?).await?;
    let answer = frame::read(&mut stream, HELLO_BYTES_MAX).await?;
    if answer.kind != Kind::Welcome {
        let refusal = answer.parse::<Refusal>().map_err(io::Error::other)?;
        return Err(io::Error::other(format!("it refused us: {}", refusal.why)));
    }
    let welcome = answer.parse::<Welcome>().map_err(io::Error::other)?;
    route.acquaintances.meet(route.peer, welcome.store).await.map_err(io::Error::other)?;
    Ok(stream)
}

/// Where the answer to a call goes.
type Reply = oneshot::Sender<Result<Frame, CallError>>;

/// Calls that wait for their answers, by id, with the time of their sending.
#[derive(Default)]
struct Unanswered(Mutex<BTreeMap<u64, (Instant, Reply)>>);

impl Unanswered {
    fn insert(&self, id: u64, reply: Reply) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id, (Instant::now(), reply));
    }

    fn answer(&self, frame: Frame) {
        let waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&frame.id);
        if let Some((_, reply)) = waiting {
            // openraft may have given the call up meanwhile.
            drop(reply.send(Ok(frame)));
        }
    }

    /// Ids grow, so the first is the oldest.
    fn too_silent(&self, silence_max: Duration) -> bool {
        let waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = waiting.first_key_value().map(|(_, (sent, _))| sent.elapsed());
        oldest.is_some_and(|age| age > silence_max) || waiting.len() >= UNANSWERED_MAX
    }
}

/// Uses a connection until it breaks. Calls in flight then fail by the drop of their senders.
async fn serve(route: &Route, stream: Box<dyn Stream>, first: Job, jobs: &mut mpsc::Receiver<Job>) {
    let (reader, mut writer) = tokio::io::split(stream);
    let unanswered = Arc::new(Unanswered::default());
    let mut receiving = tokio::task::JoinSet::new();
    receiving.spawn(receive(reader, Arc::clone(&unanswered)));
    let mut next = Some(first);
    for id in 1_u64.. {
        let Some(mut job) = next.take() else { return };
        if unanswered.too_silent(route.silence_max) {
            return job.fail(route, "it is connected, but does not answer");
        }
        job.frame.id = id;
        if let Some(reply) = job.reply.take() {
            unanswered.insert(id, reply);
        }
        match timeout(route.connect_limit, frame::write(&mut writer, &job.frame)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
        next = tokio::select! {
            job = jobs.recv() => job,
            _ended = receiving.join_next() => None,
        };
    }
}

/// Takes answers off the connection until it ends.
async fn receive(mut reader: impl AsyncRead + Unpin, unanswered: Arc<Unanswered>) {
    while let Ok(frame) = frame::read(&mut reader, frame::FRAME_BYTES_MAX).await {
        unanswered.answer(frame);
    }
}
