//! The sending half: one heartbeat, or the hardware, over every path to every member; and what members answer.
//!
//! Why it exists: so that no path can hold up another. All sockets are non-blocking, a path that cannot be bound is
//! tried again with the next heartbeat, and nothing here resolves names or waits.
//! What it never does: it does not pace itself and does not log; it tells its caller what began or ceased to fail.

use crate::answer;
use crate::config::{ASK_EVERY, Config, PathConfig};
use crate::hardware;
use crate::inventory::{self, Inventory, NotSent};
use crate::watched::Watched;
use crate::wire::{BEAT_BYTES, Beat, NodeTag, encode};
use nix::time::{ClockId, clock_gettime};
use policies::{BootId, Capabilities, Heartbeat, LastGasp, MemberId, Mono};
use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

/// Datagrams read from one path at once: what members can have answered between two heartbeats, many times over, so that
/// somebody who floods the port has to be quick. More: a flood holds up the next heartbeat.
const ANSWERS_AT_ONCE_MAX: usize = 1024;

/// The sender of one node's heartbeats.
#[derive(Debug)]
pub struct Beacon {
    node: NodeTag,
    key: crate::key::Key,
    boot: BootId,
    sequence: u64,
    watched: Arc<Watched>,
    /// Heartbeats that were sent, if members are to answer.
    asking: Option<u64>,
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
        let watched = Arc::new(Watched::start(&config)?);
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
            asking: config.watchdog.map(|_| 0),
            paths: config.paths.into_iter().map(way).collect(),
        })
    }

    /// Sends one heartbeat, or farewell, to every member over every path, and tells what changed on the paths.
    pub fn send(&mut self, last_gasp: Option<LastGasp>) -> Vec<Notice> {
        self.sequence = next_sequence(self.sequence, boottime_ns());
        let (epoch, write_age) = self.watched.said();
        let said = Heartbeat { boot: self.boot, epoch, write_age, last_gasp };
        let asked = if last_gasp.is_none() { self.path_to_ask() } else { None };
        let mut notices = vec![];
        // `PATHS_MAX` is far below 256: no path is left out.
        for (path, way) in (0..=u8::MAX).zip(&mut self.paths) {
            let asks = asked == Some(usize::from(path));
            let beat = Beat { node: self.node, path, sequence: self.sequence, asks, said };
            way.send(&encode(&beat, &self.key), &mut notices);
        }
        notices
    }

    /// The path over which the next heartbeat asks for answers, by its place: one after the other, for one answer is enough,
    /// and every way back has to be tried.
    fn path_to_ask(&mut self) -> Option<usize> {
        let sent = self.asking.as_mut()?;
        let (turn, rest) = (*sent / ASK_EVERY, *sent % ASK_EVERY);
        *sent += 1;
        let place = usize::try_from(turn).unwrap_or(0).checked_rem(self.paths.len())?;
        (rest == 0).then_some(place)
    }

    /// The members that have answered since the last time, and when the heartbeats that they answered were sent. What is
    /// no answer to this life of the node is left out.
    pub fn hear(&mut self) -> Vec<(MemberId, Mono)> {
        let mut heard = vec![];
        let mut buffer = [0; BEAT_BYTES + 1];
        for socket in self.paths.iter().filter_map(|way| way.socket.as_ref()) {
            for _ in 0..ANSWERS_AT_ONCE_MAX {
                // Nothing is left, or the path is broken; sending will tell.
                let Ok(length) = socket.recv(&mut buffer) else { break };
                let answer = buffer.get(..length).and_then(|datagram| answer::verify(datagram, &self.key));
                heard.extend(answer.filter(|answer| {
                    (answer.node, answer.boot) == (self.node, self.boot) && answer.sequence <= self.sequence
                }));
            }
        }
        heard.into_iter().map(|answer| (answer.member, mono(answer.sequence))).collect()
    }

    /// The files that it watches.
    pub fn watched(&self) -> Arc<Watched> {
        self.watched.clone()
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

/// When a heartbeat with this sequence was sent, or a little before.
fn mono(sequence: u64) -> Mono {
    Mono(sequence / 1_000_000)
}

/// Now, on the clock from which sequences are made. Without that clock it is later than anything was.
pub(crate) fn now() -> Mono {
    match boottime_ns() {
        0 => Mono(u64::MAX),
        ns => mono(ns),
    }
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
    use crate::answer::Answer;
    use crate::wire::verify;

    fn key() -> crate::key::Key {
        crate::key::Key::new([0xab; 32])
    }

    /// Two paths to one member.
    fn beacon(member: &UdpSocket, more: &str) -> Beacon {
        member.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        let (at, key) = (member.local_addr().unwrap(), "ab".repeat(32));
        let path = |name| format!("[[paths]]\nname = \"{name}\"\nmembers = [\"{at}\"]\n");
        let text =
            format!("node = \"n1\"\nkey = \"{key}\"\nboot_id = \"b\"\n{}{}{more}", path("a"), path("b"));
        let none = |_: &std::path::Path, _| unreachable!("no other file is named");
        Beacon::new(Config::parse("agent.toml".as_ref(), &text, none).unwrap()).unwrap()
    }

    fn next(member: &UdpSocket) -> (Beat, SocketAddr) {
        let mut buffer = [0; BEAT_BYTES];
        let (length, from) = member.recv_from(&mut buffer).unwrap();
        (verify(&buffer[..length], &key()).unwrap(), from)
    }

    #[test]
    fn under_a_watchdog_one_heartbeat_in_four_asks_over_one_path_after_the_other() {
        let member = UdpSocket::bind("127.0.0.1:0").unwrap();
        for (section, expected) in [("", vec![]), ("[watchdog]", vec![(0, 0), (4, 1), (8, 0)])] {
            let mut beacon = beacon(&member, section);
            let mut asked = vec![];
            for number in 0..12 {
                assert!(beacon.send(None).is_empty());
                let copies = [next(&member).0, next(&member).0];
                asked.extend(copies.iter().filter(|beat| beat.asks).map(|beat| (number, beat.path)));
            }
            assert_eq!(asked, expected);
            beacon.send(Some(LastGasp::Shutdown));
            assert!(
                ![next(&member).0, next(&member).0].iter().any(|beat| beat.asks),
                "nobody waits any more"
            );
        }
    }

    #[test]
    fn only_answers_to_this_life_count_and_from_when_their_heartbeat_was_sent() {
        let member = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut beacon = beacon(&member, "[watchdog]");
        beacon.send(None);
        let (beat, from) = next(&member);
        let answer = Answer::to(&beat, MemberId(1));
        let tell = |answer: Answer, key: &crate::key::Key| {
            member.send_to(&answer::encode(&answer, key), from).unwrap();
        };
        tell(Answer { node: NodeTag(5), ..answer }, &key());
        tell(Answer { boot: BootId(5), ..answer }, &key());
        tell(Answer { sequence: u64::MAX, ..answer }, &key());
        tell(answer, &crate::key::Key::new([1; 32]));
        member.send_to(&[0; 2000], from).unwrap();
        member.send_to(&encode(&beat, &key()), from).unwrap();
        assert!(beacon.hear().is_empty());
        tell(answer, &key());
        tell(Answer { member: MemberId(2), sequence: 7_000_000, ..answer }, &key());
        let sent = Mono(beat.sequence / 1_000_000);
        assert_eq!(beacon.hear(), [(MemberId(1), sent), (MemberId(2), Mono(7))]);
        assert!(sent <= now());
    }

    #[test]
    fn the_sequence_grows_even_where_the_clock_does_not() {
        assert_eq!(next_sequence(0, 500), 500);
        assert_eq!(next_sequence(500, 500), 501);
        assert_eq!(next_sequence(501, 499), 502);
        let (first, second) = (boottime_ns(), boottime_ns());
        assert!(0 < first && first <= second);
    }
}
