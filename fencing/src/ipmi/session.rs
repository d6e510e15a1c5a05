//! One open session: numbers what goes out, and takes from what comes in only the answer to the request in flight.
//!
//! Why it exists: a reply that comes late, twice or from a stranger must never pass for the answer; a fencer that
//! takes an old "off" for a new one starts an instance twice. All of that is decided here, without input or output.
//! What it never does: input or output, waiting, believing anything before the packet's code was checked.

use super::codec::{self, Carried, LanMessage, Malformed};
use super::crypto::{AES_BLOCK, SessionKeys};
use super::sol::SolPacket;
use super::window::Window;
use std::time::Duration;
use tokio::time::Instant;

/// A request number is free again this long after its last use, if it was answered. A duplicated datagram that is
/// delayed longer than this could be taken for a newer answer only by a BMC without a sequence window. 64 numbers in
/// this time are 256 requests a second, four times the pace at which [`crate::fence`] looks at its fastest.
const REUSE_AFTER: Duration = Duration::from_millis(250);

/// Why an incoming datagram is not the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotTheAnswer {
    /// Damaged or forged.
    Malformed(Malformed),
    /// Not even a packet of this session.
    Stranger,
    /// Its session sequence number was seen before or is too old.
    Replayed,
    /// It answers an earlier request, or none.
    Late,
    /// Its number fits, its command does not.
    OtherCommand,
}

/// Why no request can be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoNumber {
    /// Not before then.
    Wait(Instant),
    /// Never again in this session: open a new one.
    Spent,
}

/// An answer: completion code and data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Completion code.
    pub completion: u8,
    /// What follows it.
    pub data: Vec<u8>,
}

/// One open session.
pub struct Session {
    keys: SessionKeys,
    console_session: u32,
    bmc_session: u32,
    /// Last session sequence number sent.
    sequence: u32,
    window: Window,
    numbers: RequestNumbers,
}

impl Session {
    /// A session that was just opened, with both ends' ids.
    pub fn new(keys: SessionKeys, console_session: u32, bmc_session: u32) -> Session {
        Session {
            keys,
            console_session,
            bmc_session,
            sequence: 0,
            window: Window::default(),
            numbers: RequestNumbers::default(),
        }
    }

    /// From now on only answers to what is packed after this count.
    pub fn begin(&mut self) {
        self.numbers.current = 0;
    }

    /// The request as a datagram, under a fresh request number and a fresh session sequence number. Packed again, it
    /// is a retransmission: an answer to any of its datagrams counts.
    ///
    /// # Errors
    /// [`NoNumber`] if none is free now, or ever again.
    pub fn pack(&mut self, request: &mut LanMessage, now: Instant) -> Result<Vec<u8>, NoNumber> {
        let sequence = self.sequence.checked_add(1).ok_or(NoNumber::Spent)?;
        request.sequence = self.numbers.take(now)?;
        self.sequence = sequence;
        let iv: [u8; AES_BLOCK] = rand::random();
        Ok(codec::seal(&self.keys, self.bmc_session, sequence, iv, request))
    }

    /// Close Session (IPMI 2.0 §22.19). Its answer is of no use to anybody, so any request number will do.
    pub fn farewell(&mut self) -> Option<Vec<u8>> {
        self.sequence = self.sequence.checked_add(1)?;
        let close = LanMessage::request(0x06, 0x3c, 0, self.bmc_session.to_le_bytes().to_vec());
        Some(codec::seal(&self.keys, self.bmc_session, self.sequence, rand::random(), &close))
    }

    /// The answer to the request, if the datagram is that.
    ///
    /// # Errors
    /// [`NotTheAnswer`], with the reason.
    pub fn accept(&mut self, datagram: &[u8], request: &LanMessage) -> Result<Answer, NotTheAnswer> {
        let malformed = NotTheAnswer::Malformed;
        let (Carried::Lan, message) = self.open(datagram)? else { return Err(NotTheAnswer::Late) };
        let reply = LanMessage::decode(&message).map_err(malformed)?;
        let current = self.numbers.is_current(reply.sequence);
        if current && (reply.net_fn != request.net_fn | 1 || reply.command != request.command) {
            return Err(NotTheAnswer::OtherCommand);
        }
        self.numbers.answered(reply.sequence);
        if !current {
            return Err(NotTheAnswer::Late);
        }
        let (completion, data) =
            reply.data.split_first().ok_or(malformed(Malformed::Short { what: "reply" }))?;
        Ok(Answer { completion: *completion, data: data.to_vec() })
    }
}

impl Session {
    /// What the datagram carries, if it is a packet of this session that was not seen before.
    fn open(&mut self, datagram: &[u8]) -> Result<(Carried, Vec<u8>), NotTheAnswer> {
        let malformed = NotTheAnswer::Malformed;
        let packet = match codec::decode(datagram).map_err(malformed)? {
            codec::Datagram::Protected(packet) if packet.session == self.console_session => packet,
            codec::Datagram::Protected(_)
            | codec::Datagram::Ping { .. }
            | codec::Datagram::Pong { .. }
            | codec::Datagram::V15 { .. }
            | codec::Datagram::Setup { .. } => return Err(NotTheAnswer::Stranger),
        };
        let carried = packet.open(&self.keys).map_err(malformed)?;
        match self.window.accept(packet.sequence) {
            true => Ok((packet.carried, carried)),
            false => Err(NotTheAnswer::Replayed),
        }
    }

    /// The packet of the console, if the datagram is one. An answer to a request is a sign of life and no more.
    ///
    /// # Errors
    /// [`NotTheAnswer`], with the reason.
    pub fn console(&mut self, datagram: &[u8]) -> Result<SolPacket, NotTheAnswer> {
        match self.open(datagram)? {
            (Carried::Console, packet) => SolPacket::decode(&packet).map_err(NotTheAnswer::Malformed),
            (Carried::Lan, message) => {
                let reply = LanMessage::decode(&message).map_err(NotTheAnswer::Malformed)?;
                self.numbers.answered(reply.sequence);
                Err(NotTheAnswer::Late)
            }
        }
    }

    /// A packet of the console as a datagram.
    ///
    /// # Errors
    /// [`NoNumber::Spent`].
    pub fn pack_console(&mut self, packet: &SolPacket) -> Result<Vec<u8>, NoNumber> {
        self.sequence = self.sequence.checked_add(1).ok_or(NoNumber::Spent)?;
        let (iv, bytes): ([u8; AES_BLOCK], _) = (rand::random(), packet.encode());
        Ok(codec::protect(&self.keys, self.bmc_session, self.sequence, iv, Carried::Console, &bytes))
    }
}

/// Which of the 64 request numbers (6 bits, IPMI 2.0 §13.8) are taken. A number that was never answered is not used
/// again in its session: its answer may still come.
#[derive(Debug)]
struct RequestNumbers {
    /// Bit `n` is set while number `n` waits for its answer, however late.
    unanswered: u64,
    /// Those of `unanswered` that belong to the request in flight.
    current: u64,
    used: [Option<Instant>; 64],
    next: u8,
}

impl Default for RequestNumbers {
    fn default() -> Self {
        RequestNumbers { unanswered: 0, current: 0, used: [None; 64], next: 0 }
    }
}

impl RequestNumbers {
    fn bit(number: u8) -> u64 {
        1 << (number & 63)
    }

    fn take(&mut self, now: Instant) -> Result<u8, NoNumber> {
        let numbers = (0..64).map(|ahead| (self.next + ahead) & 63);
        let free = numbers.into_iter().find(|number| self.unanswered & Self::bit(*number) == 0);
        let number = free.ok_or(NoNumber::Spent)?;
        let used = self.used.get_mut(usize::from(number)).ok_or(NoNumber::Spent)?;
        if let Some(again) = used.map(|at| at + REUSE_AFTER).filter(|again| *again > now) {
            return Err(NoNumber::Wait(again));
        }
        *used = Some(now);
        self.next = (number + 1) & 63;
        self.unanswered |= Self::bit(number);
        self.current |= Self::bit(number);
        Ok(number)
    }

    fn is_current(&self, number: u8) -> bool {
        self.current & Self::bit(number) != 0
    }

    fn answered(&mut self, number: u8) {
        self.unanswered &= !Self::bit(number);
        self.current &= !Self::bit(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipmi::crypto::{Handshake, Key, Suite, UserName};

    const CONSOLE: u32 = 7;
    const BMC: u32 = 9;

    /// Our end and the keys with which a BMC would answer.
    fn pair() -> (Session, SessionKeys) {
        let handshake = Handshake {
            suite: Suite::Seventeen,
            console_session: CONSOLE,
            bmc_session: BMC,
            console_random: [1; 16],
            bmc_random: [2; 16],
            bmc_guid: [3; 16],
            role: 0x13,
            user: UserName::new(b"admin").unwrap(),
        };
        let keys = handshake.session_keys(&Key::from_secret(b"secret").unwrap(), None);
        (Session::new(keys.clone(), CONSOLE, BMC), keys)
    }

    fn status() -> LanMessage {
        LanMessage::request(0x00, 0x01, 0, vec![])
    }

    /// Sends the request and gives the BMC's reply to it, with this session sequence number.
    fn reply(
        session: &mut Session,
        keys: &SessionKeys,
        request: &mut LanMessage,
        sequence: u32,
        data: &[u8],
    ) -> Vec<u8> {
        session.pack(request, Instant::now()).unwrap();
        codec::seal(keys, CONSOLE, sequence, [0; 16], &request.response(0, data))
    }

    #[test]
    fn the_answer_is_taken_once() {
        let (mut session, keys) = pair();
        let mut request = status();
        let datagram = reply(&mut session, &keys, &mut request, 1, &[1]);
        assert_eq!(session.accept(&datagram, &request), Ok(Answer { completion: 0, data: vec![1] }));
        assert_eq!(session.accept(&datagram, &request), Err(NotTheAnswer::Replayed));
    }

    #[test]
    fn an_answer_to_an_earlier_request_is_never_taken() {
        let (mut session, keys) = pair();
        let (mut old, mut new) = (status(), status());
        let late = reply(&mut session, &keys, &mut old, 1, &[0]);
        session.begin();
        let right = reply(&mut session, &keys, &mut new, 2, &[1]);
        assert_eq!(session.accept(&late, &new), Err(NotTheAnswer::Late));
        assert_eq!(session.accept(&right, &new).map(|answer| answer.data), Ok(vec![1]));
    }

    #[test]
    fn an_answer_to_any_transmission_of_this_request_is_taken() {
        let (mut session, keys) = pair();
        let mut request = status();
        let first = reply(&mut session, &keys, &mut request, 1, &[1]);
        session.pack(&mut request, Instant::now()).unwrap();
        assert!(session.accept(&first, &request).is_ok());
    }

    #[test]
    fn a_number_that_was_never_answered_is_not_used_again() {
        let (mut session, keys) = pair();
        let mut lost = status();
        let late = reply(&mut session, &keys, &mut lost, 1000, &[0]);
        let mut now = Instant::now();
        for sequence in 1..=200 {
            session.begin();
            now += REUSE_AFTER;
            let mut request = status();
            session.pack(&mut request, now).unwrap();
            assert_ne!(request.sequence, lost.sequence);
            let answer = codec::seal(&keys, CONSOLE, sequence, [0; 16], &request.response(0, &[1]));
            assert!(session.accept(&answer, &request).is_ok());
        }
        session.begin();
        let mut request = status();
        session.pack(&mut request, now + REUSE_AFTER).unwrap();
        assert_eq!(session.accept(&late, &request), Err(NotTheAnswer::Late));
    }

    #[test]
    fn a_session_without_free_numbers_is_spent() {
        let (mut session, _) = pair();
        for _ in 0..64 {
            session.begin();
            session.pack(&mut status(), Instant::now()).unwrap();
        }
        assert_eq!(session.pack(&mut status(), Instant::now()), Err(NoNumber::Spent));
    }

    #[test]
    fn an_answered_number_rests_before_it_is_used_again() {
        let (mut session, keys) = pair();
        let now = Instant::now();
        for sequence in 1..=64 {
            session.begin();
            let mut request = status();
            session.pack(&mut request, now).unwrap();
            let answer = codec::seal(&keys, CONSOLE, sequence, [0; 16], &request.response(0, &[1]));
            assert!(session.accept(&answer, &request).is_ok());
        }
        assert_eq!(session.pack(&mut status(), now), Err(NoNumber::Wait(now + REUSE_AFTER)));
        assert!(session.pack(&mut status(), now + REUSE_AFTER).is_ok());
    }

    #[test]
    fn other_commands_other_sessions_and_forgeries_are_not_the_answer() {
        let (mut session, keys) = pair();
        let mut request = status();
        session.pack(&mut request, Instant::now()).unwrap();
        let mut other = request.response(0, &[0]);
        other.command = 0x02;
        let datagram = codec::seal(&keys, CONSOLE, 1, [0; 16], &other);
        assert_eq!(session.accept(&datagram, &request), Err(NotTheAnswer::OtherCommand));
        let own = codec::seal(&keys, CONSOLE, 2, [0; 16], &request);
        assert_eq!(session.accept(&own, &request), Err(NotTheAnswer::OtherCommand));
        let elsewhere = codec::seal(&keys, CONSOLE + 1, 3, [0; 16], &request.response(0, &[0]));
        assert_eq!(session.accept(&elsewhere, &request), Err(NotTheAnswer::Stranger));
        let mut forged = codec::seal(&keys, CONSOLE, 4, [0; 16], &request.response(0, &[0]));
        *forged.last_mut().unwrap() ^= 1;
        assert_eq!(session.accept(&forged, &request), Err(NotTheAnswer::Malformed(Malformed::Code)));
    }
}
