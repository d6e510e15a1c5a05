//! The last of what a node's console said.
//!
//! Why it exists: a kernel tells why it dies on its serial console, to whoever listens at that moment. So it is listened to all
//! the time, and the end is kept. What it never does: growing beyond its limit, keeping what is typed for a later session.

use crate::ipmi::lock;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Mutex;
use tokio::sync::{Notify, watch};

/// Bytes of a console that are kept. A kernel's panic has 4 to 16 KiB, a boot 50 to 100. Higher: times the nodes that are listened
/// to; 1,000 have 64 MiB.
pub const BYTES_MAX: usize = 64 * 1024;
/// Bytes that are typed and not yet on their way; more are refused. A pasted page is 2 to 4 KiB.
const TYPED_MAX: usize = 4096;
/// Bytes from the end in which the last lines are looked for.
const TAIL_MAX: usize = 8 * 1024;

/// What a console said, as far as it is kept.
#[derive(Debug)]
pub struct Console {
    kept: Mutex<Kept>,
    /// How many bytes it has said in all, for whoever waits for more.
    said: watch::Sender<u64>,
    /// Something was typed.
    typing: Notify,
}

#[derive(Debug)]
struct Kept {
    bytes: VecDeque<u8>,
    how: Listening,
    typed: Vec<u8>,
}

#[derive(Debug)]
enum Listening {
    Since(jiff::Timestamp),
    Not(String),
}

/// Why what is typed is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTyped {
    /// Nobody is there to send it.
    #[error("the console is {0}")]
    NotListenedTo(String),
    /// The node takes no more for now.
    #[error("the console has not yet taken what was typed before")]
    Full,
}

impl Default for Console {
    fn default() -> Self {
        let how = Listening::Not("nobody has listened yet".to_owned());
        let kept = Mutex::new(Kept { bytes: VecDeque::new(), how, typed: vec![] });
        Console { kept, said: watch::Sender::new(0), typing: Notify::new() }
    }
}

impl Console {
    /// It said this.
    pub fn add(&self, bytes: &[u8]) {
        let mut kept = lock(&self.kept);
        kept.bytes.extend(bytes);
        let excess = kept.bytes.len().saturating_sub(BYTES_MAX);
        kept.bytes.drain(..excess);
        // Under the lock, so that count and bytes agree.
        self.said.send_modify(|said| *said = said.saturating_add(bytes.len() as u64));
    }

    /// It is listened to from now on.
    pub fn opened(&self, now: jiff::Timestamp) {
        lock(&self.kept).how = Listening::Since(now);
    }

    /// It is listened to no more. What was typed and is not on its way is dropped: nobody expects it any more when it could go.
    pub fn closed(&self, why: String) {
        let mut kept = lock(&self.kept);
        kept.how = Listening::Not(why);
        kept.typed.clear();
    }

    /// How the listening is: since when, or why not.
    pub fn how(&self) -> String {
        lock(&self.kept).how.to_string()
    }

    /// Types these bytes at the node.
    ///
    /// # Errors
    /// [`NotTyped`], and then none of them.
    pub fn type_in(&self, bytes: &[u8]) -> Result<(), NotTyped> {
        let mut kept = lock(&self.kept);
        match &kept.how {
            Listening::Since(_) => {}
            how @ Listening::Not(_) => return Err(NotTyped::NotListenedTo(how.to_string())),
        }
        if kept.typed.len() + bytes.len() > TYPED_MAX {
            return Err(NotTyped::Full);
        }
        kept.typed.extend_from_slice(bytes);
        self.typing.notify_one();
        Ok(())
    }

    /// Waits for something to be typed, and takes so many bytes of it at most. Loses nothing if it is not waited for to the end.
    pub(crate) async fn typed(&self, bytes_max: usize) -> Vec<u8> {
        loop {
            let typed = self.take_typed(bytes_max);
            if !typed.is_empty() {
                return typed;
            }
            self.typing.notified().await;
        }
    }

    fn take_typed(&self, bytes_max: usize) -> Vec<u8> {
        let typed = &mut lock(&self.kept).typed;
        let length = typed.len().min(bytes_max);
        typed.drain(..length).collect()
    }

    /// What it said after its first `from` bytes, as far as that is kept, and how many bytes it has said in all.
    pub fn since(&self, from: u64) -> (Vec<u8>, u64) {
        let kept = lock(&self.kept);
        let said = *self.said.borrow();
        let wanted = usize::try_from(said.saturating_sub(from)).unwrap_or(usize::MAX);
        let skipped = kept.bytes.len().saturating_sub(wanted);
        (kept.bytes.iter().skip(skipped).copied().collect(), said)
    }

    /// Tells when it has said more.
    pub fn more(&self) -> watch::Receiver<u64> {
        self.said.subscribe()
    }

    /// The last lines that are not empty, at most so many, oldest first, without what only moves a cursor or colours it.
    pub fn last_lines(&self, lines_max: usize) -> Vec<String> {
        let (bytes, _) = self.since(self.more().borrow().saturating_sub(TAIL_MAX as u64));
        let text = plain(&String::from_utf8_lossy(&bytes));
        let lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty());
        let mut lines: Vec<String> = lines.map(ToOwned::to_owned).collect();
        lines.drain(..lines.len().saturating_sub(lines_max));
        lines
    }
}

impl fmt::Display for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listening::Since(since) => write!(f, "listened to since {since:.0}"),
            Listening::Not(why) => write!(f, "not listened to: {why}"),
        }
    }
}

/// Text without escape sequences (ECMA-48: ESC `[` parameters, one final byte; ESC and one byte) and carriage returns.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\u{1b}' => {
                if letters.next() == Some('[') {
                    let is_final = |letter: &char| ('@'..='~').contains(letter);
                    while letters.next().is_some_and(|letter| !is_final(&letter)) {}
                }
            }
            '\r' if letters.peek() != Some(&'\n') => plain.push('\n'),
            '\r' => {}
            _ => plain.push(letter),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_kept_and_read_on_from_any_place() {
        let console = Console::default();
        console.add(b"one\r\ntwo\r\n");
        assert_eq!(console.since(0), (b"one\r\ntwo\r\n".to_vec(), 10));
        assert_eq!(console.since(5), (b"two\r\n".to_vec(), 10));
        assert_eq!(console.since(10), (vec![], 10));
        // Of a console that another member listened to before.
        assert_eq!(console.since(99), (vec![], 10));
        console.add(&vec![b'x'; BYTES_MAX]);
        let (bytes, said) = console.since(0);
        assert_eq!((bytes.len(), said), (BYTES_MAX, BYTES_MAX as u64 + 10));
        assert_eq!(*console.more().borrow(), said);
    }

    #[tokio::test]
    async fn what_is_typed_goes_to_whoever_listens_or_is_refused() {
        let console = Console::default();
        assert_eq!(
            console.type_in(b"root\r").unwrap_err().to_string(),
            "the console is not listened to: nobody has listened yet"
        );
        console.opened(jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(console.how(), "listened to since 1970-01-01T00:00:00Z");
        console.type_in(b"ro").unwrap();
        console.type_in(b"ot\r").unwrap();
        assert_eq!(console.typed(3).await, b"roo");
        assert_eq!(console.typed(9).await, b"t\r");
        console.type_in(&[b'x'; TYPED_MAX]).unwrap();
        assert_eq!(console.type_in(b"y"), Err(NotTyped::Full));
        console.closed("the BMC has fallen silent".to_owned());
        console.opened(jiff::Timestamp::UNIX_EPOCH);
        console.type_in(b"z").unwrap();
        assert_eq!(console.typed(9).await, b"z");
    }

    #[test]
    fn the_last_lines_are_plain_text() {
        let console = Console::default();
        console
            .add(b"\x1b[2J\x1b[1;31mKernel panic\x1b[0m - not syncing\r\n\r\n\x1b=Call Trace:\r\n\xff end");
        let lines = console.last_lines(2);
        assert_eq!(lines, ["Call Trace:", "\u{fffd} end"]);
        assert_eq!(console.last_lines(9)[0], "Kernel panic - not syncing");
        assert_eq!(console.last_lines(9).len(), 3);
    }
}
