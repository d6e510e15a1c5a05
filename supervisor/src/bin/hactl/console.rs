//! A node's console in this terminal: what it says, and what is typed here.
//!
//! Why it exists: a machine that does not start is repaired at its console. What it never does: leave the terminal in raw mode,
//! change what the node says, type anything by itself.

use crate::args::NodeConsole;
use crate::run::{Done, Failure, segment};
use nix::sys::termios::{self, SetArg, Termios};
use std::io::{ErrorKind, IsTerminal, Read, Write};
use std::process::ExitCode;
use std::time::Duration;
use supervisor::api::{CONSOLE_HOW, Typing};
use supervisor::client::Client;
use tokio::sync::mpsc;

/// Pause before a console that has ended is asked for again: another member has to lead first.
const AGAIN: Duration = Duration::from_millis(500);
/// Bytes that are read from the keyboard, or a file, at once; as many go in one request.
const TYPED_AT_ONCE_MAX: usize = 512;

/// Shows what the console says, and types at it if that is wished.
pub(crate) async fn attach(client: &Client, asked: &NodeConsole) -> Done {
    let place = format!("/v1/nodes/{}/console", segment(&asked.name));
    if !asked.interactive {
        return show(client, &place, asked).await;
    }
    let stdin = std::io::stdin();
    let raw = stdin.is_terminal().then(Raw::enter).transpose();
    let _raw = raw.map_err(|error| Failure::local("set the terminal to raw mode", &error))?;
    let done = tokio::select! {
        done = show(client, &place, asked) => done,
        done = type_in(client, &place) => done,
    };
    eprint_line("\r\n[detached]\r")?;
    done
}

/// Copies what comes. When the member that listens leads no more, goes on at the next one, which has its own beginning.
async fn show(client: &Client, place: &str, asked: &NodeConsole) -> Done {
    let path = format!("{place}{}", if asked.once { "" } else { "?follow=true" });
    let failed = |error| Failure::local("write what the console says", &error);
    loop {
        let mut stream = client.stream(&path).await.map_err(Failure::Cluster)?;
        let how = stream.headers().get(CONSOLE_HOW).and_then(|how| how.to_str().ok()).unwrap_or_default();
        let escape = if asked.interactive { "; `~.` at the beginning of a line detaches]\r" } else { "]" };
        eprint_line(&format!("[{}: {how}{escape}", asked.name))?;
        while let Ok(Some(chunk)) = stream.chunk().await {
            let mut out = std::io::stdout().lock();
            match out.write_all(&chunk).and_then(|()| out.flush()) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
                Err(error) => return Err(failed(error)),
            }
        }
        if asked.once {
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn eprint_line(line: &str) -> Result<(), Failure> {
    writeln!(std::io::stderr(), "{line}").map_err(|error| Failure::local("write to standard error", &error))
}

/// Sends what is typed, in order, until the escape. At the end of a file it waits: the console goes on.
async fn type_in(client: &Client, place: &str) -> Done {
    let mut keyboard = keyboard();
    let (mut escape, mut text) = (Escape::default(), Text::default());
    while let Some(typed) = keyboard.recv().await {
        let (typed, detach) = escape.filter(&typed);
        let text = text.take(&typed);
        if !text.is_empty() {
            let typing = Typing { text };
            client.order_quietly(reqwest::Method::POST, place, &typing).await.map_err(Failure::Cluster)?;
        }
        if detach {
            return Ok(ExitCode::SUCCESS);
        }
    }
    std::future::pending().await
}

/// What is typed. A thread of its own reads it, for nothing else can wait for a terminal; it ends with the process.
fn keyboard() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut buffer = [0; TYPED_AT_ONCE_MAX];
        while let Ok(length @ 1..) = std::io::stdin().read(&mut buffer) {
            let typed = buffer.get(..length).unwrap_or_default().to_vec();
            if sender.blocking_send(typed).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Finds `~.` at the beginning of a line, as ssh and ipmitool do; `~~` is one `~`.
#[derive(Debug)]
struct Escape {
    line_begins: bool,
    pending: bool,
}

impl Default for Escape {
    fn default() -> Self {
        Escape { line_begins: true, pending: false }
    }
}

impl Escape {
    /// What of it goes to the node, and whether to detach after that.
    fn filter(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut sent = vec![];
        for byte in typed {
            if std::mem::take(&mut self.pending) {
                match byte {
                    b'.' => return (sent, true),
                    b'~' => {}
                    _ => sent.push(b'~'),
                }
            } else if *byte == b'~' && self.line_begins {
                self.pending = true;
                continue;
            }
            sent.push(*byte);
            self.line_begins = matches!(byte, b'\r' | b'\n');
        }
        (sent, false)
    }
}

/// Bytes that become text: a character may come in two pieces.
#[derive(Debug, Default)]
struct Text(Vec<u8>);

impl Text {
    fn take(&mut self, bytes: &[u8]) -> String {
        self.0.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&self.0) {
            // It ends within a character.
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Ok(_) | Err(_) => self.0.len(),
        };
        String::from_utf8_lossy(&self.0.drain(..whole).collect::<Vec<u8>>()).into_owned()
    }
}

/// The terminal passes every key as it is, until this is dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> nix::Result<Raw> {
        let before = termios::tcgetattr(std::io::stdin())?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(std::io::stdin(), SetArg::TCSANOW, &raw)?;
        Ok(Raw(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Nothing more can be done for a terminal that has gone away.
        termios::tcsetattr(std::io::stdin(), SetArg::TCSANOW, &self.0).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tilde_and_a_dot_at_the_beginning_of_a_line_detach() {
        let mut escape = Escape::default();
        assert_eq!(escape.filter(b"cd ~.\r"), (b"cd ~.\r".to_vec(), false));
        assert_eq!(escape.filter(b"~"), (vec![], false));
        assert_eq!(escape.filter(b"~x\r~a\r"), (b"~x\r~a\r".to_vec(), false));
        assert_eq!(escape.filter(b"ls\r~.rest"), (b"ls\r".to_vec(), true));
        assert_eq!(Escape::default().filter(b"~."), (vec![], true));
    }

    #[test]
    fn a_character_in_two_pieces_is_one() {
        let mut text = Text::default();
        let (first, second) = "é".as_bytes().split_at(1);
        assert_eq!((text.take(first), text.take(second)), (String::new(), "é".to_owned()));
        assert_eq!(text.take(b"a\xffb"), "a\u{fffd}b");
    }
}
