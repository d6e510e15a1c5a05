//! The BMC against a console that is written with the same codec but keeps its own keys and counters.

use super::session::{Account, Answer, Bmc, Surroundings};
use crate::rack::chassis::Control;
use fencing::ipmi::codec::{self, Datagram, LanMessage, Payload};
use fencing::ipmi::crypto::{Handshake, Key, SessionKeys, Suite, UserName};
use fencing::ipmi::rakp::{OpenRequest, OpenResponse, Rakp1, Rakp2, Rakp3, Rakp4, Status};
use policies::Power;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::net::SocketAddr;
use std::time::Duration;

const ADMINISTRATOR: u8 = 4;
const CHASSIS: u8 = 0x00;
const APP: u8 = 0x06;

fn bench() -> Bench {
    let account = Account {
        guid: [7; 16],
        user: UserName::new(b"admin").unwrap(),
        password: Key::from_secret(b"secret").unwrap(),
    };
    let around = Surroundings {
        now: Duration::ZERO,
        seconds: 1000,
        power: Power::On,
        refuses_power: false,
        sessions_max: 2,
    };
    Bench { bmc: Bmc::new(account), around, random: StdRng::seed_from_u64(1) }
}

/// A BMC and what is around it.
struct Bench {
    bmc: Bmc,
    around: Surroundings,
    random: StdRng,
}

/// A console's side of an open session.
struct Console {
    keys: SessionKeys,
    session: u32,
    sequence: u32,
}

impl Bench {
    fn send(&mut self, datagram: &[u8]) -> Option<Answer> {
        let from: SocketAddr = "127.0.0.1:40000".parse().unwrap();
        self.bmc.handle(datagram, from, self.around, &mut self.random)
    }

    fn set_up(&mut self, payload: Payload, bytes: &[u8]) -> Vec<u8> {
        let answer = self.send(&codec::setup(payload, bytes)).expect("an answer");
        let Datagram::Setup { bytes, .. } = codec::decode(&answer.datagram).unwrap() else {
            panic!("not outside a session")
        };
        bytes.to_vec()
    }

    fn open(&mut self, suite: Suite, console_session: u32) -> Result<u32, Status> {
        let request =
            OpenRequest { tag: 1, privilege: ADMINISTRATOR, console_session, algorithms: suite.algorithms() };
        let bytes = self.set_up(Payload::OpenRequest, &request.encode());
        OpenResponse::decode(&bytes).unwrap().result.map(|opened| opened.bmc_session)
    }

    fn log_in(&mut self, suite: Suite, user: &[u8], password: &[u8]) -> Result<Console, Status> {
        let console_session = 0x1234;
        let bmc_session = self.open(suite, console_session)?;
        let (user, password) = (UserName::new(user).unwrap(), Key::from_secret(password).unwrap());
        let console_random = [3; 16];
        let rakp1 = Rakp1 { tag: 2, bmc_session, console_random, role: ADMINISTRATOR, user: user.clone() };
        let bytes = self.set_up(Payload::Rakp1, &rakp1.encode());
        let part = Rakp2::decode(&bytes).unwrap().result?;
        let handshake = Handshake {
            suite,
            console_session,
            bmc_session,
            console_random,
            bmc_random: part.random,
            bmc_guid: part.guid,
            role: ADMINISTRATOR,
            user,
        };
        let result = Ok(handshake.rakp3_code(&password));
        let bytes = self.set_up(Payload::Rakp3, &Rakp3 { tag: 3, bmc_session, result }.encode());
        let check = Rakp4::decode(&bytes).unwrap().result?;
        let keys = handshake.session_keys(&password, None);
        assert_eq!(check, keys.rakp4_check(&handshake));
        Ok(Console { keys, session: bmc_session, sequence: 0 })
    }

    /// Completion code and data, and what the power plane is to do.
    fn call(
        &mut self,
        console: &mut Console,
        net_fn: u8,
        command: u8,
        data: &[u8],
    ) -> Option<(u8, Vec<u8>, Option<Control>)> {
        let packet = console.packet(net_fn, command, data);
        let answer = self.send(&packet)?;
        let Datagram::Protected(packet) = codec::decode(&answer.datagram).unwrap() else {
            panic!("not protected")
        };
        assert_eq!(packet.session, 0x1234);
        let reply = LanMessage::decode(&packet.open(&console.keys).unwrap()).unwrap();
        assert_eq!((reply.net_fn, reply.command), (net_fn | 1, command));
        let (completion, data) = reply.data.split_first().unwrap();
        Some((*completion, data.to_vec(), answer.control))
    }
}

impl Console {
    fn packet(&mut self, net_fn: u8, command: u8, data: &[u8]) -> Vec<u8> {
        self.sequence += 1;
        let request = LanMessage::request(net_fn, command, 9, data.to_vec());
        codec::seal(&self.keys, self.session, self.sequence, [5; 16], &request)
    }
}

#[test]
fn both_suites_open_a_session_and_power_needs_the_operator_level() {
    for suite in [Suite::Three, Suite::Seventeen] {
        let mut bench = bench();
        let mut console = bench.log_in(suite, b"admin", b"secret").unwrap();
        assert_eq!(bench.call(&mut console, CHASSIS, 0x02, &[0]), Some((0xd4, vec![], None)));
        assert_eq!(bench.call(&mut console, APP, 0x3b, &[3]), Some((0, vec![3], None)));
        assert_eq!(bench.call(&mut console, CHASSIS, 0x02, &[0]), Some((0, vec![], Some(Control::Off))));
        assert_eq!(bench.call(&mut console, CHASSIS, 0x01, &[]).unwrap().1[0] & 1, 1);
        bench.around.power = Power::Off;
        assert_eq!(bench.call(&mut console, CHASSIS, 0x01, &[]).unwrap().1[0] & 1, 0);
        assert_eq!(
            bench.call(&mut console, CHASSIS, 0x02, &[3]),
            Some((0xd5, vec![], None)),
            "no reset when off"
        );
    }
}

#[test]
fn wrong_names_and_passwords_are_refused_and_leave_no_session() {
    let mut bench = bench();
    for _ in 0..10 {
        assert_eq!(bench.log_in(Suite::Seventeen, b"root", b"secret").err(), Some(Status::UNAUTHORIZED_NAME));
        assert_eq!(bench.log_in(Suite::Seventeen, b"admin", b"wrong").err(), Some(Status::INVALID_CHECK));
    }
    assert!(bench.log_in(Suite::Seventeen, b"admin", b"secret").is_ok(), "no slot was leaked");
}

#[test]
fn sessions_are_limited_and_come_back_by_closing_and_by_time() {
    let mut bench = bench();
    let mut first = bench.log_in(Suite::Three, b"admin", b"secret").unwrap();
    let _second = bench.log_in(Suite::Three, b"admin", b"secret").unwrap();
    assert_eq!(bench.open(Suite::Three, 77), Err(Status::NO_RESOURCES));
    let id = first.session.to_le_bytes();
    assert_eq!(bench.call(&mut first, APP, 0x3c, &[0, 0, 0, 0]).unwrap().0, 0x87, "that is not its session");
    assert_eq!(bench.call(&mut first, APP, 0x3c, &id).unwrap().0, 0);
    assert_eq!(bench.call(&mut first, CHASSIS, 0x01, &[]), None, "the session is closed");
    assert!(bench.open(Suite::Three, 77).is_ok());
    bench.around.now = Duration::from_secs(4);
    assert!(bench.open(Suite::Three, 78).is_ok(), "a half-open session lasts 3 s");
    bench.around.now = Duration::from_secs(61);
    for session in [79, 80] {
        assert!(bench.open(Suite::Three, session).is_ok(), "an idle session lasts 60 s");
    }
}

#[test]
fn an_open_request_that_is_sent_again_takes_no_second_slot() {
    let mut bench = bench();
    let id = bench.open(Suite::Three, 77).unwrap();
    for _ in 0..5 {
        assert_eq!(bench.open(Suite::Three, 77), Ok(id));
    }
}

#[test]
fn a_packet_that_is_sent_again_or_changed_gets_no_answer() {
    let mut bench = bench();
    let mut console = bench.log_in(Suite::Seventeen, b"admin", b"secret").unwrap();
    let packet = console.packet(CHASSIS, 0x01, &[]);
    assert!(bench.send(&packet).is_some());
    assert_eq!(bench.send(&packet), None, "replayed");
    let packet = console.packet(CHASSIS, 0x01, &[]);
    for index in 16..packet.len() {
        let mut forged = packet.clone();
        forged[index] ^= 1;
        assert_eq!(bench.send(&forged), None, "byte {index}");
    }
    assert!(bench.send(&packet).is_some(), "none of the forgeries used up its number");
}

#[test]
fn without_a_session_only_discovery_is_answered() {
    let mut bench = bench();
    let mut ask = |net_fn, command, data: &[u8]| {
        let request = LanMessage::request(net_fn, command, 1, data.to_vec());
        let answer = bench.send(&codec::v15(&request).unwrap()).unwrap();
        let Datagram::V15 { message } = codec::decode(&answer.datagram).unwrap() else {
            panic!("not in the IPMI 1.5 format")
        };
        LanMessage::decode(message).unwrap().data
    };
    assert_eq!(ask(APP, 0x38, &[0x8e, 4]), [0, 1, 0x80, 0x04, 0x02, 0, 0, 0, 0]);
    assert_eq!(ask(APP, 0x37, &[])[1..], [7; 16]);
    assert_eq!(ask(CHASSIS, 0x02, &[0]), [0xd4]);
    assert_eq!(ask(CHASSIS, 0x01, &[]), [0xd4]);
    assert_eq!(ask(0x2c, 0x01, &[]), [0xc1]);
}

#[test]
fn cipher_suite_zero_is_not_offered() {
    let mut bench = bench();
    let mut request = OpenRequest {
        tag: 1,
        privilege: ADMINISTRATOR,
        console_session: 5,
        algorithms: Suite::Three.algorithms(),
    };
    request.algorithms.authentication = 0;
    request.algorithms.integrity = 0;
    request.algorithms.confidentiality = 0;
    let bytes = bench.set_up(Payload::OpenRequest, &request.encode());
    assert_eq!(OpenResponse::decode(&bytes).unwrap().result, Err(Status::NO_SUITE_MATCH));
}

#[test]
fn the_watchdog_counts_down_and_acts_once() {
    let mut bench = bench();
    let mut console = bench.log_in(Suite::Three, b"admin", b"secret").unwrap();
    bench.call(&mut console, APP, 0x3b, &[ADMINISTRATOR]);
    assert_eq!(bench.call(&mut console, APP, 0x22, &[]).unwrap().0, 0x80, "it was never set");
    // SMS/OS, power down, 5 s.
    assert_eq!(bench.call(&mut console, APP, 0x24, &[4, 2, 0, 0, 50, 0]).unwrap().0, 0);
    assert_eq!(bench.bmc.watchdog_due(), None, "set is not started");
    assert_eq!(bench.call(&mut console, APP, 0x22, &[]).unwrap().0, 0);
    bench.around.now = Duration::from_millis(2050);
    let (_, reading, _) = bench.call(&mut console, APP, 0x25, &[]).unwrap();
    assert_eq!(reading, [0x44, 2, 0, 0, 50, 0, 30, 0]);
    assert_eq!(bench.bmc.watchdog_expired(bench.around), None);
    bench.around.now = Duration::from_secs(5);
    assert_eq!(bench.bmc.watchdog_expired(bench.around), Some(Control::Off));
    assert_eq!(bench.bmc.watchdog_expired(bench.around), None);
    let (_, reading, _) = bench.call(&mut console, APP, 0x25, &[]).unwrap();
    assert_eq!((reading[0], reading[3]), (4, 0x10), "stopped, and its expiry is flagged");
}

#[test]
fn the_boot_device_is_for_one_start() {
    let mut bench = bench();
    let mut console = bench.log_in(Suite::Three, b"admin", b"secret").unwrap();
    bench.call(&mut console, APP, 0x3b, &[ADMINISTRATOR]);
    let pxe = [5, 0x80, 0x04, 0, 0, 0];
    assert_eq!(bench.call(&mut console, CHASSIS, 0x08, &pxe).unwrap().0, 0);
    assert_eq!(bench.call(&mut console, CHASSIS, 0x09, &[5, 0, 0]).unwrap().1, [1, 5, 0x80, 0x04, 0, 0, 0]);
    bench.call(&mut console, CHASSIS, 0x02, &[1]);
    assert_eq!(bench.call(&mut console, CHASSIS, 0x09, &[5, 0, 0]).unwrap().1, [1, 5, 0, 0, 0, 0, 0]);
    assert_eq!(bench.call(&mut console, CHASSIS, 0x08, &[99, 0]).unwrap().0, 0x80);
}

proptest! {
    #[test]
    fn arbitrary_datagrams_do_no_harm(datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..40)) {
        let mut bench = bench();
        for datagram in &datagrams {
            bench.send(datagram);
        }
        prop_assert!(bench.log_in(Suite::Seventeen, b"admin", b"secret").is_ok());
    }

    #[test]
    fn arbitrary_commands_of_an_administrator_get_an_answer(
        net_fn in (0u8..32).prop_map(|half| half * 2),
        command in any::<u8>(),
        data in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut bench = bench();
        let mut console = bench.log_in(Suite::Seventeen, b"admin", b"secret").unwrap();
        bench.call(&mut console, APP, 0x3b, &[ADMINISTRATOR]);
        prop_assert!(bench.call(&mut console, net_fn, command, &data).is_some());
    }
}
