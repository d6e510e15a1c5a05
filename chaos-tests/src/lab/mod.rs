//! The lab: servers in which nothing is ours but what we sell.
//!
//! What this is: four QEMU machines that start from the network (SeaBIOS, iPXE, a Debian kernel with its own iSCSI
//! initiator), each with OpenIPMI's `ipmi_sim` as its BMC; tgt as their storage, Open vSwitch as their switch; and the real
//! members, agents and `ha-storage`. Why it exists: an emulation of ours makes the mistakes that we make.
//! What it never does: leave the network namespace `ha-lab`, use this computer's disks beyond its own directory, or leave
//! anything running. What is still ours is the power plane (`crate::rack`): it starts and kills the emulators when a BMC
//! says so, and lets BMCs lie.
//!
//! ```text
//!   lo   10.77.0.0/24  out of band   members .11-.13, BMCs .101-.104, the switch's database .1
//!   inf  10.78.0.0/24  VLAN 3        members .11-.13, machines .101-.104 (eth0), storage and files .1
//!   ten  10.100.0.0/24 VLAN 100      instances .11, .12 (eth1), their client .1
//!
//! trial, bench, soak
//!      └─ moving ─┬─ lab, seen ─┬─ fabric: namespace, Open vSwitch, DHCP
//!                 │             ├─ storage: tgtd, ha-storage        guest: kernel, RAM disks, their server
//!                 │             └─ demo::watched, rack              documents: what `hactl apply` is given (pure)
//!                 └─ client: HTTP to the instances                  ledger: what stands on a volume (pure)
//! ```

mod bench;
mod client;
mod documents;
mod fabric;
pub mod guest;
#[expect(clippy::module_inception, reason = "the thing itself, beside its parts")]
mod lab;
mod ledger;
mod moving;
mod phases;
mod seen;
mod soak;
mod storage;
mod trial;

pub use bench::bench;
pub use fabric::Namespace;
pub use lab::Lab;
pub use soak::soak;
pub use trial::{Trial, demo, test};

/// Machines, and how many of them carry an instance at first.
const MACHINES: u8 = 4;
const INSTANCES: u8 = 2;
/// VLANs of the machines' own network, of the instances, and of closed ports.
const VLAN_INFRA: u16 = 3;
const VLAN_TENANT: u16 = 100;
const VLAN_PARK: u16 = 4000;

/// Addresses and names, all by number.
mod at {
    use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

    pub(super) const STORAGE: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);
    pub(super) const SWITCH: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
    pub(super) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 100, 0, 1);
    pub(super) const OVSDB: u16 = 6640;
    pub(super) const FILES: u16 = 7500;
    pub(super) const HA_STORAGE: u16 = 7400;
    pub(super) const BOOT: u16 = 7480;

    pub(super) fn member_oob(number: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, 10 + number)
    }

    pub(super) fn member_infra(number: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 78, 0, 10 + number)
    }

    pub(super) fn bmc(machine: u8) -> SocketAddr {
        SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 100 + machine), 623).into()
    }

    /// Its serial port, to which its BMC connects.
    pub(super) fn serial(machine: u8) -> SocketAddr {
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9000 + u16::from(machine)).into()
    }

    pub(super) fn machine(number: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 78, 0, 100 + number)
    }

    pub(super) fn instance(number: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 100, 0, 10 + number)
    }

    /// Of the card that the machine starts from.
    pub(super) fn boot_mac(machine: u8) -> String {
        format!("52:54:00:b0:00:{machine:02x}")
    }

    /// Burned into the card for instances, which bring their own.
    pub(super) fn spare_mac(machine: u8) -> String {
        format!("52:54:00:a0:00:{machine:02x}")
    }

    pub(super) fn instance_mac(number: u8) -> String {
        format!("02:00:00:00:64:{number:02x}")
    }

    pub(super) fn initiator(machine: u8) -> String {
        format!("iqn.2026-01.lab:node-{machine}")
    }

    pub(super) fn target(instance: u8) -> String {
        format!("iqn.2026-01.lab:vol-{instance}")
    }
}
