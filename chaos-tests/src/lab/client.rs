//! A client of the lab's instances, in their owner's network.
//!
//! Why it exists: what a failover is for is that somebody is served again, at the same address.
//! What it never does: keep a connection; each question is a new one.

use super::at;
use policies::Epoch;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::time::timeout;

/// How long one question waits: an address that nobody has answers nothing at all.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// More than any answer of an instance.
const ANSWER_BYTES_MAX: u64 = 4096;

/// What an instance says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Served {
    pub(super) instance: String,
    pub(super) epoch: Epoch,
    pub(super) count: u64,
}

/// Asks an instance.
pub(super) async fn ask(instance: u8) -> Result<Served, String> {
    match timeout(ANSWER_MAX, get(at::instance(instance))).await {
        Ok(Ok(text)) => read(&text).ok_or_else(|| format!("it answers {text:?}")),
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
fn read(text: &str) -> Option<Served> {
    let (_, body) = text.split_once("\r\n\r\n")?;
    let mut words = body.split_whitespace();
    let (instance, epoch, count) = (words.next()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some(Served { instance: instance.to_owned(), epoch: Epoch(epoch), count })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_behind_its_header() {
        let text = "HTTP/1.1 200 OK\r\nContent-type: text/html\r\n\r\nweb-1 3 1234\n";
        let served = Served { instance: "web-1".to_owned(), epoch: Epoch(3), count: 1234 };
        assert_eq!(read(text), Some(served));
        assert_eq!(read("HTTP/1.1 404 Not Found\r\n\r\n"), None);
        assert_eq!(read(""), None);
    }
}
