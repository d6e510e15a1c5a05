//! Serial over LAN (IPMI 2.0 §15): packets of a node's console, and how what comes is counted.
//!
//! Why it exists: either side sends the next characters only once the last ones were acknowledged, and sends them again until
//! then; what comes twice must be taken once. What it never does: input or output, panicking.

use super::codec::{Fields, Malformed};
use super::commands::Write;
use ipmi_rs_core::connection::{IpmiCommand, Message, NetFn, NotEnoughData};
use std::time::Duration;
use tokio::time::Instant;

/// The payload type of Serial over LAN (IPMI 2.0 table 13-16).
pub const PAYLOAD: u8 = 0x01;
/// The instance that we use; BMCs have one (IPMI 2.0 §24.1).
const INSTANCE: u8 = 1;

/// Bits of a packet's fourth byte, as a BMC sets them (IPMI 2.0 table 15-2).
const DEACTIVATED: u8 = 0x10;
const OVERRUN: u8 = 0x08;
const BREAK: u8 = 0x04;
/// Greatest number of a packet; the next is 1 again.
const SEQUENCE_MAX: u8 = 15;
/// Characters in one packet to the node. Every BMC takes so many at once; people type fewer.
pub const TYPED_AT_ONCE_MAX: usize = 32;
/// When what was typed is sent again unless the BMC has acknowledged it; as ipmitool does.
const TYPED_AGAIN: Duration = Duration::from_millis(1000);

/// A packet of Serial over LAN (IPMI 2.0 table 15-2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SolPacket {
    /// 1 to 15, of a packet that is to be acknowledged; 0: of one that is not.
    pub sequence: u8,
    /// Which packet this one acknowledges; 0: none.
    pub acked: u8,
    /// How many of its characters were taken.
    pub accepted: u8,
    /// Operation and status.
    pub status: u8,
    /// Characters.
    pub data: Vec<u8>,
}

impl SolPacket {
    /// As it goes into a packet of the session.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![self.sequence & 0x0f, self.acked & 0x0f, self.accepted, self.status];
        bytes.extend_from_slice(&self.data);
        bytes
    }

    /// Reads one from a whole payload.
    ///
    /// # Errors
    /// [`Malformed::Short`].
    pub fn decode(bytes: &[u8]) -> Result<SolPacket, Malformed> {
        let mut fields = Fields::new("packet of the console", bytes);
        let [sequence, acked, accepted, status] = fields.array()?;
        let (sequence, acked) = (sequence & 0x0f, acked & 0x0f);
        Ok(SolPacket { sequence, acked, accepted, status, data: fields.rest().to_vec() })
    }
}

/// What has been received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// The newest packet that was acknowledged, and how many characters of it were taken.
    newest: Option<(u8, usize)>,
}

/// What a packet brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Brought {
    /// Characters that were not there before.
    pub data: Vec<u8>,
    /// What to answer, if anything.
    pub answer: Option<SolPacket>,
    /// The BMC dropped characters before these.
    pub overrun: bool,
    /// The node's end sent a break.
    pub broke: bool,
    /// The BMC will send no more.
    pub ended: bool,
}

impl Received {
    /// Takes a packet. One that comes again may have grown meanwhile; it is acknowledged again, and only what it has grown by
    /// is new.
    pub fn take(&mut self, packet: &SolPacket) -> Brought {
        let is_set = |bit| packet.status & bit != 0;
        let mut brought = Brought {
            overrun: is_set(OVERRUN),
            broke: is_set(BREAK),
            ended: is_set(DEACTIVATED),
            ..Brought::default()
        };
        if packet.sequence == 0 {
            return brought;
        }
        let had = match self.newest {
            Some((sequence, had)) if sequence == packet.sequence => had,
            Some(_) | None => 0,
        };
        // The count has eight bits; no BMC sends more at once.
        let whole = packet.data.get(..usize::from(u8::MAX)).unwrap_or(&packet.data);
        brought.data = whole.get(had..).unwrap_or_default().to_vec();
        self.newest = Some((packet.sequence, whole.len().max(had)));
        let accepted = u8::try_from(whole.len()).unwrap_or(u8::MAX);
        let answer = SolPacket { sequence: 0, acked: packet.sequence, accepted, status: 0, data: vec![] };
        brought.answer = Some(answer);
        brought
    }
}

/// What is typed, on its way to the node: one packet at a time. What comes after it waits elsewhere.
#[derive(Debug, Default)]
pub struct Typed {
    /// What goes into the next packet.
    next: Vec<u8>,
    underway: Option<(SolPacket, Instant)>,
    newest: u8,
}

impl Typed {
    /// True if all of it has arrived: then more can be taken.
    pub fn is_done(&self) -> bool {
        self.next.is_empty() && self.underway.is_none()
    }

    /// Takes characters for the next packet, [`TYPED_AT_ONCE_MAX`] at most.
    pub fn take(&mut self, bytes: Vec<u8>) {
        self.next = bytes;
    }

    /// The packet that is to be sent now, if one is.
    pub fn due(&mut self, now: Instant) -> Option<SolPacket> {
        let packet = match self.underway.take() {
            Some((packet, again)) if again > now => {
                self.underway = Some((packet, again));
                return None;
            }
            Some((packet, _)) => packet,
            None if self.next.is_empty() => return None,
            None => {
                let data = std::mem::take(&mut self.next);
                self.packet(data)
            }
        };
        self.underway = Some((packet.clone(), now + TYPED_AGAIN));
        Some(packet)
    }

    /// When something will be due again, if nothing comes meanwhile.
    pub fn again(&self) -> Option<Instant> {
        self.underway.as_ref().map(|(_, again)| *again)
    }

    fn packet(&mut self, data: Vec<u8>) -> SolPacket {
        self.newest = self.newest % SEQUENCE_MAX + 1;
        SolPacket { sequence: self.newest, acked: 0, accepted: 0, status: 0, data }
    }

    /// Takes the acknowledgement that a packet carries, if it does. What the BMC had no room for goes with another packet a while
    /// later: at once it would still have none.
    pub fn acknowledged_by(&mut self, packet: &SolPacket, now: Instant) {
        let is_it = |(sent, _): &mut (SolPacket, Instant)| sent.sequence == packet.acked;
        let Some((sent, _)) = self.underway.take_if(is_it) else { return };
        let rest = sent.data.get(usize::from(packet.accepted)..).unwrap_or_default();
        if !rest.is_empty() {
            self.underway = Some((self.packet(rest.to_vec()), now + TYPED_AGAIN));
        }
    }
}

/// Activate Payload for Serial over LAN (IPMI 2.0 §24.1): encrypted and authenticated; alerts wait; the node sees a terminal
/// that is ready.
#[derive(Clone, Copy, Debug)]
pub struct ActivateSol;

/// What a BMC answers to that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activated {
    /// UDP port for the payload; usually that of the session.
    pub port: u16,
}

impl ActivateSol {
    /// Why a BMC that answers with this completion code does not do it (IPMI 2.0 table 24-2); `None`: it does.
    pub fn why_not(completion: u8) -> Option<String> {
        Some(match completion {
            0x00 => return None,
            0x80 => "another session has it".to_owned(),
            0x81 | 0xc1 => "Serial over LAN is disabled on the BMC".to_owned(),
            0x82 => "the BMC gives it to no more sessions".to_owned(),
            0xd4 => "the BMC's user may not have it; raise its level, or the payload access".to_owned(),
            code => format!("Activate Payload gave completion code {code:#04x}"),
        })
    }
}

impl From<ActivateSol> for Message {
    fn from(_: ActivateSol) -> Message {
        Message::new_request(NetFn::App, 0x48, vec![PAYLOAD, INSTANCE, 0xc4, 0, 0, 0])
    }
}

impl IpmiCommand for ActivateSol {
    type Output = Activated;
    type Error = NotEnoughData;

    fn parse_success_response(data: &[u8]) -> Result<Activated, NotEnoughData> {
        let [_aux @ .., p0, p1, _v0, _v1] = data.first_chunk::<12>().ok_or(NotEnoughData)?;
        Ok(Activated { port: u16::from_le_bytes([*p0, *p1]) })
    }
}

impl Write for ActivateSol {
    fn repeatable(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(sequence: u8, data: &[u8]) -> SolPacket {
        SolPacket { sequence, acked: 0, accepted: 0, status: 0, data: data.to_vec() }
    }

    #[test]
    fn what_comes_twice_is_taken_once_and_acknowledged_twice() {
        let mut received = Received::default();
        let first = received.take(&packet(1, b"boot"));
        assert_eq!(first.data, b"boot");
        let answer = first.answer.unwrap();
        assert_eq!((answer.sequence, answer.acked, answer.accepted), (0, 1, 4));
        // Our answer was lost, and more has come meanwhile.
        let again = received.take(&packet(1, b"booting"));
        assert_eq!((again.data.as_slice(), again.answer.unwrap().accepted), (&b"ing"[..], 7));
        assert_eq!(received.take(&packet(1, b"booting")).data, b"");
        assert_eq!(received.take(&packet(2, b"booting")).data, b"booting");
        // Sixteen packets later the numbers begin anew.
        assert_eq!(received.take(&packet(1, b"booting")).data, b"booting");
    }

    #[test]
    fn what_is_not_to_be_acknowledged_only_tells_of_the_line() {
        let mut received = Received::default();
        let told = received.take(&SolPacket { status: DEACTIVATED | OVERRUN, ..packet(0, b"ignored") });
        assert_eq!(told, Brought { overrun: true, ended: true, ..Brought::default() });
        let broke = received.take(&SolPacket { status: BREAK, ..packet(3, b"") });
        assert!(broke.broke && broke.answer.is_some_and(|answer| answer.acked == 3));
    }

    #[test]
    fn what_is_typed_goes_one_packet_at_a_time_and_again_until_it_is_acknowledged() {
        let (mut typed, start) = (Typed::default(), Instant::now());
        assert_eq!(typed.due(start), None);
        typed.take(b"root\r".to_vec());
        let first = typed.due(start).unwrap();
        assert_eq!((first.sequence, first.data.as_slice()), (1, &b"root\r"[..]));
        assert!(!typed.is_done());
        assert_eq!((typed.due(start), typed.again()), (None, Some(start + TYPED_AGAIN)));
        assert_eq!(typed.due(start + TYPED_AGAIN), Some(first));
        // Of another packet, and of this one but for two characters.
        typed.acknowledged_by(&SolPacket { acked: 9, accepted: 5, ..packet(0, b"") }, start);
        typed.acknowledged_by(&SolPacket { acked: 1, accepted: 3, ..packet(2, b"login:") }, start);
        assert_eq!((typed.is_done(), typed.due(start)), (false, None), "it had no room a moment ago");
        let second = typed.due(start + TYPED_AGAIN).unwrap();
        assert_eq!((second.sequence, second.data.as_slice()), (2, &b"t\r"[..]));
        typed.acknowledged_by(&SolPacket { acked: 2, accepted: 2, ..packet(0, b"") }, start);
        assert_eq!((typed.due(start), typed.again()), (None, None));
        assert!(typed.is_done());
        typed.take(b"y".to_vec());
        typed.newest = SEQUENCE_MAX;
        assert_eq!(typed.due(start).unwrap().sequence, 1);
    }

    #[test]
    fn packets_are_written_as_the_table_says() {
        let packet = SolPacket { sequence: 3, acked: 2, accepted: 7, status: 0x40, data: b"x".to_vec() };
        assert_eq!(packet.encode(), [3, 2, 7, 0x40, b'x']);
        assert!(SolPacket::decode(&[1, 2, 3]).is_err());
        let message: Message = ActivateSol.into();
        assert_eq!((message.cmd(), message.data()), (0x48, &[1, 1, 0xc4, 0, 0, 0][..]));
        let answer = [0, 0, 0, 0, 0xff, 0, 0xff, 0, 0x6f, 0x02, 0xff, 0xff];
        assert_eq!(ActivateSol::parse_success_response(&answer).unwrap(), Activated { port: 623 });
    }

    proptest! {
        #[test]
        fn any_payload_is_read_and_written_again(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(packet) = SolPacket::decode(&bytes) {
                prop_assert_eq!(SolPacket::decode(&packet.encode()), Ok(packet.clone()));
                let brought = Received::default().take(&packet);
                prop_assert!(brought.data.len() <= packet.data.len());
            }
        }
    }
}
