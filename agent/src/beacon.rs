//! The sending half: one heartbeat, or the hardware, over every path to every member.
//!
//! Why it exists: so that no path can hold up another. All sockets are non-blocking, a path that cannot be bound is
//! tried again with the next heartbeat, and nothing here resolves names or waits.
//! What it never does: it does not pace itself and does not log; it tells its caller what began or ceased to fail.

use crate::config::{Config, PathConfig};
use crate::hardware;
use crate::inventory::{self, Inventory, NotSent};
use crate::watched::Watched;
use crate::wire::{Beat, NodeTag, encode};
use nix::time::{ClockId, clock_gettime};
use policies::{BootId, Capabilities, Heartbeat, LastGasp};
use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};

/// The sender of one node's heartbeats.
#[derive(Debug)]
pub struct Beacon {
    node: NodeTag,
    key: crate::key::Key,
    boot: BootId,
    sequence: u64,
    watched: Watched,
    paths: Vec<Way>,
}

#[derive(Debug)]
struct Way {
    config: PathConfig,
    socket: Option<UdpSocket>,
    bind_fails: bool,
    /// For each member of the path.
    send_fails: Vec<bool>,
}

/// Something on a path began or ceased to fail. Told once for each change, not for each heartbeat.
#[derive(Debug)]
pub struct Notice {
    path: String,
    /// The member that was sent to; `None`: the path's own socket.
    to: Option<SocketAddr>,
    /// `None`: it works again.
    error: Option<io::Error>,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to {
            Some(member) => write!(f, "path {}: send to {member}: ", self.path)?,
            None => write!(f, "path {}: bind: ", self.path)?,
        }
        match &self.error {
            Some(error) => write!(f, "{error}; other paths and members are not held up, trying again"),
            None => f.write_str("works again"),
        }
    }
}

impl Beacon {
    /// A sender as configured. Sends nothing yet.
    ///
    /// # Errors
    /// If the threads that watch files cannot be started.
    pub fn new(config: Config) -> io::Result<Self> {
        let watched = Watched::start(&config)?;
        let way = |config: PathConfig| Way {
            send_fails: vec![false; config.members.len()],
            config,
            socket: None,
            bind_fails: false,
        };
        Ok(Beacon {
            node: NodeTag::of(config.node.as_str()),
            key: config.key,
            boot: config.boot,
            sequence: 0,
            watched,
            paths: config.paths.into_iter().map(way).collect(),
        })
    }

    /// Sends one heartbeat, or farewell, to every member over every path, and tells what changed on the paths.
    pub fn send(&mut self, last_gasp: Option<LastGasp>) -> Vec<Notice> {
        self.sequence = next_sequence(self.sequence, boottime_ns());
        let (epoch, write_age) = self.watched.said();
        let said = Heartbeat { boot: self.boot, epoch, write_age, last_gasp };
        let mut notices = vec![];
        // `PATHS_MAX` is far below 256: no path is left out.
        for (path, way) in (0..=u8::MAX).zip(&mut self.paths) {
            let beat = Beat { node: self.node, path, sequence: self.sequence, said };
            way.send(&encode(&beat, &self.key), &mut notices);
        }
        notices
    }

    /// Tells every member over every path what hardware this node has. If not all fits into one datagram, the traits that
    /// are missed least are left out.
    ///
    /// # Errors
    /// [`NotSent`] if it cannot be told in one datagram; nothing was sent then.
    pub fn tell(&mut self, found: &Capabilities) -> Result<Vec<Notice>, NotSent> {
        self.sequence = next_sequence(self.sequence, boottime_ns());
        let mut told =
            Inventory { node: self.node, boot: self.boot, sequence: self.sequence, found: found.clone() };
        let datagram = loop {
            match inventory::encode(&told, &self.key) {
                Err(NotSent::TooLong { found }) => match hardware::least(&told.found.traits) {
                    Some(least) => drop(told.found.traits.remove(&least)),
                    None => return Err(NotSent::TooLong { found }),
                },
                Err(error @ NotSent::Json(_)) => return Err(error),
                Ok(datagram) => break datagram,
            }
        };
        let mut notices = vec![];
        for way in &mut self.paths {
            way.send(&datagram, &mut notices);
        }
        Ok(notices)
    }
}

impl Way {
    fn send(&mut self, datagram: &[u8], notices: &mut Vec<Notice>) {
        let path = &self.config.name;
        let mut note = |fails: &mut bool, to: Option<SocketAddr>, error: Option<io::Error>| {
            if *fails != error.is_some() {
                *fails = error.is_some();
                notices.push(Notice { path: path.clone(), to, error });
            }
        };
        if self.socket.is_none() {
            let (socket, error) = match open(self.config.source()) {
                Ok(socket) => (Some(socket), None),
                Err(error) => (None, Some(error)),
            };
            self.socket = socket;
            note(&mut self.bind_fails, None, error);
        }
        let Some(socket) = &self.socket else { return };
        for (member, fails) in self.config.members.iter().zip(&mut self.send_fails) {
            note(fails, Some(*member), socket.send_to(datagram, member).err());
        }
    }
}

fn open(source: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(source)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// The clock's reading where it has moved on. CLOCK_BOOTTIME never goes back within one boot, so an agent that is
/// started again, or a second one that only says farewell, goes on above what the first one sent.
fn next_sequence(last: u64, boottime_ns: u64) -> u64 {
    boottime_ns.max(last.saturating_add(1))
}

/// Nanoseconds since the boot; 0 if the kernel has no such clock (before 2.6.39), then the sequence merely counts.
fn boottime_ns() -> u64 {
    let Ok(time) = clock_gettime(ClockId::CLOCK_BOOTTIME) else { return 0 };
    let (seconds, nanos) = (u64::try_from(time.tv_sec()), u64::try_from(time.tv_nsec()));
    seconds.unwrap_or(0).saturating_mul(1_000_000_000).saturating_add(nanos.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_grows_even_where_the_clock_does_not() {
        assert_eq!(next_sequence(0, 500), 500);
        assert_eq!(next_sequence(500, 500), 501);
        assert_eq!(next_sequence(501, 499), 502);
        let (first, second) = (boottime_ns(), boottime_ns());
        assert!(0 < first && first <= second);
    }
}
