//! What a node has: the words of `[node.capabilities]`, with sizes and speeds that are parsed once.
//!
//! Why it exists: a spare that has too little memory, or no disk where the instance expects one, must be refused before
//! anything is fenced, and the refusal must name what is missing (`requirement.rs`).
//! What it never does: it does not look at a machine; the agent does (`ha-agent inventory`), and writes the same words.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// Longest text of a capability: a DMI string has at most 64 bytes in most firmware, a CPU's model at most 48.
pub const CAPABILITY_TEXT_MAX: usize = 128;
/// Lines of disks, NICs or GPUs, and traits, of one node or instance. Bounds the snapshot and one look at a spare.
pub const CAPABILITY_LINES_MAX: usize = 64;
/// Disks, NICs or GPUs of one node, all lines together: the largest disk shelves hold 106.
pub const CAPABILITY_COUNT_MAX: u32 = 256;
/// Logical CPUs of one node. The kernel's own limit (CONFIG_NR_CPUS) is 8192.
pub const CPUS_MAX: u32 = 8192;

/// What a node has, as declared by the operator or found by its agent. What is absent is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capabilities {
    /// Instruction set in the kernel's word: `x86_64`, `aarch64`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_arch: Option<String>,
    /// Model as the CPU tells it, or a part of that which says enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_model: Option<String>,
    /// Logical CPUs: hardware threads that the kernel uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    /// Installed memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Bytes>,
    /// Disks inside the node; volumes are not among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<Disks>,
    /// Network ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nics: Vec<Nics>,
    /// GPUs and other accelerators.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<Gpus>,
    /// How its firmware boots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_mode: Option<BootMode>,
    /// Version of its firmware (BIOS), as DMI tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<String>,
    /// The operator's name for how its firmware is set up, e.g. `low-latency`. No agent can see it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bios_profile: Option<String>,
    /// Qualities that it has or has not.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub traits: BTreeSet<Trait>,
    /// The operator's class of interchangeable nodes, e.g. `baremetal.gold`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_class: Option<String>,
}

/// Disks of one kind and size.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disks {
    /// Their kind.
    #[serde(rename = "type")]
    pub kind: DiskKind,
    /// Size of each.
    pub size: Bytes,
    /// How many.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub count: u32,
}

/// Kinds of disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskKind {
    /// It rotates.
    Hdd,
    /// Flash behind SATA or SAS.
    Ssd,
    /// Flash behind PCIe.
    Nvme,
}

impl fmt::Display for DiskKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DiskKind::Hdd => "HDD",
            DiskKind::Ssd => "SSD",
            DiskKind::Nvme => "NVMe",
        })
    }
}

/// Network ports of one speed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nics {
    /// Speed of each.
    pub speed: Speed,
    /// How many.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub count: u32,
    /// What kind of remote memory access they offer; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rdma: Option<Rdma>,
}

/// Kinds of remote direct memory access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rdma {
    /// An InfiniBand port.
    Infiniband,
    /// RDMA over Converged Ethernet.
    Roce,
}

impl fmt::Display for Rdma {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rdma::Infiniband => "InfiniBand",
            Rdma::Roce => "RoCE",
        })
    }
}

/// GPUs of one model.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gpus {
    /// PCI vendor and device, as `lspci -n` prints them.
    pub pci: PciId,
    /// How many.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub count: u32,
}

/// How a firmware boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BootMode {
    /// As a PC of 1981 did.
    Bios,
    /// By UEFI.
    Uefi,
}

impl fmt::Display for BootMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BootMode::Bios => "bios",
            BootMode::Uefi => "uefi",
        })
    }
}

pub(crate) fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if wants a reference")]
fn is_one(count: &u32) -> bool {
    *count == 1
}

impl Capabilities {
    /// True if nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == Capabilities::default()
    }

    /// What is wrong with it: a text or a list that is too long, a count that no machine has.
    ///
    /// # Errors
    /// The first such thing, with its key.
    pub fn check(&self) -> Result<(), String> {
        let texts =
            [&self.cpu_arch, &self.cpu_model, &self.firmware, &self.bios_profile, &self.resource_class];
        check_texts(texts.into_iter().flatten())?;
        check_lines([self.disks.len(), self.nics.len(), self.gpus.len(), self.traits.len()])?;
        check_cpus(self.cpus)?;
        check_counts("disks", self.disks.iter().map(|disks| disks.count))?;
        check_counts("nics", self.nics.iter().map(|nics| nics.count))?;
        check_counts("gpus", self.gpus.iter().map(|gpus| gpus.count))
    }

    /// In words for people, one kind a line.
    pub fn lines(&self) -> Vec<String> {
        let words = |word: &str, text: &Option<String>| text.as_ref().map(|text| format!("{word} {text}"));
        let cpu =
            [self.cpus.map(|cpus| format!("{cpus} CPUs")), self.cpu_arch.clone(), self.cpu_model.clone()];
        let cpu: Vec<String> = cpu.into_iter().flatten().collect();
        let disks = self.disks.iter().map(|d| format!("{} x {} disk of {}", d.count, d.kind, d.size));
        let nics = self.nics.iter().map(|nics| match nics.rdma {
            Some(rdma) => format!("{} x {rdma} NIC of {}", nics.count, nics.speed),
            None => format!("{} x NIC of {}", nics.count, nics.speed),
        });
        let gpus = self.gpus.iter().map(|gpus| format!("{} x GPU {}", gpus.count, gpus.pci));
        let traits: Vec<String> = self.traits.iter().map(ToString::to_string).collect();
        let mut lines = vec![];
        lines.extend(Some(cpu.join(", ")).filter(|cpu| !cpu.is_empty()));
        lines.extend(self.memory.map(|memory| format!("memory {memory}")));
        lines.extend(disks.chain(nics).chain(gpus));
        lines.extend(self.boot_mode.map(|mode| format!("boot mode {mode}")));
        lines.extend(words("firmware", &self.firmware));
        lines.extend(words("BIOS profile", &self.bios_profile));
        lines.extend(Some(format!("traits {}", traits.join(", "))).filter(|_| !traits.is_empty()));
        lines.extend(words("resource class", &self.resource_class));
        lines
    }

    /// What is declared here, and what was found where nothing is declared.
    #[must_use]
    pub fn or(&self, found: &Capabilities) -> Capabilities {
        let text =
            |ours: &Option<String>, theirs: &Option<String>| ours.as_ref().or(theirs.as_ref()).cloned();
        Capabilities {
            cpu_arch: text(&self.cpu_arch, &found.cpu_arch),
            cpu_model: text(&self.cpu_model, &found.cpu_model),
            cpus: self.cpus.or(found.cpus),
            memory: self.memory.or(found.memory),
            disks: if self.disks.is_empty() { &found.disks } else { &self.disks }.clone(),
            nics: if self.nics.is_empty() { &found.nics } else { &self.nics }.clone(),
            gpus: if self.gpus.is_empty() { &found.gpus } else { &self.gpus }.clone(),
            boot_mode: self.boot_mode.or(found.boot_mode),
            firmware: text(&self.firmware, &found.firmware),
            bios_profile: text(&self.bios_profile, &found.bios_profile),
            traits: self.traits.union(&found.traits).cloned().collect(),
            resource_class: text(&self.resource_class, &found.resource_class),
        }
    }
}

pub(crate) fn check_texts<'a>(mut texts: impl Iterator<Item = &'a String>) -> Result<(), String> {
    let bad = |text: &&String| text.is_empty() || text.len() > CAPABILITY_TEXT_MAX;
    match texts.find(bad) {
        Some(text) => Err(format!(
            "a capability's text of {} bytes; 1 to {CAPABILITY_TEXT_MAX} are allowed",
            text.len()
        )),
        None => Ok(()),
    }
}

pub(crate) fn check_lines(lengths: impl IntoIterator<Item = usize>) -> Result<(), String> {
    match lengths.into_iter().find(|length| *length > CAPABILITY_LINES_MAX) {
        Some(length) => Err(format!("a list of {length} capabilities is longer than {CAPABILITY_LINES_MAX}")),
        None => Ok(()),
    }
}

pub(crate) fn check_cpus(cpus: Option<u32>) -> Result<(), String> {
    match cpus {
        Some(cpus) if !(1..=CPUS_MAX).contains(&cpus) => {
            Err(format!("{cpus} CPUs are not one of 1 to {CPUS_MAX}"))
        }
        Some(_) | None => Ok(()),
    }
}

pub(crate) fn check_counts(what: &str, mut counts: impl Iterator<Item = u32>) -> Result<(), String> {
    let total = counts.try_fold(0, |total: u32, count| match count {
        0 => Err(format!("{what}: a count of 0 says nothing")),
        count => Ok(total.saturating_add(count)),
    })?;
    if total > CAPABILITY_COUNT_MAX {
        return Err(format!("{total} {what} are more than {CAPABILITY_COUNT_MAX}"));
    }
    Ok(())
}

/// A size in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Bytes(pub u64);

/// Speed of a network port in megabits per second, the unit of the kernel's `speed` files.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Speed(pub u64);

/// By size, so that the largest whole unit is the last that fits.
const BYTES: [(&str, u64); 11] = [
    ("B", 1),
    ("KB", 1000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
    ("TB", 1_000_000_000_000),
    ("TiB", 1 << 40),
    ("PB", 1_000_000_000_000_000),
    ("PiB", 1 << 50),
];
const SPEEDS: [(&str, u64); 3] = [("Mbps", 1), ("Gbps", 1000), ("Tbps", 1_000_000)];

/// Why a text is not a size, a speed, a PCI id or a trait.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {what}")]
pub struct BadCapability {
    text: String,
    what: &'static str,
}

impl BadCapability {
    fn new(text: &str, what: &'static str) -> Self {
        BadCapability { text: text.chars().take(40).collect(), what }
    }
}

/// `3.84TB`: a number with at most three decimals and a unit. `None` if it is none, too large, or no whole number of
/// the smallest unit.
fn read_units(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.get(number.len()..)?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(decimals) || decimals.len() > 3 {
        return None;
    }
    let thousandths: u128 = format!("{decimals:0<3}").parse().ok()?;
    let total = u128::from(whole.parse::<u64>().ok()?) * 1000 + thousandths;
    let total = total.checked_mul(u128::from(*factor))?;
    u64::try_from(total / 1000).ok().filter(|_| total.is_multiple_of(1000))
}

fn write_units(f: &mut fmt::Formatter<'_>, number: u64, units: &[(&str, u64)]) -> fmt::Result {
    let fits = |unit: &&(&str, u64)| unit.1 == 1 || number != 0 && number.is_multiple_of(unit.1);
    match units.iter().rev().find(fits) {
        Some((unit, factor)) => f.pad(&format!("{}{unit}", number / factor)),
        None => f.pad(&number.to_string()),
    }
}

macro_rules! text {
    ($type:ident, $what:literal, $read:expr) => {
        impl FromStr for $type {
            type Err = BadCapability;
            fn from_str(text: &str) -> Result<Self, BadCapability> {
                let read: fn(&str) -> Option<$type> = $read;
                read(text).ok_or_else(|| BadCapability::new(text, $what))
            }
        }
        impl TryFrom<String> for $type {
            type Error = BadCapability;
            fn try_from(text: String) -> Result<Self, BadCapability> {
                text.parse()
            }
        }
        impl From<$type> for String {
            fn from(value: $type) -> String {
                value.to_string()
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

text!(Bytes, "a size: write a number and a unit, as in 256GiB, 960GB or 3.84TB", |text| {
    read_units(text, &BYTES).map(Bytes)
});
text!(Speed, "a speed: write a number and a unit, as in 100Mbps, 2.5Gbps or 25Gbps", |text| {
    read_units(text, &SPEEDS).map(Speed)
});
text!(
    PciId,
    "a PCI id: write the vendor's four hexadecimal digits, and the device's after a colon: 10de:2330",
    read_pci
);
text!(Trait, "a trait: use 1 to 128 of A-Z, 0-9 and '_', as in HW_CPU_X86_AVX2 or CUSTOM_FPGA", read_trait);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_units(f, self.0, &BYTES)
    }
}
impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_units(f, self.0, &SPEEDS)
    }
}

/// A PCI device's id; without the device it stands for all of a vendor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PciId {
    /// Who made it.
    pub vendor: u16,
    /// What it is.
    pub device: Option<u16>,
}

impl PciId {
    /// True if `other` is one of those that this id stands for.
    pub fn covers(self, other: PciId) -> bool {
        self.vendor == other.vendor && (self.device.is_none() || self.device == other.device)
    }
}

fn read_pci(text: &str) -> Option<PciId> {
    let four = |text: &str| {
        let digits =
            text.len() == 4 && text.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase());
        u16::from_str_radix(text, 16).ok().filter(|_| digits)
    };
    match text.split_once(':') {
        Some((vendor, device)) => Some(PciId { vendor: four(vendor)?, device: Some(four(device)?) }),
        None => Some(PciId { vendor: four(text)?, device: None }),
    }
}

impl fmt::Display for PciId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}", self.vendor)?;
        self.device.map_or(Ok(()), |device| write!(f, ":{device:04x}"))
    }
}

/// A quality that a node has or has not, in the form of OpenStack's traits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Trait(String);

fn read_trait(text: &str) -> Option<Trait> {
    let fits = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    let length = (1..=CAPABILITY_TEXT_MAX).contains(&text.len());
    (length && text.bytes().all(fits)).then(|| Trait(text.to_owned()))
}

impl fmt::Display for Trait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_and_speeds_are_read_exactly_and_written_in_the_largest_whole_unit() {
        for (text, bytes, shown) in [
            ("256GiB", 256 << 30, "256GiB"),
            ("960GB", 960_000_000_000, "960GB"),
            ("3.84TB", 3_840_000_000_000, "3840GB"),
            ("1.5TiB", 3 << 39, "1536GiB"),
            ("1TB", 1_000_000_000_000, "1TB"),
            ("512B", 512, "512B"),
            ("0B", 0, "0B"),
        ] {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
            assert_eq!(Bytes(bytes).to_string(), shown);
        }
        for (text, mbps, shown) in [("2.5Gbps", 2500, "2500Mbps"), ("25Gbps", 25_000, "25Gbps")] {
            assert_eq!(text.parse(), Ok(Speed(mbps)), "{text}");
            assert_eq!(Speed(mbps).to_string(), shown);
        }
        for bad in [
            "", "5", "GiB", "1gib", "-1GB", "+1GB", "1.2345TB", "1.GB", ".5GB", "1 GB", "0.1B", "0.1GiB",
            "16384PiB",
        ] {
            assert!(bad.parse::<Bytes>().is_err(), "{bad}");
        }
        assert_eq!(
            "10G".parse::<Speed>().unwrap_err().to_string(),
            "\"10G\" is not a speed: write a number and a unit, as in 100Mbps, 2.5Gbps or 25Gbps"
        );
    }

    #[test]
    fn pci_ids_and_traits_have_one_form() {
        let h100: PciId = "10de:2330".parse().unwrap();
        assert_eq!(h100, PciId { vendor: 0x10de, device: Some(0x2330) });
        let nvidia: PciId = "10de".parse().unwrap();
        assert!(nvidia.covers(h100) && h100.covers(h100) && !h100.covers(nvidia));
        for bad in ["", "10DE:2330", "10de:", "10de:233", ":2330", "10de:2330:1"] {
            assert!(bad.parse::<PciId>().is_err(), "{bad}");
        }
        assert!("CUSTOM_FPGA".parse::<Trait>().is_ok());
        for bad in ["", "custom_fpga", "CUSTOM FPGA", "CUSTOM-FPGA", &"X".repeat(129)] {
            assert!(bad.parse::<Trait>().is_err(), "{bad}");
        }
    }

    #[test]
    fn counts_and_lengths_have_limits() {
        let check = |text: &str| toml::from_str::<Capabilities>(text).unwrap().check();
        assert_eq!(check("cpus = 64\ndisks = [{ type = \"nvme\", size = \"1TB\", count = 256 }]"), Ok(()));
        for (text, said) in [
            ("cpus = 0", "0 CPUs are not one of 1 to 8192"),
            ("firmware = \"\"", "a capability's text of 0 bytes; 1 to 128 are allowed"),
            ("gpus = [{ pci = \"10de\", count = 0 }]", "gpus: a count of 0 says nothing"),
            (
                "nics = [{ speed = \"1Gbps\", count = 200 }, { speed = \"1Gbps\", count = 57 }]",
                "257 nics are more than 256",
            ),
        ] {
            assert_eq!(check(text), Err(said.to_owned()));
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(number in any::<u64>()) {
            prop_assert_eq!(Bytes(number).to_string().parse(), Ok(Bytes(number)));
            let speed = Speed(number % 1_000_000_000);
            prop_assert_eq!(speed.to_string().parse(), Ok(speed));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}|[0-9.]{0,30}[A-Za-z]{0,4}") {
            if let Ok(bytes) = text.parse::<Bytes>() {
                prop_assert_eq!(bytes.to_string().parse(), Ok(bytes));
            }
            text.parse::<PciId>().ok();
            text.parse::<Trait>().ok();
        }
    }
}
