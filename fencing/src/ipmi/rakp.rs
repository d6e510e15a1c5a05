//! The six messages that open an RMCP+ session (IPMI 2.0 §13.17-13.24), both directions.
//!
//! Why it exists: our client and the emulated BMC read and write the same structs.
//! What it never does: checking a code or choosing a value; that is `crypto` and the two ends.

use super::codec::{Fields, Malformed};
use super::crypto::{Algorithms, CODE_MAX, Code, USER_MAX, UserName};
use std::fmt;

/// RMCP+ status code (IPMI 2.0 table 13-15) other than 0.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Status(pub u8);

impl Status {
    /// All session slots are taken.
    pub const NO_RESOURCES: Status = Status(0x01);
    /// The BMC knows no session of that id.
    pub const INVALID_SESSION: Status = Status(0x02);
    /// The session is not active.
    pub const INACTIVE_SESSION: Status = Status(0x08);
    /// The role is not one.
    pub const INVALID_ROLE: Status = Status(0x09);
    /// The user may not have that role.
    pub const UNAUTHORIZED_ROLE: Status = Status(0x0a);
    /// All session slots for that role are taken.
    pub const NO_RESOURCES_FOR_ROLE: Status = Status(0x0b);
    /// No such user.
    pub const UNAUTHORIZED_NAME: Status = Status(0x0d);
    /// The code in RAKP 3 is wrong.
    pub const INVALID_CHECK: Status = Status(0x0f);
    /// The proposed algorithms are no cipher suite of this BMC.
    pub const NO_SUITE_MATCH: Status = Status(0x11);
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0 {
            0x01 => "all its sessions are taken",
            0x02 => "invalid session id",
            0x03 => "invalid payload type",
            0x04 => "invalid authentication algorithm",
            0x05 => "invalid integrity algorithm",
            0x06 => "no matching authentication payload",
            0x07 => "no matching integrity payload",
            0x08 => "inactive session id",
            0x09 => "invalid role",
            0x0a => "the user may not have this privilege level",
            0x0b => "all its sessions for this privilege level are taken",
            0x0c => "invalid length of the user name",
            0x0d => "no such user",
            0x0e => "unauthorized GUID",
            0x0f => "invalid integrity check value (wrong password or K_g)",
            0x10 => "invalid confidentiality algorithm",
            0x11 => "it does not offer this cipher suite",
            0x12 => "illegal or unrecognized parameter",
            _ => "unknown status",
        };
        write!(f, "{text} (RMCP+ status {:#04x})", self.0)
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Open Session request (IPMI 2.0 §13.17).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenRequest {
    /// Repeated in the response.
    pub tag: u8,
    /// Highest privilege level wanted; 0: the highest that fits the suite.
    pub privilege: u8,
    /// Session id chosen by the console.
    pub console_session: u32,
    /// The one proposal.
    pub algorithms: Algorithms,
}

/// Open Session response (IPMI 2.0 §13.18).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenResponse {
    /// From the request.
    pub tag: u8,
    /// From the request.
    pub console_session: u32,
    /// What was granted, or why not.
    pub result: Result<Opened, Status>,
}

/// What an Open Session response grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Highest privilege level that the session can have.
    pub privilege: u8,
    /// Session id chosen by the BMC.
    pub bmc_session: u32,
    /// The algorithms that the BMC took.
    pub algorithms: Algorithms,
}

/// RAKP 1 (IPMI 2.0 §13.20).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rakp1 {
    /// Repeated in the response.
    pub tag: u8,
    /// The BMC's session id.
    pub bmc_session: u32,
    /// The console's random number.
    pub console_random: [u8; 16],
    /// Privilege level wanted (low 4 bits) and the name-only-lookup bit (0x10).
    pub role: u8,
    /// The user.
    pub user: UserName,
}

/// RAKP 2 (IPMI 2.0 §13.21).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rakp2 {
    /// From the request.
    pub tag: u8,
    /// The console's session id.
    pub console_session: u32,
    /// The BMC's part, or why not.
    pub result: Result<BmcPart, Status>,
}

/// What the BMC gives in RAKP 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BmcPart {
    /// The BMC's random number.
    pub random: [u8; 16],
    /// The BMC's GUID, in wire order.
    pub guid: [u8; 16],
    /// Proof that the BMC knows the password.
    pub code: Code,
}

/// RAKP 3 (IPMI 2.0 §13.22).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rakp3 {
    /// Repeated in the response.
    pub tag: u8,
    /// The BMC's session id.
    pub bmc_session: u32,
    /// Proof that the console knows the password, or why the console gives up.
    pub result: Result<Code, Status>,
}

/// RAKP 4 (IPMI 2.0 §13.23).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rakp4 {
    /// From the request.
    pub tag: u8,
    /// The console's session id.
    pub console_session: u32,
    /// Proof that the BMC has the same session key, or why not.
    pub result: Result<Code, Status>,
}

/// Kind and length of the three algorithm records, in their order (IPMI 2.0 table 13-9).
const ALGORITHM_KINDS: [u8; 3] = [0, 1, 2];
const ALGORITHM_RECORD_LEN: u8 = 8;

fn write_algorithms(bytes: &mut Vec<u8>, algorithms: Algorithms) {
    let numbers = [algorithms.authentication, algorithms.integrity, algorithms.confidentiality];
    for (kind, number) in ALGORITHM_KINDS.into_iter().zip(numbers) {
        bytes.extend_from_slice(&[kind, 0, 0, ALGORITHM_RECORD_LEN, number, 0, 0, 0]);
    }
}

fn read_algorithms(fields: &mut Fields<'_>) -> Result<Algorithms, Malformed> {
    let mut numbers = [0; 3];
    for (want, number) in ALGORITHM_KINDS.into_iter().zip(&mut numbers) {
        let [kind, _, _, len, value, _, _, _] = fields.array()?;
        if kind != want {
            return Err(Malformed::Unsupported { what: "algorithm record", value: kind });
        }
        if len != ALGORITHM_RECORD_LEN {
            return Err(Malformed::Unsupported { what: "length of an algorithm record", value: len });
        }
        *number = value & 0x3f;
    }
    let [authentication, integrity, confidentiality] = numbers;
    Ok(Algorithms { authentication, integrity, confidentiality })
}

/// Front of a response: tag, status, two bytes, session id. Bytes 3 and 4 are given back for Open Session.
fn head(tag: u8, status: u8, privilege: u8, session: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(80);
    bytes.extend_from_slice(&[tag, status, privilege, 0]);
    bytes.extend_from_slice(&session.to_le_bytes());
    bytes
}

/// Reads the front of a response. Some BMCs end a response that carries an error after the status; its session id then
/// reads as 0.
fn read_head(fields: &mut Fields<'_>) -> Result<Head, Malformed> {
    let [tag, status] = fields.array()?;
    if status != 0 {
        let session =
            fields.array().map_or(0, |[_, _, a, b, c, d]: [u8; 6]| u32::from_le_bytes([a, b, c, d]));
        return Ok(Head { tag, session, granted: Err(Status(status)) });
    }
    let [privilege, _] = fields.array()?;
    Ok(Head { tag, session: fields.u32()?, granted: Ok(privilege) })
}

struct Head {
    tag: u8,
    session: u32,
    /// The byte behind the status, or the status if it is an error.
    granted: Result<u8, Status>,
}

fn read_code(fields: Fields<'_>) -> Result<Code, Malformed> {
    let rest = fields.rest();
    if rest.len() > CODE_MAX {
        return Err(Malformed::Long { what: "authentication code" });
    }
    Ok(Code::new(rest))
}

impl OpenRequest {
    /// As it goes into a packet.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = head(self.tag, self.privilege, 0, self.console_session);
        write_algorithms(&mut bytes, self.algorithms);
        bytes
    }

    /// Reads one.
    ///
    /// # Errors
    /// [`Malformed`] if it is not one.
    pub fn decode(bytes: &[u8]) -> Result<OpenRequest, Malformed> {
        let mut fields = Fields::new("Open Session request", bytes);
        let [tag, privilege, _, _] = fields.array()?;
        let console_session = fields.u32()?;
        let algorithms = read_algorithms(&mut fields)?;
        Ok(OpenRequest { tag, privilege: privilege & 0x0f, console_session, algorithms })
    }
}

impl OpenResponse {
    /// As it goes into a packet.
    pub fn encode(&self) -> Vec<u8> {
        match &self.result {
            Err(status) => head(self.tag, status.0, 0, self.console_session),
            Ok(opened) => {
                let mut bytes = head(self.tag, 0, opened.privilege, self.console_session);
                bytes.extend_from_slice(&opened.bmc_session.to_le_bytes());
                write_algorithms(&mut bytes, opened.algorithms);
                bytes
            }
        }
    }

    /// Reads one.
    ///
    /// # Errors
    /// [`Malformed`] if it is not one.
    pub fn decode(bytes: &[u8]) -> Result<OpenResponse, Malformed> {
        let mut fields = Fields::new("Open Session response", bytes);
        let Head { tag, session: console_session, granted } = read_head(&mut fields)?;
        let result = match granted {
            Err(status) => Err(status),
            Ok(privilege) => {
                let (bmc_session, algorithms) = (fields.u32()?, read_algorithms(&mut fields)?);
                Ok(Opened { privilege: privilege & 0x0f, bmc_session, algorithms })
            }
        };
        Ok(OpenResponse { tag, console_session, result })
    }
}

impl Rakp1 {
    /// As it goes into a packet.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = head(self.tag, 0, 0, self.bmc_session);
        bytes.extend_from_slice(&self.console_random);
        bytes.extend_from_slice(&[self.role, 0, 0, self.user.len_byte()]);
        bytes.extend_from_slice(self.user.as_bytes());
        bytes
    }

    /// Reads one.
    ///
    /// # Errors
    /// [`Malformed`] if it is not one.
    pub fn decode(bytes: &[u8]) -> Result<Rakp1, Malformed> {
        let mut fields = Fields::new("RAKP 1", bytes);
        let [tag, _, _, _] = fields.array()?;
        let (bmc_session, console_random) = (fields.u32()?, fields.array()?);
        let [role, _, _, user_len] = fields.array()?;
        if usize::from(user_len) > USER_MAX {
            return Err(Malformed::Long { what: "user name" });
        }
        let user = UserName::new(fields.slice(usize::from(user_len))?);
        let user = user.ok_or(Malformed::Long { what: "user name" })?;
        Ok(Rakp1 { tag, bmc_session, console_random, role: role & 0x1f, user })
    }
}

impl Rakp2 {
    /// As it goes into a packet.
    pub fn encode(&self) -> Vec<u8> {
        match &self.result {
            Err(status) => head(self.tag, status.0, 0, self.console_session),
            Ok(part) => {
                let mut bytes = head(self.tag, 0, 0, self.console_session);
                bytes.extend_from_slice(&part.random);
                bytes.extend_from_slice(&part.guid);
                bytes.extend_from_slice(part.code.as_bytes());
                bytes
            }
        }
    }

    /// Reads one.
    ///
    /// # Errors
    /// [`Malformed`] if it is not one.
    pub fn decode(bytes: &[u8]) -> Result<Rakp2, Malformed> {
        let mut fields = Fields::new("RAKP 2", bytes);
        let Head { tag, session: console_session, granted } = read_head(&mut fields)?;
        let result = match granted {
            Err(status) => Err(status),
            Ok(_) => {
                let (random, guid) = (fields.array()?, fields.array()?);
                Ok(BmcPart { random, guid, code: read_code(fields)? })
            }
        };
        Ok(Rakp2 { tag, console_session, result })
    }
}

impl Rakp3 {
    /// As it goes into a packet.
    pub fn encode(&self) -> Vec<u8> {
        encode_proof(self.tag, self.bmc_session, &self.result)
    }

    /// Reads one.
    ///
    /// # Errors
    /// [`Malformed`] if it is not one.
    pub fn decode(bytes: &[u8]) -> Result<Rakp3, Malformed> {
        let (tag, bmc_session, result) = decode_proof("RAKP 3", bytes)?;
        Ok(Rakp3 { tag, bmc_session, result })
    }
}

impl Rakp4 {
    /// As it goes into a packet.
    pub fn encode(&self) -> Vec<u8> {
        encode_proof(self.tag, self.console_session, &self.result)
    }

    /// Reads one.
    ///
    /// # Errors
    /// [`Malformed`] if it is not one.
    pub fn decode(bytes: &[u8]) -> Result<Rakp4, Malformed> {
        let (tag, console_session, result) = decode_proof("RAKP 4", bytes)?;
        Ok(Rakp4 { tag, console_session, result })
    }
}

fn encode_proof(tag: u8, session: u32, result: &Result<Code, Status>) -> Vec<u8> {
    match result {
        Err(status) => head(tag, status.0, 0, session),
        Ok(code) => {
            let mut bytes = head(tag, 0, 0, session);
            bytes.extend_from_slice(code.as_bytes());
            bytes
        }
    }
}

fn decode_proof(what: &'static str, bytes: &[u8]) -> Result<(u8, u32, Result<Code, Status>), Malformed> {
    let mut fields = Fields::new(what, bytes);
    let Head { tag, session, granted } = read_head(&mut fields)?;
    let result = match granted {
        Err(status) => Err(status),
        Ok(_) => Ok(read_code(fields)?),
    };
    Ok((tag, session, result))
}
