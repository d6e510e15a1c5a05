//! The bytes of the commands, as the specification's tables give them, and replies that are read or refused.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use fencing::ipmi::commands::*;
use ipmi_rs_core::app::GetDeviceId;
use ipmi_rs_core::connection::{IpmiCommand, Message};
use ipmi_rs_core::storage::sel::GetSelInfo;
use policies::Millis;
use policies::Power;
use proptest::prelude::*;

fn bytes(command: impl Into<Message>) -> (u8, u8, Vec<u8>) {
    let message = command.into();
    (message.netfn_raw(), message.cmd(), message.data().to_vec())
}

#[test]
fn requests_are_as_specified() {
    let controls = [
        (ChassisControl::Off, 0, true),
        (ChassisControl::On, 1, true),
        (ChassisControl::Cycle, 2, false),
        (ChassisControl::Reset, 3, false),
        (ChassisControl::Diagnostic, 4, false),
        (ChassisControl::Soft, 5, false),
    ];
    for (control, number, repeatable) in controls {
        assert_eq!((bytes(control), control.repeatable()), ((0x00, 0x02, vec![number]), repeatable));
    }
    assert_eq!(bytes(GetChassisStatus), (0x00, 0x01, vec![]));
    let pxe_once = SetBootDevice { device: BootDevice::Pxe, persistent: false, uefi: false };
    assert_eq!(bytes(pxe_once), (0x00, 0x08, vec![5, 0x80, 0x04, 0, 0, 0]));
    let disk_always = SetBootDevice { device: BootDevice::Disk, persistent: true, uefi: true };
    assert_eq!(bytes(disk_always), (0x00, 0x08, vec![5, 0xe0, 0x08, 0, 0, 0]));
    assert_eq!(bytes(GetBootDevice), (0x00, 0x09, vec![5, 0, 0]));
    assert_eq!(bytes(GetSystemGuid), (0x06, 0x37, vec![]));
    assert_eq!(bytes(GetDeviceGuid), (0x06, 0x08, vec![]));
    let off_in_a_minute =
        SetWatchdog { used_for: WatchdogUse::Os, action: WatchdogAction::Off, initial: 600 };
    assert_eq!(bytes(off_in_a_minute), (0x06, 0x24, vec![4, 2, 0, 0x10, 0x58, 2]));
    assert_eq!(bytes(GetWatchdog), (0x06, 0x25, vec![]));
    assert_eq!(bytes(ResetWatchdog), (0x06, 0x22, vec![]));
    assert_eq!(bytes(GetSelRecord { id: 0x1234 }), (0x0a, 0x43, vec![0, 0, 0x34, 0x12, 0, 0xff]));
    assert_eq!(bytes(ReadSensor { number: 7 }), (0x04, 0x2d, vec![7]));
}

#[test]
fn replies_are_read() {
    let status = GetChassisStatus::parse_success_response(&[0x61, 0x10, 0x40]).unwrap();
    assert_eq!((status.power, status.fault, status.last_event), (Power::On, false, 0x10));
    let status = GetChassisStatus::parse_success_response(&[0x7a, 0, 0, 0]).unwrap();
    assert_eq!(status.power, Power::Off);
    assert!(status.overload && status.fault && status.control_fault);
    let boot = GetBootDevice::parse_success_response(&[1, 5, 0xc0, 0x18, 0, 0, 0]).unwrap();
    assert_eq!(boot, Some(SetBootDevice { device: BootDevice::Setup, persistent: true, uefi: false }));
    assert_eq!(GetBootDevice::parse_success_response(&[1, 5, 0x00, 0x04, 0, 0, 0]), Ok(None));
    let watchdog = GetWatchdog::parse_success_response(&[0x44, 0x02, 0, 0, 0x58, 2, 0x57, 2]).unwrap();
    let want = Watchdog {
        used_for: Some(WatchdogUse::Os),
        running: true,
        action: Some(WatchdogAction::Off),
        initial: 600,
        left: 599,
    };
    assert_eq!(watchdog, want);
    assert_eq!(watchdog.fed(), Some(Millis(100)));
    for not_fed in [
        Watchdog { running: false, ..watchdog },
        Watchdog { used_for: Some(WatchdogUse::FirmwareBoot), ..watchdog },
        Watchdog { left: watchdog.initial + 1, ..watchdog },
    ] {
        assert_eq!(not_fed.fed(), None);
    }
    let strange = GetWatchdog::parse_success_response(&[0x07, 0x07, 0, 0, 0, 0, 0, 0]).unwrap();
    assert_eq!((strange.used_for, strange.action, strange.running), (None, None, false));
    let mut oem_record = vec![0xff, 0xff, 1, 0, 0x10];
    oem_record.resize(18, 0);
    let record = GetSelRecord::parse_success_response(&oem_record).unwrap();
    assert_eq!((record.next, record.entry), (0xffff, None), "a record of an unknown type ends nothing");
}

proptest! {
    #[test]
    fn no_reply_panics(data in prop::collection::vec(any::<u8>(), 0..40)) {
        let read = [
            GetChassisStatus::parse_success_response(&data).is_ok(),
            GetBootDevice::parse_success_response(&data).is_ok(),
            GetWatchdog::parse_success_response(&data).is_ok(),
            GetSystemGuid::parse_success_response(&data).is_ok(),
            GetDeviceGuid::parse_success_response(&data).is_ok(),
            GetSelRecord::parse_success_response(&data).is_ok(),
            ReadSensor::parse_success_response(&data).is_ok(),
            GetDeviceId::parse_success_response(&data).is_ok(),
            GetSelInfo::parse_success_response(&data).is_ok(),
        ];
        prop_assert!(data.len() >= 2 || !read.contains(&true));
    }
}
