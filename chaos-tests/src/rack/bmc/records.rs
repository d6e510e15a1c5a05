//! The records that a BMC keeps: its event log and the descriptions of its sensors.
//!
//! Why it exists: a supervisor reads power events as evidence, and tools show sensors.
//! What it never does: it measures nothing; sensors always read the same.

use crate::rack::machine::Life;
use policies::Power;
use std::collections::VecDeque;

/// Version of SDR and SEL records: IPMI 1.5 and later (IPMI 2.0 §31.2, §33.9).
pub(super) const SDR_VERSION: u8 = 0x51;
/// Events kept; the oldest gives way. Small BMCs keep about as many.
const EVENTS_MAX: usize = 512;
/// Length of an event record, in bytes (IPMI 2.0 §32.1).
const EVENT_LEN: u8 = 16;
/// Event type "sensor-specific" (IPMI 2.0 table 42-1).
const SPECIFIC: u8 = 0x6f;

/// Sensor types and their offsets (IPMI 2.0 table 42-3).
const POWER_UNIT: u8 = 0x09;
const POWER_OFF: u8 = 0x00;
const SUPPLY_LOST: u8 = 0x04;
const OS_STOP: u8 = 0x20;
const RUN_TIME_STOP: u8 = 0x01;
const SHUT_DOWN: u8 = 0x03;
const WATCHDOG: u8 = 0x23;
/// Sensor numbers of events.
const POWER_UNIT_NUMBER: u8 = 0x01;
const OS_NUMBER: u8 = 0x02;
const WATCHDOG_NUMBER: u8 = 0x03;

/// The system event log.
#[derive(Debug, Default)]
pub(super) struct EventLog {
    entries: VecDeque<(u16, [u8; 16])>,
    newest: u16,
    added: u32,
    erased: u32,
    overflowed: bool,
    power: Option<Power>,
}

impl EventLog {
    /// Notes a change of power, an operating system that ended in order, and a kernel that stopped.
    pub(super) fn saw(&mut self, life: Life, seconds: u32) {
        let power = life.power();
        if self.power.replace(power) != Some(power) {
            // "Power off" is asserted when it goes off and deasserted (bit 7) when it comes on.
            let direction = if power == Power::Off { SPECIFIC } else { SPECIFIC | 0x80 };
            self.add(seconds, POWER_UNIT, POWER_UNIT_NUMBER, direction, POWER_OFF);
        }
        match life {
            Life::Panicked => self.add(seconds, OS_STOP, OS_NUMBER, SPECIFIC, RUN_TIME_STOP),
            Life::Stopping => self.add(seconds, OS_STOP, OS_NUMBER, SPECIFIC, SHUT_DOWN),
            Life::Off | Life::Booting | Life::Running | Life::Gray | Life::Hung | Life::Frozen => {}
        }
    }

    /// Notes that the supply was lost, and the power with it.
    pub(super) fn lost_supply(&mut self, seconds: u32) {
        self.power = Some(Power::Off);
        self.add(seconds, POWER_UNIT, POWER_UNIT_NUMBER, SPECIFIC, SUPPLY_LOST);
    }

    /// Notes that the watchdog ran out. Offsets equal the actions: none, reset, power down, power cycle.
    pub(super) fn watchdog(&mut self, action: u8, seconds: u32) {
        self.add(seconds, WATCHDOG, WATCHDOG_NUMBER, SPECIFIC, action);
    }

    fn add(&mut self, seconds: u32, kind: u8, number: u8, direction: u8, offset: u8) {
        if self.entries.len() == EVENTS_MAX {
            self.entries.pop_front();
            self.overflowed = true;
        }
        // Ids 0 and 0xffff mean "first" and "last".
        self.newest = if self.newest >= 0xfffe { 1 } else { self.newest + 1 };
        let [id_low, id_high] = self.newest.to_le_bytes();
        let [a, b, c, d] = seconds.to_le_bytes();
        let entry =
            [id_low, id_high, 0x02, a, b, c, d, 0x20, 0, 0x04, kind, number, direction, offset, 0xff, 0xff];
        self.entries.push_back((self.newest, entry));
        self.added = seconds;
    }

    pub(super) fn clear(&mut self, seconds: u32) {
        self.entries.clear();
        self.overflowed = false;
        self.erased = seconds;
    }

    /// The answer of Get SEL Info (IPMI 2.0 §31.2).
    pub(super) fn describe(&self) -> Vec<u8> {
        let count = u16::try_from(self.entries.len()).unwrap_or(u16::MAX);
        let free = EVENTS_MAX.saturating_sub(self.entries.len()) * usize::from(EVENT_LEN);
        let mut reply = vec![SDR_VERSION];
        reply.extend(count.to_le_bytes());
        reply.extend(u16::try_from(free).unwrap_or(u16::MAX).to_le_bytes());
        reply.extend(self.added.to_le_bytes());
        reply.extend(self.erased.to_le_bytes());
        reply.push(if self.overflowed { 0x82 } else { 0x02 });
        reply
    }

    /// The answer of Get SEL Entry (IPMI 2.0 §31.5): the next id and part of the record.
    pub(super) fn read(&self, id: u16, offset: u8, count: u8) -> Option<Vec<u8>> {
        let index = match id {
            0 => 0,
            0xffff => self.entries.len().checked_sub(1)?,
            _ => self.entries.iter().position(|(known, _)| *known == id)?,
        };
        let (_, entry) = self.entries.get(index)?;
        let next = self.entries.get(index + 1).map_or(0xffff, |(next, _)| *next);
        let mut reply = next.to_le_bytes().to_vec();
        reply.extend(entry.iter().skip(usize::from(offset)).take(usize::from(count)));
        Some(reply)
    }
}

/// How a sensor is described.
#[derive(Debug)]
pub(super) enum Kind {
    /// Degrees Celsius.
    Temperature,
    /// Present or not.
    PowerSupply,
}

/// A sensor.
#[derive(Debug)]
pub(super) struct Sensor {
    pub(super) number: u8,
    name: &'static str,
    kind: Kind,
    /// The answer of Get Sensor Reading (IPMI 2.0 §35.14).
    pub(super) reading: [u8; 4],
}

/// All sensors.
pub(super) const SENSORS: [Sensor; 3] = [
    // 45 degrees; events and scanning enabled; no threshold passed.
    Sensor { number: 0x10, name: "Cpu Temp", kind: Kind::Temperature, reading: [45, 0xc0, 0xc0, 0] },
    // State 0: presence detected.
    Sensor { number: 0x20, name: "Psu 1", kind: Kind::PowerSupply, reading: [0, 0xc0, 0x01, 0x80] },
    Sensor { number: 0x21, name: "Psu 2", kind: Kind::PowerSupply, reading: [0, 0xc0, 0x01, 0x80] },
];

/// The record that describes a sensor: full (IPMI 2.0 table 43-1) or compact (table 43-2).
pub(super) fn sensor_record(id: u16, sensor: &Sensor) -> Vec<u8> {
    let mut body = vec![0x20, 0, sensor.number];
    let record_type = match sensor.kind {
        Kind::Temperature => {
            // Processor 1; re-arms itself, no thresholds; temperature; threshold-based.
            body.extend([0x03, 1, 0x7f, 0x40, 0x01, 0x01]);
            // No events, no readable thresholds; unsigned degrees Celsius.
            body.extend([0, 0, 0, 0, 0, 0, 0x00, 1, 0]);
            // Linear: value = 1 * reading + 0.
            body.extend([0, 1, 0, 0, 0, 0, 0]);
            // No nominal values; full range; no thresholds; no hysteresis; reserved; OEM.
            body.extend([0, 0, 0, 0, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            0x01
        }
        Kind::PowerSupply => {
            // Power supply, numbered as its sensor; power supply; sensor-specific.
            body.extend([0x0a, (sensor.number & 0x0f) + 1, 0x67, 0x40, 0x08, SPECIFIC]);
            // "Presence" can be read; no unit.
            body.extend([0, 0, 0, 0, 0x01, 0, 0xc0, 0, 0]);
            // Not shared; no hysteresis; reserved; OEM.
            body.extend([1, 0, 0, 0, 0, 0, 0, 0]);
            0x02
        }
    };
    let name = sensor.name.as_bytes();
    // 8-bit ASCII and the length (IPMI 2.0 §43.15).
    body.push(0xc0 | u8::try_from(name.len()).unwrap_or(0x1f) & 0x1f);
    body.extend(name);
    let [low, high] = id.to_le_bytes();
    let mut record = vec![low, high, SDR_VERSION, record_type, u8::try_from(body.len()).unwrap_or(u8::MAX)];
    record.append(&mut body);
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn power_events_are_logged_once_and_read_in_order() {
        let mut log = EventLog::default();
        for life in [Life::Booting, Life::Running, Life::Panicked, Life::Off] {
            log.saw(life, 7);
        }
        assert_eq!(kinds(&log), [(POWER_UNIT, POWER_OFF), (OS_STOP, RUN_TIME_STOP), (POWER_UNIT, POWER_OFF)]);
        assert_eq!(&log.describe()[1..3], [3, 0]);
        let first = log.read(0, 0, 0xff).unwrap();
        assert_eq!((first[0], first[2], first[12], first[14]), (2, 1, POWER_UNIT, SPECIFIC | 0x80));
        let second = log.read(2, 0, 0xff).unwrap();
        assert_eq!((second[0], second[12]), (3, OS_STOP));
        let last = log.read(0xffff, 0, 0xff).unwrap();
        assert_eq!((&last[..2], last[12], last[14]), (&[0xff, 0xff][..], POWER_UNIT, SPECIFIC));
        log.clear(9);
        assert_eq!(log.read(0, 0, 0xff), None);
    }

    /// Sensor type and offset of each entry.
    fn kinds(log: &EventLog) -> Vec<(u8, u8)> {
        log.entries.iter().map(|(_, entry)| (entry[10], entry[13])).collect()
    }

    #[test]
    fn a_shutdown_in_order_and_a_lost_supply_are_told_apart() {
        let mut log = EventLog::default();
        for life in [Life::Running, Life::Stopping, Life::Off, Life::Booting] {
            log.saw(life, 7);
        }
        log.lost_supply(8);
        log.saw(Life::Booting, 9);
        let off_and_on = (POWER_UNIT, POWER_OFF);
        let lost = (POWER_UNIT, SUPPLY_LOST);
        assert_eq!(kinds(&log), [off_and_on, (OS_STOP, SHUT_DOWN), off_and_on, off_and_on, lost, off_and_on]);
    }

    #[test]
    fn a_full_log_forgets_the_oldest_and_says_so() {
        let mut log = EventLog::default();
        for _ in 0..=EVENTS_MAX {
            log.watchdog(1, 1);
        }
        assert_eq!(log.describe().last(), Some(&0x82));
        assert_eq!(log.read(1, 0, 0xff), None);
        assert!(log.read(2, 0, 0xff).is_some());
    }

    #[test]
    fn records_have_the_lengths_that_the_tables_give() {
        assert_eq!(sensor_record(0, &SENSORS[0]).len(), 48 + SENSORS[0].name.len());
        assert_eq!(sensor_record(1, &SENSORS[1]).len(), 32 + SENSORS[1].name.len());
    }
}
