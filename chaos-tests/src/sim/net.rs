//! The network between members: byte streams that are late, stall, break and cross each other.
//!
//! Why it exists: members talk over TCP. What TCP lets through is order within one stream; what it does not promise is
//! when, and what one stream says against another. A lost packet is a stall, not a gap.
//! What it never does: look at the bytes.

use super::world::{Inner, World};
use policies::MemberId;
use raft_store::ground::{Door, Knock, Later, Proven, Stream, Wire};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

/// First pause before a lost packet is sent again, as Linux does at the least; doubled each time.
const RESEND: u64 = 200_000;
/// After this a connection attempt has failed, whoever waits for it.
const DIAL_LIMIT: u64 = 10_000_000;

/// One end of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct End {
    stream: u64,
    /// True for the end that dialled.
    dialled: bool,
}

impl End {
    fn other(self) -> End {
        End { dialled: !self.dialled, ..self }
    }
}

/// What an end has received and not yet read.
#[derive(Debug, Default)]
struct Receiving {
    bytes: VecDeque<u8>,
    closed: bool,
    reset: bool,
    waker: Option<Waker>,
    /// Nothing that was sent later arrives before this.
    not_before: u64,
}

/// A connection that waits to be accepted: who dialled, and our end.
type Waiting = (MemberId, End);

/// All streams, and the state of every way from one member to another.
#[derive(Debug, Default)]
pub struct Net {
    next: u64,
    ends: BTreeMap<End, (MemberId, u64, Receiving)>,
    knocking: BTreeMap<MemberId, (VecDeque<Waiting>, Option<Waker>)>,
    /// Ways that are cut, in this direction, until this time.
    pub cut: BTreeMap<(MemberId, MemberId), u64>,
    /// Of 1,000 packets, how many are lost.
    pub loss: u64,
    /// How many usually are.
    pub usual_loss: u64,
    /// Longest usual delay, in µs.
    pub delay: u64,
}

impl Inner {
    fn is_cut(&self, from: MemberId, to: MemberId) -> bool {
        let outcast = |member| self.processes.get(&member).is_some_and(|process| process.outcast);
        let cut = self.net.cut.get(&(from, to)).is_some_and(|until| self.now < *until);
        cut || outcast(from) || outcast(to)
    }

    /// The delay of one packet: usually short, one in 200 times up to 3 s.
    fn delay(&mut self) -> u64 {
        let usual = self.dice.between(100, self.net.delay.max(100));
        match self.dice.chance(5) {
            true => usual + self.dice.between(0, 3_000_000),
            false => usual,
        }
    }

    /// Delivers `what` to the other side as soon as the way lets it through.
    fn carry(&mut self, from: End, what: Packet, pause: u64) {
        let Some((sender, ..)) = self.net.ends.get(&from) else { return };
        let sender = *sender;
        let Some((receiver, _, receiving)) = self.net.ends.get(&from.other()) else { return };
        let (receiver, not_before) = (*receiver, receiving.not_before);
        if self.is_cut(sender, receiver) || self.dice.chance(self.net.loss) {
            // The sender's kernel sends it again, even if the sender is dead by then.
            let later = pause.max(RESEND);
            let again = self.now + later;
            if later < 16 * RESEND {
                return self.at(again, move |inner| inner.carry(from, what, later * 2));
            }
            return;
        }
        let at = (self.now + self.delay()).max(not_before);
        if let Some((.., receiving)) = self.net.ends.get_mut(&from.other()) {
            receiving.not_before = at;
        }
        self.mix(&[from.stream, u64::from(from.dialled), at]);
        self.at(at, move |inner| inner.arrive(from.other(), what));
    }

    fn arrive(&mut self, at: End, what: Packet) {
        let Some((member, life, receiving)) = self.net.ends.get_mut(&at) else { return };
        let (member, life) = (*member, *life);
        match what {
            Packet::Bytes(bytes) => receiving.bytes.extend(bytes),
            Packet::Close => receiving.closed = true,
            Packet::Reset => receiving.reset = true,
        }
        let waker = receiving.waker.take();
        let process = self.process(member);
        // A machine that is up again knows nothing of streams of an earlier life, and says so.
        if !process.is(life) && process.is_up() {
            return self.carry(at, Packet::Reset, 0);
        }
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The streams of a life that is over: the kernel of a killed process closes them, a machine without power does
    /// not.
    pub(super) fn close_streams(&mut self, member: MemberId, life: u64) {
        let ours =
            |(_, (whose, which, _)): &(&End, &(MemberId, u64, Receiving))| (*whose, *which) == (member, life);
        let ends: Vec<End> = self.net.ends.iter().filter(ours).map(|(end, _)| *end).collect();
        for end in ends {
            self.carry(end, Packet::Reset, 0);
        }
    }

    /// Forgets what was waiting to be accepted.
    pub(super) fn forget_knocking(&mut self, member: MemberId) {
        self.net.knocking.remove(&member);
    }
}

/// What is carried.
#[derive(Debug)]
enum Packet {
    Bytes(Vec<u8>),
    Close,
    Reset,
}

/// A member's own end of a stream.
struct SimStream {
    world: World,
    end: End,
    life: (MemberId, u64),
    unsent: Vec<u8>,
}

impl SimStream {
    fn is_over(&self) -> bool {
        let (member, life) = self.life;
        self.world.with(|inner| !inner.process(member).is(life))
    }
}

impl AsyncRead for SimStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.world.with(|inner| {
            let Some((.., receiving)) = inner.net.ends.get_mut(&self.end) else {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            };
            if receiving.reset {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            if receiving.bytes.is_empty() && !receiving.closed {
                receiving.waker = Some(context.waker().clone());
                return Poll::Pending;
            }
            let count = receiving.bytes.len().min(out.remaining());
            let (front, back) = receiving.bytes.as_slices();
            let of_front = count.min(front.len());
            out.put_slice(&front[..of_front]);
            out.put_slice(&back[..count - of_front]);
            receiving.bytes.drain(..count);
            Poll::Ready(Ok(()))
        })
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let end = self.end;
        let is_reset = |inner: &mut Inner| inner.net.ends.get(&end).is_none_or(|(.., end)| end.reset);
        if self.world.with(is_reset) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        self.unsent.extend_from_slice(data);
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let bytes = std::mem::take(&mut self.unsent);
        if !bytes.is_empty() && !self.is_over() {
            let end = self.end;
            self.world.with(|inner| inner.carry(end, Packet::Bytes(bytes), 0));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(context)
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        let over = self.is_over();
        let end = self.end;
        self.world.with(|inner| {
            if !over {
                inner.carry(end, Packet::Close, 0);
            }
            // The other end goes on without us.
            if let Some((.., receiving)) = inner.net.ends.get_mut(&end) {
                receiving.bytes = VecDeque::new();
                receiving.reset = true;
            }
        });
    }
}

/// The way to other members, as one life of a member has it.
#[derive(Clone)]
pub struct SimWire {
    /// The world.
    pub world: World,
    /// Who has it.
    pub member: MemberId,
    /// In which life.
    pub life: u64,
}

impl SimWire {
    fn stream(&self, end: End) -> Box<dyn Stream> {
        let life = (self.member, self.life);
        Box::new(SimStream { world: self.world.clone(), end, life, unsent: vec![] })
    }
}

impl Wire for SimWire {
    fn dial(&self, member: u64, _address: &str) -> Later<io::Result<Box<dyn Stream>>> {
        let (wire, to) = (self.clone(), MemberId(member));
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            wire.world.with(|inner| inner.dial((wire.member, wire.life), to, answer));
            let end = answered.await.map_err(|_lost| io::Error::from(io::ErrorKind::TimedOut))??;
            Ok(wire.stream(end))
        })
    }
}

impl Door for SimWire {
    fn accept(&self) -> Later<io::Result<Knock>> {
        let wire = self.clone();
        Box::pin(async move {
            let (from, end) = std::future::poll_fn(|context| {
                wire.world.with(|inner| {
                    let (waiting, waker) = inner.net.knocking.entry(wire.member).or_default();
                    let next = waiting.pop_front();
                    *waker = next.is_none().then(|| context.waker().clone());
                    next.map_or(Poll::Pending, Poll::Ready)
                })
            })
            .await;
            let stream = wire.stream(end);
            let proven: Proven = Box::new(move |member| member == from.0);
            Ok(Knock { from: from.to_string(), enters: Box::pin(async move { Ok((stream, proven)) }) })
        })
    }
}

/// Where the end of a connection attempt goes.
type Dialled = oneshot::Sender<io::Result<End>>;

impl Inner {
    /// Nobody answers; the dialler gives up by itself.
    fn leave_unanswered(&mut self, answer: Dialled) {
        self.at(self.now + DIAL_LIMIT, move |_| drop(answer));
    }

    /// A connection attempt: one packet there, one back.
    fn dial(&mut self, from: (MemberId, u64), to: MemberId, answer: Dialled) {
        if !self.process(from.0).is(from.1) || self.is_cut(from.0, to) || self.dice.chance(self.net.loss) {
            return self.leave_unanswered(answer);
        }
        let there = self.now + self.delay();
        self.at(there, move |inner| {
            if !inner.process(from.0).is(from.1) {
                return;
            }
            let back = inner.now + inner.delay();
            let target = inner.process(to);
            let (life, up) = (target.life, target.is_up());
            if inner.is_cut(to, from.0) {
                return inner.leave_unanswered(answer);
            }
            if !up {
                let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
                return inner.at(back, move |_| drop(answer.send(Err(refused))));
            }
            inner.net.next += 1;
            let ours = End { stream: inner.net.next, dialled: true };
            inner.net.ends.insert(ours, (from.0, from.1, Receiving::default()));
            inner.net.ends.insert(ours.other(), (to, life, Receiving::default()));
            let (waiting, waker) = inner.net.knocking.entry(to).or_default();
            waiting.push_back((from.0, ours.other()));
            if let Some(waker) = waker.take() {
                waker.wake();
            }
            inner.at(back, move |_| drop(answer.send(Ok(ours))));
        });
    }
}
