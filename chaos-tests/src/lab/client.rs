//! A client of the lab's instances, in their owner's network.
//!
//! Why it exists: what a failover is for is that somebody is served again, at the same address.
//! What it never does: keep a connection; each question is a new one.

use super::at;
use crate::clock::now;
use policies::{Epoch, Wall};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// How long one question waits: an address that nobody has answers nothing at all.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// Pause between the questions of who waits for an answer. Less than anything here takes; no question waits for the one before,
/// for a lost SYN is sent again only after a second.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// More than any answer of an instance.
const ANSWER_BYTES_MAX: u64 = 4096;

/// What an instance says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Served {
    pub(super) instance: String,
    pub(super) epoch: Epoch,
    pub(super) count: u64,
    /// When it said so.
    pub(super) at: Wall,
}

/// Asks an instance again and again until the answer is as wished; `seen` is what came last.
pub(super) async fn ask_until(
    instance: u8,
    wished: impl Fn(&Served) -> bool,
    seen: &mut Result<Served, String>,
) -> Served {
    let (mut asked, mut next) = (JoinSet::new(), interval(ASK_EVERY));
    next.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = next.tick() => drop(asked.spawn(ask(instance))),
            Some(Ok(answer)) = asked.join_next() => match answer {
                Ok(served) if wished(&served) => return served,
                other => *seen = other,
            },
        }
    }
}

/// Asks an instance.
pub(super) async fn ask(instance: u8) -> Result<Served, String> {
    match timeout(ANSWER_MAX, get(at::instance(instance))).await {
        Ok(Ok(text)) => read(&text, now()).ok_or_else(|| format!("it answers {text:?}")),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer in {ANSWER_MAX:?}")),
    }
}

async fn get(address: Ipv4Addr) -> std::io::Result<String> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddrV4::new(at::CLIENT, 0).into())?;
    let mut stream = socket.connect(SocketAddrV4::new(address, 80).into()).await?;
    stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n").await?;
    let mut text = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut text).await?;
    Ok(text)
}

/// `web-1 3 1234` behind the header.
fn read(text: &str, at: Wall) -> Option<Served> {
    let (_, body) = text.split_once("\r\n\r\n")?;
    let mut words = body.split_whitespace();
    let (instance, epoch, count) = (words.next()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some(Served { instance: instance.to_owned(), epoch: Epoch(epoch), count, at })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_behind_its_header() {
        let text = "HTTP/1.1 200 OK\r\nContent-type: text/html\r\n\r\nweb-1 3 1234\n";
        let served = Served { instance: "web-1".to_owned(), epoch: Epoch(3), count: 1234, at: Wall(5) };
        assert_eq!(read(text, Wall(5)), Some(served));
        assert_eq!(read("HTTP/1.1 404 Not Found\r\n\r\n", Wall(5)), None);
        assert_eq!(read("", Wall(5)), None);
    }
}
