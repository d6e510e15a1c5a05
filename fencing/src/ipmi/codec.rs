//! Datagrams of IPMI over LAN, both directions: RMCP, ASF presence, IPMI 1.5 outside a session, RMCP+ inside and
//! outside a session, and the LAN message that they carry.
//!
//! Why it exists: our client and the emulated BMC share one pure codec that can be tested with arbitrary bytes.
//! What it never does: input or output, keeping state, trusting a length, panicking on any input.

use super::crypto::{AES_BLOCK, SessionKeys};
use super::sol;

/// Longest datagram that is looked at, in bytes. The largest LAN message is 272 bytes (IPMI 2.0 §13.3); a real BMC
/// stays far below this even with pads and codes.
pub const DATAGRAM_MAX: usize = 1024;
/// The usual UDP port of a BMC (IPMI 2.0 §13.1.2).
pub const PORT: u16 = 623;
/// Slave address of the BMC in a LAN message (IPMI 2.0 §5.5).
pub const BMC_ADDRESS: u8 = 0x20;
/// Software id of a remote console in a LAN message (IPMI 2.0 §5.5).
pub const CONSOLE_ADDRESS: u8 = 0x81;

const RMCP_VERSION: u8 = 0x06;
const RMCP_NO_ACK: u8 = 0xff;
const CLASS_ASF: u8 = 0x06;
const CLASS_IPMI: u8 = 0x07;
/// RMCP header of an IPMI datagram: version, reserved, "no acknowledge", class (IPMI 2.0 §13.1.3).
const RMCP_IPMI: [u8; 4] = [RMCP_VERSION, 0, RMCP_NO_ACK, CLASS_IPMI];
/// Length of the RMCP header; the packet's code does not cover it.
const RMCP_LEN: usize = 4;
/// IANA enterprise number of the ASF, big-endian (IPMI 2.0 §13.2.3).
const ASF_IANA: [u8; 4] = [0, 0, 0x11, 0xbe];
const ASF_PING: u8 = 0x80;
const ASF_PONG: u8 = 0x40;
const FORMAT_V15_NONE: u8 = 0x00;
const FORMAT_RMCP_PLUS: u8 = 0x06;
/// Payload type byte: encrypted, authenticated, IPMI message (IPMI 2.0 table 13-16).
const PROTECTED_IPMI: u8 = 0xc0;
/// The same with a packet of the console.
const PROTECTED_SOL: u8 = 0xc0 | sol::PAYLOAD;
/// Next header: fixed (IPMI 2.0 table 13-8).
const NEXT_HEADER: u8 = 0x07;
/// Where the payload of an RMCP+ packet begins, counted from the start of the datagram.
const PLUS_HEADER_LEN: usize = 16;

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Fewer bytes than the format needs.
    #[error("{what} ends too early")]
    Short {
        /// What was being read.
        what: &'static str,
    },
    /// More bytes than the format allows.
    #[error("{what} is too long")]
    Long {
        /// What was being read.
        what: &'static str,
    },
    /// A field has a value that we do not speak.
    #[error("{what} {value:#04x} is not supported")]
    Unsupported {
        /// The field.
        what: &'static str,
        /// Its value.
        value: u8,
    },
    /// A checksum of the LAN message is wrong.
    #[error("checksum of the LAN message is wrong")]
    Checksum,
    /// The code after the packet is wrong: damaged, forged, or of another session.
    #[error("authentication code is wrong")]
    Code,
    /// The padding of the encrypted payload or of the packet is wrong.
    #[error("padding is wrong")]
    Padding,
}

/// Reads fields from the front of bytes that somebody else wrote.
pub(crate) struct Fields<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Fields { what, rest: bytes }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed::Short { what: self.what })?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn slice(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(Malformed::Short { what: self.what })?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn expect(&mut self, what: &'static str, byte: u8) -> Result<(), Malformed> {
        let value = self.byte()?;
        if value == byte { Ok(()) } else { Err(Malformed::Unsupported { what, value }) }
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.rest
    }
}

/// Payloads that travel outside a session (IPMI 2.0 table 13-16).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// A LAN message: the few commands that need no session.
    Ipmi,
    /// Open Session request, console to BMC.
    OpenRequest,
    /// Open Session response, BMC to console.
    OpenResponse,
    /// RAKP 1, console to BMC.
    Rakp1,
    /// RAKP 2, BMC to console.
    Rakp2,
    /// RAKP 3, console to BMC.
    Rakp3,
    /// RAKP 4, BMC to console.
    Rakp4,
}

impl Payload {
    const ALL: [Payload; 7] = [
        Payload::Ipmi,
        Payload::OpenRequest,
        Payload::OpenResponse,
        Payload::Rakp1,
        Payload::Rakp2,
        Payload::Rakp3,
        Payload::Rakp4,
    ];

    fn number(self) -> u8 {
        match self {
            Payload::Ipmi => 0x00,
            Payload::OpenRequest => 0x10,
            Payload::OpenResponse => 0x11,
            Payload::Rakp1 => 0x12,
            Payload::Rakp2 => 0x13,
            Payload::Rakp3 => 0x14,
            Payload::Rakp4 => 0x15,
        }
    }

    fn from_number(value: u8) -> Result<Payload, Malformed> {
        let found = Payload::ALL.into_iter().find(|payload| payload.number() == value);
        found.ok_or(Malformed::Unsupported { what: "payload type", value })
    }
}

/// One datagram, taken apart as far as is possible without keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datagram<'a> {
    /// ASF presence ping: "is there a BMC?" (IPMI 2.0 §13.2.3).
    Ping {
        /// Copied into the pong.
        tag: u8,
    },
    /// ASF presence pong (IPMI 2.0 §13.2.4).
    Pong {
        /// From the ping.
        tag: u8,
        /// True if the BMC says that it speaks IPMI.
        ipmi: bool,
    },
    /// A LAN message in the IPMI 1.5 format, outside a session and without authentication (IPMI 2.0 §13.6).
    V15 {
        /// The LAN message, not yet decoded.
        message: &'a [u8],
    },
    /// An RMCP+ payload outside a session.
    Setup {
        /// What it is.
        payload: Payload,
        /// Its bytes.
        bytes: &'a [u8],
    },
    /// An encrypted and authenticated packet of a session.
    Protected(Protected<'a>),
}

/// What a packet of a session carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    /// A LAN message.
    Lan,
    /// A packet of the console (IPMI 2.0 §15).
    Console,
}

impl Carried {
    fn kind(self) -> u8 {
        match self {
            Carried::Lan => PROTECTED_IPMI,
            Carried::Console => PROTECTED_SOL,
        }
    }
}

/// A packet of a session: nothing in it may be believed before [`Protected::open`] gave its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protected<'a> {
    /// Session id of the receiver; says which keys to try.
    pub session: u32,
    /// Session sequence number; believe it only after [`Protected::open`].
    pub sequence: u32,
    /// What it carries; the same.
    pub carried: Carried,
    payload_len: usize,
    datagram: &'a [u8],
}

/// Takes a datagram apart.
///
/// # Errors
/// [`Malformed`] if it is no RMCP datagram or one of a kind that we do not speak.
pub fn decode(datagram: &[u8]) -> Result<Datagram<'_>, Malformed> {
    if datagram.len() > DATAGRAM_MAX {
        return Err(Malformed::Long { what: "datagram" });
    }
    let mut fields = Fields::new("RMCP header", datagram);
    fields.expect("RMCP version", RMCP_VERSION)?;
    fields.expect("RMCP reserved byte", 0)?;
    let sequence = fields.byte()?;
    match fields.byte()? {
        CLASS_ASF => decode_asf(fields.rest()),
        CLASS_IPMI if sequence == RMCP_NO_ACK => decode_ipmi(datagram, fields.rest()),
        CLASS_IPMI => Err(Malformed::Unsupported { what: "RMCP sequence number", value: sequence }),
        value => Err(Malformed::Unsupported { what: "RMCP class", value }),
    }
}

fn decode_asf(body: &[u8]) -> Result<Datagram<'_>, Malformed> {
    let mut fields = Fields::new("ASF message", body);
    for byte in ASF_IANA {
        fields.expect("ASF enterprise number", byte)?;
    }
    let [kind, tag, _reserved, _len] = fields.array()?;
    match kind {
        ASF_PING => Ok(Datagram::Ping { tag }),
        ASF_PONG => {
            let [_iana @ .., entities] = fields.array::<9>()?;
            Ok(Datagram::Pong { tag, ipmi: entities & 0x80 != 0 })
        }
        value => Err(Malformed::Unsupported { what: "ASF message type", value }),
    }
}

fn decode_ipmi<'a>(datagram: &'a [u8], body: &'a [u8]) -> Result<Datagram<'a>, Malformed> {
    let mut fields = Fields::new("IPMI session header", body);
    match fields.byte()? {
        FORMAT_V15_NONE => {
            for byte in fields.array::<8>()? {
                if byte != 0 {
                    return Err(Malformed::Unsupported { what: "IPMI 1.5 session", value: byte });
                }
            }
            let len = usize::from(fields.byte()?);
            Ok(Datagram::V15 { message: fields.slice(len)? })
        }
        FORMAT_RMCP_PLUS => {
            let kind = fields.byte()?;
            let (session, sequence) = (fields.u32()?, fields.u32()?);
            let payload_len = usize::from(u16::from_le_bytes(fields.array()?));
            let bytes = fields.slice(payload_len)?;
            let carried = [Carried::Lan, Carried::Console].into_iter().find(|carried| carried.kind() == kind);
            match (carried, session, sequence) {
                (Some(carried), 1.., 1..) => {
                    Ok(Datagram::Protected(Protected { session, sequence, carried, payload_len, datagram }))
                }
                (_, 0, 0) => Ok(Datagram::Setup { payload: Payload::from_number(kind)?, bytes }),
                (_, _, _) => {
                    Err(Malformed::Unsupported { what: "payload type and session: type", value: kind })
                }
            }
        }
        value => Err(Malformed::Unsupported { what: "authentication type", value }),
    }
}

impl Protected<'_> {
    /// Checks the code, decrypts, and gives what it carries (not yet decoded).
    ///
    /// # Errors
    /// [`Malformed`] if anything in the packet is not as the owner of the keys made it.
    pub fn open(&self, keys: &SessionKeys) -> Result<Vec<u8>, Malformed> {
        let short = Malformed::Short { what: "protected packet" };
        let check_len = keys.suite().check_len();
        let covered_end = self.datagram.len().checked_sub(check_len).ok_or(short)?;
        let (packet, check) = self.datagram.split_at_checked(covered_end).ok_or(short)?;
        let covered = packet.get(RMCP_LEN..).ok_or(short)?;
        if keys.packet_check(covered) != super::crypto::Code::new(check) {
            return Err(Malformed::Code);
        }
        let mut fields = Fields::new("protected packet", packet);
        fields.array::<PLUS_HEADER_LEN>()?;
        let mut payload = Fields::new("encrypted payload", fields.slice(self.payload_len)?);
        check_trailer(fields.rest())?;
        let iv = payload.array::<AES_BLOCK>()?;
        let mut message = payload.rest().to_vec();
        if message.is_empty() || !message.len().is_multiple_of(AES_BLOCK) {
            return Err(Malformed::Padding);
        }
        keys.decrypt(&iv, &mut message);
        let len = padded_len(&message).ok_or(Malformed::Padding)?;
        message.truncate(len);
        Ok(message)
    }
}

/// The trailer between payload and code: pad bytes, their number, the next header (IPMI 2.0 table 13-8). The pad
/// bytes' own value is covered by the code and otherwise free.
fn check_trailer(trailer: &[u8]) -> Result<(), Malformed> {
    match trailer {
        [pad @ .., len, NEXT_HEADER] if pad.len() == usize::from(*len) => Ok(()),
        _ => Err(Malformed::Padding),
    }
}

/// Length of the message in front of a confidentiality pad 1, 2, 3, ... and the pad's length (IPMI 2.0 §13.29).
fn padded_len(plain: &[u8]) -> Option<usize> {
    let (pad_len, front) = plain.split_last()?;
    let len = front.len().checked_sub(usize::from(*pad_len))?;
    let pad = front.get(len..)?;
    let right = usize::from(*pad_len) < AES_BLOCK && pad.iter().zip(1u8..).all(|(byte, want)| *byte == want);
    right.then_some(len)
}

/// Encrypts and authenticates a LAN message into a datagram. `iv` must be random and new for each packet, `sequence`
/// greater than in the packet before; `session` is the receiver's session id.
pub fn seal(
    keys: &SessionKeys,
    session: u32,
    sequence: u32,
    iv: [u8; AES_BLOCK],
    message: &LanMessage,
) -> Vec<u8> {
    protect(keys, session, sequence, iv, Carried::Lan, &message.encode())
}

/// The same with a packet of either kind.
pub fn protect(
    keys: &SessionKeys,
    session: u32,
    sequence: u32,
    iv: [u8; AES_BLOCK],
    carried: Carried,
    bytes: &[u8],
) -> Vec<u8> {
    let mut packet = plus_header(carried.kind(), session, sequence);
    packet.extend_from_slice(&iv);
    let plain_start = packet.len();
    packet.extend_from_slice(bytes);
    let pad = (AES_BLOCK - (packet.len() - plain_start + 1) % AES_BLOCK) % AES_BLOCK;
    packet.extend((1u8..).take(pad));
    packet.push(low_byte(pad));
    if let Some(plain) = packet.get_mut(plain_start..) {
        keys.encrypt(&iv, plain);
    }
    write_payload_len(&mut packet);
    let integrity_pad = (4 - (packet.len() - RMCP_LEN + 2) % 4) % 4;
    packet.extend(std::iter::repeat_n(0xff, integrity_pad));
    packet.extend_from_slice(&[low_byte(integrity_pad), NEXT_HEADER]);
    let check = packet.get(RMCP_LEN..).map(|covered| keys.packet_check(covered));
    packet.extend_from_slice(check.as_ref().map_or(&[], |check| check.as_bytes()));
    packet
}

/// Puts a payload that travels outside a session into a datagram.
pub fn setup(payload: Payload, bytes: &[u8]) -> Vec<u8> {
    let mut packet = plus_header(payload.number(), 0, 0);
    packet.extend_from_slice(bytes);
    write_payload_len(&mut packet);
    packet
}

/// Puts a LAN message into an IPMI 1.5 datagram outside a session; `None` if it is longer than the format's 255 bytes.
pub fn v15(message: &LanMessage) -> Option<Vec<u8>> {
    let mut packet = RMCP_IPMI.to_vec();
    packet.extend_from_slice(&[FORMAT_V15_NONE, 0, 0, 0, 0, 0, 0, 0, 0]);
    let body = message.encode();
    packet.push(u8::try_from(body.len()).ok()?);
    packet.extend_from_slice(&body);
    Some(packet)
}

/// An ASF presence ping.
pub fn ping(tag: u8) -> Vec<u8> {
    let [a, b, c, d] = ASF_IANA;
    vec![RMCP_VERSION, 0, RMCP_NO_ACK, CLASS_ASF, a, b, c, d, ASF_PING, tag, 0, 0]
}

/// An ASF presence pong that says "IPMI is spoken here".
pub fn pong(tag: u8) -> Vec<u8> {
    let [a, b, c, d] = ASF_IANA;
    let mut packet = vec![RMCP_VERSION, 0, RMCP_NO_ACK, CLASS_ASF, a, b, c, d, ASF_PONG, tag, 0, 16];
    packet.extend_from_slice(&[a, b, c, d, 0, 0, 0, 0, 0x81, 0, 0, 0, 0, 0, 0, 0]);
    packet
}

fn plus_header(kind: u8, session: u32, sequence: u32) -> Vec<u8> {
    let mut packet = Vec::with_capacity(128);
    packet.extend_from_slice(&RMCP_IPMI);
    packet.extend_from_slice(&[FORMAT_RMCP_PLUS, kind]);
    packet.extend_from_slice(&session.to_le_bytes());
    packet.extend_from_slice(&sequence.to_le_bytes());
    packet.extend_from_slice(&[0, 0]);
    packet
}

/// Fills in the payload's length once the payload is there and nothing follows it yet.
fn write_payload_len(packet: &mut [u8]) {
    let len = u16::try_from(packet.len().saturating_sub(PLUS_HEADER_LEN)).unwrap_or(u16::MAX);
    for (to, from) in packet.iter_mut().skip(PLUS_HEADER_LEN - 2).zip(len.to_le_bytes()) {
        *to = from;
    }
}

/// A pad length; by construction below 16.
fn low_byte(len: usize) -> u8 {
    u8::try_from(len).unwrap_or(u8::MAX)
}

/// A LAN message (IPMI 2.0 §13.8). The data of a response begins with its completion code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LanMessage {
    /// Receiver.
    pub to: u8,
    /// Network function, 6 bits; odd in a response.
    pub net_fn: u8,
    /// Receiver's logical unit, 2 bits.
    pub to_lun: u8,
    /// Sender.
    pub from: u8,
    /// Requester's sequence number, 6 bits; a response repeats its request's.
    pub sequence: u8,
    /// Sender's logical unit, 2 bits.
    pub from_lun: u8,
    /// Command.
    pub command: u8,
    /// Data; in a response the completion code first.
    pub data: Vec<u8>,
}

impl LanMessage {
    /// A request from a console to the BMC.
    pub fn request(net_fn: u8, command: u8, sequence: u8, data: Vec<u8>) -> LanMessage {
        LanMessage {
            to: BMC_ADDRESS,
            net_fn: net_fn & 0x3f,
            to_lun: 0,
            from: CONSOLE_ADDRESS,
            sequence: sequence & 0x3f,
            from_lun: 0,
            command,
            data,
        }
    }

    /// The response to this request.
    pub fn response(&self, completion: u8, data: &[u8]) -> LanMessage {
        let mut body = Vec::with_capacity(data.len() + 1);
        body.push(completion);
        body.extend_from_slice(data);
        LanMessage {
            to: self.from,
            net_fn: self.net_fn | 1,
            to_lun: self.from_lun,
            from: self.to,
            sequence: self.sequence,
            from_lun: self.to_lun,
            command: self.command,
            data: body,
        }
    }

    /// As it goes into a packet.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.data.len() + 7);
        let head = [self.to, self.net_fn << 2 | self.to_lun & 3];
        bytes.extend_from_slice(&head);
        bytes.push(checksum(&head));
        let body_start = bytes.len();
        bytes.extend_from_slice(&[self.from, self.sequence << 2 | self.from_lun & 3, self.command]);
        bytes.extend_from_slice(&self.data);
        bytes.push(checksum(bytes.get(body_start..).unwrap_or(&[])));
        bytes
    }

    /// Reads one from a whole payload.
    ///
    /// # Errors
    /// [`Malformed::Short`] or [`Malformed::Checksum`].
    pub fn decode(bytes: &[u8]) -> Result<LanMessage, Malformed> {
        let mut fields = Fields::new("LAN message", bytes);
        let head @ [to, net_fn_lun, _] = fields.array::<3>()?;
        let body = fields.rest();
        let [from, sequence_lun, command, data @ .., _] = body else {
            return Err(Malformed::Short { what: "LAN message" });
        };
        if checksum(&head) != 0 || checksum(body) != 0 {
            return Err(Malformed::Checksum);
        }
        Ok(LanMessage {
            to,
            net_fn: net_fn_lun >> 2,
            to_lun: net_fn_lun & 3,
            from: *from,
            sequence: sequence_lun >> 2,
            from_lun: sequence_lun & 3,
            command: *command,
            data: data.to_vec(),
        })
    }
}

/// The byte that makes the sum of all bytes zero (IPMI 2.0 §13.8).
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte))
}
