//! Asks the kernel of a node whether it lives: TCP connect and ICMP echo.
//!
//! Why it exists: a silent agent is no dead machine; a kernel that answers is proof of life, and one that does not is
//! evidence of death. What it never does: count our own trouble (no route, no descriptor, no right) as silence.

use policies::Probe;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::{TcpStream, UdpSocket, lookup_host};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

/// What asking found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The kernel answered, be it with a refusal.
    Answers,
    /// Every question went out, none was answered.
    Mute,
    /// At least one question could not be asked, and no other was answered.
    CouldNotAsk(String),
}

impl Answer {
    /// For [`policies::Input::Asked`].
    pub fn answers(&self) -> Option<bool> {
        match self {
            Answer::Answers => Some(true),
            Answer::Mute => Some(false),
            Answer::CouldNotAsk(_) => None,
        }
    }
}

/// Asks by every way that the inventory names, `count` times, one question each `interval`. Returns at the first
/// answer, or one interval after the last question.
pub async fn ask(probe: &Probe, count: u32, interval: Duration) -> Answer {
    let start = Instant::now();
    let end = start + interval * count;
    let mut questions = JoinSet::new();
    for i in 0..count {
        let at = start + interval * i;
        if let Some(address) = probe.tcp.clone() {
            questions.spawn(async move {
                sleep_until(at).await;
                connect(&address, end).await
            });
        }
        if let Some(address) = probe.icmp.clone() {
            questions.spawn(async move {
                sleep_until(at).await;
                echo(&address, end).await
            });
        }
    }
    let mut found = Answer::Mute;
    while let Some(joined) = questions.join_next().await {
        match joined {
            Ok(Answer::Answers) => return Answer::Answers,
            Ok(Answer::Mute) => {}
            Ok(trouble @ Answer::CouldNotAsk(_)) => found = trouble,
            Err(error) => found = Answer::CouldNotAsk(error.to_string()),
        }
    }
    found
}

/// One TCP connection. A refusal (RST) is an answer of the kernel (RFC 9293 §3.5.2).
async fn connect(address: &str, deadline: Instant) -> Answer {
    match timeout_at(deadline, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Answer::Answers,
        Ok(Err(error)) => meaning(&error, address),
        Err(_) => Answer::Mute,
    }
}

/// Whose trouble an error is. What we do not know is ours.
fn meaning(error: &io::Error, address: &str) -> Answer {
    match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Answer::Answers,
        // Our kernel asked for the node's link address or for an answer, and nobody gave one.
        ErrorKind::HostUnreachable | ErrorKind::TimedOut => Answer::Mute,
        _ => Answer::CouldNotAsk(format!("ask {address}: {error}")),
    }
}

/// One ICMP echo over an unprivileged datagram socket (`ping(8)` uses the same; see `net.ipv4.ping_group_range`).
async fn echo(address: &str, deadline: Instant) -> Answer {
    match timeout_at(deadline, exchange(address)).await {
        Ok(Ok(())) => Answer::Answers,
        Ok(Err(error)) => meaning(&error, address),
        Err(_) => Answer::Mute,
    }
}

async fn exchange(address: &str) -> io::Result<()> {
    let nowhere = || io::Error::new(ErrorKind::InvalidInput, "no such address");
    let to = lookup_host((address, 0)).await?.next().ok_or_else(nowhere)?;
    let (domain, protocol, kind) = match to.ip() {
        // RFC 792 type 8, RFC 4443 type 128.
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128),
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(protocol))?;
    socket.set_nonblocking(true)?;
    let socket = UdpSocket::from_std(socket.into())?;
    socket.connect(SocketAddr::new(to.ip(), 0)).await?;
    // The kernel fills in identifier and checksum of datagram echo sockets and hands us only our own replies.
    socket.send(&[kind, 0, 0, 0, 0, 0, 0, 1]).await?;
    let mut reply = [0u8; 64];
    loop {
        let length = socket.recv(&mut reply).await?;
        if let Some([0 | 129, ..]) = reply.get(..length) {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(address: SocketAddr) -> Probe {
        Probe { tcp: Some(address.to_string()), icmp: None }
    }

    #[tokio::test]
    async fn an_open_port_and_a_refusal_are_answers_of_the_kernel() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(ask(&tcp(address), 2, Duration::from_secs(10)).await, Answer::Answers);
        drop(listener);
        assert_eq!(ask(&tcp(address), 2, Duration::from_secs(10)).await, Answer::Answers);
    }

    #[tokio::test]
    async fn a_full_accept_queue_is_a_mute_kernel() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let filler = std::net::TcpStream::connect(address).unwrap();
        assert_eq!(ask(&tcp(address), 2, Duration::from_millis(50)).await, Answer::Mute);
        drop(filler);
    }

    #[tokio::test]
    async fn a_name_that_does_not_resolve_is_our_trouble() {
        let probe = Probe { tcp: Some("nowhere.invalid:22".into()), icmp: None };
        assert!(matches!(ask(&probe, 1, Duration::from_secs(10)).await, Answer::CouldNotAsk(_)));
    }

    #[test]
    fn no_route_is_our_trouble_and_no_neighbour_is_the_nodes() {
        let of = |code| meaning(&io::Error::from_raw_os_error(code), "n1").answers();
        assert_eq!(of(nix::libc::ECONNREFUSED), Some(true));
        assert_eq!(of(nix::libc::EHOSTUNREACH), Some(false));
        for ours in [nix::libc::ENETUNREACH, nix::libc::EMFILE, nix::libc::EACCES, nix::libc::ENETDOWN] {
            assert_eq!(of(ours), None);
        }
    }
}
