//! One question by plain HTTP: does the node do its work?
//!
//! Why it exists: the owner of a health address means more than that the kernel lives. What it never does: follow a
//! redirect, read the answer's body, speak TLS, or take more of an answer than its head.

use policies::HttpUrl;
use std::io;
use std::pin::pin;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// Largest head of an answer, in bytes; hyper takes no less than 8192. A health answer has some hundred.
const HEAD_BYTES_MAX: usize = 8192;
/// Most header lines of an answer.
const HEADERS_MAX: usize = 64;

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Got {
    /// An answer with this status.
    Status(u16),
    /// The node was reached, and no answer of HTTP came.
    NoAnswer,
}

/// Asks once.
///
/// # Errors
/// If there was no connection.
pub(super) async fn get(url: &HttpUrl, deadline: Instant) -> io::Result<Got> {
    let connected = timeout_at(deadline, TcpStream::connect((url.host(), url.port()))).await;
    let stream = connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let answer = timeout_at(deadline, exchange(url, stream)).await;
    // What breaks once we are connected breaks at the node.
    Ok(answer.ok().and_then(Result::ok).map_or(Got::NoAnswer, Got::Status))
}

async fn exchange(url: &HttpUrl, stream: TcpStream) -> Result<u16, Box<dyn std::error::Error + Send + Sync>> {
    let request = hyper::Request::get(url.target())
        .header(hyper::header::HOST, url.authority())
        .header(hyper::header::USER_AGENT, "ha-supervisor")
        .header(hyper::header::CONNECTION, "close")
        .body(String::new())?;
    let mut builder = hyper::client::conn::http1::Builder::new();
    builder.max_buf_size(HEAD_BYTES_MAX).max_headers(HEADERS_MAX);
    let (mut sender, connection) = builder.handshake(hyper_util::rt::TokioIo::new(stream)).await?;
    let (mut answer, connection) = (pin!(sender.send_request(request)), pin!(connection));
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        // It may have ended because the answer is complete.
        _ = connection => answer.await,
    };
    Ok(answer?.status().as_u16())
}
