//! What a BMC can do: IPMI commands.
//!
//! What this is: a request in, a completion code and data out, and what follows from it.
//! Why it exists: the commands are independent of how they arrived.
//! What it never does: it switches nothing itself; it says what the power plane is to do.

use super::records::{EventLog, SDR_VERSION, SENSORS, sensor_record};
use super::session::{ADMINISTRATOR, OPERATOR, Surroundings, USER};
use crate::rack::chassis::Control;
use crate::rack::machine::Life;
use fencing::ipmi::codec::LanMessage;
use policies::Power;
use std::collections::BTreeMap;
use std::time::Duration;

/// Completion codes (IPMI 2.0 table 5-2).
pub(super) mod completion {
    pub(crate) const OK: u8 = 0x00;
    /// Command specific: the watchdog timer was never set (§27.5); a boot parameter is not supported (§28.13).
    pub(crate) const SPECIFIC: u8 = 0x80;
    pub(crate) const INVALID_COMMAND: u8 = 0xc1;
    pub(crate) const WRONG_LENGTH: u8 = 0xc7;
    pub(crate) const NOT_PRESENT: u8 = 0xcb;
    pub(crate) const INVALID_FIELD: u8 = 0xcc;
    pub(crate) const PRIVILEGE: u8 = 0xd4;
    pub(crate) const WRONG_STATE: u8 = 0xd5;
}
use completion::*;

/// Network functions of requests (IPMI 2.0 table 5-1).
const CHASSIS: u8 = 0x00;
const SENSOR: u8 = 0x04;
const APP: u8 = 0x06;
const STORAGE: u8 = 0x0a;

/// Cipher suites 3 and 17 as Get Channel Cipher Suites lists them (IPMI 2.0 table 22-18).
const CIPHER_SUITES: [u8; 10] = [0xc0, 3, 0x01, 0x41, 0x81, 0xc0, 17, 0x03, 0x44, 0x81];
/// Lengths of the boot parameters that we keep (IPMI 2.0 table 28-14).
const BOOT_PARAMETERS: [(u8, usize); 8] = [(0, 1), (1, 1), (2, 1), (3, 1), (4, 2), (5, 5), (6, 9), (7, 17)];
/// Number of the boot flags among them.
const BOOT_FLAGS: u8 = 5;
/// Unit of the watchdog's countdown (IPMI 2.0 §27.6).
const WATCHDOG_UNIT: Duration = Duration::from_millis(100);

/// Who sent a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// It came outside a session.
    Nobody,
    /// It came in a session.
    Session { id: u32, privilege: u8, privilege_max: u8 },
}

/// What a command leads to besides its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    Nothing,
    Power(Control),
    /// It says how the power is.
    Told(Power),
    /// The session's level changes.
    Privilege(u8),
    /// The session ends.
    Close,
}

/// The answer to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) completion: u8,
    pub(super) data: Vec<u8>,
    pub(super) then: Then,
}

impl Reply {
    pub(super) fn ok(data: impl Into<Vec<u8>>) -> Self {
        Reply { completion: OK, data: data.into(), then: Then::Nothing }
    }

    pub(super) fn error(completion: u8) -> Self {
        Reply { completion, data: Vec::new(), then: Then::Nothing }
    }

    fn then(then: Then) -> Self {
        Reply { then, ..Reply::ok([]) }
    }
}

#[derive(Debug, Default)]
struct Watchdog {
    /// Timer use, actions, pre-timeout interval as they were set; `None`: never set.
    set: Option<[u8; 3]>,
    initial: u16,
    expired: u8,
    due: Option<Duration>,
}

/// The part of a BMC that commands act on.
#[derive(Debug)]
pub(super) struct Unit {
    guid: [u8; 16],
    log: EventLog,
    boot: BTreeMap<u8, Vec<u8>>,
    watchdog: Watchdog,
    /// Last power event (IPMI 2.0 table 28-3): 0x10: switched on by IPMI; 0x01: the supply failed.
    last_power_event: u8,
}

impl Unit {
    pub(super) fn new(guid: [u8; 16]) -> Self {
        Unit {
            guid,
            log: EventLog::default(),
            boot: BTreeMap::new(),
            watchdog: Watchdog::default(),
            last_power_event: 0,
        }
    }

    pub(super) fn saw(&mut self, life: Life, seconds: u32) {
        self.log.saw(life, seconds);
    }

    pub(super) fn lose_supply(&mut self, seconds: u32) {
        self.log.lost_supply(seconds);
        self.watchdog = Watchdog::default();
        self.boot.clear();
        self.last_power_event = 0x01;
    }

    /// Carries out a command. The levels are those of IPMI 2.0 App. G.
    pub(super) fn obey(&mut self, request: &LanMessage, caller: Caller, around: Surroundings) -> Reply {
        let Some(needed) = privilege(request.net_fn, request.command) else {
            return Reply::error(INVALID_COMMAND);
        };
        let held = match caller {
            Caller::Nobody => 0,
            Caller::Session { privilege, .. } => privilege,
        };
        if held < needed {
            return Reply::error(PRIVILEGE);
        }
        let data = request.data.as_slice();
        match request.net_fn {
            APP => self.app(request.command, data, caller, around),
            CHASSIS => self.chassis(request.command, data, around),
            STORAGE => self.storage(request.command, data, around),
            SENSOR => sensor(request.command, data),
            _ => Reply::error(INVALID_COMMAND),
        }
    }

    fn app(&mut self, command: u8, data: &[u8], caller: Caller, around: Surroundings) -> Reply {
        match (command, data) {
            // Get Device ID (§20.1): IPMI 2.0, with chassis, SEL, SDR and sensors.
            (0x01, []) => Reply::ok([0x20, 0x81, 2, 0, 0x02, 0x87, 0, 0, 0, 0, 0]),
            // Get Self Test Results (§20.4): no error.
            (0x04, []) => Reply::ok([0x55, 0]),
            // Get Device GUID (§20.8), Get System GUID (§22.14).
            (0x08 | 0x37, []) => Reply::ok(self.guid),
            // Reset Watchdog Timer (§27.5).
            (0x22, []) => self.restart_watchdog(around.now),
            // Set Watchdog Timer (§27.6).
            (0x24, [usage, actions, pre, clear, low, high]) => {
                self.watchdog.set = Some([*usage & 0x87, *actions, *pre]);
                self.watchdog.initial = u16::from_le_bytes([*low, *high]);
                self.watchdog.expired &= !*clear;
                // Setting stops the timer unless it is told not to (bit 6).
                self.watchdog.due = self.watchdog.due.filter(|_| usage & 0x40 != 0);
                Reply::ok([])
            }
            // Get Watchdog Timer (§27.7).
            (0x25, []) => self.read_watchdog(around.now),
            // Get Channel Authentication Capabilities (§22.13): IPMI 2.0 only, named users.
            (0x38, [_, _]) => Reply::ok([1, 0x80, 0x04, 0x02, 0, 0, 0, 0]),
            // Set Session Privilege Level (§22.18).
            (0x3b, [level]) => set_privilege(*level, caller),
            // Close Session (§22.19).
            (0x3c, [a, b, c, d]) => match caller {
                Caller::Session { id, .. } if id == u32::from_le_bytes([*a, *b, *c, *d]) => {
                    Reply::then(Then::Close)
                }
                // "invalid session id in request"
                Caller::Session { .. } | Caller::Nobody => Reply::error(0x87),
            },
            // Get Channel Cipher Suites (§22.15): 16 bytes at a time.
            (0x54, [_, _, index]) => {
                let start = usize::from(index & 0x3f) * 16;
                let mut reply = vec![1];
                reply.extend(CIPHER_SUITES.iter().skip(start).take(16));
                Reply::ok(reply)
            }
            _ => Reply::error(WRONG_LENGTH),
        }
    }

    fn chassis(&mut self, command: u8, data: &[u8], around: Surroundings) -> Reply {
        match (command, data) {
            // Get Chassis Capabilities (§28.1): nothing special, all devices are the BMC.
            (0x00, []) => Reply::ok([0, 0x20, 0x20, 0x20, 0x20]),
            // Get Chassis Status (§28.2): stays off when the supply comes back; can identify itself.
            (0x01, []) => {
                let data = vec![u8::from(around.power == Power::On), self.last_power_event, 0x40];
                Reply { then: Then::Told(around.power), ..Reply::ok(data) }
            }
            // Chassis Control (§28.3).
            (0x02, [control]) => self.control(control & 0x0f, around),
            // Chassis Identify (§28.5): there is no light to see.
            (0x04, [] | [_] | [_, _]) => Reply::ok([]),
            // Set System Boot Options (§28.12).
            (0x08, [selector, value @ ..]) => self.set_boot(selector & 0x7f, value),
            // Get System Boot Options (§28.13).
            (0x09, [selector, _, _]) => self.read_boot(selector & 0x7f),
            _ => Reply::error(WRONG_LENGTH),
        }
    }

    fn control(&mut self, control: u8, around: Surroundings) -> Reply {
        let on = around.power == Power::On;
        let command = match control {
            0 => Control::Off,
            1 => Control::On,
            2 if on => Control::Cycle,
            3 if on => Control::Reset,
            4 if on => Control::Diagnostic,
            5 => Control::Soft,
            2..=4 => return Reply::error(WRONG_STATE),
            _ => return Reply::error(INVALID_FIELD),
        };
        if around.refuses_power {
            return Reply::error(WRONG_STATE);
        }
        match command {
            Control::On | Control::Cycle | Control::Reset => {
                self.last_power_event = 0x10;
                self.forget_one_boot();
            }
            Control::Off | Control::Diagnostic | Control::Soft => {}
        }
        Reply::then(Then::Power(command))
    }

    /// Boot flags are for one start unless they say "persistent" (bit 6; IPMI 2.0 table 28-14).
    fn forget_one_boot(&mut self) {
        if self.boot.get(&BOOT_FLAGS).and_then(|flags| flags.first()).is_some_and(|first| first & 0x40 == 0) {
            self.boot.remove(&BOOT_FLAGS);
        }
    }

    fn set_boot(&mut self, parameter: u8, value: &[u8]) -> Reply {
        match BOOT_PARAMETERS.iter().find(|(known, _)| *known == parameter) {
            None => Reply::error(SPECIFIC),
            // No value: only the parameter's valid bit is set, which we do not keep apart.
            Some(_) if value.is_empty() => Reply::ok([]),
            Some((_, length)) if value.len() <= *length => {
                let mut value = value.to_vec();
                value.resize(*length, 0);
                self.boot.insert(parameter, value);
                Reply::ok([])
            }
            Some(_) => Reply::error(WRONG_LENGTH),
        }
    }

    fn read_boot(&self, parameter: u8) -> Reply {
        let Some((_, length)) = BOOT_PARAMETERS.iter().find(|(known, _)| *known == parameter) else {
            return Reply::error(SPECIFIC);
        };
        let mut reply = vec![0x01, parameter];
        match self.boot.get(&parameter) {
            Some(value) => reply.extend(value),
            None => reply.extend(std::iter::repeat_n(0, *length)),
        }
        Reply::ok(reply)
    }

    fn storage(&mut self, command: u8, data: &[u8], around: Surroundings) -> Reply {
        match (command, data) {
            // Get SDR Repository Info (§33.9): read only, no free space.
            (0x20, []) => {
                let [low, high, ..] = SENSORS.len().to_le_bytes();
                Reply::ok([SDR_VERSION, low, high, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x02])
            }
            // Reserve SDR Repository (§33.11): nothing changes in it, so one reservation serves all.
            (0x22, []) => Reply::ok([1, 0]),
            // Get SDR (§33.12).
            (0x23, [_, _, low, high, offset, count]) => {
                read_sensor_record(u16::from_le_bytes([*low, *high]), *offset, *count)
            }
            // Get SEL Info (§31.2).
            (0x40, []) => Reply::ok(self.log.describe()),
            // Reserve SEL (§31.4).
            (0x42, []) => Reply::ok([1, 0]),
            // Get SEL Entry (§31.5).
            (0x43, [_, _, low, high, offset, count]) => {
                match self.log.read(u16::from_le_bytes([*low, *high]), *offset, *count) {
                    Some(entry) => Reply::ok(entry),
                    None => Reply::error(NOT_PRESENT),
                }
            }
            // Clear SEL (§31.9): at once.
            (0x47, [_, _, b'C', b'L', b'R', action]) => {
                if *action == 0xaa {
                    self.log.clear(around.seconds);
                }
                Reply::ok([0x01])
            }
            // Get SEL Time (§31.10).
            (0x48, []) => Reply::ok(around.seconds.to_le_bytes()),
            _ => Reply::error(WRONG_LENGTH),
        }
    }

    fn restart_watchdog(&mut self, now: Duration) -> Reply {
        if self.watchdog.set.is_none() {
            return Reply::error(SPECIFIC);
        }
        self.watchdog.due = Some(now + WATCHDOG_UNIT * u32::from(self.watchdog.initial));
        Reply::ok([])
    }

    fn read_watchdog(&self, now: Duration) -> Reply {
        let [usage, actions, pre] = self.watchdog.set.unwrap_or_default();
        let left = self.watchdog.due.map(|due| due.saturating_sub(now));
        let units = left.map_or(0, |left| left.as_millis().div_ceil(WATCHDOG_UNIT.as_millis()));
        let running = if left.is_some() { 0x40 } else { 0 };
        let [low, high] = self.watchdog.initial.to_le_bytes();
        let [left_low, left_high] = u16::try_from(units).unwrap_or(u16::MAX).to_le_bytes();
        Reply::ok([usage | running, actions, pre, self.watchdog.expired, low, high, left_low, left_high])
    }

    pub(super) fn watchdog_due(&self) -> Option<Duration> {
        self.watchdog.due
    }

    pub(super) fn watchdog_expired(&mut self, around: Surroundings) -> Option<Control> {
        self.watchdog.due.take_if(|due| *due <= around.now)?;
        let [usage, actions, _] = self.watchdog.set?;
        self.watchdog.expired |= 1u8.checked_shl(u32::from(usage & 0x07)).unwrap_or(0);
        self.log.watchdog(actions & 0x07, around.seconds);
        match actions & 0x07 {
            1 => Some(Control::Reset),
            2 => Some(Control::Off),
            3 => Some(Control::Cycle),
            _ => None,
        }
    }
}

/// The level that a command needs; `None` for all that we do not know.
fn privilege(net_fn: u8, command: u8) -> Option<u8> {
    match (net_fn, command) {
        (APP, 0x37 | 0x38 | 0x54) => Some(0),
        (APP, 0x01 | 0x04 | 0x08 | 0x25 | 0x3b) => Some(USER),
        (APP, 0x3c) => Some(1),
        (APP, 0x22 | 0x24) => Some(OPERATOR),
        (CHASSIS, 0x00 | 0x01) => Some(USER),
        (CHASSIS, 0x02 | 0x04 | 0x08 | 0x09) => Some(OPERATOR),
        (STORAGE, 0x20 | 0x22 | 0x23 | 0x40 | 0x42 | 0x43 | 0x48) => Some(USER),
        (STORAGE, 0x47) => Some(OPERATOR),
        (SENSOR, 0x2d) => Some(USER),
        _ => None,
    }
}

/// Level 0 asks for the present one (IPMI 2.0 §22.18).
fn set_privilege(level: u8, caller: Caller) -> Reply {
    match (level & 0x0f, caller) {
        (0, Caller::Session { privilege, .. }) => Reply::ok([privilege]),
        (level @ 2..=ADMINISTRATOR, Caller::Session { privilege_max, .. }) if level <= privilege_max => {
            Reply { then: Then::Privilege(level), ..Reply::ok([level]) }
        }
        // "requested level exceeds the limit of channel, user or session"
        (_, Caller::Session { .. } | Caller::Nobody) => Reply::error(0x81),
    }
}

fn sensor(command: u8, data: &[u8]) -> Reply {
    match (command, data) {
        // Get Sensor Reading (§35.14).
        (0x2d, [number]) => match SENSORS.iter().find(|sensor| sensor.number == *number) {
            Some(sensor) => Reply::ok(sensor.reading),
            None => Reply::error(NOT_PRESENT),
        },
        _ => Reply::error(WRONG_LENGTH),
    }
}

/// Record ids are indexes into [`SENSORS`]; 0xffff follows the last (IPMI 2.0 §33.12).
fn read_sensor_record(id: u16, offset: u8, count: u8) -> Reply {
    let Some(sensor) = SENSORS.get(usize::from(id)) else { return Reply::error(NOT_PRESENT) };
    let next = if usize::from(id) + 1 < SENSORS.len() { id + 1 } else { 0xffff };
    let mut reply = next.to_le_bytes().to_vec();
    reply.extend(sensor_record(id, sensor).iter().skip(usize::from(offset)).take(usize::from(count)));
    Reply::ok(reply)
}
