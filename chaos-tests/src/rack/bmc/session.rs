//! The protocol of a BMC: RMCP+ sessions, seen from the side that is called.
//!
//! What this is: a datagram in, a datagram out; sessions are set up, checked, limited and forgotten.
//! Why it exists: clients must be tried against a BMC that checks what real ones check, with pure code.
//! What it never does: no clock, no socket, no power; time and surroundings are arguments. It answers no packet whose
//! code or sequence number is wrong.

use super::unit::{Caller, Reply, Then, Unit};
use crate::rack::chassis::Control;
use crate::rack::machine::Life;
use fencing::ipmi::codec::{self, BMC_ADDRESS, Datagram, LanMessage, Payload, Protected};
use fencing::ipmi::crypto::{Handshake, Key, SessionKeys, Suite, UserName};
use fencing::ipmi::rakp::{BmcPart, OpenRequest, OpenResponse, Opened, Rakp1, Rakp2, Rakp3, Rakp4, Status};
use fencing::ipmi::window::Window;
use policies::Power;
use rand::Rng;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// A session that says nothing for this long is forgotten (IPMI 2.0 §6.12.15: 60 s, give or take 3).
const IDLE_MAX: Duration = Duration::from_secs(60);
/// A session that is not active after this long is forgotten; OpenBMC's limit (facts/performance.md §3c).
const SETUP_MAX: Duration = Duration::from_secs(3);
/// Privilege levels (IPMI 2.0 §6.8).
pub(super) const USER: u8 = 2;
pub(super) const OPERATOR: u8 = 3;
pub(super) const ADMINISTRATOR: u8 = 4;

/// Who may call, and what the BMC calls itself.
#[derive(Clone, Debug)]
pub struct Account {
    /// GUID in wire order.
    pub guid: [u8; 16],
    /// The one user, an administrator.
    pub user: UserName,
    /// Its password.
    pub password: Key,
}

/// What the BMC knows at this moment.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings {
    /// Time since the BMC's start.
    pub now: Duration,
    /// Seconds since 1970.
    pub seconds: u32,
    /// The machine's power, as the power plane tells.
    pub power: Power,
    /// True if the power plane takes no command.
    pub refuses_power: bool,
    /// Sessions at the same time.
    pub sessions_max: usize,
}

/// What a datagram leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Back to the sender.
    pub datagram: Vec<u8>,
    /// For the power plane.
    pub control: Option<Control>,
    /// How the power is, if it says that.
    pub told: Option<Power>,
}

impl From<Vec<u8>> for Answer {
    fn from(datagram: Vec<u8>) -> Self {
        Answer { datagram, control: None, told: None }
    }
}

/// The BMC.
#[derive(Debug)]
pub struct Bmc {
    account: Account,
    sessions: BTreeMap<u32, Session>,
    newest_session: u32,
    unit: Unit,
}

#[derive(Debug)]
struct Session {
    heard: Duration,
    peer: SocketAddr,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// After Open Session.
    Opened { request: OpenRequest, suite: Suite },
    /// After RAKP 1.
    Greeted { handshake: Handshake },
    /// After RAKP 3.
    Active(Box<Active>),
}

#[derive(Debug)]
struct Active {
    handshake: Handshake,
    keys: SessionKeys,
    privilege: u8,
    seen: Window,
    sent: u32,
}

impl Bmc {
    /// A BMC that was just switched on.
    pub fn new(account: Account) -> Self {
        let unit = Unit::new(account.guid);
        Bmc { account, sessions: BTreeMap::new(), newest_session: 0, unit }
    }

    /// Answers a datagram; what a real BMC would leave unanswered is left so.
    pub fn handle(
        &mut self,
        datagram: &[u8],
        from: SocketAddr,
        around: Surroundings,
        random: &mut impl Rng,
    ) -> Option<Answer> {
        self.forget_idle(around.now);
        match codec::decode(datagram).ok()? {
            Datagram::Ping { tag } => Some(codec::pong(tag).into()),
            Datagram::Pong { .. } => None,
            Datagram::V15 { message } => {
                codec::v15(&self.without_session(message, around)?).map(Answer::from)
            }
            Datagram::Setup { payload, bytes } => {
                self.set_up(payload, bytes, from, around, random).map(Answer::from)
            }
            Datagram::Protected(packet) => self.in_session(&packet, from, around, random),
        }
    }

    /// Told what the machine does now; goes into the event log.
    pub fn saw(&mut self, life: Life, seconds: u32) {
        self.unit.saw(life, seconds);
    }

    /// Forgets all that a BMC without supply forgets. Its event log survives.
    pub fn lose_supply(&mut self, seconds: u32) {
        self.sessions.clear();
        self.unit.lose_supply(seconds);
    }

    /// When the watchdog timer runs out, as time since the BMC's start.
    pub fn watchdog_due(&self) -> Option<Duration> {
        self.unit.watchdog_due()
    }

    /// Lets the watchdog timer run out; returns what it does to the power.
    pub fn watchdog_expired(&mut self, around: Surroundings) -> Option<Control> {
        self.unit.watchdog_expired(around)
    }

    fn forget_idle(&mut self, now: Duration) {
        self.sessions.retain(|_, session| {
            let limit = match session.stage {
                Stage::Opened { .. } | Stage::Greeted { .. } => SETUP_MAX,
                Stage::Active(_) => IDLE_MAX,
            };
            now.saturating_sub(session.heard) < limit
        });
    }

    /// The few commands that need no session (IPMI 2.0 App. G).
    fn without_session(&mut self, message: &[u8], around: Surroundings) -> Option<LanMessage> {
        let request = LanMessage::decode(message).ok().filter(|request| request.to == BMC_ADDRESS)?;
        let Reply { completion, data, then: _ } = self.unit.obey(&request, Caller::Nobody, around);
        Some(request.response(completion, &data))
    }

    fn set_up(
        &mut self,
        payload: Payload,
        bytes: &[u8],
        from: SocketAddr,
        around: Surroundings,
        random: &mut impl Rng,
    ) -> Option<Vec<u8>> {
        match payload {
            Payload::Ipmi => {
                let reply = self.without_session(bytes, around)?;
                Some(codec::setup(Payload::Ipmi, &reply.encode()))
            }
            Payload::OpenRequest => {
                let request = OpenRequest::decode(bytes).ok()?;
                let (tag, console_session) = (request.tag, request.console_session);
                let result = self.open(request, from, around, random);
                let response = OpenResponse { tag, console_session, result };
                Some(codec::setup(Payload::OpenResponse, &response.encode()))
            }
            Payload::Rakp1 => {
                let rakp1 = Rakp1::decode(bytes).ok()?;
                let rakp2 = self.greet(rakp1, around.now, random)?;
                Some(codec::setup(Payload::Rakp2, &rakp2.encode()))
            }
            Payload::Rakp3 => {
                let rakp3 = Rakp3::decode(bytes).ok()?;
                let rakp4 = self.admit(&rakp3, around.now)?;
                Some(codec::setup(Payload::Rakp4, &rakp4.encode()))
            }
            Payload::OpenResponse | Payload::Rakp2 | Payload::Rakp4 => None,
        }
    }

    fn open(
        &mut self,
        request: OpenRequest,
        peer: SocketAddr,
        around: Surroundings,
        random: &mut impl Rng,
    ) -> Result<Opened, Status> {
        let algorithms = request.algorithms;
        let suite = Suite::from_algorithms(algorithms).ok_or(Status::NO_SUITE_MATCH)?;
        if request.privilege > ADMINISTRATOR {
            return Err(Status::INVALID_ROLE);
        }
        let privilege = if request.privilege == 0 { ADMINISTRATOR } else { request.privilege };
        // A request that is sent again must not take a second slot.
        let again = self.sessions.iter().find(|(_, session)| match &session.stage {
            Stage::Opened { request: first, .. } => session.peer == peer && *first == request,
            Stage::Greeted { .. } | Stage::Active(_) => false,
        });
        if let Some((bmc_session, _)) = again {
            return Ok(Opened { privilege, bmc_session: *bmc_session, algorithms });
        }
        if self.sessions.len() >= around.sessions_max {
            return Err(Status::NO_RESOURCES);
        }
        let bmc_session = self.free_session_id(random);
        let stage = Stage::Opened { request, suite };
        self.sessions.insert(bmc_session, Session { heard: around.now, peer, stage });
        Ok(Opened { privilege, bmc_session, algorithms })
    }

    /// Ids grow from a random start: none is given out twice soon, and 0 never (it means "no session").
    fn free_session_id(&mut self, random: &mut impl Rng) -> u32 {
        if self.newest_session == 0 {
            self.newest_session = random.random();
        }
        self.newest_session = self.newest_session.wrapping_add(1).max(1);
        self.newest_session
    }

    fn greet(&mut self, rakp1: Rakp1, now: Duration, random: &mut impl Rng) -> Option<Rakp2> {
        let Some(session) = self.sessions.get_mut(&rakp1.bmc_session) else {
            return Some(Rakp2 { tag: rakp1.tag, console_session: 0, result: Err(Status::INVALID_SESSION) });
        };
        session.heard = now;
        let tag = rakp1.tag;
        let handshake = match &session.stage {
            Stage::Opened { request, suite } => Handshake {
                suite: *suite,
                console_session: request.console_session,
                bmc_session: rakp1.bmc_session,
                console_random: rakp1.console_random,
                bmc_random: random.random(),
                bmc_guid: self.account.guid,
                role: rakp1.role,
                user: rakp1.user,
            },
            // The same RAKP 1 again gets the same answer; anything else at this stage is not answered.
            Stage::Greeted { handshake }
                if handshake.console_random == rakp1.console_random
                    && handshake.user == rakp1.user
                    && handshake.role == rakp1.role =>
            {
                handshake.clone()
            }
            Stage::Greeted { .. } | Stage::Active(_) => return None,
        };
        let console_session = handshake.console_session;
        let refusal = if handshake.user != self.account.user {
            Some(Status::UNAUTHORIZED_NAME)
        } else if !(1..=ADMINISTRATOR).contains(&(handshake.role & 0x0f)) {
            Some(Status::INVALID_ROLE)
        } else {
            None
        };
        if let Some(status) = refusal {
            self.sessions.remove(&rakp1.bmc_session);
            return Some(Rakp2 { tag, console_session, result: Err(status) });
        }
        let code = handshake.rakp2_code(&self.account.password);
        let part = BmcPart { random: handshake.bmc_random, guid: self.account.guid, code };
        session.stage = Stage::Greeted { handshake };
        Some(Rakp2 { tag, console_session, result: Ok(part) })
    }

    fn admit(&mut self, rakp3: &Rakp3, now: Duration) -> Option<Rakp4> {
        let tag = rakp3.tag;
        let Some(session) = self.sessions.get_mut(&rakp3.bmc_session) else {
            return Some(Rakp4 { tag, console_session: 0, result: Err(Status::INVALID_SESSION) });
        };
        let Ok(code) = &rakp3.result else {
            // The console gave up.
            self.sessions.remove(&rakp3.bmc_session);
            return None;
        };
        session.heard = now;
        let handshake = match &session.stage {
            Stage::Opened { .. } => return None,
            Stage::Greeted { handshake } => handshake.clone(),
            // Our answer was lost: give it again, and change nothing.
            Stage::Active(active) => {
                let right = *code == active.handshake.rakp3_code(&self.account.password);
                let check = active.keys.rakp4_check(&active.handshake);
                let console_session = active.handshake.console_session;
                return right.then_some(Rakp4 { tag, console_session, result: Ok(check) });
            }
        };
        let console_session = handshake.console_session;
        if *code != handshake.rakp3_code(&self.account.password) {
            self.sessions.remove(&rakp3.bmc_session);
            return Some(Rakp4 { tag, console_session, result: Err(Status::INVALID_CHECK) });
        }
        let keys = handshake.session_keys(&self.account.password, None);
        let check = keys.rakp4_check(&handshake);
        // A session begins as USER, whatever it may rise to (IPMI 2.0 §22.18).
        let privilege = USER.min(handshake.role & 0x0f);
        let active = Active { handshake, keys, privilege, seen: Window::default(), sent: 0 };
        session.stage = Stage::Active(Box::new(active));
        Some(Rakp4 { tag, console_session, result: Ok(check) })
    }

    fn in_session(
        &mut self,
        packet: &Protected<'_>,
        from: SocketAddr,
        around: Surroundings,
        random: &mut impl Rng,
    ) -> Option<Answer> {
        let session = self.sessions.get_mut(&packet.session)?;
        let active = match &mut session.stage {
            Stage::Opened { .. } | Stage::Greeted { .. } => return None,
            Stage::Active(active) => active,
        };
        let message = packet.open(&active.keys).ok().filter(|_| packet.carried == codec::Carried::Lan)?;
        if !active.seen.accept(packet.sequence) {
            return None;
        }
        session.heard = around.now;
        session.peer = from;
        let request = LanMessage::decode(&message).ok().filter(|request| request.to == BMC_ADDRESS)?;
        let caller = Caller::Session {
            id: packet.session,
            privilege: active.privilege,
            privilege_max: active.handshake.role & 0x0f,
        };
        let Reply { completion, data, then } = self.unit.obey(&request, caller, around);
        let (mut control, mut told) = (None, None);
        let mut close = false;
        match then {
            Then::Nothing => {}
            Then::Power(command) => control = Some(command),
            Then::Told(power) => told = Some(power),
            Then::Privilege(level) => active.privilege = level,
            Then::Close => close = true,
        }
        active.sent = active.sent.wrapping_add(1).max(1);
        let reply = request.response(completion, &data);
        let console = active.handshake.console_session;
        let datagram = codec::seal(&active.keys, console, active.sent, random.random(), &reply);
        if close {
            self.sessions.remove(&packet.session);
        }
        Some(Answer { datagram, control, told })
    }
}
