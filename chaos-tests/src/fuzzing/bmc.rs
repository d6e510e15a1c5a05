//! Target `bmc`: a script of datagrams to our own emulated BMC, with and without a session.
//!
//! Why it exists: the rack listens on the network as real BMCs do, and a demo that a stray datagram can switch off
//! proves nothing.

use super::script::Script;
use crate::rack::bmc::{Account, Bmc, Surroundings};
use fencing::ipmi::codec::{self, DATAGRAM_MAX, Datagram, LanMessage, Payload};
use fencing::ipmi::crypto::{Handshake, Key, SessionKeys, Suite, UserName};
use fencing::ipmi::rakp::{OpenRequest, OpenResponse, Rakp1, Rakp2, Rakp3, Rakp4};
use policies::Power;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

const CONSOLE: u32 = 0x1234;
const ADMINISTRATOR: u8 = 4;
const STEPS_MAX: usize = 100;

struct Bench {
    bmc: Bmc,
    around: Surroundings,
    random: StdRng,
    session: Option<(SessionKeys, u32)>,
    sequence: u32,
    sent: Vec<Vec<u8>>,
    obeyed: bool,
}

fn account() -> Account {
    let user = UserName::new(b"admin").expect("a short name");
    Account { guid: [7; 16], user, password: Key::from_secret(b"secret").expect("a short secret") }
}

pub(super) fn run(data: &[u8]) -> bool {
    let around = Surroundings {
        now: Duration::ZERO,
        seconds: 1000,
        power: Power::On,
        refuses_power: false,
        sessions_max: 2,
    };
    let (bmc, random) = (Bmc::new(account()), StdRng::seed_from_u64(1));
    let mut bench = Bench { bmc, around, random, session: None, sequence: 0, sent: vec![], obeyed: false };
    let mut script = Script::new(data);
    for _ in 0..STEPS_MAX {
        if script.is_over() {
            break;
        }
        bench.step(&mut script);
    }
    bench.obeyed
}

impl Bench {
    fn step(&mut self, script: &mut Script<'_>) {
        match script.byte() % 7 {
            0 => self.stranger(script.bytes()),
            1 => {
                let payload = [Payload::Ipmi, Payload::OpenRequest, Payload::Rakp1, Payload::Rakp3];
                let payload = payload[usize::from(script.byte() % 4)];
                self.stranger(&codec::setup(payload, script.bytes()));
            }
            2 => {
                // Without a session the commands that follow are not sent.
                self.log_in(script.byte());
            }
            3 => self.command(script),
            4 => {
                let again = script.pick(&self.sent).cloned().unwrap_or_default();
                assert_eq!(self.send(&again), None, "a packet that came twice was answered");
            }
            5 => {
                let sent = self.sent.last().cloned().unwrap_or_default();
                self.stranger(&script.damage(&sent));
            }
            _ => {
                self.around.now += Duration::from_secs(u64::from(script.byte()));
                self.around.power = if script.byte().is_multiple_of(2) { Power::On } else { Power::Off };
            }
        }
    }

    /// Gives a datagram to the BMC; the answer, and whether the power plane is to do something.
    fn send(&mut self, datagram: &[u8]) -> Option<(Vec<u8>, bool)> {
        let from = SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000));
        let answer = self.bmc.handle(datagram, from, self.around, &mut self.random)?;
        assert!(answer.datagram.len() <= DATAGRAM_MAX, "an answer that nobody would read");
        assert!(codec::decode(&answer.datagram).is_ok(), "an answer that our own codec does not read");
        Some((answer.datagram, answer.control.is_some()))
    }

    /// Whatever comes without the keys may be answered, but moves no power and is answered in no session.
    fn stranger(&mut self, datagram: &[u8]) {
        let Some((answer, control)) = self.send(datagram) else { return };
        assert!(!control, "a stranger switched the power");
        assert!(!matches!(codec::decode(&answer), Ok(Datagram::Protected(_))), "a stranger is in a session");
    }

    fn set_up(&mut self, payload: Payload, bytes: &[u8]) -> Option<Vec<u8>> {
        let (answer, control) = self.send(&codec::setup(payload, bytes))?;
        assert!(!control, "a handshake switched the power");
        match codec::decode(&answer).ok()? {
            Datagram::Setup { bytes, .. } => Some(bytes.to_vec()),
            Datagram::Ping { .. } | Datagram::Pong { .. } | Datagram::V15 { .. } | Datagram::Protected(_) => {
                None
            }
        }
    }

    /// Opens a session as the user does who knows the password, or, of eight, once as one who does not.
    fn log_in(&mut self, choice: u8) -> Option<()> {
        let suite = if choice.is_multiple_of(2) { Suite::Seventeen } else { Suite::Three };
        let knows = choice % 8 != 7;
        let (console_session, algorithms) = (CONSOLE, suite.algorithms());
        let request = OpenRequest { tag: 1, privilege: ADMINISTRATOR, console_session, algorithms };
        let opened = OpenResponse::decode(&self.set_up(Payload::OpenRequest, &request.encode())?).ok()?;
        let bmc_session = opened.result.ok()?.bmc_session;
        let Account { user, password, .. } = account();
        let password = if knows { password } else { Key::from_secret(b"guess")? };
        let (console_random, role) = ([3; 16], ADMINISTRATOR);
        let rakp1 = Rakp1 { tag: 2, bmc_session, console_random, role, user: user.clone() };
        let part = Rakp2::decode(&self.set_up(Payload::Rakp1, &rakp1.encode())?).ok()?.result.ok()?;
        let (bmc_random, bmc_guid) = (part.random, part.guid);
        let handshake = Handshake {
            suite,
            console_session,
            bmc_session,
            console_random,
            bmc_random,
            bmc_guid,
            role,
            user,
        };
        let rakp3 = Rakp3 { tag: 3, bmc_session, result: Ok(handshake.rakp3_code(&password)) };
        let rakp4 = Rakp4::decode(&self.set_up(Payload::Rakp3, &rakp3.encode())?).ok()?;
        assert!(knows || rakp4.result.is_err(), "who does not know the password was let in");
        rakp4.result.ok()?;
        self.session = Some((handshake.session_keys(&password, None), bmc_session));
        self.sequence = 0;
        self.sent.clear();
        Some(())
    }

    fn command(&mut self, script: &mut Script<'_>) {
        let Some((keys, bmc_session)) = self.session.clone() else { return };
        let (net_fn, command) = (script.byte() & 0x3e, script.byte());
        let request = LanMessage::request(net_fn, command, script.byte(), script.bytes().to_vec());
        self.sequence += 1;
        let datagram = codec::seal(&keys, bmc_session, self.sequence, [5; 16], &request);
        if datagram.len() > DATAGRAM_MAX {
            return;
        }
        self.sent.push(datagram.clone());
        let Some((answer, control)) = self.send(&datagram) else { return };
        let Ok(Datagram::Protected(packet)) = codec::decode(&answer) else {
            return assert!(answer.is_empty(), "a command in a session was answered outside of it");
        };
        assert_eq!(packet.session, CONSOLE, "the answer is for another console");
        let reply = packet.open(&keys).ok().and_then(|bytes| LanMessage::decode(&bytes).ok());
        let reply = reply.expect("an answer that its console can open");
        let about = (reply.net_fn, reply.command, reply.sequence);
        assert_eq!(about, (net_fn | 1, command, request.sequence), "the answer is to another command");
        let is_control = (net_fn, command) == (0, 2) && reply.data.first() == Some(&0);
        assert_eq!(control, is_control, "power is moved by Chassis Control, and by nothing else");
        self.obeyed = true;
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let operator = [3, 6, 0x3b, 1, 1, 4];
    let off = [3, 0, 2, 2, 1, 0];
    let status = [3, 0, 1, 3, 0];
    let boot = [3, 0, 8, 4, 6, 5, 0x80, 4, 0, 0, 0, 3, 0, 9, 5, 3, 5, 0, 0];
    let watchdog = [3, 6, 0x24, 6, 6, 4, 2, 0, 0x10, 0x58, 2, 3, 6, 0x22, 7, 0, 3, 6, 0x25, 8, 0];
    let log = [3, 10, 0x40, 9, 0, 3, 10, 0x43, 10, 6, 0, 0, 0, 0, 0, 0xff];
    let records = [3, 10, 0x23, 11, 6, 0, 0, 0, 0, 0, 0xff, 3, 4, 0x2d, 12, 1, 1];
    let session = |parts: &[&[u8]]| [&[2, 0][..], &parts.concat()].concat();
    vec![
        session(&[&operator, &off, &status]),
        session(&[&operator, &boot, &watchdog, &[4, 0], &[4, 1]]),
        session(&[&log, &records, &[5, 20, 0, 1], &[6, 61, 1], &status]),
        [&[2, 7, 2, 1][..], &operator, &off].concat(),
    ]
}
