//! Opening a session: Open Session, RAKP 1 to 4, privilege level, identity (IPMI 2.0 §13.14-13.24).
//!
//! Why it exists: this is where a BMC proves that it knows the password before it gets a command from us, and where
//! every way in which it can turn us away gets a plain sentence.
//! What it never does: offering a suite other than the configured one, going on after an answer that does not fit.

use super::codec::{self, Datagram, LanMessage, Payload};
use super::commands::GetSystemGuid;
use super::crypto::{Handshake, Key, Suite, UserName};
use super::live::{Failed, Live};
use super::port::{Line, NotSent};
use super::rakp::{OpenRequest, OpenResponse, Opened, Rakp1, Rakp2, Rakp3, Rakp4, Status};
use super::session::Session;
use crate::power::DriverError;
use ipmi_rs_core::connection::{IpmiCommand, Message};
use policies::Identity;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// First wait for an answer of the session setup; doubles. BMCs need 50 to 500 ms for a RAKP step, and an Open
/// Session request that is repeated too soon takes a second slot there.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// Bit of the role byte: look the user up by name only (IPMI 2.0 table 13-11).
const BY_NAME_ONLY: u8 = 0x10;

/// Whom to log in as, and how.
#[derive(Clone, Debug)]
pub(super) struct Login {
    pub(super) user: UserName,
    pub(super) password: Key,
    pub(super) k_g: Option<Key>,
    pub(super) suite: Suite,
    /// Privilege level number (IPMI 2.0 table 13-9).
    pub(super) privilege: u8,
}

/// Opens a session on the line. Ends at the deadline at the latest.
///
/// # Errors
/// [`Failed::Silent`] and [`Failed::Restart`] may be tried again on a new line; [`Failed::For`] ever may not.
pub(super) async fn open(mut line: Line, login: &Login, deadline: Instant) -> Result<Live, Failed> {
    let opened = open_session(&mut line, login, deadline).await?;
    let handshake = rakp12(&mut line, login, &opened, deadline).await?;
    let keys = handshake.session_keys(&login.password, login.k_g.as_ref());
    let check = keys.rakp4_check(&handshake);
    let request = Rakp3 {
        tag: tag(&line, 2),
        bmc_session: handshake.bmc_session,
        result: Ok(handshake.rakp3_code(&login.password)),
    };
    let response = exchange(&mut line, Payload::Rakp3, &request.encode(), deadline, |bytes| {
        Rakp4::decode(bytes).ok().filter(|response| response.tag == request.tag)
    })
    .await?;
    let proof = response.result.map_err(turned_away)?;
    if proof != check {
        return Err(not_admitted("its session key differs from ours: is a K_g set on the BMC?"));
    }
    let session = Session::new(keys, line.id(), handshake.bmc_session);
    let mut live = Live::new(line, session);
    set_privilege(&mut live, login, deadline).await?;
    let identity = read_identity(&mut live, &handshake, deadline).await?;
    live.set_identity(identity);
    Ok(live)
}

async fn open_session(line: &mut Line, login: &Login, deadline: Instant) -> Result<Opened, Failed> {
    let request = OpenRequest {
        tag: tag(line, 0),
        privilege: login.privilege,
        console_session: line.id(),
        algorithms: login.suite.algorithms(),
    };
    let response = exchange(line, Payload::OpenRequest, &request.encode(), deadline, |bytes| {
        OpenResponse::decode(bytes).ok().filter(|response| response.tag == request.tag)
    })
    .await?;
    let opened = response.result.map_err(turned_away)?;
    if opened.algorithms != login.suite.algorithms() || opened.bmc_session == 0 {
        return Err(not_admitted("it answered with another cipher suite than the configured one"));
    }
    Ok(opened)
}

/// RAKP 1 and 2. The BMC proves here that it knows the password.
async fn rakp12(
    line: &mut Line,
    login: &Login,
    opened: &Opened,
    deadline: Instant,
) -> Result<Handshake, Failed> {
    let request = Rakp1 {
        tag: tag(line, 1),
        bmc_session: opened.bmc_session,
        console_random: rand::random(),
        role: BY_NAME_ONLY | login.privilege,
        user: login.user.clone(),
    };
    let response = exchange(line, Payload::Rakp1, &request.encode(), deadline, |bytes| {
        Rakp2::decode(bytes).ok().filter(|response| response.tag == request.tag)
    })
    .await?;
    let part = response.result.map_err(turned_away)?;
    let handshake = Handshake {
        suite: login.suite,
        console_session: line.id(),
        bmc_session: opened.bmc_session,
        console_random: request.console_random,
        bmc_random: part.random,
        bmc_guid: part.guid,
        role: request.role,
        user: request.user,
    };
    if handshake.rakp2_code(&login.password) == part.code {
        return Ok(handshake);
    }
    // Tells the BMC to free the slot at once instead of waiting for RAKP 3 (IPMI 2.0 §13.22).
    let farewell =
        Rakp3 { tag: tag(line, 2), bmc_session: opened.bmc_session, result: Err(Status::INVALID_CHECK) };
    line.send_farewell(&codec::setup(Payload::Rakp3, &farewell.encode()));
    Err(not_admitted("wrong password, or a user name that it does not know"))
}

/// Tag of a step: differs between sessions, since an error may carry nothing else to tell them apart.
fn tag(line: &Line, step: u8) -> u8 {
    let [low, ..] = line.id().to_le_bytes();
    low.wrapping_add(step)
}

/// One step of the setup: sent again, unchanged, until an answer that fits comes.
async fn exchange<T>(
    line: &mut Line,
    payload: Payload,
    bytes: &[u8],
    deadline: Instant,
    read: impl Fn(&[u8]) -> Option<T>,
) -> Result<T, Failed> {
    let datagram = codec::setup(payload, bytes);
    let mut wait = FIRST_WAIT;
    loop {
        line.send(&datagram, None).await.map_err(|not_sent| Failed::from_not_sent(line.to(), not_sent))?;
        let until = deadline.min(Instant::now() + wait);
        while let Ok(datagram) = timeout_at(until, line.receive()).await {
            if let Ok(Datagram::Setup { payload: got, bytes }) = codec::decode(&datagram)
                && answers(payload, got)
                && let Some(answer) = read(bytes)
            {
                return Ok(answer);
            }
        }
        if until >= deadline {
            return Err(Failed::Silent);
        }
        wait *= 2;
    }
}

/// True if `got` is the payload with which a BMC answers `asked`.
fn answers(asked: Payload, got: Payload) -> bool {
    match asked {
        Payload::OpenRequest => got == Payload::OpenResponse,
        Payload::Rakp1 => got == Payload::Rakp2,
        Payload::Rakp3 => got == Payload::Rakp4,
        Payload::Ipmi | Payload::OpenResponse | Payload::Rakp2 | Payload::Rakp4 => false,
    }
}

/// A status of the setup as a failure. A BMC that has lost the half-open session in between is tried again.
fn turned_away(status: Status) -> Failed {
    if status == Status::INVALID_SESSION || status == Status::INACTIVE_SESSION {
        Failed::Restart
    } else {
        not_admitted(&status.to_string())
    }
}

fn not_admitted(why: &str) -> Failed {
    Failed::For(DriverError::NotAdmitted(format!("no session with the BMC: {why}")))
}

/// A new session may do what a USER may, whatever RAKP 1 asked for, until this command (IPMI 2.0 §22.18).
async fn set_privilege(live: &mut Live, login: &Login, deadline: Instant) -> Result<(), Failed> {
    let mut request = LanMessage::request(0x06, 0x3b, 0, vec![login.privilege]);
    let answer = live.exchange(&mut request, None, true, &mut 0, deadline).await?;
    match (answer.completion, answer.data.first()) {
        (0, Some(granted)) if granted & 0x0f >= login.privilege => Ok(()),
        (0, _) => Err(not_admitted("it granted a lower privilege level than the configured one")),
        (0x80 | 0x81, _) => Err(not_admitted("the user may not have the configured privilege level")),
        (code, _) => {
            Err(not_admitted(&format!("Set Session Privilege Level gave completion code {code:#04x}")))
        }
    }
}

/// The machine's GUID; from RAKP 2 where the BMC lacks the command (IPMI 2.0 table 13-12: the same value).
async fn read_identity(
    live: &mut Live,
    handshake: &Handshake,
    deadline: Instant,
) -> Result<Identity, Failed> {
    let message: Message = GetSystemGuid.into();
    let mut request = LanMessage::request(message.netfn_raw(), message.cmd(), 0, message.data().to_vec());
    let answer = live.exchange(&mut request, None, true, &mut 0, deadline).await?;
    let read = GetSystemGuid::parse_success_response(&answer.data).ok().filter(|_| answer.completion == 0);
    let guid = read.unwrap_or(handshake.bmc_guid);
    let known = guid.iter().any(|byte| *byte != 0);
    Ok(Identity {
        guid: known.then(|| guid.iter().map(|byte| format!("{byte:02x}")).collect()),
        ..Identity::default()
    })
}

impl Failed {
    pub(super) fn from_not_sent(to: std::net::SocketAddr, not_sent: NotSent) -> Failed {
        Failed::For(match not_sent {
            NotSent::Permit(refusal) => DriverError::NotPermitted(refusal),
            NotSent::Io(source) => {
                DriverError::Unreachable { what: format!("send to the BMC at {to}"), source: Some(source) }
            }
        })
    }
}
