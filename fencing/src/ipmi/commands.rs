//! The IPMI commands that `ipmi-rs-core` lacks, and which of all commands change the world.
//!
//! Why it exists: a fencer needs the chassis, boot and watchdog commands; and the type system shall know that a
//! command which changes something is sent only with a permit.
//! What it never does: input or output; panicking on a reply.

use super::codec::Fields;
use ipmi_rs_core::app::GetDeviceId;
use ipmi_rs_core::connection::{IpmiCommand, Message, NetFn, NotEnoughData};
use ipmi_rs_core::storage::sel::{Entry, GetSelInfo};
use policies::{Millis, Power};

/// A command that only reads; sent again until it is answered.
pub trait Read: IpmiCommand {}

/// A command that changes something; sent only while a permit allows it.
pub trait Write: IpmiCommand {
    /// True if carrying it out twice is the same as once, so that it may be sent again when no answer came.
    fn repeatable(&self) -> bool;
}

impl Read for GetDeviceId {}
impl Read for GetSelInfo {}

/// Chassis Control (IPMI 2.0 §28.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChassisControl {
    /// Off at once, as the power button held down.
    Off,
    /// On.
    On,
    /// Off, and on again after a while.
    Cycle,
    /// Hard reset.
    Reset,
    /// Diagnostic interrupt, usually an NMI: makes a hung kernel dump.
    Diagnostic,
    /// Asks the operating system to shut down, by emulating a fatal overtemperature (ACPI).
    Soft,
}

impl From<ChassisControl> for Message {
    fn from(control: ChassisControl) -> Message {
        let number = match control {
            ChassisControl::Off => 0,
            ChassisControl::On => 1,
            ChassisControl::Cycle => 2,
            ChassisControl::Reset => 3,
            ChassisControl::Diagnostic => 4,
            ChassisControl::Soft => 5,
        };
        Message::new_request(NetFn::Chassis, 0x02, vec![number])
    }
}

impl IpmiCommand for ChassisControl {
    type Output = ();
    type Error = NotEnoughData;

    fn parse_success_response(_: &[u8]) -> Result<(), NotEnoughData> {
        Ok(())
    }
}

impl Write for ChassisControl {
    fn repeatable(&self) -> bool {
        match self {
            ChassisControl::Off | ChassisControl::On => true,
            // Many BMCs press the power button for it: a second press may interrupt what the first began, and one that
            // comes late switches a machine on that is off by then.
            ChassisControl::Soft => false,
            ChassisControl::Cycle | ChassisControl::Reset | ChassisControl::Diagnostic => false,
        }
    }
}

/// Get Chassis Status (IPMI 2.0 §28.2).
#[derive(Clone, Copy, Debug)]
pub struct GetChassisStatus;

/// What Get Chassis Status answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChassisStatus {
    /// Power now.
    pub power: Power,
    /// Shut down because of a power overload.
    pub overload: bool,
    /// Shut down because an interlock is active.
    pub interlock: bool,
    /// A fault in the main power.
    pub fault: bool,
    /// The last switching attempt failed.
    pub control_fault: bool,
    /// What happened to power last, as the raw bits of byte 3.
    pub last_event: u8,
    /// The chassis is open.
    pub intrusion: bool,
    /// A drive is at fault.
    pub drive_fault: bool,
    /// Cooling or a fan is at fault.
    pub cooling_fault: bool,
}

impl From<GetChassisStatus> for Message {
    fn from(_: GetChassisStatus) -> Message {
        Message::new_request(NetFn::Chassis, 0x01, vec![])
    }
}

impl IpmiCommand for GetChassisStatus {
    type Output = ChassisStatus;
    type Error = NotEnoughData;

    fn parse_success_response(data: &[u8]) -> Result<ChassisStatus, NotEnoughData> {
        let [power, last_event, misc] = data.first_chunk().ok_or(NotEnoughData)?;
        Ok(ChassisStatus {
            power: if power & 0x01 == 0 { Power::Off } else { Power::On },
            overload: power & 0x02 != 0,
            interlock: power & 0x04 != 0,
            fault: power & 0x08 != 0,
            control_fault: power & 0x10 != 0,
            last_event: *last_event,
            intrusion: misc & 0x01 != 0,
            drive_fault: misc & 0x04 != 0,
            cooling_fault: misc & 0x08 != 0,
        })
    }
}

impl Read for GetChassisStatus {}

/// What the next start boots (IPMI 2.0 table 28-14, boot flags, device selector).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootDevice {
    /// As the firmware is set.
    Default,
    /// Network.
    Pxe,
    /// Hard disk.
    Disk,
    /// CD or DVD.
    Cdrom,
    /// Firmware setup.
    Setup,
}

impl BootDevice {
    const ALL: [BootDevice; 5] =
        [BootDevice::Default, BootDevice::Pxe, BootDevice::Disk, BootDevice::Cdrom, BootDevice::Setup];

    fn selector(self) -> u8 {
        match self {
            BootDevice::Default => 0,
            BootDevice::Pxe => 1,
            BootDevice::Disk => 2,
            BootDevice::Cdrom => 5,
            BootDevice::Setup => 6,
        }
    }
}

/// Set System Boot Options, parameter 5, boot flags (IPMI 2.0 §28.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetBootDevice {
    /// What to boot.
    pub device: BootDevice,
    /// For all later starts; otherwise for the next one only.
    pub persistent: bool,
    /// Boot in UEFI mode.
    pub uefi: bool,
}

impl From<policies::BootDevice> for SetBootDevice {
    /// For the next start only: what we did not switch on starts as its firmware is set.
    fn from(described: policies::BootDevice) -> SetBootDevice {
        let (device, uefi) = match described {
            policies::BootDevice::Pxe => (BootDevice::Pxe, false),
            policies::BootDevice::PxeUefi => (BootDevice::Pxe, true),
            policies::BootDevice::Disk => (BootDevice::Disk, false),
            policies::BootDevice::DiskUefi => (BootDevice::Disk, true),
        };
        SetBootDevice { device, persistent: false, uefi }
    }
}

/// Parameter selector of the boot flags (IPMI 2.0 table 28-14).
const BOOT_FLAGS: u8 = 5;

impl From<SetBootDevice> for Message {
    fn from(set: SetBootDevice) -> Message {
        let flags = 0x80 | if set.persistent { 0x40 } else { 0 } | if set.uefi { 0x20 } else { 0 };
        let data = vec![BOOT_FLAGS, flags, set.device.selector() << 2, 0, 0, 0];
        Message::new_request(NetFn::Chassis, 0x08, data)
    }
}

impl IpmiCommand for SetBootDevice {
    type Output = ();
    type Error = NotEnoughData;

    fn parse_success_response(_: &[u8]) -> Result<(), NotEnoughData> {
        Ok(())
    }
}

impl Write for SetBootDevice {
    fn repeatable(&self) -> bool {
        true
    }
}

/// Get System Boot Options, parameter 5, boot flags (IPMI 2.0 §28.13).
#[derive(Clone, Copy, Debug)]
pub struct GetBootDevice;

impl From<GetBootDevice> for Message {
    fn from(_: GetBootDevice) -> Message {
        Message::new_request(NetFn::Chassis, 0x09, vec![BOOT_FLAGS, 0, 0])
    }
}

impl IpmiCommand for GetBootDevice {
    /// `None`: no override is set, or one for a device that we have no name for.
    type Output = Option<SetBootDevice>;
    type Error = NotEnoughData;

    fn parse_success_response(data: &[u8]) -> Result<Self::Output, NotEnoughData> {
        let [_version, _parameter, flags, selector] = data.first_chunk().ok_or(NotEnoughData)?;
        let wanted = selector >> 2 & 0x0f;
        let device = BootDevice::ALL.into_iter().find(|device| device.selector() == wanted);
        let (persistent, uefi) = (flags & 0x40 != 0, flags & 0x20 != 0);
        Ok(device.filter(|_| flags & 0x80 != 0).map(|device| SetBootDevice { device, persistent, uefi }))
    }
}

impl Read for GetBootDevice {}

/// Get System GUID (IPMI 2.0 §22.14): the identity of the machine.
#[derive(Clone, Copy, Debug)]
pub struct GetSystemGuid;

/// Get Device GUID (IPMI 2.0 §20.8): the identity of the BMC itself.
#[derive(Clone, Copy, Debug)]
pub struct GetDeviceGuid;

impl From<GetSystemGuid> for Message {
    fn from(_: GetSystemGuid) -> Message {
        Message::new_request(NetFn::App, 0x37, vec![])
    }
}

impl From<GetDeviceGuid> for Message {
    fn from(_: GetDeviceGuid) -> Message {
        Message::new_request(NetFn::App, 0x08, vec![])
    }
}

impl IpmiCommand for GetSystemGuid {
    /// In wire order.
    type Output = [u8; 16];
    type Error = NotEnoughData;

    fn parse_success_response(data: &[u8]) -> Result<[u8; 16], NotEnoughData> {
        data.first_chunk().copied().ok_or(NotEnoughData)
    }
}

impl IpmiCommand for GetDeviceGuid {
    /// In wire order.
    type Output = [u8; 16];
    type Error = NotEnoughData;

    fn parse_success_response(data: &[u8]) -> Result<[u8; 16], NotEnoughData> {
        data.first_chunk().copied().ok_or(NotEnoughData)
    }
}

impl Read for GetSystemGuid {}
impl Read for GetDeviceGuid {}

/// Who the watchdog watches (IPMI 2.0 §27.6, timer use).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchdogUse {
    /// The firmware's self-test.
    FirmwareTest,
    /// The firmware's wait for an operating system.
    FirmwareBoot,
    /// Loading the operating system.
    Load,
    /// The running operating system or management software.
    Os,
    /// An OEM's use.
    Oem,
}

/// What the watchdog does when it expires (IPMI 2.0 §27.6, timer actions).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchdogAction {
    /// Nothing.
    Nothing,
    /// Hard reset.
    Reset,
    /// Power off: the action that fences.
    Off,
    /// Power cycle.
    Cycle,
}

/// State of the BMC's watchdog (IPMI 2.0 §27.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watchdog {
    /// Who uses it; `None`: a reserved value.
    pub used_for: Option<WatchdogUse>,
    /// It counts down.
    pub running: bool,
    /// What happens at zero; `None`: a reserved value.
    pub action: Option<WatchdogAction>,
    /// Where each countdown begins, in tenths of a second.
    pub initial: u16,
    /// Where the countdown is, in tenths of a second.
    pub left: u16,
}

impl Watchdog {
    /// How long ago the countdown began, if a system that runs has it count down. Exact to a tenth of a second.
    pub fn fed(&self) -> Option<Millis> {
        let is_fed = self.running && matches!(self.used_for, Some(WatchdogUse::Os | WatchdogUse::Oem));
        let tenths = self.initial.checked_sub(self.left).filter(|_| is_fed)?;
        Some(Millis(u64::from(tenths) * 100))
    }
}

impl WatchdogUse {
    const ALL: [WatchdogUse; 5] = [
        WatchdogUse::FirmwareTest,
        WatchdogUse::FirmwareBoot,
        WatchdogUse::Load,
        WatchdogUse::Os,
        WatchdogUse::Oem,
    ];

    fn number(self) -> u8 {
        match self {
            WatchdogUse::FirmwareTest => 1,
            WatchdogUse::FirmwareBoot => 2,
            WatchdogUse::Load => 3,
            WatchdogUse::Os => 4,
            WatchdogUse::Oem => 5,
        }
    }
}

impl WatchdogAction {
    const ALL: [WatchdogAction; 4] =
        [WatchdogAction::Nothing, WatchdogAction::Reset, WatchdogAction::Off, WatchdogAction::Cycle];

    fn number(self) -> u8 {
        match self {
            WatchdogAction::Nothing => 0,
            WatchdogAction::Reset => 1,
            WatchdogAction::Off => 2,
            WatchdogAction::Cycle => 3,
        }
    }
}

/// Get Watchdog Timer (IPMI 2.0 §27.7).
#[derive(Clone, Copy, Debug)]
pub struct GetWatchdog;

impl From<GetWatchdog> for Message {
    fn from(_: GetWatchdog) -> Message {
        Message::new_request(NetFn::App, 0x25, vec![])
    }
}

impl IpmiCommand for GetWatchdog {
    type Output = Watchdog;
    type Error = NotEnoughData;

    fn parse_success_response(data: &[u8]) -> Result<Watchdog, NotEnoughData> {
        let [timer_use, actions, _pre, _expired, i0, i1, l0, l1] = data.first_chunk().ok_or(NotEnoughData)?;
        Ok(Watchdog {
            used_for: WatchdogUse::ALL.into_iter().find(|known| known.number() == timer_use & 0x07),
            running: timer_use & 0x40 != 0,
            action: WatchdogAction::ALL.into_iter().find(|known| known.number() == actions & 0x07),
            initial: u16::from_le_bytes([*i0, *i1]),
            left: u16::from_le_bytes([*l0, *l1]),
        })
    }
}

impl Read for GetWatchdog {}

/// Set Watchdog Timer (IPMI 2.0 §27.6). The timer stands still until [`ResetWatchdog`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetWatchdog {
    /// Who uses it.
    pub used_for: WatchdogUse,
    /// What happens at zero.
    pub action: WatchdogAction,
    /// Where each countdown begins, in tenths of a second.
    pub initial: u16,
}

impl From<SetWatchdog> for Message {
    fn from(set: SetWatchdog) -> Message {
        let used_for = set.used_for.number();
        let [low, high] = set.initial.to_le_bytes();
        // Byte 4 clears the "expired" flag of this use.
        let data = vec![used_for, set.action.number(), 0, 1 << used_for, low, high];
        Message::new_request(NetFn::App, 0x24, data)
    }
}

impl IpmiCommand for SetWatchdog {
    type Output = ();
    type Error = NotEnoughData;

    fn parse_success_response(_: &[u8]) -> Result<(), NotEnoughData> {
        Ok(())
    }
}

impl Write for SetWatchdog {
    fn repeatable(&self) -> bool {
        true
    }
}

/// Reset Watchdog Timer (IPMI 2.0 §27.5): begins the countdown again.
#[derive(Clone, Copy, Debug)]
pub struct ResetWatchdog;

impl From<ResetWatchdog> for Message {
    fn from(_: ResetWatchdog) -> Message {
        Message::new_request(NetFn::App, 0x22, vec![])
    }
}

impl IpmiCommand for ResetWatchdog {
    type Output = ();
    type Error = NotEnoughData;

    fn parse_success_response(_: &[u8]) -> Result<(), NotEnoughData> {
        Ok(())
    }
}

impl Write for ResetWatchdog {
    fn repeatable(&self) -> bool {
        true
    }
}

/// Get SEL Entry (IPMI 2.0 §31.5). Unlike `ipmi-rs-core`'s it goes on after a record of an unknown type.
#[derive(Clone, Copy, Debug)]
pub struct GetSelRecord {
    /// Record id; 0 is the first, 0xffff the last.
    pub id: u16,
}

/// One record of the system event log.
#[derive(Clone, Debug, PartialEq)]
pub struct SelRecord {
    /// Id of the next record; 0xffff: this was the last.
    pub next: u16,
    /// As the BMC sent it.
    pub raw: [u8; 16],
    /// As far as `ipmi-rs-core` knows its type.
    pub entry: Option<Entry>,
}

impl SelRecord {
    /// Its own id.
    pub fn id(&self) -> u16 {
        let [low, high, ..] = self.raw;
        u16::from_le_bytes([low, high])
    }
}

impl From<GetSelRecord> for Message {
    fn from(get: GetSelRecord) -> Message {
        let [low, high] = get.id.to_le_bytes();
        Message::new_request(NetFn::Storage, 0x43, vec![0, 0, low, high, 0, 0xff])
    }
}

impl IpmiCommand for GetSelRecord {
    type Output = SelRecord;
    type Error = NotEnoughData;

    fn parse_success_response(data: &[u8]) -> Result<SelRecord, NotEnoughData> {
        let mut fields = Fields::new("SEL entry", data);
        let next = fields.array().map(u16::from_le_bytes).map_err(|_| NotEnoughData)?;
        let raw = fields.array().map_err(|_| NotEnoughData)?;
        Ok(SelRecord { next, raw, entry: Entry::parse(&raw).ok() })
    }
}

impl Read for GetSelRecord {}

/// Get Sensor Reading (IPMI 2.0 §35.14) of the BMC's own sensor.
#[derive(Clone, Copy, Debug)]
pub struct ReadSensor {
    /// Sensor number.
    pub number: u8,
}

impl From<ReadSensor> for Message {
    fn from(read: ReadSensor) -> Message {
        Message::new_request(NetFn::SensorEvent, 0x2d, vec![read.number])
    }
}

/// What a sensor reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SensorReading {
    /// Raw; the sensor's data record gives it a unit. `None`: there is none now, or nobody measures.
    pub value: Option<u8>,
    /// Limits that are passed, or states that are asserted, a bit each.
    pub states: u16,
}

impl IpmiCommand for ReadSensor {
    type Output = SensorReading;
    type Error = NotEnoughData;

    fn parse_success_response(data: &[u8]) -> Result<SensorReading, NotEnoughData> {
        let [value, flags] = data.first_chunk().ok_or(NotEnoughData)?;
        // Scanning is enabled, and the reading is not "unavailable".
        let is_there = flags & 0x60 == 0x40;
        let states =
            [data.get(2).copied().unwrap_or_default(), data.get(3).copied().unwrap_or_default() & 0x7f];
        Ok(SensorReading { value: is_there.then_some(*value), states: u16::from_le_bytes(states) })
    }
}

impl Read for ReadSensor {}

/// Reserve SDR Repository (IPMI 2.0 §33.11): needed to read a record in pieces.
#[derive(Clone, Copy, Debug)]
pub struct ReserveSdr;

impl From<ReserveSdr> for Message {
    fn from(_: ReserveSdr) -> Message {
        Message::new_request(NetFn::Storage, 0x22, vec![])
    }
}

impl IpmiCommand for ReserveSdr {
    /// The reservation.
    type Output = u16;
    type Error = NotEnoughData;

    fn parse_success_response(data: &[u8]) -> Result<u16, NotEnoughData> {
        data.first_chunk().map(|id| u16::from_le_bytes(*id)).ok_or(NotEnoughData)
    }
}

impl Read for ReserveSdr {}

/// Get SDR (IPMI 2.0 §33.12): a data record of the BMC's repository, or a piece of one.
#[derive(Clone, Copy, Debug)]
pub struct GetSdr {
    /// From [`ReserveSdr`]; 0 will do for what begins at the record's beginning.
    pub reservation: u16,
    /// Record id; 0 is the first.
    pub id: u16,
    /// Where the piece begins.
    pub offset: u8,
    /// Bytes wanted; 0xff: the whole record.
    pub count: u8,
}

/// A piece of a data record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SdrPiece {
    /// Id of the next record; 0xffff: this was the last.
    pub next: u16,
    /// Its bytes.
    pub data: Vec<u8>,
}

impl From<GetSdr> for Message {
    fn from(get: GetSdr) -> Message {
        let ([r0, r1], [i0, i1]) = (get.reservation.to_le_bytes(), get.id.to_le_bytes());
        Message::new_request(NetFn::Storage, 0x23, vec![r0, r1, i0, i1, get.offset, get.count])
    }
}

impl IpmiCommand for GetSdr {
    type Output = SdrPiece;
    type Error = NotEnoughData;

    fn parse_success_response(data: &[u8]) -> Result<SdrPiece, NotEnoughData> {
        let (next, data) = data.split_first_chunk().ok_or(NotEnoughData)?;
        Ok(SdrPiece { next: u16::from_le_bytes(*next), data: data.to_vec() })
    }
}

impl Read for GetSdr {}
