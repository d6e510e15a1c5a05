//! What a BMC tells about the past, in lines for people: as the specification's tables give it, from logs with gaps, and
//! from BMCs that answer nonsense or nothing.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod support;

use fencing::contract::Mood;
use fencing::ipmi::commands::{GetChassisStatus, GetSelRecord};
use fencing::ipmi::diagnosis::{LINE_BYTES_MAX, LINES_MAX, RECORDS_MAX, chassis_before, chassis_now, event};
use fencing::ipmi::{Bmc, Port, Settings};
use fencing::{DriverError, PowerDriver};
use ipmi_rs_core::connection::IpmiCommand;
use proptest::prelude::*;
use std::time::Duration;
use support::{FakeBmc, PASSWORD, USER};
use tokio::time::Instant;

/// The last line where it is not known which sensors there are.
const NO_SENSORS: &str = "sensors: not read, for which there are was not read yet";

/// 2026-11-28 11:07:15 UTC.
const TIME: [u8; 4] = 1_795_864_035u32.to_le_bytes();

fn within(milliseconds: u64) -> Instant {
    Instant::now() + Duration::from_millis(milliseconds)
}

fn driver(bmc: &FakeBmc) -> Bmc {
    let settings = Settings::new(&bmc.address.to_string(), USER, PASSWORD, bmc.state().suite.number());
    Bmc::new(settings.unwrap(), &Port::new())
}

/// A system event record (IPMI 2.0 table 32-1) after its id.
fn record(id: u16, time: [u8; 4], kind: u8, number: u8, event: [u8; 4]) -> [u8; 16] {
    let ([low, high], [t0, t1, t2, t3], [e0, e1, e2, e3]) = (id.to_le_bytes(), time, event);
    [low, high, 0x02, t0, t1, t2, t3, 0x20, 0, 0x04, kind, number, e0, e1, e2, e3]
}

/// A power unit that went off.
fn power_off(id: u16) -> [u8; 16] {
    record(id, TIME, 0x09, id.to_le_bytes()[0], [0x6f, 0x00, 0xff, 0xff])
}

fn told(raw: [u8; 16]) -> String {
    event(&GetSelRecord::parse_success_response(&[&[0xff, 0xff][..], &raw].concat()).unwrap())
}

#[test]
fn events_are_told_in_words_and_what_has_none_in_digits() {
    let cases = [
        (power_off(1), "2026-11-28T11:07:15Z: Power Unit sensor 0x01: Power Off / Power Down"),
        (
            record(2, TIME, 0x09, 1, [0xef, 0x00, 0xff, 0xff]),
            "2026-11-28T11:07:15Z: Power Unit sensor 0x01: Power Off / Power Down, no longer",
        ),
        (
            record(3, TIME, 0x20, 2, [0x6f, 0x01, 0xff, 0xff]),
            "2026-11-28T11:07:15Z: OS Stop/Shutdown sensor 0x02: Run-time Critical Stop",
        ),
        (
            // An upper critical threshold at 0x64, passed with 0x66.
            record(4, TIME, 0x01, 0x10, [0x01, 0x59, 0x66, 0x64]),
            "2026-11-28T11:07:15Z: Temperature sensor 0x10: Upper Critical - going high [data 59 66 64]",
        ),
        (
            record(5, [7, 0, 0, 0], 0x23, 3, [0x6f, 0x02, 0xff, 0xff]),
            "7 s after the log's start, clock not set: Watchdog 2 sensor 0x03: Power Down",
        ),
        (
            record(6, [0xff; 4], 0xc7, 9, [0x70, 0xa3, 1, 2]),
            "no time: OEM (0xC7) sensor 0x09: event 0x70/0x03 [data a3 01 02]",
        ),
        (
            [7, 0, 0xc1, TIME[0], TIME[1], TIME[2], TIME[3], 0x57, 1, 0, 1, 2, 3, 4, 5, 6],
            "2026-11-28T11:07:15Z: OEM event 0xc1 of manufacturer 343 [010203040506]",
        ),
        (
            [8, 0, 0xe0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13],
            "no time: OEM event 0xe0 [0102030405060708090a0b0c0d]",
        ),
        (
            [9, 0, 0x10, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13],
            "record that is not understood [0900100102030405060708090a0b0c0d]",
        ),
    ];
    for (raw, line) in cases {
        assert_eq!(told(raw), line);
    }
}

#[test]
fn the_chassis_tells_its_faults_and_the_last_power_event() {
    let lines = |data| {
        let status = GetChassisStatus::parse_success_response(data).unwrap();
        (chassis_now(&status), chassis_before(&status))
    };
    let (now, before) = lines(&[0x61, 0x10, 0x40]);
    assert_eq!(now, "chassis: power on; no fault reported");
    assert_eq!(before, "chassis: last power event: on by an IPMI command");
    let (now, before) = lines(&[0x1e, 0x0f, 0x0d]);
    assert_eq!(
        now,
        "chassis: power off; power overload, interlock active, fault in the main power, the last switching attempt \
         failed, drive fault, cooling or fan fault, chassis open"
    );
    assert_eq!(
        before,
        "chassis: last power event: the supply failed, off by a power overload, off by the interlock, off by a power \
         fault"
    );
    assert_eq!(lines(&[0x00, 0x00, 0x00]).1, "chassis: last power event: none reported");
}

/// The sensor numbers, which are the low bytes of the record ids, in the order in which they are told.
fn told_ids(lines: &[String]) -> Vec<u8> {
    let number = |line: &String| {
        let (_, rest) = line.split_once("sensor 0x")?;
        u8::from_str_radix(rest.get(..2)?, 16).ok()
    };
    lines.iter().filter_map(number).collect()
}

#[tokio::test]
async fn the_newest_records_are_told_first_over_gaps_and_steps() {
    let bmc = FakeBmc::start(Mood::Obeys).await;
    bmc.state().chassis = [0x08, 0x08];
    let driver = driver(&bmc);
    let lines = driver.diagnose(within(5000)).await.unwrap();
    assert_eq!(
        lines,
        [
            "chassis: power on; cooling or fan fault",
            "chassis: last power event: off by a power fault",
            "event log: empty",
            NO_SENSORS
        ]
    );
    for (log, told) in [
        (vec![1, 2, 3], vec![3, 2, 1]),
        (vec![1, 2, 9, 30], vec![30, 9, 2, 1]),
        // From 30 to 21 it is as far as from 21 to 12, but there is 15.
        (vec![1, 12, 15, 21, 30], vec![30, 21, 15, 12, 1]),
        ((1..=40).collect(), (25..=40).rev().collect::<Vec<u8>>()),
        ((1..=12).map(|number| number * 20).collect(), (1..=12).rev().map(|number| number * 20).collect()),
    ] {
        bmc.state().log = log.iter().map(|id| power_off(*id)).collect();
        let lines = driver.diagnose(within(10_000)).await.unwrap();
        assert_eq!(lines[2], format!("event log: {} entries, the newest first", log.len()));
        assert_eq!(told_ids(&lines), told, "{lines:#?}");
        assert_eq!(lines.len(), 4 + told.len());
        assert!(told.len() <= RECORDS_MAX);
    }
}

#[tokio::test]
async fn a_log_that_cannot_be_followed_is_told_as_far_as_it_goes() {
    let bmc = FakeBmc::start(Mood::Obeys).await;
    let driver = driver(&bmc);
    bmc.state().log = vec![power_off(1), power_off(100)];
    let lines = driver.diagnose(within(10_000)).await.unwrap();
    assert_eq!(told_ids(&lines), [100]);
    assert_eq!(lines[lines.len() - 2], "event log: only 1 of its newest 2 records were found");
    bmc.state().log = (1..=5).map(power_off).collect();
    bmc.state().log_is_stuck = true;
    let lines = driver.diagnose(within(10_000)).await.unwrap();
    assert_eq!(told_ids(&lines), [5], "not the same one again and again");
    assert_eq!(lines[lines.len() - 2], "event log: only 1 of its newest 5 records were found");
}

#[tokio::test]
async fn a_diagnosis_that_is_cut_short_says_so_and_one_without_anything_is_an_error() {
    let bmc = FakeBmc::start(Mood::Obeys).await;
    let driver = driver(&bmc);
    bmc.state().log = (1..=9).map(power_off).collect();
    bmc.state().log_answers = 4;
    driver.look(within(5000)).await.unwrap();
    let (began, deadline) = (Instant::now(), within(600));
    let lines = driver.diagnose(deadline).await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(2000), "{:?}", began.elapsed());
    assert_eq!(told_ids(&lines), [9, 8, 7]);
    let last = lines.last().unwrap();
    assert!(last.starts_with("cut short: ask: no answer from the BMC at 127.0.0.1:"), "{last}");

    let deaf = FakeBmc::start(Mood::Deaf).await;
    let error = self::driver(&deaf).diagnose(within(300)).await.unwrap_err();
    assert!(matches!(error, DriverError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn a_bmc_without_an_event_log_still_tells_of_its_chassis() {
    let bmc = FakeBmc::start(Mood::Obeys).await;
    bmc.state().nonsense = Some((0xc1, vec![]));
    let lines = driver(&bmc).diagnose(within(5000)).await.unwrap();
    let (chassis, log) = (&lines[0], &lines[1]);
    assert!(chassis.starts_with("chassis: the BMC at 127.0.0.1:") && chassis.contains("0xc1"), "{chassis}");
    assert!(log.starts_with("event log: the BMC at 127.0.0.1:") && log.contains("0xc1"), "{log}");
    assert_eq!(lines[2..], [NO_SENSORS]);
}

/// A record of the BMC's own sensor: full if it has degrees, compact if it has states.
fn sensor(number: u8, kind: u8, name: &str) -> Vec<u8> {
    let full = kind == 0x01;
    let mut body = vec![0x20, 0, number, 3, 1, 0x7f, 0x40, kind, if full { 0x01 } else { 0x6f }];
    body.extend([0; 6]);
    body.extend(if full { &[0, 1, 0, 0, 1, 0, 0, 0, 0, 0][..] } else { &[0xc0, 0, 0, 1][..] });
    body.resize(if full { 42 } else { 26 }, 0);
    body.push(0xc0 | u8::try_from(name.len()).unwrap());
    body.extend(name.bytes());
    [&[0, 0, 0x51, if full { 1 } else { 2 }, u8::try_from(body.len()).unwrap()][..], &body].concat()
}

#[tokio::test]
async fn sensors_are_told_once_it_is_known_which_there_are() {
    for in_pieces in [false, true] {
        let bmc = FakeBmc::start(Mood::Obeys).await;
        let driver = driver(&bmc);
        bmc.state().sdr_in_pieces = in_pieces;
        // An oem sensor, of which nothing is told, and one that does not answer.
        bmc.state().sdr = vec![
            sensor(0x10, 0x01, "Inlet Temp"),
            sensor(0x11, 0x01, "Cpu Temp"),
            sensor(0x20, 0x08, "Psu 1"),
            sensor(0x21, 0x08, "Psu 2"),
            sensor(0x30, 0xc5, "Oem"),
        ];
        bmc.state().readings =
            vec![(0x10, [22, 0xc0, 0xc0, 0]), (0x11, [102, 0xc0, 0xd8, 0]), (0x20, [0, 0xc0, 0x01, 0x80])];
        assert_eq!(driver.diagnose(within(5000)).await.unwrap()[3..], [NO_SENSORS]);
        assert_eq!(driver.learn_sensors(within(5000)).await.unwrap(), 4);
        let lines = driver.diagnose(within(5000)).await.unwrap();
        assert_eq!(
            lines[3..],
            [
                "sensors: 3 read, 1 not; 1 tell of trouble",
                "Temperature sensor Cpu Temp 102 °C, above its upper critical limit",
                "temperatures: Inlet Temp 22 °C",
                "power supplies: Psu 1 Presence detected",
            ]
        );
    }
}

#[tokio::test]
async fn a_bmc_that_falls_silent_while_its_sensors_are_read_holds_nobody_up() {
    let bmc = FakeBmc::start(Mood::Obeys).await;
    let driver = driver(&bmc);
    bmc.state().sdr = vec![sensor(0x10, 0x01, "Inlet Temp"); 1000];
    driver.look(within(5000)).await.unwrap();
    let learner = driver.clone();
    let learning = tokio::spawn(async move { learner.learn_sensors(within(60_000)).await });
    bmc.wait_for("some records are read", |state| state.sdr_reads >= 3).await;
    // Whoever asks meanwhile has its turn.
    driver.look(within(500)).await.unwrap();
    bmc.state().mood = Mood::Deaf;
    let began = Instant::now();
    assert!(learning.await.unwrap().is_err());
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    bmc.state().mood = Mood::Obeys;
    let lines = driver.diagnose(within(10_000)).await.unwrap();
    assert!(lines[3].starts_with("sensors: 0 read, "), "{lines:#?}");
}

fn is_bounded(lines: &[String]) -> bool {
    let short = |line: &String| line.len() <= LINE_BYTES_MAX && !line.contains(char::is_control);
    lines.len() <= LINES_MAX && lines.iter().all(short)
}

proptest! {
    #[test]
    fn every_record_makes_one_short_line(data in prop::collection::vec(any::<u8>(), 0..40)) {
        if let Ok(record) = GetSelRecord::parse_success_response(&data) {
            prop_assert!(is_bounded(&[event(&record)]), "{}", event(&record));
        }
    }

    /// As above where it matters: records of known types.
    #[test]
    fn every_system_event_makes_one_short_line(mut data in any::<[u8; 18]>(), specific in any::<bool>()) {
        data[4] = 0x02;
        if specific {
            data[14] = data[14] & 0x80 | 0x6f;
        }
        let record = GetSelRecord::parse_success_response(&data).unwrap();
        prop_assert!(is_bounded(&[event(&record)]), "{}", event(&record));
    }

    #[test]
    fn every_chassis_status_makes_two_short_lines(data in any::<[u8; 3]>()) {
        let status = GetChassisStatus::parse_success_response(&data).unwrap();
        prop_assert!(is_bounded(&[chassis_now(&status), chassis_before(&status)]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_a_bmc_answers_the_lines_are_few_and_short(
        completion in prop_oneof![3 => Just(0u8), 1 => any::<u8>()],
        data in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let lines = runtime.block_on(async {
            let bmc = FakeBmc::start(Mood::Obeys).await;
            bmc.state().nonsense = Some((completion, data));
            let driver = driver(&bmc);
            drop(driver.learn_sensors(within(50)).await);
            driver.diagnose(within(1000)).await
        });
        if let Ok(lines) = lines {
            prop_assert!(is_bounded(&lines), "{lines:#?}");
        }
    }
}
