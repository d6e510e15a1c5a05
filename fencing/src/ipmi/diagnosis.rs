//! What a BMC knows about why its node is as it is, in lines for people.
//!
//! Why it exists: a power-off destroys the traces; what chassis and event log say is read before it and kept with the
//! failover.
//! What it never does: changing anything on the BMC, deciding from what it read, panicking on a record, growing beyond
//! its limits.

use super::commands::{ChassisStatus, SelRecord};
use ipmi_rs_core::storage::sdr::SensorType;
use ipmi_rs_core::storage::sel::{Entry, EventDirection, SelInfo};
use policies::Power;
use std::fmt;

/// Lines of one diagnosis. Two are for the chassis, two for the log as a whole, sixteen for its records, eleven for sensors,
/// sixteen for the console, one says that it was cut short.
pub const LINES_MAX: usize = 48;
/// Bytes of one line. The longest that is made of well-formed answers has about 130; errors may have more.
pub const LINE_BYTES_MAX: usize = 200;
/// Newest records of the event log that are read. More: a fence waits longer for its turn at the BMC. Fewer: a burst of
/// sensor events hides the first cause.
pub const RECORDS_MAX: usize = 16;
/// Record ids in a row that may be missing between two records: nothing obliges a BMC to number them without gaps. Lower:
/// a log that is counted in wider steps seems to end early. Higher: that many exchanges are wasted at the oldest record.
pub(super) const GAP_MAX: u16 = 32;

/// Times below this are seconds since the log's own start, for its clock was not set yet (IPMI 2.0 §37).
const CLOCK_SET: u32 = 0x2000_0000;
/// "No time" (IPMI 2.0 §37).
const NO_TIME: u32 = 0xffff_ffff;

/// Lines of text, bounded.
#[derive(Debug, Default)]
pub(super) struct Lines(Vec<String>);

impl Lines {
    /// Adds a line, cut to its limit; one too many is dropped.
    pub(super) fn add(&mut self, line: impl fmt::Display) {
        if self.0.len() < LINES_MAX {
            let mut line = line.to_string().replace(char::is_control, " ");
            line.truncate(line.floor_char_boundary(LINE_BYTES_MAX));
            self.0.push(line);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn into_inner(self) -> Vec<String> {
        self.0
    }
}

/// Power and faults of the chassis as they are now.
pub fn chassis_now(status: &ChassisStatus) -> String {
    let power = match status.power {
        Power::On => "on",
        Power::Off => "off",
    };
    let wrong = named(&[
        (status.overload, "power overload"),
        (status.interlock, "interlock active"),
        (status.fault, "fault in the main power"),
        (status.control_fault, "the last switching attempt failed"),
        (status.drive_fault, "drive fault"),
        (status.cooling_fault, "cooling or fan fault"),
        (status.intrusion, "chassis open"),
    ]);
    format!("chassis: power {power}; {}", wrong.unwrap_or_else(|| "no fault reported".to_owned()))
}

/// Why power changed last, as far as the chassis says (IPMI 2.0 table 28-3, last power event).
pub fn chassis_before(status: &ChassisStatus) -> String {
    let bit = |number: u8| status.last_event >> number & 1 == 1;
    let causes = named(&[
        (bit(0), "the supply failed"),
        (bit(1), "off by a power overload"),
        (bit(2), "off by the interlock"),
        (bit(3), "off by a power fault"),
        (bit(4), "on by an IPMI command"),
    ]);
    format!("chassis: last power event: {}", causes.unwrap_or_else(|| "none reported".to_owned()))
}

fn named(names: &[(bool, &str)]) -> Option<String> {
    let set: Vec<&str> = names.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
    (!set.is_empty()).then(|| set.join(", "))
}

/// How much the event log holds.
pub fn log_size(log: &SelInfo) -> String {
    let full = if log.overflow { "; it overflowed, newer events were lost" } else { "" };
    match log.entries {
        0 => format!("event log: empty{full}"),
        entries => format!("event log: {entries} entries, the newest first{full}"),
    }
}

/// One record of the event log as a sentence; what is not understood stays as hexadecimal digits.
pub fn event(record: &SelRecord) -> String {
    match &record.entry {
        Some(entry @ Entry::System { sensor_type, sensor_number, event_direction, event_type, .. }) => {
            let [.., data1, data2, data3] = record.raw;
            let sensor = SensorType::from(*sensor_type);
            let mut what = Description(entry).to_string();
            if what.is_empty() {
                what = format!("event {event_type:#04x}/{:#04x}", data1 & 0x0f);
            }
            let gone = match event_direction {
                EventDirection::Assert => "",
                EventDirection::Deassert => ", no longer",
            };
            // The upper bits say whether bytes 2 and 3 mean anything (IPMI 2.0 table 29-6).
            let data = if data1 & 0xf0 == 0 {
                String::new()
            } else {
                format!(" [data {data1:02x} {data2:02x} {data3:02x}]")
            };
            format!("{}: {sensor} sensor {sensor_number:#04x}: {what}{gone}{data}", when(record))
        }
        Some(Entry::OemTimestamped { ty, manufacturer_id, data, .. }) => {
            format!("{}: OEM event {ty:#04x} of manufacturer {manufacturer_id} [{}]", when(record), Hex(data))
        }
        Some(Entry::OemNotTimestamped { ty, data, .. }) => {
            format!("no time: OEM event {ty:#04x} [{}]", Hex(data))
        }
        None => format!("record that is not understood [{}]", Hex(&record.raw)),
    }
}

/// A state of a discrete sensor in the words of the event that it would be; digits if it has none.
pub(super) fn state_words(kind: u8, states: u8, state: u8) -> String {
    let raw = [1, 0, 0x02, 0, 0, 0, 0, 0x20, 0, 0x04, kind, 0, states, state, 0xff, 0xff];
    let words = Entry::parse(&raw).map(|entry| Description(&entry).to_string()).unwrap_or_default();
    if words.is_empty() { format!("state {states:#04x}/{state:#04x}") } else { words }
}

/// Time of a record that has one.
fn when(record: &SelRecord) -> String {
    let [_, _, _, a, b, c, d, ..] = record.raw;
    let seconds = u32::from_le_bytes([a, b, c, d]);
    match seconds {
        NO_TIME => "no time".to_owned(),
        0..CLOCK_SET => format!("{seconds} s after the log's start, clock not set"),
        _ => match jiff::Timestamp::from_second(i64::from(seconds)) {
            Ok(time) => time.to_string(),
            Err(_) => format!("time {seconds}"),
        },
    }
}

/// The words that `ipmi-rs-core` has for an event; none if it has none.
struct Description<'a>(&'a Entry);

impl fmt::Display for Description<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.event_description(f)
    }
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
