//! The monitor of an emulated machine (QEMU's machine protocol, QMP): one command, one answer.
//!
//! Why it exists: the buttons of an emulated machine are there. What it never does: keep a connection.

use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// How long the monitor may take, on a busy computer.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// A button of a machine. Whether anything comes of it is up to what runs there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Button {
    /// The power button, pressed for a moment: ACPI tells the system of it.
    Power,
    /// The diagnostic interrupt (NMI).
    Interrupt,
}

impl Button {
    /// QEMU's command for it.
    fn command(self) -> &'static str {
        match self {
            Button::Power => "system_powerdown",
            Button::Interrupt => "inject-nmi",
        }
    }
}

/// Presses it.
///
/// # Errors
/// If the monitor at this socket does not take it in time: there is no emulator, or it is stopped.
pub async fn press(monitor: &Path, button: Button) -> io::Result<()> {
    run(monitor, button.command()).await
}

async fn run(monitor: &Path, command: &str) -> io::Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixListener;

    /// A monitor that says these lines, one part before and one after each command, and tells what it was told.
    async fn monitor(dir: &Path, says: [&'static str; 3]) -> tokio::task::JoinHandle<String> {
        let listener = UnixListener::bind(dir.join("monitor")).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (from, mut to) = stream.split();
            let (mut lines, mut heard) = (BufReader::new(from).lines(), String::new());
            for says in says {
                to.write_all(says.as_bytes()).await.unwrap();
                heard += &lines.next_line().await.unwrap().unwrap_or_default();
            }
            heard
        })
    }

    #[tokio::test]
    async fn a_button_is_pressed_after_the_greeting_and_events_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let greets = "{\"QMP\": {}}\n";
        let done = "{\"timestamp\": 1, \"event\": \"POWERDOWN\"}\n{\"return\": {}}\n";
        let monitor = monitor(dir.path(), [greets, "{\"return\": {}}\n", done]).await;
        press(&dir.path().join("monitor"), Button::Power).await.unwrap();
        let expected = "{\"execute\":\"qmp_capabilities\"}{\"execute\":\"system_powerdown\"}";
        assert_eq!(monitor.await.unwrap(), expected);
    }

    #[tokio::test]
    async fn what_is_refused_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let greets = "{\"QMP\": {}}\n";
        let refuses = "{\"error\": {\"desc\": \"no such command\"}}\n";
        let monitor = monitor(dir.path(), [greets, "{\"return\": {}}\n", refuses]).await;
        let error = press(&dir.path().join("monitor"), Button::Interrupt).await.unwrap_err();
        assert!(error.to_string().contains("no such command"), "{error}");
        monitor.await.unwrap();
        assert!(press(&dir.path().join("nowhere"), Button::Power).await.is_err());
    }
}
