//! The storage array's network side: a line protocol over TCP.
//!
//! ```text
//! login INITIATOR VOLUME   ->  last N | refused WHY
//! write N                  ->  acked N | refused WHY
//! ```
//!
//! Why it exists: writers are real processes, and a write counts when the array has accepted it, not before.
//! What it never does: it decides no right; `array` does, in the same breath in which it accepts a write.

use super::array::SessionId;
use super::locked;
use super::world::World;
use policies::{NodeId, VolumeId};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::debug;

/// Longest line, in bytes.
const LINE_MAX: u64 = 256;

/// Pause after a failed accept: what fails for want of files fails again at once, and would take a whole core.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// The live connections by session. Dropping an entry ends its connection.
#[derive(Clone, Debug, Default)]
pub struct Connections(Arc<Mutex<BTreeMap<SessionId, oneshot::Sender<()>>>>);

impl Connections {
    /// Ends the connections of sessions that were dropped.
    pub fn close(&self, sessions: Vec<SessionId>) {
        let mut connections = locked(&self.0);
        for session in sessions {
            connections.remove(&session);
        }
    }
}

/// What a client may say.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Login { initiator: String, volume: VolumeId },
    Write { value: u64 },
}

fn parse(line: &str) -> Option<Line> {
    let mut words = line.split_ascii_whitespace();
    let parsed = match words.next()? {
        "login" => Line::Login { initiator: words.next()?.to_owned(), volume: words.next()?.parse().ok()? },
        "write" => Line::Write { value: words.next()?.parse().ok()? },
        _ => return None,
    };
    words.next().is_none().then_some(parsed)
}

/// Serves the array. Returns its address.
///
/// # Errors
/// If there is no listener to be had.
pub async fn serve(
    tasks: &mut JoinSet<()>,
    world: Arc<World>,
    connections: Connections,
) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(SocketAddr::new(world.description().api.ip(), 0)).await?;
    let address = listener.local_addr()?;
    tasks.spawn(async move {
        let mut clients = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        clients.spawn(client(stream, world.clone(), connections.clone()));
                    }
                    Err(error) => {
                        debug!(%error, "accept a client of the array");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(ended) = clients.join_next() => match ended {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => debug!(%error, "a client of the array ended"),
                    Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
                },
            }
        }
    });
    Ok(address)
}

async fn client(stream: TcpStream, world: Arc<World>, connections: Connections) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let Some(Line::Login { initiator, volume }) = next_line(&mut read).await? else {
        return refuse(&mut write, "the first line has to be a login").await;
    };
    let node = owner(&world, &initiator);
    plugged(&world, node.as_ref()).await;
    let login = locked(&world.array).login(&volume, &initiator);
    let (session, last) = match login {
        Ok(opened) => opened,
        Err(why) => return refuse(&mut write, &why.to_string()).await,
    };
    let (close, mut closed) = oneshot::channel();
    locked(&connections.0).insert(session, close);
    let ended = tokio::select! {
        // Only dropping ends this wait; nothing is ever sent.
        _ = &mut closed => Ok(()),
        ended = session_lines(&mut read, &mut write, &world, node.as_ref(), &volume, session, last) => ended,
    };
    connections.close(vec![session]);
    world.on_volume(&volume, |array| array.logout(&volume, session));
    ended
}

async fn session_lines(
    read: &mut BufReader<OwnedReadHalf>,
    write: &mut OwnedWriteHalf,
    world: &World,
    node: Option<&NodeId>,
    volume: &VolumeId,
    session: SessionId,
    last: u64,
) -> io::Result<()> {
    write.write_all(format!("last {last}\n").as_bytes()).await?;
    loop {
        let value = match next_line(read).await? {
            Some(Line::Write { value }) => value,
            Some(Line::Login { .. }) => return refuse(write, "already logged in").await,
            None => return Ok(()),
        };
        plugged(world, node).await;
        let written = locked(&world.array).write(volume, session, value, world.now());
        match written {
            Ok(()) => write.write_all(format!("acked {value}\n").as_bytes()).await?,
            Err(why) => return refuse(write, &why.to_string()).await,
        }
    }
}

/// The next line, or `None` at the end of the connection.
async fn next_line(read: &mut BufReader<OwnedReadHalf>) -> io::Result<Option<Line>> {
    let mut line = Vec::new();
    let got = read.take(LINE_MAX).read_until(b'\n', &mut line).await?;
    if got == 0 {
        return Ok(None);
    }
    let text = std::str::from_utf8(&line).ok().and_then(|text| text.strip_suffix('\n'));
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "not a line of the array's protocol");
    text.and_then(parse).map(Some).ok_or_else(bad)
}

async fn refuse(write: &mut OwnedWriteHalf, why: &str) -> io::Result<()> {
    write.write_all(format!("refused {why}\n").as_bytes()).await
}

fn owner(world: &World, initiator: &str) -> Option<NodeId> {
    let machines = &world.description().machines;
    machines.iter().find(|machine| machine.initiator == initiator).map(|machine| machine.name.clone())
}

/// Waits until the node's way to the array is there: what was sent over a pulled cable waits in the network.
async fn plugged(world: &World, node: Option<&NodeId>) {
    let Some(node) = node else { return };
    let mut changes: watch::Receiver<()> = world.watch();
    while world.cables(node).is_some_and(|cables| !cables.storage || !cables.supply) {
        if changes.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn arbitrary_lines_do_no_harm(line in ".{0,300}") {
            if let Some(Line::Login { initiator, .. }) = parse(&line) {
                prop_assert!(!initiator.is_empty());
            }
        }
    }

    #[test]
    fn lines_are_read_whole_or_not_at_all() {
        let login = Line::Login { initiator: "iqn.n1".to_owned(), volume: "v1".parse().unwrap() };
        assert_eq!(parse("login iqn.n1 v1"), Some(login));
        assert_eq!(parse("write 7"), Some(Line::Write { value: 7 }));
        for bad in ["", "write", "write -1", "write 1 2", "login a", "login a B", "read 1"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
