//! The ingest's answers to heartbeats that want one.
//!
//! Why it exists: a node under a watchdog lives only while a majority of the members hears it, so they tell it
//! (`docs/drivers/watchdog.md`).
//! What it never does: answer what is not authentic, not of the life that is heard, or older than the newest; answer one
//! heartbeat twice; send more bytes than came; wait. So neither a forger nor a recording gets a word out of a member,
//! and no node can hold it up.

use ha_agent::answer::{Answer, encode};
use ha_agent::key::Key;
use ha_agent::wire::{BEAT_BYTES, Beat};
use nix::sys::socket::{MsgFlags, SockaddrStorage, sendto};
use policies::{BootId, MemberId};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What became of the answers, for the metrics.
#[derive(Debug, Default)]
pub struct Answered {
    /// Answers that were sent.
    pub sent: AtomicU64,
    /// Answers that were not: the socket's buffer was full, or there is no way to where the heartbeat came from.
    pub dropped: AtomicU64,
}

impl Answered {
    /// Name and value of each, for the metrics.
    pub fn totals(&self) -> [(&'static str, u64); 2] {
        [("sent", &self.sent), ("dropped", &self.dropped)]
            .map(|(name, counter)| (name, counter.load(Relaxed)))
    }
}

/// What one member has to answer. No I/O.
#[derive(Default)]
pub(super) struct Answers {
    /// In whose name. `None`: nothing is answered.
    pub(super) me: Option<MemberId>,
    due: Option<[u8; BEAT_BYTES]>,
}

impl Answers {
    /// Takes up a heartbeat that is authentic and not older than the newest; `last` is the newest that was answered. All
    /// copies of a heartbeat have one sequence, and only some may ask, so the first copy that asks is answered.
    pub(super) fn consider(&mut self, beat: &Beat, key: &Key, last: &mut Option<(BootId, u64)>) {
        let this = Some((beat.said.boot, beat.sequence));
        if let Some(me) = self.me.filter(|_| beat.asks && *last != this) {
            *last = this;
            self.due = Some(encode(&Answer::to(beat, me), key));
        }
    }

    /// The answer to the datagram that was looked at last.
    pub(super) fn take(&mut self) -> Option<[u8; BEAT_BYTES]> {
        self.due.take()
    }
}

/// Answers that wait for the end of a batch, with where they go.
#[derive(Default)]
pub(super) struct Outbox(Vec<(SockaddrStorage, [u8; BEAT_BYTES])>);

impl Outbox {
    /// Keeps an answer to whoever sent from there.
    pub(super) fn put(&mut self, to: Option<SockaddrStorage>, answer: Option<[u8; BEAT_BYTES]>) {
        self.0.extend(to.zip(answer));
    }

    /// Sends all, or drops them: a node asks again soon, and heartbeats matter more.
    pub(super) fn send(&mut self, socket: RawFd, answered: &Answered) {
        for (to, answer) in self.0.drain(..) {
            let sent = sendto(socket, &answer, &to, MsgFlags::MSG_DONTWAIT).is_ok();
            let counter = if sent { &answered.sent } else { &answered.dropped };
            counter.fetch_add(1, Relaxed);
        }
    }
}
