//! Targets `rmcp` and `ipmi_answer`: a datagram without a session, and the data of an answer.

use fencing::Console;
use fencing::ipmi::codec::{self, DATAGRAM_MAX, Datagram, LanMessage, Payload};
use fencing::ipmi::commands::*;
use fencing::ipmi::crypto::{Code, Handshake, Key, SessionKeys, Suite, UserName};
use fencing::ipmi::diagnosis;
use fencing::ipmi::rakp::*;
use fencing::ipmi::sensors;
use fencing::ipmi::sol::{ActivateSol, Received, SolPacket, Typed};
use ipmi_rs_core::app::GetDeviceId;
use ipmi_rs_core::connection::IpmiCommand;
use ipmi_rs_core::storage::sel::GetSelInfo;
use std::fmt::Debug;
use tokio::time::Instant;

/// The keys of a session whose console drew this number; the same at every call. (They do not depend on the ids.)
pub(super) fn keys(suite: Suite, drawn: u8) -> SessionKeys {
    let handshake = Handshake {
        suite,
        console_session: 7,
        bmc_session: 9,
        console_random: [drawn; 16],
        bmc_random: [2; 16],
        bmc_guid: [3; 16],
        role: 0x13,
        user: UserName::new(b"admin").expect("a short name"),
    };
    handshake.session_keys(&Key::from_secret(b"secret").expect("a short secret"), None)
}

/// A datagram of a stranger: what is taken is the same when it is written and read again.
pub(super) fn rmcp(data: &[u8]) -> bool {
    let Ok(datagram) = codec::decode(data) else { return false };
    assert!(data.len() <= DATAGRAM_MAX, "a datagram of {} bytes was looked at", data.len());
    match datagram {
        Datagram::Ping { tag } => same(&codec::ping(tag), datagram),
        Datagram::Pong { tag, ipmi: true } => same(&codec::pong(tag), datagram),
        Datagram::Pong { ipmi: false, .. } => {}
        Datagram::V15 { message } => lan_message(message),
        Datagram::Setup { payload, bytes } => {
            same(&codec::setup(payload, bytes), datagram);
            set_up(payload, bytes);
        }
        Datagram::Protected(packet) => {
            // The sender does not have these keys.
            for suite in [Suite::Three, Suite::Seventeen] {
                assert!(packet.open(&keys(suite, 1)).is_err(), "a packet of another session opened");
            }
        }
    }
    true
}

fn same(again: &[u8], datagram: Datagram<'_>) {
    assert_eq!(codec::decode(again), Ok(datagram), "written again it says something else");
}

fn lan_message(bytes: &[u8]) {
    let Ok(message) = LanMessage::decode(bytes) else { return };
    assert!(message.data.len() < bytes.len(), "more data than bytes");
    assert_eq!(message.encode(), bytes, "a LAN message has one form");
}

fn set_up(payload: Payload, bytes: &[u8]) {
    match payload {
        Payload::Ipmi => lan_message(bytes),
        Payload::OpenRequest => stable(bytes, OpenRequest::decode, OpenRequest::encode),
        Payload::OpenResponse => stable(bytes, OpenResponse::decode, OpenResponse::encode),
        Payload::Rakp1 => stable(bytes, Rakp1::decode, Rakp1::encode),
        Payload::Rakp2 => stable(bytes, Rakp2::decode, Rakp2::encode),
        Payload::Rakp3 => stable(bytes, Rakp3::decode, Rakp3::encode),
        Payload::Rakp4 => stable(bytes, Rakp4::decode, Rakp4::encode),
    }
}

/// What was read, written again and read again is the same.
fn stable<T: PartialEq + Debug, E>(bytes: &[u8], read: fn(&[u8]) -> Result<T, E>, write: fn(&T) -> Vec<u8>) {
    let Ok(message) = read(bytes) else { return };
    let again = read(&write(&message)).ok();
    assert_eq!(again.as_ref(), Some(&message), "written again it says something else");
}

pub(super) fn rmcp_seeds() -> Vec<Vec<u8>> {
    let status = LanMessage::request(0x06, 0x38, 1, vec![0x8e, 4]);
    let algorithms = Suite::Seventeen.algorithms();
    let open = OpenRequest { tag: 1, privilege: 4, console_session: 5, algorithms };
    let opened = Ok(Opened { privilege: 4, bmc_session: 6, algorithms });
    let opened = OpenResponse { tag: 1, console_session: 5, result: opened };
    let user = UserName::new(b"admin").expect("a short name");
    let rakp1 = Rakp1 { tag: 2, bmc_session: 6, console_random: [1; 16], role: 0x14, user };
    let part = BmcPart { random: [2; 16], guid: [3; 16], code: Code::new(&[4; 32]) };
    let rakp2 = Rakp2 { tag: 2, console_session: 5, result: Ok(part) };
    let refused = Rakp2 { tag: 2, console_session: 5, result: Err(Status::UNAUTHORIZED_NAME) };
    let rakp3 = Rakp3 { tag: 3, bmc_session: 6, result: Ok(Code::new(&[5; 32])) };
    let rakp4 = Rakp4 { tag: 3, console_session: 5, result: Ok(Code::new(&[6; 16])) };
    let sealed = codec::seal(&keys(Suite::Seventeen, 2), 5, 1, [9; 16], &status.response(0, &[1, 2]));
    let mut seeds = vec![codec::ping(3), codec::pong(4), sealed];
    seeds.extend(codec::v15(&status));
    let setups = [
        (Payload::Ipmi, status.encode()),
        (Payload::OpenRequest, open.encode()),
        (Payload::OpenResponse, opened.encode()),
        (Payload::Rakp1, rakp1.encode()),
        (Payload::Rakp2, rakp2.encode()),
        (Payload::Rakp2, refused.encode()),
        (Payload::Rakp3, rakp3.encode()),
        (Payload::Rakp4, rakp4.encode()),
    ];
    seeds.extend(setups.map(|(payload, bytes)| codec::setup(payload, &bytes)));
    seeds
}

/// A line of a diagnosis.
fn short(line: &str) {
    assert!(line.len() <= diagnosis::LINE_BYTES_MAX, "a line of {} bytes", line.len());
    assert!(!line.contains(char::is_control), "{line:?} is not one line");
}

/// The data of an answer, read as that of every command: what needs more bytes than there are is refused.
pub(super) fn answer(data: &[u8]) -> bool {
    let read = [
        (3, GetChassisStatus::parse_success_response(data).is_ok()),
        (4, GetBootDevice::parse_success_response(data).is_ok()),
        (8, GetWatchdog::parse_success_response(data).is_ok()),
        (16, GetSystemGuid::parse_success_response(data).is_ok()),
        (16, GetDeviceGuid::parse_success_response(data).is_ok()),
        (18, GetSelRecord::parse_success_response(data).is_ok()),
        (2, ReadSensor::parse_success_response(data).is_ok()),
        (2, ReserveSdr::parse_success_response(data).is_ok()),
        (2, GetSdr::parse_success_response(data).is_ok()),
        (11, GetDeviceId::parse_success_response(data).is_ok()),
        (14, GetSelInfo::parse_success_response(data).is_ok()),
        (12, ActivateSol::parse_success_response(data).is_ok()),
        (4, SolPacket::decode(data).is_ok()),
    ];
    for (at, (least, taken)) in read.into_iter().enumerate() {
        assert!(!taken || data.len() >= least, "answer {at} was read from {} bytes", data.len());
    }
    if let Ok(record) = GetSelRecord::parse_success_response(data) {
        assert_eq!(record.raw, data[2..18], "another record than the BMC sent");
        short(&diagnosis::event(&record));
    }
    if let Ok(piece) = GetSdr::parse_success_response(data) {
        let known = sensors::described(&piece.data);
        assert!(known.len() <= 15, "{} sensors in one record", known.len());
        let reading = ReadSensor::parse_success_response(data).expect("two bytes are a reading");
        let readings: Vec<_> = sensors::choose(known).into_iter().map(|sensor| (sensor, reading)).collect();
        assert!(sensors::lines(&readings, readings.len()).len() <= 11, "too many lines");
    }
    if let Ok(packet) = SolPacket::decode(data) {
        let console = Console::default();
        console.add(&Received::default().take(&packet).data);
        let lines = console.last_lines(3);
        assert!(lines.len() <= 3, "{} lines", lines.len());
        assert!(lines.iter().all(|line| !line.contains('\u{1b}')), "{lines:?} moves a cursor");
        let mut typed = Typed::default();
        typed.take(packet.data.clone());
        let sent = typed.due(Instant::now());
        typed.acknowledged_by(&packet, Instant::now());
        assert!(sent.is_none() || typed.due(Instant::now()) != sent, "it is sent twice at once");
    }
    if let Ok(status) = GetChassisStatus::parse_success_response(data) {
        short(&diagnosis::chassis_now(&status));
        short(&diagnosis::chassis_before(&status));
    }
    read.into_iter().any(|(_, taken)| taken)
}

pub(super) fn answer_seeds() -> Vec<Vec<u8>> {
    let system = [&[0xff, 0xff, 1, 0, 2, 9, 8, 7, 6, 0x20, 0, 4, 0x6f, 0x01, 0x6f, 2, 3, 4][..]];
    let oem = [&[2, 0, 1, 0, 0xc1, 9, 8, 7, 6, 1, 2, 3, 4, 5, 6, 7, 8, 9][..]];
    let info = [&[0x51, 3, 0, 0, 4, 9, 8, 7, 6, 9, 8, 7, 6, 2][..]];
    let device = [&[0x20, 0x81, 2, 0, 2, 0x87, 0, 0, 0, 0, 0][..], &[0x61, 0x10, 0x40], &[0x55, 0xc0, 0x7f]];
    let boot = [&[1, 5, 0xc0, 0x18, 0, 0, 0][..], &[0x44, 2, 0, 0, 0x58, 2, 0x57, 2]];
    [&system[..], &oem, &info, &device, &boot].concat().into_iter().map(<[u8]>::to_vec).collect()
}
