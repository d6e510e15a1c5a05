//! One UDP socket for all BMCs (one more if some have IPv6 addresses), and the task that reads it.
//!
//! Why it exists: thousands of warm sessions must not cost thousands of sockets. Each datagram is handed to the line
//! that its session id names, and only if it came from that line's BMC.
//! What it never does: waiting for a slow line (its datagrams are dropped, retransmission heals that), judging what a
//! datagram says, or holding a lock over an await.

use super::bmc;
use super::codec::{self, DATAGRAM_MAX, Datagram, Payload};
use policies::{Permit, Refusal};
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// How long a session may be idle before it is kept alive. BMCs drop a session after 60 s, some after 57 s (IPMI 2.0
/// §6.12.15); half of that leaves room for a lost packet. Higher: sessions are lost and the next fence pays for a new
/// one. Lower: more idle traffic.
const IDLE_MAX: Duration = Duration::from_secs(25);
/// Datagrams that may wait for one line. One request is in flight per BMC, so more than a few are late or forged.
const INBOX_MAX: usize = 16;
/// Receive buffer asked of the kernel, in bytes: 2,000 BMCs that answer at once at 1 KiB of kernel memory each.
const RECEIVE_BUFFER: usize = 2 << 20;
/// Pause after a failed receive, so that a broken socket cannot eat a core.
const RECEIVE_RETRY: Duration = Duration::from_millis(10);

/// Locks a mutex of plain data: a panic elsewhere cannot leave it half changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The way from this process to all its BMCs. Dropped with its last BMC; its tasks end with it.
pub struct Port {
    lines: Arc<Lines>,
    sockets: Mutex<Sockets>,
    bmcs: Arc<Mutex<Vec<Weak<bmc::Shared>>>>,
}

/// The sockets that were needed so far, and the tasks that belong to them.
#[derive(Default)]
struct Sockets {
    v4: Option<Arc<UdpSocket>>,
    v6: Option<Arc<UdpSocket>>,
    tasks: JoinSet<()>,
}

/// Who waits for datagrams.
#[derive(Default)]
struct Lines {
    routes: Mutex<Routes>,
}

#[derive(Default)]
struct Routes {
    /// By our session id.
    by_session: HashMap<u32, Route>,
    /// The newest line to each BMC; for setup errors in which the BMC leaves our session id out.
    newest: HashMap<SocketAddr, u32>,
}

struct Route {
    from: SocketAddr,
    inbox: mpsc::Sender<Vec<u8>>,
}

impl Port {
    /// A port whose sockets are bound when they are first needed. Must be called inside a tokio runtime, for it
    /// starts the tasks that keep idle sessions alive and find out which sensors there are.
    pub fn new() -> Arc<Port> {
        Port::with_idle_max(IDLE_MAX)
    }

    /// As [`Port::new`], with another time after which an idle session is kept alive; for BMCs that drop sessions
    /// sooner than the specification allows.
    pub fn with_idle_max(idle_max: Duration) -> Arc<Port> {
        let bmcs = Arc::default();
        let mut sockets = Sockets::default();
        sockets.tasks.spawn(bmc::keep_alive(Arc::clone(&bmcs), idle_max));
        sockets.tasks.spawn(bmc::learn(Arc::clone(&bmcs)));
        Arc::new(Port { lines: Arc::default(), sockets: Mutex::new(sockets), bmcs })
    }

    /// From now on the BMC's idle session is kept alive.
    pub(super) fn keep(&self, bmc: Weak<bmc::Shared>) {
        lock(&self.bmcs).push(bmc);
    }

    /// A line to one BMC, under a new session id of ours.
    pub(super) fn line(&self, to: SocketAddr) -> io::Result<Line> {
        let socket = self.socket(to)?;
        let (inbox_of_route, inbox) = mpsc::channel(INBOX_MAX);
        let mut routes = lock(&self.lines.routes);
        // Random, so that a datagram of an earlier life of this process cannot fit.
        let id = loop {
            let id = rand::random::<u32>();
            if id != 0 && !routes.by_session.contains_key(&id) {
                break id;
            }
        };
        routes.by_session.insert(id, Route { from: to, inbox: inbox_of_route });
        routes.newest.insert(to, id);
        drop(routes);
        Ok(Line { id, to, socket, inbox, lines: Arc::clone(&self.lines) })
    }

    fn socket(&self, to: SocketAddr) -> io::Result<Arc<UdpSocket>> {
        let mut sockets = lock(&self.sockets);
        if let Some(socket) = if to.is_ipv4() { &sockets.v4 } else { &sockets.v6 } {
            return Ok(Arc::clone(socket));
        }
        let socket = Arc::new(bind(to.is_ipv4())?);
        sockets.tasks.spawn(read(Arc::clone(&socket), Arc::clone(&self.lines)));
        *if to.is_ipv4() { &mut sockets.v4 } else { &mut sockets.v6 } = Some(Arc::clone(&socket));
        Ok(socket)
    }
}

fn bind(v4: bool) -> io::Result<UdpSocket> {
    let (domain, any) = if v4 {
        (socket2::Domain::IPV4, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))
    } else {
        (socket2::Domain::IPV6, SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)))
    };
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, None)?;
    if !v4 {
        socket.set_only_v6(true)?;
    }
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.set_nonblocking(true)?;
    socket.bind(&any.into())?;
    UdpSocket::from_std(socket.into())
}

/// Reads one socket for ever; ends when the port is dropped.
async fn read(socket: Arc<UdpSocket>, lines: Arc<Lines>) {
    // One byte more than allowed shows that a datagram was longer.
    let mut buffer = [0; DATAGRAM_MAX + 1];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((len, from)) => {
                if let Some(datagram) = buffer.get(..len) {
                    lines.deliver(from, datagram);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "receive from BMCs");
                tokio::time::sleep(RECEIVE_RETRY).await;
            }
        }
    }
}

impl Lines {
    fn deliver(&self, from: SocketAddr, datagram: &[u8]) {
        let Some(addressee) = addressee(datagram) else {
            tracing::debug!(%from, len = datagram.len(), "datagram for no session dropped");
            return;
        };
        let inbox = {
            let routes = lock(&self.routes);
            let session = match addressee {
                Addressee::Session(id) => Some(id),
                Addressee::NewestOf => routes.newest.get(&from).copied(),
            };
            let route = session.and_then(|id| routes.by_session.get(&id));
            route.filter(|route| route.from == from).map(|route| route.inbox.clone())
        };
        let Some(inbox) = inbox else {
            tracing::debug!(%from, "datagram of an unknown session or a wrong address dropped");
            return;
        };
        if inbox.try_send(datagram.to_vec()).is_err() {
            tracing::debug!(%from, "datagram dropped: too many wait for this BMC");
        }
    }
}

/// For whom a datagram from a BMC is.
enum Addressee {
    Session(u32),
    /// Whoever spoke last to the BMC that sent it.
    NewestOf,
}

/// Responses of the session setup carry our session id in bytes 5 to 8 of their payload (IPMI 2.0 §13.18, §13.21,
/// §13.23); some BMCs leave it out where they say no.
fn addressee(datagram: &[u8]) -> Option<Addressee> {
    match codec::decode(datagram).ok()? {
        Datagram::Protected(packet) => Some(Addressee::Session(packet.session)),
        Datagram::Setup { payload: Payload::OpenResponse | Payload::Rakp2 | Payload::Rakp4, bytes } => {
            let id = bytes.get(4..).and_then(|rest| rest.first_chunk());
            Some(id.map_or(Addressee::NewestOf, |id| Addressee::Session(u32::from_le_bytes(*id))))
        }
        Datagram::Setup {
            payload: Payload::Ipmi | Payload::OpenRequest | Payload::Rakp1 | Payload::Rakp3,
            ..
        }
        | Datagram::Ping { .. }
        | Datagram::Pong { .. }
        | Datagram::V15 { .. } => None,
    }
}

/// Why a datagram was not sent. It certainly was not.
#[derive(Debug)]
pub(super) enum NotSent {
    /// The permit said no.
    Permit(Refusal),
    /// The kernel said no.
    Io(io::Error),
}

/// One BMC and one session id of ours. Dropping it frees the id.
pub(super) struct Line {
    id: u32,
    to: SocketAddr,
    socket: Arc<UdpSocket>,
    inbox: mpsc::Receiver<Vec<u8>>,
    lines: Arc<Lines>,
}

impl Line {
    /// Our session id.
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// The BMC's address.
    pub(super) fn to(&self) -> SocketAddr {
        self.to
    }

    /// Sends one datagram. The permit is asked right before the write, with no await between (R5).
    pub(super) async fn send(&self, datagram: &[u8], permit: Option<&dyn Permit>) -> Result<(), NotSent> {
        loop {
            permit.map_or(Ok(()), Permit::check).map_err(NotSent::Permit)?;
            match self.socket.try_send_to(datagram, self.to) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.socket.writable().await.map_err(NotSent::Io)?;
                }
                Err(error) => return Err(NotSent::Io(error)),
            }
        }
    }

    /// Sends one datagram if that is possible without waiting; for farewells, which may be lost.
    pub(super) fn send_farewell(&self, datagram: &[u8]) {
        if let Err(error) = self.socket.try_send_to(datagram, self.to) {
            tracing::debug!(to = %self.to, %error, "farewell not sent; the BMC will time the session out");
        }
    }

    /// The next datagram for our session id from the BMC's address; nothing else is known of it.
    pub(super) async fn receive(&mut self) -> Vec<u8> {
        match self.inbox.recv().await {
            Some(datagram) => datagram,
            // The sender lives in the route, and the route lives as long as this line.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let mut routes = lock(&self.lines.routes);
        routes.by_session.remove(&self.id);
        if routes.newest.get(&self.to) == Some(&self.id) {
            routes.newest.remove(&self.to);
        }
    }
}
