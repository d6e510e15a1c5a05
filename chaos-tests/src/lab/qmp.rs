//! The monitor of an emulated machine (QEMU's machine protocol, QMP): one command, one answer.
//!
//! Why it exists: some things happen to a machine that no BMC does. What it never does: keep a connection.

use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// How long the monitor may take, on a busy computer.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Runs a command without arguments.
pub(super) async fn run(monitor: &Path, command: &str) -> io::Result<()> {
    match timeout(ANSWER_MAX, exchange(monitor, command)).await {
        Ok(done) => done,
        Err(_) => {
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("{command}: no answer in {ANSWER_MAX:?}")))
        }
    }
}

async fn exchange(monitor: &Path, command: &str) -> io::Result<()> {
    let (from, mut to) = UnixStream::connect(monitor).await?.into_split();
    let mut lines = BufReader::new(from).lines();
    for command in ["qmp_capabilities", command] {
        to.write_all(format!("{{\"execute\":\"{command}\"}}\n").as_bytes()).await?;
        // The greeting and events come between.
        loop {
            let Some(line) = lines.next_line().await? else {
                return Err(io::ErrorKind::UnexpectedEof.into());
            };
            if line.contains("\"error\"") {
                return Err(io::Error::other(line));
            }
            if line.contains("\"return\"") {
                break;
            }
        }
    }
    Ok(())
}
