//! Properties of the IPMI codec: what is written is read back, arbitrary bytes never panic, and one wrong bit in a
//! protected packet is always found. The last tests pin the bytes to a recording that does not come from this code.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use fencing::ipmi::codec::*;
use fencing::ipmi::crypto::*;
use fencing::ipmi::rakp::*;
use proptest::prelude::*;

fn suite() -> impl Strategy<Value = Suite> {
    prop_oneof![Just(Suite::Three), Just(Suite::Seventeen)]
}

fn status() -> impl Strategy<Value = Status> {
    (1u8..).prop_map(Status)
}

fn code() -> impl Strategy<Value = Code> {
    prop::collection::vec(any::<u8>(), 0..=CODE_MAX).prop_map(|bytes| Code::new(&bytes))
}

fn user() -> impl Strategy<Value = UserName> {
    prop::collection::vec(any::<u8>(), 0..=USER_MAX).prop_map(|bytes| UserName::new(&bytes).unwrap())
}

fn algorithms() -> impl Strategy<Value = Algorithms> {
    (0u8..64, 0u8..64, 0u8..64).prop_map(|(authentication, integrity, confidentiality)| Algorithms {
        authentication,
        integrity,
        confidentiality,
    })
}

prop_compose! {
    fn message()(
        to: u8, net_fn in 0u8..64, to_lun in 0u8..4, from: u8, sequence in 0u8..64, from_lun in 0u8..4, command: u8,
        data in prop::collection::vec(any::<u8>(), 0..200),
    ) -> LanMessage {
        LanMessage { to, net_fn, to_lun, from, sequence, from_lun, command, data }
    }
}

prop_compose! {
    fn handshake()(
        suite in suite(), console_session in 1u32.., bmc_session in 1u32.., console_random: [u8; 16],
        bmc_random: [u8; 16], bmc_guid: [u8; 16], role in 0u8..32, user in user(),
    ) -> Handshake {
        Handshake { suite, console_session, bmc_session, console_random, bmc_random, bmc_guid, role, user }
    }
}

fn keys() -> impl Strategy<Value = SessionKeys> {
    (handshake(), prop::collection::vec(any::<u8>(), 0..=SECRET_MAX))
        .prop_map(|(handshake, password)| handshake.session_keys(&Key::from_secret(&password).unwrap(), None))
}

fn protected(datagram: &[u8]) -> Result<Protected<'_>, Malformed> {
    match decode(datagram)? {
        Datagram::Protected(packet) => Ok(packet),
        other => panic!("not a protected packet: {other:?}"),
    }
}

proptest! {
    #[test]
    fn setup_messages_are_read_back(
        tag: u8, session: u32, privilege in 0u8..16, role in 0u8..32, random: [u8; 16], guid: [u8; 16],
        algorithms in algorithms(), user in user(), code in code(), status in status(),
    ) {
        let open = OpenRequest { tag, privilege, console_session: session, algorithms };
        prop_assert_eq!(OpenRequest::decode(&open.encode()), Ok(open));
        let first = Rakp1 { tag, bmc_session: session, console_random: random, role, user };
        prop_assert_eq!(Rakp1::decode(&first.encode()), Ok(first));
        for result in [Ok(Opened { privilege, bmc_session: session ^ 1, algorithms }), Err(status)] {
            let opened = OpenResponse { tag, console_session: session, result };
            prop_assert_eq!(OpenResponse::decode(&opened.encode()), Ok(opened));
        }
        for result in [Ok(BmcPart { random, guid, code }), Err(status)] {
            let second = Rakp2 { tag, console_session: session, result };
            prop_assert_eq!(Rakp2::decode(&second.encode()), Ok(second));
        }
        for result in [Ok(code), Err(status)] {
            let third = Rakp3 { tag, bmc_session: session, result };
            prop_assert_eq!(Rakp3::decode(&third.encode()), Ok(third));
            let fourth = Rakp4 { tag, console_session: session, result };
            prop_assert_eq!(Rakp4::decode(&fourth.encode()), Ok(fourth));
        }
    }

    #[test]
    fn datagrams_outside_a_session_are_read_back(tag: u8, message in message(), which in 0usize..7) {
        let (question, answer, old) = (ping(tag), pong(tag), v15(&message).unwrap());
        prop_assert_eq!(decode(&question), Ok(Datagram::Ping { tag }));
        prop_assert_eq!(decode(&answer), Ok(Datagram::Pong { tag, ipmi: true }));
        let body = message.encode();
        prop_assert_eq!(LanMessage::decode(&body), Ok(message.clone()));
        prop_assert_eq!(decode(&old), Ok(Datagram::V15 { message: &body }));
        let payload = [
            Payload::Ipmi, Payload::OpenRequest, Payload::OpenResponse, Payload::Rakp1, Payload::Rakp2,
            Payload::Rakp3, Payload::Rakp4,
        ][which];
        let outside = setup(payload, &body);
        prop_assert_eq!(decode(&outside), Ok(Datagram::Setup { payload, bytes: &body }));
    }

    #[test]
    fn a_protected_packet_is_read_back_with_its_keys_only(
        keys in keys(), others in keys(), session in 1u32.., sequence in 1u32.., iv: [u8; 16], message in message(),
    ) {
        let datagram = seal(&keys, session, sequence, iv, &message);
        prop_assert!(datagram.len() <= DATAGRAM_MAX);
        let packet = protected(&datagram).unwrap();
        prop_assert_eq!((packet.session, packet.sequence), (session, sequence));
        prop_assert_eq!(LanMessage::decode(&packet.open(&keys).unwrap()), Ok(message));
        prop_assert!(packet.open(&others).is_err());
    }

    #[test]
    fn one_wrong_bit_in_a_protected_packet_is_found(
        keys in keys(), session in 1u32.., sequence in 1u32.., iv: [u8; 16], message in message(),
    ) {
        let datagram = seal(&keys, session, sequence, iv, &message);
        for bit in 0..datagram.len() * 8 {
            let mut damaged = datagram.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let read = decode(&damaged).and_then(|read| match read {
                Datagram::Protected(packet) => packet.open(&keys),
                // The packet turned into another kind: whoever waits for a session's answer does not take it.
                Datagram::Ping { .. } | Datagram::Pong { .. } | Datagram::V15 { .. } | Datagram::Setup { .. } => {
                    Err(Malformed::Code)
                }
            });
            prop_assert!(read.is_err(), "bit {} was not noticed", bit);
        }
        for len in 0..datagram.len() {
            let cut = decode(&datagram[..len]);
            prop_assert!(matches!(cut, Ok(Datagram::Protected(packet)) if packet.open(&keys).is_err()) || cut.is_err());
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), keys in keys(), kind: u8) {
        let mut header = vec![6, 0, 0xff, 7, 6, kind];
        header.extend_from_slice(&bytes);
        for datagram in [&bytes, &header] {
            if let Ok(Datagram::Protected(packet)) = decode(datagram) {
                prop_assert!(packet.open(&keys).is_err());
            }
        }
        let refused = [
            LanMessage::decode(&bytes).err(),
            OpenRequest::decode(&bytes).err(),
            OpenResponse::decode(&bytes).err(),
            Rakp1::decode(&bytes).err(),
            Rakp2::decode(&bytes).err(),
            Rakp3::decode(&bytes).err(),
            Rakp4::decode(&bytes).err(),
        ];
        prop_assert!(bytes.len() >= 2 || refused.iter().all(Option::is_some));
    }

    #[test]
    fn both_ends_derive_the_same_and_other_secrets_differ(
        handshake in handshake(), password in prop::collection::vec(1u8.., 1..=SECRET_MAX), k_g in prop::collection::vec(1u8.., 1..=SECRET_MAX),
    ) {
        let right = Key::from_secret(&password).unwrap();
        let mut other = password.clone();
        other[0] ^= 0x80;
        let wrong = Key::from_secret(&other).unwrap();
        prop_assert_eq!(handshake.rakp2_code(&right).as_bytes().len(), handshake.suite.code_len());
        prop_assert!(handshake.rakp2_code(&right) != handshake.rakp2_code(&wrong));
        prop_assert!(handshake.rakp3_code(&right) != handshake.rakp3_code(&wrong));
        prop_assert!(handshake.rakp2_code(&right) != handshake.rakp3_code(&right));
        let check = handshake.session_keys(&right, None).rakp4_check(&handshake);
        prop_assert_eq!(check.as_bytes().len(), handshake.suite.check_len());
        prop_assert!(check == handshake.session_keys(&right, None).rakp4_check(&handshake));
        prop_assert!(check != handshake.session_keys(&wrong, None).rakp4_check(&handshake));
        let with_k_g = handshake.session_keys(&right, Key::from_secret(&k_g).as_ref());
        prop_assert_eq!(check == with_k_g.rakp4_check(&handshake), password == k_g);
    }
}

/// Codes and one packet (Chassis Control, off) as Python's `hmac` and `cryptography` compute them from §13.31.
struct Recording {
    suite: Suite,
    rakp2: &'static str,
    rakp3: &'static str,
    rakp4: &'static str,
    packet: &'static str,
}

fn recordings() -> [Recording; 2] {
    [
        Recording {
            suite: Suite::Three,
            rakp2: "cf389b8fa14490b909387b9308613796efa397a8",
            rakp3: "7c3db40f5648080e2a08ee1ccedbd11eae873240",
            rakp4: "be9487a24b247553ff1ddc11",
            packet: "0600ff0706c0d0c0b0a0070000002000303132333435363738393a3b3c3d3e3f09156859779f597e5a24e301\
                21750d10ffff0207271c7205405514f7262110e9",
        },
        Recording {
            suite: Suite::Seventeen,
            rakp2: "6d507f583846e20f7a8bd01e7067dac9211d4636341b682c2c9011f7ba56113a",
            rakp3: "9355d6d96ead15788a0104254e5d1b5298dd1f672d6fd7e20648c9464e7ba6cb",
            rakp4: "6ca99dfc41bb722362b76c4429b8ce03",
            packet: "0600ff0706c0d0c0b0a0070000002000303132333435363738393a3b3c3d3e3f40282299ccc9f9f0a2cdd0a0\
                3c108124ffff0207f889e324a299dfed2fe41203aa74289f",
        },
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn counting(from: u8) -> [u8; 16] {
    std::array::from_fn(|i| from + u8::try_from(i).unwrap())
}

#[test]
fn codes_and_packets_equal_an_independent_recording() {
    for recording in recordings() {
        let handshake = Handshake {
            suite: recording.suite,
            console_session: 0x0102_0304,
            bmc_session: 0xa0b0_c0d0,
            console_random: counting(0),
            bmc_random: counting(16),
            bmc_guid: counting(32),
            role: 0x14,
            user: UserName::new(b"admin").unwrap(),
        };
        let password = Key::from_secret(b"secret").unwrap();
        let keys = handshake.session_keys(&password, Key::from_secret(b"bmc key").as_ref());
        assert_eq!(hex(handshake.rakp2_code(&password).as_bytes()), recording.rakp2);
        assert_eq!(hex(handshake.rakp3_code(&password).as_bytes()), recording.rakp3);
        assert_eq!(hex(keys.rakp4_check(&handshake).as_bytes()), recording.rakp4);
        let off = LanMessage::request(0x00, 0x02, 5, vec![0]);
        assert_eq!(hex(&seal(&keys, handshake.bmc_session, 7, counting(48), &off)), recording.packet);
    }
}

/// `ipmi_sim` ends a response that carries an error after the status.
#[test]
fn a_short_error_is_read() {
    let short = OpenResponse { tag: 7, console_session: 0, result: Err(Status(0x04)) };
    assert_eq!(OpenResponse::decode(&[7, 4]), Ok(short));
    assert_eq!(OpenResponse::decode(&[7, 0]), Err(Malformed::Short { what: "Open Session response" }));
}

#[test]
fn no_secret_is_shown() {
    let password = Key::from_secret(b"secret").unwrap();
    assert_eq!(format!("{password:?}"), "<key>");
    assert!(
        Key::from_secret(&[b'x'; SECRET_MAX + 1]).is_none() && UserName::new(&[b'x'; USER_MAX + 1]).is_none()
    );
}

#[test]
fn only_suites_3_and_17_exist() {
    let known: Vec<u8> = (0..=255).filter(|number| Suite::from_number(*number).is_some()).collect();
    assert_eq!(known, [3, 17]);
}
